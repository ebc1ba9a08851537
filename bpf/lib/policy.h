/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once
/*
 * Identity policy of one endpoint: may it talk with this identity, in this direction, on this port?
 * The map holds what the agent resolved; a direction that is not enforced has an allow-all entry, so
 * an empty map denies everything. New flows are judged here; established ones again when the
 * endpoint's policy revision has moved since.
 */

#include "lib/common.h"
#include "lib/config.h"
#include "lib/conntrack.h"
#include "lib/drop.h"
#include "lib/event.h"

struct policy_key {
	__u32 prefixlen;	/* 40 static bits, + 8 protocol, + 0..16 port */
	__u32 sec_label;	/* 0: any identity */
	__u8 egress : 1,
	     pad : 7;
	__u8 protocol;
	__be16 dport;		/* ICMP: the type */
};

#define POLICY_FULL_PREFIX 64

struct policy_entry {
	__be16 proxy_port;
	__u8 deny : 1,
	     reserved : 2,
	     lpm_prefix_length : 5;	/* of protocol and port: 0, 8 .. 24 */
	__u8 auth_type;
	__u8 proxy_port_priority;
	__u8 pad1;
	__u16 pad2;
	__u32 cookie;		/* names the rules this entry came from */
};

/* Written by the agent, one map per endpoint (pinned as cilium_policy_v2_<id>). */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__type(key, struct policy_key);
	__type(value, struct policy_entry);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC); /* LPM tries demand it */
} cilium_policy_v2 SEC(".maps");

/* endpoint id -> revision of its policy map; raised by the agent after each change. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 65536); /* endpoint ids are 16 bit */
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} palomar_policy_revision SEC(".maps");

enum policy_match {
	POLICY_MATCH_NONE = 0,
	POLICY_MATCH_L3_ONLY = 1,
	POLICY_MATCH_L3_L4 = 2,
	POLICY_MATCH_L4_ONLY = 3,
	POLICY_MATCH_ALL = 4,
	POLICY_MATCH_L3_PROTO = 5,
	POLICY_MATCH_PROTO_ONLY = 6,
};

struct policy_decision {
	__u32 cookie;
	__u8 drop_reason;	/* 0: allowed */
	__u8 match;
};

static __always_inline __u16 policy_revision(void)
{
	__u32 id = endpoint_id;
	const __u32 *revision = bpf_map_lookup_elem(&palomar_policy_revision, &id);

	return revision ? (__u16)*revision : 0;
}

static __always_inline __u8 policy_match(const struct policy_entry *entry, bool any_identity)
{
	__u8 bits = entry->lpm_prefix_length;

	if (bits > 8)
		return any_identity ? POLICY_MATCH_L4_ONLY : POLICY_MATCH_L3_L4;
	if (bits)
		return any_identity ? POLICY_MATCH_PROTO_ONLY : POLICY_MATCH_L3_PROTO;
	return any_identity ? POLICY_MATCH_ALL : POLICY_MATCH_L3_ONLY;
}

/* Does the any-identity entry decide, rather than the one of the identity (which is no deny)? */
static __always_inline bool policy_prefers_any(const struct policy_entry *any, const struct policy_entry *exact)
{
	if (!exact || any->deny || any->proxy_port_priority > exact->proxy_port_priority)
		return true;
	return any->proxy_port_priority == exact->proxy_port_priority &&
	       any->lpm_prefix_length > exact->lpm_prefix_length;
}

/* Proxies and authentication do not exist yet: what would need them is dropped, not let past them. */
static __always_inline __u8 policy_entry_drop(const struct policy_entry *entry)
{
	if (entry->deny)
		return DROP_POLICY_DENY;
	if (entry->proxy_port)
		return DROP_PROXY_REDIRECTION_NOT_SUPPORTED_FOR_PROTOCOL;
	if (entry->auth_type)
		return DROP_AUTH_REQUIRED;
	return 0;
}

/* Two lookups with the full key, first of the identity, then of any; a deny beats any allow. */
__verified_apart int policy_decide(struct policy_key *key, struct policy_decision *decision)
{
	const struct policy_entry *chosen, *any;
	bool any_identity = false;

	if (!key || !decision)
		return 0;
	chosen = bpf_map_lookup_elem(&cilium_policy_v2, key);
	if (!chosen || !chosen->deny) {
		key->sec_label = 0;
		any = bpf_map_lookup_elem(&cilium_policy_v2, key);
		if (any && policy_prefers_any(any, chosen)) {
			chosen = any;
			any_identity = true;
		}
	}
	if (!chosen) {
		decision->cookie = 0;
		decision->match = POLICY_MATCH_NONE;
		decision->drop_reason = DROP_POLICY_DENIED;
		return 0;
	}
	decision->cookie = chosen->cookie;
	decision->match = policy_match(chosen, any_identity);
	decision->drop_reason = policy_entry_drop(chosen);
	return 0;
}

__verified_apart int policy_verdict_emit(struct __sk_buff *skb, const struct packet *packet,
					 const struct policy_decision *decision, __u8 verdict)
{
	struct event event;

	if (!packet || !decision)
		return 0;
	event_fill(&event, skb, packet);
	event.type = EVENT_POLICY_VERDICT;
	event.verdict = verdict;
	event.match_type = decision->match;
	event.policy_cookie = decision->cookie;
	event.trace_reason = packet->trace_reason;
	if (verdict == VERDICT_DROPPED)
		event.drop_reason = decision->drop_reason;
	event_output(skb, &event);
	return 0;
}

static __always_inline int policy_drop(struct packet *packet, const struct policy_decision *decision)
{
	packet->policy_cookie = decision->cookie;
	return DROP(packet, decision->drop_reason);
}

/* The port policy speaks of: the destination's; of ICMP the type. */
static __always_inline __be16 policy_port(const struct packet *packet)
{
	return packet->protocol == IPPROTO_ICMP ? bpf_htons(packet->l4_flags) : packet->dport;
}

/* Judge a new flow and send the verdict. 0, or a drop. */
static __always_inline int policy_judge_new(struct __sk_buff *skb, struct packet *packet, __u32 remote_identity)
{
	struct policy_key key = {
		.prefixlen = POLICY_FULL_PREFIX,
		.sec_label = remote_identity,
		.egress = packet->direction == DIR_EGRESS,
		.protocol = packet->protocol,
		.dport = policy_port(packet),
	};
	struct policy_decision decision = {};
	__u8 verdict = VERDICT_FORWARDED;

	policy_decide(&key, &decision);
	if (decision.drop_reason)
		verdict = runtime_config(RUNTIME_POLICY_AUDIT) ? VERDICT_AUDIT : VERDICT_DROPPED;
	policy_verdict_emit(skb, packet, &decision, verdict);
	if (verdict == VERDICT_DROPPED)
		return policy_drop(packet, &decision);
	packet->policy_cookie = decision.cookie;
	return 0;
}

/*
 * Judge a known flow again after its endpoint's policy moved. What is judged is the flow, as it was
 * opened, whichever way this packet goes. A flow now denied keeps its entry and its old revision: every
 * further packet of it is dropped, until policy allows it again or the entry expires.
 */
static __always_inline int policy_judge_again(struct __sk_buff *skb, struct packet *packet,
					      struct ct_entry *entry, __u16 revision, __u32 remote_identity)
{
	bool reply = packet->trace_reason == TRACE_REASON_REPLY;
	struct policy_key key = {
		.prefixlen = POLICY_FULL_PREFIX,
		.sec_label = remote_identity,
		.egress = (packet->direction == DIR_EGRESS) != reply,
		.protocol = packet->protocol,
	};
	struct policy_decision decision = {};

	if (packet->protocol == IPPROTO_ICMP)
		key.dport = bpf_htons(ICMP_ECHO);
	else
		key.dport = reply ? packet->sport : packet->dport;
	policy_decide(&key, &decision);
	if (decision.drop_reason && !runtime_config(RUNTIME_POLICY_AUDIT)) {
		if (!reply)
			policy_verdict_emit(skb, packet, &decision, VERDICT_DROPPED);
		return policy_drop(packet, &decision);
	}
	if (decision.cookie != entry->policy_cookie) {
		/* The verdict that names the new rule belongs to the opening direction's next packet. */
		if (reply)
			return 0;
		entry->policy_cookie = decision.cookie;
		policy_verdict_emit(skb, packet, &decision,
				    decision.drop_reason ? VERDICT_AUDIT : VERDICT_FORWARDED);
	}
	entry->policy_revision = revision;
	return 0;
}

/* Conntrack, and policy where conntrack does not settle it. 0, or a drop. */
__verified_apart int policy_enforce(struct __sk_buff *skb, struct packet *packet, __u32 remote_identity)
{
	__u32 now_s = ct_now_s();
	struct ct_entry *entry;
	__u16 revision;
	int ret;

	if (!packet)
		return -DROP_INVALID_PACKET_DROPPED;
	entry = ct_lookup(skb, packet, now_s);
	revision = policy_revision();
	if (likely(entry)) {
		if (unlikely(entry->policy_revision != revision)) {
			ret = policy_judge_again(skb, packet, entry, revision, remote_identity);
			if (ret < 0)
				return ret;
		}
		ct_account(skb, packet, entry, now_s);
		return 0;
	}
	packet->report = true;
	if (packet->trace_reason == TRACE_REASON_RELATED)
		return 0;
	ret = policy_judge_new(skb, packet, remote_identity);
	if (ret < 0 || !(packet->ct_may & CT_MAY_OPEN))
		return ret;
	return ct_create(skb, packet, revision, now_s);
}
