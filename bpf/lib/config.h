/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once
/*
 * Values the loader writes into .rodata by name before the object is loaded: compiled once,
 * specialised per endpoint and per node. The verifier sees constants and prunes what they switch off.
 * Addresses are in network order, MACs are six bytes in memory order in the low end of a u64.
 * Run-time switches that change without a reload are in cilium_runtime_config.
 */

#include "lib/common.h"

/* Of the node; the same in every object. */
volatile const __u32 node_ipv4 = 0;		/* the node's address, the tunnel's end point */
volatile const __u32 router_ipv4 = 0;		/* cilium_host's address in the pod CIDR */
volatile const __u32 pod_cidr_mask = 0;		/* mask of a node's pod CIDR, for cilium_tunnel_map */
volatile const __u32 host_ifindex = 0;		/* cilium_host */
volatile const __u64 cilium_host_mac = 0;
volatile const __u32 tunnel_ifindex = 0;	/* cilium_vxlan */
volatile const __u32 interface_ifindex = 0;	/* the device this program is attached to */

/* cilium_runtime_config: array of u64. Written by the agent, read by every program. */
enum {
	RUNTIME_AGGREGATION = 16,	/* 0 none, 1 low, 2 medium, 3 maximum */
	RUNTIME_REPORT_INTERVAL_NS = 17,	/* 0: 5 s; whole seconds, at least one */
	RUNTIME_EVENTS_OFF = 18,	/* 1: no event leaves; they count as suppressed */
	RUNTIME_POLICY_AUDIT = 19,	/* 1: what policy would drop passes with an audit verdict */
	RUNTIME_CONFIG_ENTRIES = 256,
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, RUNTIME_CONFIG_ENTRIES);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} cilium_runtime_config SEC(".maps");

static __always_inline __u64 runtime_config(__u32 index)
{
	const __u64 *value = bpf_map_lookup_elem(&cilium_runtime_config, &index);

	return value ? *value : 0;
}
