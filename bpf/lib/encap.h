/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once
/*
 * The overlay: cilium_vxlan collects metadata, so where a packet goes and who sent it is in the
 * tunnel key: the other node's address, and the sender's numeric identity as VXLAN network identifier.
 */

#include "lib/common.h"
#include "lib/config.h"
#include "lib/drop.h"
#include "lib/trace.h"

#define TUNNEL_TTL 64

/* Send to `node` (network order) as `identity`. A tc action, or a drop. */
static __always_inline int encap_redirect(struct __sk_buff *skb, struct packet *packet, __be32 node,
					  __u32 identity)
{
	struct bpf_tunnel_key key = {
		.tunnel_id = identity,
		.remote_ipv4 = bpf_ntohl(node), /* the helper wants host order */
		.tunnel_ttl = TUNNEL_TTL,
	};

	packet->tunnel_ipv4 = node;
	if (bpf_skb_set_tunnel_key(skb, &key, sizeof(key), BPF_F_ZERO_CSUM_TX))
		return DROP(packet, DROP_ERROR_RETRIEVING_TUNNEL_KEY);
	trace_to(skb, packet, TRACE_TO_OVERLAY, tunnel_ifindex, 0);
	METRICS_FORWARDED(skb, DIR_EGRESS);
	return bpf_redirect(tunnel_ifindex, 0);
}

/* Read sender and identity of a packet that came by the tunnel. 0, or a drop. */
static __always_inline int decap(struct __sk_buff *skb, struct packet *packet)
{
	struct bpf_tunnel_key key = {};

	if (bpf_skb_get_tunnel_key(skb, &key, sizeof(key), 0))
		return DROP(packet, DROP_ERROR_RETRIEVING_TUNNEL_KEY);
	packet->tunnel_ipv4 = bpf_htonl(key.remote_ipv4);
	packet->event_flags |= EVENT_FLAG_FROM_TUNNEL;
	packet->src_identity = key.tunnel_id;
	/* "host" means this node; another node's host arrives as remote-node */
	if (key.tunnel_id == IDENTITY_UNKNOWN || key.tunnel_id == IDENTITY_HOST)
		return DROP(packet, DROP_INVALID_IDENTITY);
	return 0;
}
