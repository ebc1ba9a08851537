/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once
/*
 * Trace events: a packet was seen at an observation point and goes on. What aggregation holds back is
 * counted as suppressed. Levels (cilium_runtime_config[16]):
 *   0 none     every packet at every point
 *   1 low      every packet, at to-* points only
 *   2 medium   to-* points when conntrack says so: first packet of a direction, a TCP flag not seen
 *              before, and once per report interval while the flow lives
 *   3 maximum  as medium, but of the TCP flags only SYN, FIN and RST count
 */

#include "lib/event.h"

enum {
	TRACE_TO_ENDPOINT = 0,
	TRACE_TO_HOST = 2,
	TRACE_TO_STACK = 3,
	TRACE_TO_OVERLAY = 4,
	TRACE_FROM_ENDPOINT = 5,
	TRACE_FROM_HOST = 7,
	TRACE_FROM_OVERLAY = 9,
};

enum {
	TRACE_REASON_NEW = 0,
	TRACE_REASON_ESTABLISHED = 1,
	TRACE_REASON_REPLY = 2,
	TRACE_REASON_RELATED = 3,
	TRACE_REASON_UNKNOWN = 5,
};

enum {
	AGGREGATE_NONE = 0,
	AGGREGATE_LOW = 1,
	AGGREGATE_MEDIUM = 2,
	AGGREGATE_MAXIMUM = 3,
};

/* Out of line: at the usual levels it is the rare case, and the hot path stays short. */
__verified_apart int trace_emit(struct __sk_buff *skb, const struct packet *packet, __u8 point,
				__u32 ifindex, __u16 dst_endpoint_id)
{
	struct event event;

	if (!packet)
		return 0;
	event_fill(&event, skb, packet);
	event.type = EVENT_TRACE;
	event.subtype = point;
	event.verdict = VERDICT_FORWARDED;
	event.ifindex = ifindex;
	event.dst_endpoint_id = dst_endpoint_id;
	event.packets = packet->packets;
	event.bytes = packet->bytes;
	event.rtt_us = packet->rtt_us;
	event.trace_reason = packet->trace_reason;
	event.tcp_flags_seen = packet->tcp_flags_seen;
	event_output(skb, &event);
	return 0;
}

/* A from-* point: nothing is known of the flow yet. */
static __always_inline void trace_from(struct __sk_buff *skb, struct packet *packet, __u8 point)
{
	if (runtime_config(RUNTIME_AGGREGATION) != AGGREGATE_NONE) {
		event_suppress();
		return;
	}
	packet->trace_reason = TRACE_REASON_UNKNOWN;
	trace_emit(skb, packet, point, skb->ifindex, 0);
}

/* A to-* point; `packet->report` is conntrack's advice. */
static __always_inline void trace_to(struct __sk_buff *skb, const struct packet *packet, __u8 point,
				     __u32 ifindex, __u16 dst_endpoint_id)
{
	if (packet->report || runtime_config(RUNTIME_AGGREGATION) <= AGGREGATE_LOW)
		trace_emit(skb, packet, point, ifindex, dst_endpoint_id);
	else
		event_suppress();
}
