/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once
/*
 * Connection tracking: cilium_ct4_global (TCP) and cilium_ct_any4_global (UDP, ICMP echo).
 *
 * One entry per (tuple of the opening packet, side): CT_OUT is kept by the endpoint that opened, CT_IN by
 * the endpoint that was opened to; a flow between two endpoints of one node has both. Counters are seen
 * from the endpoint that keeps the entry: tx is what it sent, rx what it received, so the opening
 * direction is tx in a CT_OUT entry and rx in a CT_IN entry.
 *
 * An entry past its lifetime counts as absent, and so does one that has been closing when a new SYN
 * arrives: the connection is judged by policy again. Both maps are LRU: a full map forgets the flow idle
 * for longest. ICMP errors are related through the packet they quote; they have no entry.
 */

#include "lib/common.h"
#include "lib/config.h"
#include "lib/drop.h"
#include "lib/ipv4.h"
#include "lib/trace.h"

enum {
	CT_OUT = 0,
	CT_IN = 1,
	CT_RELATED = 2,	/* room in the key's flags; nothing stores it */
};

enum {
	CT_RX_CLOSING = 1 << 0,
	CT_TX_CLOSING = 1 << 1,
	CT_SEEN_NON_SYN = 1 << 4,
};

enum {
	CT_TIMEOUT_SYN_S = 60,
	CT_TIMEOUT_TCP_S = 8000,
	CT_TIMEOUT_ANY_S = 60,
	CT_TIMEOUT_FIN_S = 10,
	CT_REPORT_INTERVAL_S = 5,
};

#define NSEC_PER_SEC 1000000000ULL
#define NSEC_PER_USEC 1000

struct ipv4_ct_tuple {
	__be32 daddr;
	__be32 saddr;
	__be16 dport;
	__be16 sport;
	__u8 nexthdr;
	__u8 flags;		/* CT_OUT or CT_IN */
} __attribute__((packed));

struct ct_entry {
	__u64 rx_packets;
	__u64 rx_bytes;
	__u64 tx_packets;
	__u64 tx_bytes;
	__u32 lifetime;		/* monotonic clock, seconds */
	__u16 flags;
	__u16 rev_nat;
	__u16 policy_revision;	/* low 16 bits of the revision it was judged at */
	__u8 tx_flags_seen;
	__u8 rx_flags_seen;
	__u32 src_sec_id;	/* identity that opened */
	__u32 last_tx_report;	/* monotonic clock, seconds */
	__u32 last_rx_report;	/* until the first reply of a TCP handshake: the SYN's time in us */
	__u32 rtt_us;
	__u32 policy_cookie;
};

/* Written by the programs, swept of expired entries by the agent. Sizes are the agent's to change. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct ipv4_ct_tuple);
	__type(value, struct ct_entry);
	__uint(max_entries, 131072);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} cilium_ct4_global SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct ipv4_ct_tuple);
	__type(value, struct ct_entry);
	__uint(max_entries, 65536);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} cilium_ct_any4_global SEC(".maps");

static __always_inline __u32 ct_now_s(void)
{
	/* the coarse clock ticks every few ms and costs a tenth of the exact one */
	return (__u32)(bpf_ktime_get_coarse_ns() / NSEC_PER_SEC);
}

static __always_inline struct ct_entry *ct_map_lookup(const struct ipv4_ct_tuple *key)
{
	if (key->nexthdr == IPPROTO_TCP)
		return bpf_map_lookup_elem(&cilium_ct4_global, key);
	return bpf_map_lookup_elem(&cilium_ct_any4_global, key);
}

/* The key of the entry this packet would belong to, as opener's side (forward) or as a reply to it. */
__verified_apart int ct_make_key(struct ipv4_ct_tuple *key, const struct packet *packet, bool reply)
{
	if (!key || !packet)
		return 0;
	key->daddr = reply ? packet->saddr : packet->daddr;
	key->saddr = reply ? packet->daddr : packet->saddr;
	key->dport = reply ? packet->sport : packet->dport;
	key->sport = reply ? packet->dport : packet->sport;
	key->nexthdr = packet->protocol;
	key->flags = (packet->direction == DIR_EGRESS) != reply ? CT_OUT : CT_IN;
	return 0;
}

static __always_inline struct ct_entry *ct_find_one(const struct packet *packet, __u32 now_s, bool reply)
{
	struct ipv4_ct_tuple key = {};
	struct ct_entry *entry;

	if (!(packet->ct_may & (reply ? CT_MAY_REPLY : CT_MAY_OPEN)))
		return NULL;
	ct_make_key(&key, packet, reply);
	entry = ct_map_lookup(&key);
	if (!entry || entry->lifetime < now_s)
		return NULL;
	return entry;
}

/*
 * The live entry of this packet, and whether the packet answers it. At most two lookups; clients
 * use the higher port nearly always, so the first of them is nearly always the right one.
 */
static __always_inline struct ct_entry *ct_find(const struct packet *packet, __u32 now_s, bool *reply)
{
	bool guess = bpf_ntohs(packet->sport) < bpf_ntohs(packet->dport);
	struct ct_entry *entry = ct_find_one(packet, now_s, guess);

	*reply = guess;
	if (entry)
		return entry;
	*reply = !guess;
	return ct_find_one(packet, now_s, !guess);
}

/* Whether the packet an ICMP error quotes belongs to a live entry here. Rare, so out of line. */
__verified_apart int ct_is_related(struct __sk_buff *skb, const struct packet *error)
{
	struct packet quoted = {};
	struct iphdr ip;
	__be16 l4[4];	/* ports, or ICMP type/code, checksum, identifier */
	bool reply;
	__u32 off;

	if (!error)
		return false;
	off = error->l4_off + sizeof(struct icmphdr);
	if (bpf_skb_load_bytes(skb, off, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
		return false;
	/* What is quoted was sent by the one who now gets the error, or this is no answer to it. */
	if (ip.saddr != error->daddr || (ip.frag_off & bpf_htons(IPV4_OFFSET_MASK)))
		return false;
	if (bpf_skb_load_bytes(skb, off + ip.ihl * 4, l4, sizeof(l4)))
		return false;
	quoted.saddr = ip.saddr;
	quoted.daddr = ip.daddr;
	quoted.protocol = ip.protocol;
	quoted.direction = error->direction == DIR_INGRESS ? DIR_EGRESS : DIR_INGRESS;
	quoted.ct_may = CT_MAY_OPEN | CT_MAY_REPLY;
	switch (ip.protocol) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
		quoted.sport = l4[0];
		quoted.dport = l4[1];
		break;
	case IPPROTO_ICMP:
		if (*(__u8 *)l4 == ICMP_ECHO)
			quoted.sport = l4[2];
		else if (*(__u8 *)l4 == ICMP_ECHOREPLY)
			quoted.dport = l4[2];
		else
			return false;
		break;
	default:
		return false;
	}
	return ct_find(&quoted, ct_now_s(), &reply) != NULL;
}

/*
 * Find the packet's entry and set `trace_reason` (new, established, reply, related). NULL with reason
 * NEW or RELATED: there is none.
 */
static __always_inline struct ct_entry *ct_lookup(struct __sk_buff *skb, struct packet *packet, __u32 now_s)
{
	struct ct_entry *entry;
	bool reply;

	packet->trace_reason = TRACE_REASON_NEW;
	if (unlikely(packet->ct_may & CT_MAY_RELATE)) {
		if (ct_is_related(skb, packet))
			packet->trace_reason = TRACE_REASON_RELATED;
		return NULL;
	}
	entry = ct_find(packet, now_s, &reply);
	if (!entry)
		return NULL;
	if (packet->protocol == IPPROTO_TCP && (packet->l4_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN &&
	    (entry->flags & (CT_RX_CLOSING | CT_TX_CLOSING)))
		return NULL; /* the same ports are used again */
	packet->trace_reason = reply ? TRACE_REASON_REPLY : TRACE_REASON_ESTABLISHED;
	return entry;
}

/* TCP state and with it how long the entry lives without another packet. */
__verified_apart int ct_refresh(struct ct_entry *entry, const struct packet *packet, __u32 now_s)
{
	__u32 lifetime = now_s + CT_TIMEOUT_ANY_S;

	if (!entry || !packet)
		return 0;
	if (packet->protocol == IPPROTO_TCP) {
		__u16 flags = entry->flags;

		if (!(packet->l4_flags & TCP_SYN))
			flags |= CT_SEEN_NON_SYN;
		if (packet->l4_flags & TCP_RST)
			flags |= CT_RX_CLOSING | CT_TX_CLOSING;
		else if (packet->l4_flags & TCP_FIN)
			flags |= packet->direction == DIR_EGRESS ? CT_TX_CLOSING : CT_RX_CLOSING;
		if (flags != entry->flags)
			entry->flags = flags;
		if ((flags & CT_RX_CLOSING) && (flags & CT_TX_CLOSING))
			lifetime = now_s + CT_TIMEOUT_FIN_S;
		else if (flags & CT_SEEN_NON_SYN)
			lifetime = now_s + CT_TIMEOUT_TCP_S;
		else
			lifetime = now_s + CT_TIMEOUT_SYN_S;
	}
	if (entry->lifetime != lifetime)
		entry->lifetime = lifetime;
	return 0;
}

static __always_inline __u32 ct_now_us(void)
{
	return (__u32)(bpf_ktime_get_ns() / NSEC_PER_USEC);
}

/*
 * Handshake round trip as the opener sees it: SYN out, SYN-ACK in. A SYN sent twice gives no sample, as
 * nobody can say which of them was answered (Karn).
 */
static __always_inline void ct_measure_rtt(struct ct_entry *entry, const struct packet *packet)
{
	__u8 syn_ack = packet->l4_flags & (TCP_SYN | TCP_ACK);

	if (packet->protocol != IPPROTO_TCP || !(syn_ack & TCP_SYN) || entry->rx_packets)
		return;
	if (packet->direction == DIR_EGRESS) {
		entry->last_rx_report = entry->tx_packets ? 0 : ct_now_us();
	} else if (packet->trace_reason == TRACE_REASON_REPLY && entry->last_rx_report) {
		__u32 rtt_us = ct_now_us() - entry->last_rx_report;

		entry->rtt_us = rtt_us ? rtt_us : 1;
	}
}

/* Whether aggregation lets this packet's trace through; remembers that it did. */
__verified_apart int ct_should_report(struct ct_entry *entry, const struct packet *packet, bool first,
				      __u32 now_s)
{
	bool egress, due = first;
	__u8 seen, fresh = 0;
	__u32 last;

	if (!entry || !packet)
		return false;
	egress = packet->direction == DIR_EGRESS;
	seen = egress ? entry->tx_flags_seen : entry->rx_flags_seen;
	last = egress ? entry->last_tx_report : entry->last_rx_report;
	if (packet->protocol == IPPROTO_TCP)
		fresh = packet->l4_flags & ~seen;
	if (fresh) {
		if (egress)
			entry->tx_flags_seen = seen | fresh;
		else
			entry->rx_flags_seen = seen | fresh;
	}
	if (fresh && !due)
		due = (fresh & (TCP_SYN | TCP_FIN | TCP_RST)) ||
		      runtime_config(RUNTIME_AGGREGATION) < AGGREGATE_MAXIMUM;
	if (!due && now_s != last) {
		__u64 interval_s = runtime_config(RUNTIME_REPORT_INTERVAL_NS) / NSEC_PER_SEC;

		due = now_s - last >= (interval_s ? interval_s : CT_REPORT_INTERVAL_S);
	}
	if (due) {
		if (egress)
			entry->last_tx_report = now_s;
		else
			entry->last_rx_report = now_s;
	}
	return due;
}

/* Count the packet in its entry, and copy what events tell of the flow into `packet`. */
__verified_apart int ct_account(struct __sk_buff *skb, struct packet *packet, struct ct_entry *entry,
				__u32 now_s)
{
	__u64 *packets, *bytes;
	bool egress, first;

	if (!packet || !entry)
		return 0;
	egress = packet->direction == DIR_EGRESS;
	packets = egress ? &entry->tx_packets : &entry->rx_packets;
	bytes = egress ? &entry->tx_bytes : &entry->rx_bytes;
	first = *packets == 0;

	ct_measure_rtt(entry, packet);
	/* the two directions of a flow, and many CPUs, may be here at once */
	__sync_fetch_and_add(packets, packet_count(skb));
	__sync_fetch_and_add(bytes, skb->len);
	ct_refresh(entry, packet, now_s);

	packet->report = ct_should_report(entry, packet, first, now_s);
	packet->packets = *packets;
	packet->bytes = *bytes;
	packet->tcp_flags_seen = egress ? entry->tx_flags_seen : entry->rx_flags_seen;
	packet->rtt_us = entry->rtt_us;
	packet->policy_cookie = entry->policy_cookie;
	return 0;
}

/* Remember a flow that policy has let in. 0, or a drop when the map does not take it. */
static __always_inline int ct_create(struct __sk_buff *skb, struct packet *packet, __u16 policy_revision,
				     __u32 now_s)
{
	struct ct_entry entry = {
		.src_sec_id = packet->src_identity,
		.policy_revision = policy_revision,
		.policy_cookie = packet->policy_cookie,
	};
	struct ipv4_ct_tuple key = {};
	int error;

	ct_make_key(&key, packet, false);
	ct_account(skb, packet, &entry, now_s);
	if (packet->protocol == IPPROTO_TCP)
		error = bpf_map_update_elem(&cilium_ct4_global, &key, &entry, BPF_ANY);
	else
		error = bpf_map_update_elem(&cilium_ct_any4_global, &key, &entry, BPF_ANY);
	if (error)
		return DROP(packet, DROP_CT_MAP_INSERTION_FAILED);
	return 0;
}

/* For flows of the host itself: tracked for their traces, judged by no policy yet. */
static __always_inline int ct_track(struct __sk_buff *skb, struct packet *packet)
{
	__u32 now_s = ct_now_s();
	struct ct_entry *entry = ct_lookup(skb, packet, now_s);

	if (entry) {
		ct_account(skb, packet, entry, now_s);
		return 0;
	}
	packet->report = true;
	if (packet->trace_reason == TRACE_REASON_NEW && (packet->ct_may & CT_MAY_OPEN))
		return ct_create(skb, packet, 0, now_s);
	return 0;
}
