/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once
/*
 * What every program needs: types, helpers, byte order, and `struct packet`, which gathers all that
 * is known of the packet in hand on its way through one program. Events, metrics and drops are
 * written from it, so a fact enters it once, where it is found out.
 */

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/pkt_cls.h>
#include <stdbool.h>
#include <stddef.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/*
 * A function the verifier checks once, by itself, instead of along every path of every caller. Kept for
 * the few whose branches would multiply with those of what follows them: it brings loading an endpoint's
 * programs from 270 ms to a fraction, for a call of a few ns. It may not trust its pointers not to be NULL.
 */
#define __verified_apart __attribute__((noinline))

/* Direction as seen from the endpoint whose program runs; also cilium_metrics' `dir`. */
enum {
	DIR_UNKNOWN = 0,
	DIR_INGRESS = 1,
	DIR_EGRESS = 2,
};

/* Numeric identities the datapath itself must know; the agent allocates all others. */
enum {
	IDENTITY_UNKNOWN = 0,
	IDENTITY_HOST = 1,
	IDENTITY_WORLD = 2,
	IDENTITY_REMOTE_NODE = 6,
	IDENTITY_FIRST_ALLOCATED = 256,
};

/* What conntrack may do with a packet; the L4 parser decides (lib/ipv4.h). */
enum {
	CT_MAY_OPEN = 1,	/* belongs to, or opens, an entry in its own direction */
	CT_MAY_REPLY = 2,	/* may answer an entry of the other direction */
	CT_MAY_RELATE = 4,	/* ICMP error: may speak of an entry named in its payload */
};

struct packet {
	__be32 saddr;
	__be32 daddr;
	__be16 sport;		/* as conntrack keys it: ICMP echo request has its identifier here */
	__be16 dport;		/* and echo reply has it here */
	__u8 protocol;
	__u8 l4_flags;		/* TCP flags, or the ICMP type */
	__u8 icmp_code;
	__u8 ct_may;		/* CT_MAY_* */
	__u32 l4_off;

	__u32 src_identity;
	__u32 dst_identity;
	__be32 tunnel_ipv4;	/* the other node, when the packet came or goes by the tunnel */
	__u16 endpoint_id;
	__u8 direction;		/* DIR_* */
	__u8 event_flags;	/* EVENT_FLAG_* */

	/* conntrack's word */
	__u32 rtt_us;
	__u64 packets;
	__u64 bytes;
	__u32 policy_cookie;
	__u8 trace_reason;	/* TRACE_REASON_* */
	__u8 report;		/* aggregation lets this packet's trace through */
	__u8 tcp_flags_seen;

	/* set by DROP() */
	__u8 drop_reason;
	__u8 drop_file;
	__u8 pad;
	__u16 drop_line;
};

/* skb->cb carries these across the tail call into an endpoint's policy program. */
enum {
	CB_SRC_IDENTITY = 0,
	CB_TUNNEL_IPV4 = 1,	/* network order; 0 when the packet did not come by the tunnel */
};

/* skb->mark of a packet handed to the host by us: already traced, cleared by cil_to_host. */
#define MARK_TO_HOST 0x0F00

/* How many packets this buffer stands for: a GSO burst is counted as what leaves on the wire. */
static __always_inline __u32 packet_count(const struct __sk_buff *skb)
{
	return skb->gso_segs ? skb->gso_segs : 1;
}

/*
 * skb->data and skb->data_end as pointers. In assembler, because clang may widen the 32-bit loads of C by
 * a second instruction, after which the verifier no longer knows a packet pointer.
 */
static __always_inline void *packet_start(const struct __sk_buff *skb)
{
	void *data;

	asm volatile("%0 = *(u32 *)(%1 + %2)"
		     : "=r"(data) : "r"(skb), "i"(offsetof(struct __sk_buff, data)));
	return data;
}

static __always_inline void *packet_end(const struct __sk_buff *skb)
{
	void *data_end;

	asm volatile("%0 = *(u32 *)(%1 + %2)"
		     : "=r"(data_end) : "r"(skb), "i"(offsetof(struct __sk_buff, data_end)));
	return data_end;
}

/*
 * `len` readable bytes at `off`, or NULL when the packet is shorter. Pulls them into the linear part
 * if need be, which invalidates every packet pointer taken before. `off` must have bounds the
 * verifier knows.
 */
static __always_inline void *packet_at(struct __sk_buff *skb, __u32 off, __u32 len)
{
	void *data = packet_start(skb) + off;

	if (likely(data + len <= packet_end(skb)))
		return data;
	if (off + len > skb->len || bpf_skb_pull_data(skb, off + len))
		return NULL;
	data = packet_start(skb) + off;
	if (data + len > packet_end(skb)) /* for the verifier: the pull has just made it true */
		return NULL;
	return data;
}
