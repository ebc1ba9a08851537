/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once
/* Ethernet: which protocol, why one that nothing here carries is dropped, and rewriting addresses. */

#include "lib/common.h"
#include "lib/drop_reasons.h"

/* The EtherType in network order; 0 for a frame too short to have one or with a VLAN tag. */
static __always_inline __be16 eth_protocol(struct __sk_buff *skb)
{
	const struct ethhdr *eth = packet_at(skb, 0, ETH_HLEN);

	if (!eth || skb->vlan_present)
		return 0;
	return eth->h_proto;
}

/* For DROP() where a program carries no frames of `protocol`; the place stays the program's. */
static __always_inline __u8 eth_drop_reason(__be16 protocol)
{
	return protocol == bpf_htons(ETH_P_IPV6) ? DROP_UNSUPPORTED_L3_PROTOCOL : DROP_UNSUPPORTED_L2_PROTOCOL;
}

/* A MAC as the configuration and cilium_lxc hold it: six bytes at the start of a u64. */
static __always_inline __u64 mac_of(const __u8 *address)
{
	__u64 mac = 0;

	__builtin_memcpy(&mac, address, ETH_ALEN);
	return mac;
}

/* Both return false only if the frame has no Ethernet header, which no hook lets happen. */
static __always_inline bool eth_set_destination(struct __sk_buff *skb, __u64 mac)
{
	struct ethhdr *eth = packet_at(skb, 0, ETH_HLEN);

	if (!eth)
		return false;
	__builtin_memcpy(eth->h_dest, &mac, ETH_ALEN);
	return true;
}

static __always_inline bool eth_set_addresses(struct __sk_buff *skb, __u64 destination, __u64 source)
{
	struct ethhdr *eth = packet_at(skb, 0, ETH_HLEN);

	if (!eth)
		return false;
	__builtin_memcpy(eth->h_dest, &destination, ETH_ALEN);
	__builtin_memcpy(eth->h_source, &source, ETH_ALEN);
	return true;
}
