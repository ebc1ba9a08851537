/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once
/*
 * The event record and the one function that sends it. Every trace, drop and policy verdict of every
 * program is a `struct event` in the CPU's perf ring; the ingest reads them as an array with a
 * stride of 128 bytes (8 perf header + 4 size + 116). The layout is mirrored by
 * datapath.events.EVENT_DTYPE; tests/bpf/test_layouts.py compares the two through BTF.
 * Without a reader on a CPU's ring the output fails and is counted in palomar_event_stats.
 */

#include "lib/common.h"
#include "lib/config.h"

#define EVENT_VERSION 1

enum {
	EVENT_DROP = 1,
	EVENT_TRACE = 4,
	EVENT_POLICY_VERDICT = 5,
};

enum {
	EVENT_FLAG_IPV6 = 0x01,
	EVENT_FLAG_L3_DEVICE = 0x02,
	EVENT_FLAG_L2_VALID = 0x04,	/* `packets` and `bytes` hold source and destination MAC */
	EVENT_FLAG_FROM_TUNNEL = 0x08,
};

enum {
	VERDICT_FORWARDED = 1,
	VERDICT_DROPPED = 2,
	VERDICT_AUDIT = 4,
};

struct event {
	__u8 version;
	__u8 type;
	__u8 subtype;
	__u8 flags;
	__u64 seq;
	__u64 time_ns;
	__u64 packets;
	__u64 bytes;
	__u8 saddr[16];
	__u8 daddr[16];
	__u32 src_identity;
	__u32 dst_identity;
	__u32 ifindex;
	__u32 rtt_us;
	__u32 length;
	__u32 policy_cookie;
	__u16 endpoint_id;
	__u16 dst_endpoint_id;
	__u16 sport;
	__u16 dport;
	__u8 protocol;
	__u8 l4_flags;
	__u8 icmp_code;
	__u8 trace_reason;
	__u8 direction;
	__u8 verdict;
	__u8 match_type;
	__u8 drop_reason;
	__u8 file;
	__u8 tcp_flags_seen;
	__u16 line;
	__be32 tunnel_ipv4;
} __attribute__((packed, aligned(4)));

_Static_assert(sizeof(struct event) == 116, "the perf stride is 12 + 116 = 128 bytes");

struct event_stats {
	__u64 emitted;		/* events tried; the next sequence number of this CPU */
	__u64 failed;		/* of those, not taken by the ring */
	__u64 suppressed;	/* never tried: aggregated away, or events are off */
};

/* u32 CPU -> perf ring. Filled by the ingest. 0 entries: the loader sets the number of possible CPUs. */
struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
	__uint(max_entries, 0);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} cilium_events SEC(".maps");

/* Written here only, read by the ingest and the agent. Per CPU, so plain additions are enough. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct event_stats);
	__uint(max_entries, 1);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} palomar_event_stats SEC(".maps");

static __always_inline struct event_stats *event_stats(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&palomar_event_stats, &zero);
}

static __always_inline void event_suppress(void)
{
	struct event_stats *stats = event_stats();

	if (stats)
		stats->suppressed++;
}

/* Fill what every type of event has in common; the rest stays 0. */
static __always_inline void event_fill(struct event *event, const struct __sk_buff *skb,
				       const struct packet *packet)
{
	__builtin_memset(event, 0, sizeof(*event));
	event->version = EVENT_VERSION;
	event->flags = packet->event_flags;
	__builtin_memcpy(event->saddr, &packet->saddr, sizeof(packet->saddr));
	__builtin_memcpy(event->daddr, &packet->daddr, sizeof(packet->daddr));
	event->src_identity = packet->src_identity;
	event->dst_identity = packet->dst_identity;
	event->ifindex = skb->ifindex;
	event->length = skb->len;
	event->policy_cookie = packet->policy_cookie;
	event->endpoint_id = packet->endpoint_id;
	if (packet->protocol != IPPROTO_ICMP) {
		event->sport = bpf_ntohs(packet->sport);
		event->dport = bpf_ntohs(packet->dport);
	}
	event->protocol = packet->protocol;
	event->l4_flags = packet->l4_flags;
	event->icmp_code = packet->icmp_code;
	event->direction = packet->direction;
	event->tunnel_ipv4 = packet->tunnel_ipv4;
}

/* The only way out for an event. The sequence number is spent whether or not the ring takes it. */
__verified_apart int event_output(struct __sk_buff *skb, struct event *event)
{
	struct event_stats *stats = event_stats();

	if (!event || !stats)
		return 0;
	if (unlikely(runtime_config(RUNTIME_EVENTS_OFF))) {
		stats->suppressed++;
		return 0;
	}
	event->seq = stats->emitted++;
	event->time_ns = bpf_ktime_get_ns();
	if (bpf_perf_event_output(skb, &cilium_events, BPF_F_CURRENT_CPU, event, sizeof(*event)))
		stats->failed++;
	return 0;
}
