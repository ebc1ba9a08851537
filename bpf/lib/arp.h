/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once
/*
 * ARP: a pod's gateway is on no wire, so its program answers for every address but the pod's own, with the
 * MAC of the host side of its veth.
 */

#include "lib/common.h"
#include "lib/drop.h"
#include "lib/eth.h"

/*
 * RFC 826. Our own, like struct icmphdr in lib/ipv4.h: the kernel's linux/if_arp.h and linux/icmp.h include
 * the C library, which a BPF target has not.
 */
enum {
	ARPHRD_ETHER = 1,
	ARPOP_REQUEST = 1,
	ARPOP_REPLY = 2,
};

struct arphdr {
	__be16 ar_hrd;
	__be16 ar_pro;
	__u8 ar_hln;
	__u8 ar_pln;
	__be16 ar_op;
};

struct arp_ipv4 {
	struct arphdr header;
	__u8 sender_mac[ETH_ALEN];
	__be32 sender_ip;
	__u8 target_mac[ETH_ALEN];
	__be32 target_ip;
} __attribute__((packed));

/*
 * Answer a request of the owner of (`mac`, `address`) for another address: back out of `ifindex` with
 * `gateway_mac`. What else the owner says by ARP is for the stack. A tc action, or a drop.
 */
static __always_inline int arp_respond(struct __sk_buff *skb, struct packet *packet, __be32 address,
				       __u64 mac, __u64 gateway_mac, __u32 ifindex)
{
	struct ethhdr *eth = packet_at(skb, 0, ETH_HLEN + sizeof(struct arp_ipv4));
	struct arp_ipv4 *arp = (struct arp_ipv4 *)(eth + 1);
	__be32 target;

	if (!eth || arp->header.ar_hrd != bpf_htons(ARPHRD_ETHER) || arp->header.ar_pro != bpf_htons(ETH_P_IP) ||
	    arp->header.ar_hln != ETH_ALEN || arp->header.ar_pln != sizeof(__be32))
		return DROP(packet, DROP_INVALID_PACKET_DROPPED);
	if (mac_of(eth->h_source) != mac || mac_of(arp->sender_mac) != mac)
		return DROP(packet, DROP_INVALID_SOURCE_MAC);
	target = arp->target_ip;
	if (arp->sender_ip && arp->sender_ip != address)
		return DROP(packet, DROP_INVALID_SOURCE_IP);
	METRICS_FORWARDED(skb, packet->direction);
	if (arp->header.ar_op != bpf_htons(ARPOP_REQUEST) || target == address)
		return TC_ACT_OK;

	__builtin_memcpy(eth->h_dest, eth->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, &gateway_mac, ETH_ALEN);
	arp->header.ar_op = bpf_htons(ARPOP_REPLY);
	arp->target_ip = arp->sender_ip;
	__builtin_memcpy(arp->target_mac, arp->sender_mac, ETH_ALEN);
	arp->sender_ip = target;
	__builtin_memcpy(arp->sender_mac, &gateway_mac, ETH_ALEN);
	return bpf_redirect(ifindex, 0);
}
