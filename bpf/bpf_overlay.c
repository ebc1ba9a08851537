/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * cilium_vxlan. cil_from_overlay (tc ingress): what other nodes send, with the sender's identity in the
 * tunnel key. cil_to_overlay (tc egress): what leaves; only packets that a program of ours has given a
 * tunnel key may.
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

static __always_inline int handle_ipv4_from_overlay(struct __sk_buff *skb, struct packet *packet)
{
	struct endpoint_info *endpoint;
	int ret = decap(skb, packet);
	int parsed = ipv4_parse(skb, packet);

	ret = ret < 0 ? ret : parsed;
	if (ret < 0)
		return ret;
	endpoint = lookup_endpoint(packet->daddr);
	if (endpoint)
		packet->dst_identity = endpoint_identity(endpoint);
	trace_from(skb, packet, TRACE_FROM_OVERLAY);
	if (!endpoint)
		return DROP(packet, DROP_STALE_OR_UNROUTABLE_IP);
	if (!(endpoint->flags & ENDPOINT_FLAG_HOST))
		return deliver_to_endpoint(skb, packet, endpoint);
	ret = ct_track(skb, packet);
	if (ret < 0)
		return ret;
	return deliver_to_host(skb, packet);
}

SEC("tc")
int cil_from_overlay(struct __sk_buff *skb)
{
	struct packet packet = { .direction = DIR_INGRESS };
	__be16 protocol = eth_protocol(skb);
	int ret;

	switch (protocol) {
	case bpf_htons(ETH_P_IP):
		ret = handle_ipv4_from_overlay(skb, &packet);
		break;
	default:
		ret = DROP(&packet, eth_drop_reason(protocol));
	}
	return drop_if(skb, &packet, ret);
}

SEC("tc")
int cil_to_overlay(struct __sk_buff *skb)
{
	struct packet packet = { .direction = DIR_EGRESS };
	struct bpf_tunnel_key key = {};

	/* The sender traced and counted it. */
	if (likely(!bpf_skb_get_tunnel_key(skb, &key, sizeof(key), 0)))
		return TC_ACT_OK;
	if (eth_protocol(skb) == bpf_htons(ETH_P_IP))
		ipv4_parse(skb, &packet);
	return drop_if(skb, &packet, DROP(&packet, DROP_ERROR_RETRIEVING_TUNNEL_KEY));
}

char _license[] SEC("license") = "Dual BSD/GPL";
