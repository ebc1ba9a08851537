/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once
/*
 * Why packets are dropped. The numbers are the field's, one byte on the wire; only reasons this tree
 * can produce are here, and every one of them is caused by a test (tests/bpf/test_drop_reasons.py,
 * which also compares them with palomar/drop.py).
 */

enum drop_reason {
	DROP_INVALID_SOURCE_MAC = 130,
	DROP_INVALID_SOURCE_IP = 132,
	DROP_POLICY_DENIED = 133,
	DROP_INVALID_PACKET_DROPPED = 134,
	DROP_CT_TRUNCATED_OR_INVALID_HEADER = 135,
	DROP_CT_UNKNOWN_L4_PROTOCOL = 137,
	DROP_UNSUPPORTED_L3_PROTOCOL = 139,
	DROP_MISSED_TAIL_CALL = 140,
	DROP_ERROR_RETRIEVING_TUNNEL_KEY = 147,
	DROP_STALE_OR_UNROUTABLE_IP = 151,
	DROP_CT_MAP_INSERTION_FAILED = 155,
	DROP_IP_FRAGMENTATION_NOT_SUPPORTED = 157,
	DROP_UNSUPPORTED_L2_PROTOCOL = 166,
	DROP_INVALID_IDENTITY = 171,
	DROP_PROXY_REDIRECTION_NOT_SUPPORTED_FOR_PROTOCOL = 180,
	DROP_POLICY_DENY = 181,
	DROP_AUTH_REQUIRED = 189,
	DROP_TTL_EXCEEDED = 196,
	DROP_DROP_EP_NOT_READY = 203,
};

/* Reasons of packets that went on; only in cilium_metrics. */
#define REASON_FORWARDED 0
