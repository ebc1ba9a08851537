/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once
/*
 * Drops. A function that must drop returns DROP(packet, reason): a negative number that travels up,
 * while the packet remembers reason, file and line. The program ends with drop_if(), which counts
 * and sends the event. There is no other TC_ACT_SHOT in the tree.
 */

#include "lib/event.h"
#include "lib/metrics.h"

static __always_inline int drop_at(struct packet *packet, __u8 reason, __u16 line, __u8 file)
{
	packet->drop_reason = reason;
	packet->drop_line = line;
	packet->drop_file = file;
	return -(int)reason;
}

#define DROP(packet, reason) drop_at(packet, reason, __LINE__, SOURCE_FILE_ID)

__verified_apart int drop_notify(struct __sk_buff *skb, const struct packet *packet)
{
	struct event event;

	if (!packet)
		return TC_ACT_SHOT;
	metrics_add(skb, packet->drop_reason, packet->direction, packet->drop_line, packet->drop_file);
	event_fill(&event, skb, packet);
	event.type = EVENT_DROP;
	event.subtype = packet->drop_reason;
	event.verdict = VERDICT_DROPPED;
	event.drop_reason = packet->drop_reason;
	event.line = packet->drop_line;
	event.file = packet->drop_file;
	event.trace_reason = packet->trace_reason;
	/* destination MAC first on the wire, source first in the record */
	if (!bpf_skb_load_bytes(skb, ETH_ALEN, (__u8 *)&event.packets, ETH_ALEN) &&
	    !bpf_skb_load_bytes(skb, 0, (__u8 *)&event.packets + ETH_ALEN, ETH_ALEN))
		event.flags |= EVENT_FLAG_L2_VALID;
	event_output(skb, &event);
	return TC_ACT_SHOT;
}

/* The tc action of a program: `ret` itself, or a counted and evented drop when it is negative. */
static __always_inline int drop_if(struct __sk_buff *skb, const struct packet *packet, int ret)
{
	return likely(ret >= 0) ? ret : drop_notify(skb, packet);
}
