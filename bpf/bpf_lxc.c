/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * An endpoint's veth, host side. cil_from_container (tc ingress): what the pod sends. cil_to_container
 * (tc egress): what the stack sends to the pod. handle_policy: what arrives for the pod from another
 * endpoint or from the tunnel; it is called through cilium_call_policy and hands over by
 * bpf_redirect_peer, so the pod's namespace is entered without a queue.
 */

#include "lib/common.h"
#include "lib/config.h"

/* Of the endpoint; set by the loader, see lib/config.h. */
volatile const __u32 endpoint_id = 0;
volatile const __u32 endpoint_ipv4 = 0;
volatile const __u64 endpoint_mac = 0;	/* pod side */
volatile const __u64 host_mac = 0;	/* host side; the pod's gateway */
volatile const __u32 identity = 0;

#include "lib/arp.h"
#include "lib/conntrack.h"
#include "lib/drop.h"
#include "lib/encap.h"
#include "lib/eps.h"
#include "lib/eth.h"
#include "lib/ipv4.h"
#include "lib/l3.h"
#include "lib/metrics.h"
#include "lib/policy.h"
#include "lib/trace.h"

enum {
	CALL_HANDLE_ARP = 4,
	CALL_HANDLE_IPV4 = 7,
	CALLS = 48,
};

int tail_handle_arp(struct __sk_buff *skb);
int tail_handle_ipv4(struct __sk_buff *skb);

/* The stages of this endpoint's programs (pinned as cilium_calls_<id>). Filled by libbpf at load. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(max_entries, CALLS);
	__array(values, int(struct __sk_buff *));
} cilium_calls SEC(".maps") = {
	.values = {
		[CALL_HANDLE_ARP] = &tail_handle_arp,
		[CALL_HANDLE_IPV4] = &tail_handle_ipv4,
	},
};

/* Room for what programs will tell the agent besides events (u32 CPU -> perf ring). */
struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
	__uint(max_entries, 0);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} cilium_signals SEC(".maps");

static __always_inline void packet_from_endpoint(struct packet *packet)
{
	packet->direction = DIR_EGRESS;
	packet->endpoint_id = endpoint_id;
	packet->src_identity = identity;
}

static __always_inline void packet_to_endpoint(struct packet *packet)
{
	packet->direction = DIR_INGRESS;
	packet->endpoint_id = endpoint_id;
	packet->dst_identity = identity;
}

SEC("tc")
int cil_from_container(struct __sk_buff *skb)
{
	struct packet packet = {};
	__be16 protocol;
	int ret;

	packet_from_endpoint(&packet);
	protocol = eth_protocol(skb);
	switch (protocol) {
	case bpf_htons(ETH_P_IP):
		bpf_tail_call(skb, &cilium_calls, CALL_HANDLE_IPV4);
		ret = DROP(&packet, DROP_MISSED_TAIL_CALL);
		break;
	case bpf_htons(ETH_P_ARP):
		bpf_tail_call(skb, &cilium_calls, CALL_HANDLE_ARP);
		ret = DROP(&packet, DROP_MISSED_TAIL_CALL);
		break;
	default:
		ret = DROP(&packet, eth_drop_reason(protocol));
	}
	return drop_if(skb, &packet, ret);
}

SEC("tc")
int tail_handle_arp(struct __sk_buff *skb)
{
	struct packet packet = {};

	packet_from_endpoint(&packet);
	return drop_if(skb, &packet,
		       arp_respond(skb, &packet, endpoint_ipv4, endpoint_mac, host_mac, interface_ifindex));
}

/* The pod may only send as itself. 0, or a drop. */
static __always_inline int check_source(struct __sk_buff *skb, struct packet *packet)
{
	const struct ethhdr *eth = packet_at(skb, 0, ETH_HLEN);

	if (!eth || mac_of(eth->h_source) != endpoint_mac)
		return DROP(packet, DROP_INVALID_SOURCE_MAC);
	if (packet->saddr != endpoint_ipv4)
		return DROP(packet, DROP_INVALID_SOURCE_IP);
	return 0;
}

/* On its way to where its destination is. A tc action, or a drop. */
static __always_inline int forward(struct __sk_buff *skb, struct packet *packet, const struct remote *remote)
{
	if (remote->endpoint) {
		if (remote->endpoint->flags & ENDPOINT_FLAG_HOST)
			return deliver_to_host(skb, packet);
		METRICS_FORWARDED(skb, DIR_EGRESS);
		return deliver_to_endpoint(skb, packet, remote->endpoint);
	}
	if (remote->tunnel_endpoint == node_ipv4 && node_ipv4)
		return DROP(packet, DROP_STALE_OR_UNROUTABLE_IP); /* ours, but no longer here */
	if (remote->tunnel_endpoint)
		return encap_redirect(skb, packet, remote->tunnel_endpoint, identity);
	trace_to(skb, packet, TRACE_TO_STACK, 0, 0);
	METRICS_FORWARDED(skb, DIR_EGRESS);
	return TC_ACT_OK;
}

static __always_inline int handle_ipv4(struct __sk_buff *skb, struct packet *packet)
{
	struct remote remote;
	int ret;

	/* Sender first: a forged packet is reported as that, whatever else is wrong with it. */
	ret = ipv4_parse(skb, packet);
	if (packet->drop_reason != DROP_INVALID_PACKET_DROPPED) {
		int forged = check_source(skb, packet);

		ret = forged < 0 ? forged : ret;
	}
	if (ret < 0)
		return ret;
	resolve(packet->daddr, &remote);
	packet->dst_identity = remote.identity;
	trace_from(skb, packet, TRACE_FROM_ENDPOINT);
	ret = policy_enforce(skb, packet, remote.identity);
	if (ret < 0)
		return ret;
	return forward(skb, packet, &remote);
}

SEC("tc")
int tail_handle_ipv4(struct __sk_buff *skb)
{
	struct packet packet = {};

	packet_from_endpoint(&packet);
	return drop_if(skb, &packet, handle_ipv4(skb, &packet));
}

/* Into the pod, bypassing the stack of this namespace. A tc action, or a drop. */
static __always_inline int hand_over(struct __sk_buff *skb, struct packet *packet)
{
	int ret = ipv4_decrement_ttl(skb, packet);

	if (ret < 0)
		return ret;
	if (!eth_set_addresses(skb, endpoint_mac, host_mac))
		return DROP(packet, DROP_INVALID_PACKET_DROPPED);
	/* The device it came in on judged its old destination MAC (the tunnel's: not for us). */
	if (skb->pkt_type != PACKET_HOST)
		bpf_skb_change_type(skb, PACKET_HOST);
	trace_to(skb, packet, TRACE_TO_ENDPOINT, interface_ifindex, endpoint_id);
	METRICS_FORWARDED(skb, DIR_INGRESS);
	return bpf_redirect_peer(interface_ifindex, 0);
}

SEC("tc")
int handle_policy(struct __sk_buff *skb)
{
	struct packet packet = {};
	int ret;

	packet_to_endpoint(&packet);
	packet.src_identity = skb->cb[CB_SRC_IDENTITY];
	packet.tunnel_ipv4 = skb->cb[CB_TUNNEL_IPV4];
	if (packet.tunnel_ipv4)
		packet.event_flags |= EVENT_FLAG_FROM_TUNNEL;
	ret = ipv4_parse(skb, &packet);
	if (ret >= 0)
		ret = policy_enforce(skb, &packet, packet.src_identity);
	if (ret >= 0)
		ret = hand_over(skb, &packet);
	return drop_if(skb, &packet, ret);
}

static __always_inline int handle_ipv4_to_container(struct __sk_buff *skb, struct packet *packet)
{
	int ret = ipv4_parse(skb, packet);

	if (ret >= 0)
		ret = resolve_stack_sender(packet);
	if (ret >= 0)
		ret = policy_enforce(skb, packet, packet->src_identity);
	if (ret < 0)
		return ret;
	trace_to(skb, packet, TRACE_TO_ENDPOINT, interface_ifindex, endpoint_id);
	METRICS_FORWARDED(skb, DIR_INGRESS);
	return TC_ACT_OK;
}

SEC("tc")
int cil_to_container(struct __sk_buff *skb)
{
	struct packet packet = {};
	__be16 protocol;
	int ret;

	packet_to_endpoint(&packet);
	protocol = eth_protocol(skb);
	switch (protocol) {
	case bpf_htons(ETH_P_IP):
		ret = handle_ipv4_to_container(skb, &packet);
		break;
	case bpf_htons(ETH_P_ARP): /* our own answers, and the stack's questions */
		METRICS_FORWARDED(skb, DIR_INGRESS);
		ret = TC_ACT_OK;
		break;
	default:
		ret = DROP(&packet, eth_drop_reason(protocol));
	}
	return drop_if(skb, &packet, ret);
}

char _license[] SEC("license") = "Dual BSD/GPL";
