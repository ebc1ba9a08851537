/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once
/* Delivery inside the node: to an endpoint through its policy program, and to the host's stack. */

#include "lib/common.h"
#include "lib/config.h"
#include "lib/drop.h"
#include "lib/eps.h"
#include "lib/eth.h"
#include "lib/trace.h"

/* endpoint id -> its ingress policy program (handle_policy). Written by the loader. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
	__uint(max_entries, 65536); /* endpoint ids are 16 bit */
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} cilium_call_policy SEC(".maps");

/* Continue in the endpoint's policy program. Comes back only when it has none: a drop. */
static __always_inline int deliver_to_endpoint(struct __sk_buff *skb, struct packet *packet,
					       const struct endpoint_info *endpoint)
{
	skb->cb[CB_SRC_IDENTITY] = packet->src_identity;
	skb->cb[CB_TUNNEL_IPV4] = packet->tunnel_ipv4;
	bpf_tail_call(skb, &cilium_call_policy, endpoint->lxc_id);
	return DROP(packet, DROP_DROP_EP_NOT_READY);
}

/* Into the stack through cilium_host, as if it had arrived there. A tc action, or a drop. */
static __always_inline int deliver_to_host(struct __sk_buff *skb, struct packet *packet)
{
	if (!eth_set_destination(skb, cilium_host_mac))
		return DROP(packet, DROP_INVALID_PACKET_DROPPED);
	trace_to(skb, packet, TRACE_TO_HOST, host_ifindex, 0);
	METRICS_FORWARDED(skb, packet->direction);
	skb->mark = MARK_TO_HOST;
	return bpf_redirect(host_ifindex, BPF_F_INGRESS);
}
