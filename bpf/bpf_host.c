/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * cilium_host and cilium_net, the pair between the node's stack and the pods. cil_from_host (egress of
 * cilium_host): what the stack routes to a pod, of this node or of another. cil_to_host (ingress of both):
 * what reaches the stack; endpoints' packets for the host were traced where they were sent from.
 */

#include "lib/common.h"
#include "lib/config.h"
#include "lib/conntrack.h"
#include "lib/drop.h"
#include "lib/encap.h"
#include "lib/eps.h"
#include "lib/eth.h"
#include "lib/ipv4.h"
#include "lib/l3.h"
#include "lib/metrics.h"
#include "lib/trace.h"

/* To the endpoint's device; its cil_to_container judges and traces. */
static __always_inline int host_to_endpoint(struct __sk_buff *skb, struct packet *packet,
					    const struct endpoint_info *endpoint)
{
	if (!eth_set_addresses(skb, endpoint->mac, endpoint->node_mac))
		return DROP(packet, DROP_INVALID_PACKET_DROPPED);
	METRICS_FORWARDED(skb, DIR_EGRESS);
	return bpf_redirect(endpoint->ifindex, 0);
}

/* To a pod of another node. There our own host is one of the remote nodes. */
static __always_inline int host_to_overlay(struct __sk_buff *skb, struct packet *packet, __be32 node)
{
	int ret = resolve_stack_sender(packet);
	__u32 sender = packet->src_identity;

	if (ret >= 0)
		ret = ct_track(skb, packet);
	if (ret < 0)
		return ret;
	return encap_redirect(skb, packet, node, sender == IDENTITY_HOST ? IDENTITY_REMOTE_NODE : sender);
}

static __always_inline int handle_ipv4_from_host(struct __sk_buff *skb, struct packet *packet)
{
	struct remote remote;
	int ret = ipv4_parse(skb, packet);

	if (ret < 0)
		return ret;
	resolve(packet->daddr, &remote);
	packet->dst_identity = remote.identity;
	trace_from(skb, packet, TRACE_FROM_HOST);
	if (remote.endpoint) {
		if (!(remote.endpoint->flags & ENDPOINT_FLAG_HOST))
			return host_to_endpoint(skb, packet, remote.endpoint);
	} else if (remote.tunnel_endpoint && remote.tunnel_endpoint != node_ipv4) {
		return host_to_overlay(skb, packet, remote.tunnel_endpoint);
	}
	return DROP(packet, DROP_STALE_OR_UNROUTABLE_IP);
}

SEC("tc")
int cil_from_host(struct __sk_buff *skb)
{
	struct packet packet = { .direction = DIR_EGRESS };
	__be16 protocol = eth_protocol(skb);
	int ret;

	switch (protocol) {
	case bpf_htons(ETH_P_IP):
		ret = handle_ipv4_from_host(skb, &packet);
		break;
	case bpf_htons(ETH_P_ARP): /* for cilium_net, the other end of the pair */
		METRICS_FORWARDED(skb, DIR_EGRESS);
		ret = TC_ACT_OK;
		break;
	default:
		ret = DROP(&packet, eth_drop_reason(protocol));
	}
	return drop_if(skb, &packet, ret);
}

/* What is not from us came over the pair's other end, unseen so far. */
static __always_inline int handle_ipv4_to_host(struct __sk_buff *skb, struct packet *packet)
{
	struct remote sender;
	int ret = ipv4_parse(skb, packet);

	if (ret < 0)
		return ret;
	resolve(packet->saddr, &sender);
	packet->src_identity = sender.identity;
	ret = ct_track(skb, packet);
	if (ret < 0)
		return ret;
	trace_to(skb, packet, TRACE_TO_HOST, skb->ifindex, 0);
	METRICS_FORWARDED(skb, DIR_INGRESS);
	return TC_ACT_OK;
}

SEC("tc")
int cil_to_host(struct __sk_buff *skb)
{
	struct packet packet = { .direction = DIR_INGRESS, .dst_identity = IDENTITY_HOST };
	__be16 protocol;
	int ret;

	if (skb->mark == MARK_TO_HOST) {
		skb->mark = 0;
		return TC_ACT_OK;
	}
	protocol = eth_protocol(skb);
	switch (protocol) {
	case bpf_htons(ETH_P_IP):
		ret = handle_ipv4_to_host(skb, &packet);
		break;
	case bpf_htons(ETH_P_ARP):
		METRICS_FORWARDED(skb, DIR_INGRESS);
		ret = TC_ACT_OK;
		break;
	default:
		ret = DROP(&packet, eth_drop_reason(protocol));
	}
	return drop_if(skb, &packet, ret);
}

char _license[] SEC("license") = "Dual BSD/GPL";
