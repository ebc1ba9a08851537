/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once
/*
 * IPv4 and what lies in it: fills `struct packet` from the headers, decrements the TTL.
 * Options are skipped over. Later fragments have no ports and are dropped; first ones pass.
 */

#include <linux/ip.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include "lib/common.h"
#include "lib/drop.h"
#include "lib/eth.h"

/* RFC 792; see lib/arp.h for why it is our own. */
enum {
	ICMP_ECHOREPLY = 0,
	ICMP_DEST_UNREACH = 3,
	ICMP_ECHO = 8,
	ICMP_TIME_EXCEEDED = 11,
	ICMP_PARAMETERPROB = 12,
};

struct icmphdr {
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__be16 id;
	__be16 sequence;
};

#define IPV4_OFFSET_MASK 0x1FFF

enum {
	TCP_FIN = 0x01,
	TCP_SYN = 0x02,
	TCP_RST = 0x04,
	TCP_ACK = 0x10,
};

#define TCP_FLAGS_BYTE 13

static __always_inline int ipv4_parse_tcp(struct __sk_buff *skb, struct packet *packet, __u32 off)
{
	const struct tcphdr *tcp = packet_at(skb, off, sizeof(*tcp));

	if (!tcp || tcp->doff < 5)
		return DROP(packet, DROP_CT_TRUNCATED_OR_INVALID_HEADER);
	packet->sport = tcp->source;
	packet->dport = tcp->dest;
	packet->l4_flags = ((const __u8 *)tcp)[TCP_FLAGS_BYTE];
	/* An opening SYN never answers: without this a peer could open towards us from a port we have
	 * talked to, and pass as its reply. */
	packet->ct_may = CT_MAY_OPEN;
	if ((packet->l4_flags & (TCP_SYN | TCP_ACK)) != TCP_SYN)
		packet->ct_may |= CT_MAY_REPLY;
	return 0;
}

static __always_inline int ipv4_parse_udp(struct __sk_buff *skb, struct packet *packet, __u32 off)
{
	const struct udphdr *udp = packet_at(skb, off, sizeof(*udp));

	if (!udp)
		return DROP(packet, DROP_CT_TRUNCATED_OR_INVALID_HEADER);
	packet->sport = udp->source;
	packet->dport = udp->dest;
	packet->ct_may = CT_MAY_OPEN | CT_MAY_REPLY;
	return 0;
}

/* Echo is tracked by its identifier, errors by the packet they quote; other types have no state. */
static __always_inline int ipv4_parse_icmp(struct __sk_buff *skb, struct packet *packet, __u32 off)
{
	const struct icmphdr *icmp = packet_at(skb, off, sizeof(*icmp));

	if (!icmp)
		return DROP(packet, DROP_CT_TRUNCATED_OR_INVALID_HEADER);
	packet->l4_flags = icmp->type;
	packet->icmp_code = icmp->code;
	switch (icmp->type) {
	case ICMP_ECHO:
		packet->sport = icmp->id;
		packet->ct_may = CT_MAY_OPEN;
		break;
	case ICMP_ECHOREPLY:
		packet->dport = icmp->id;
		packet->ct_may = CT_MAY_REPLY;
		break;
	case ICMP_DEST_UNREACH:
	case ICMP_TIME_EXCEEDED:
	case ICMP_PARAMETERPROB:
		packet->ct_may = CT_MAY_RELATE;
		break;
	}
	return 0;
}

/* Fill addresses, protocol, ports and flags. 0, or a drop. */
__verified_apart int ipv4_parse(struct __sk_buff *skb, struct packet *packet)
{
	const struct iphdr *ip = packet_at(skb, ETH_HLEN, sizeof(*ip));
	__u32 off;

	if (!packet)
		return -DROP_INVALID_PACKET_DROPPED;
	if (!ip || ip->version != 4 || ip->ihl < 5)
		return DROP(packet, DROP_INVALID_PACKET_DROPPED);
	packet->saddr = ip->saddr;
	packet->daddr = ip->daddr;
	packet->protocol = ip->protocol;
	if (unlikely(ip->frag_off & bpf_htons(IPV4_OFFSET_MASK)))
		return DROP(packet, DROP_IP_FRAGMENTATION_NOT_SUPPORTED);

	off = ETH_HLEN + ip->ihl * 4;
	packet->l4_off = off;
	switch (packet->protocol) {
	case IPPROTO_TCP:
		return ipv4_parse_tcp(skb, packet, off);
	case IPPROTO_UDP:
		return ipv4_parse_udp(skb, packet, off);
	case IPPROTO_ICMP:
		return ipv4_parse_icmp(skb, packet, off);
	}
	return DROP(packet, DROP_CT_UNKNOWN_L4_PROTOCOL);
}

/* One hop: TTL down by one, header checksum after it (RFC 1624). 0, or a drop. */
static __always_inline int ipv4_decrement_ttl(struct __sk_buff *skb, struct packet *packet)
{
	struct iphdr *ip = packet_at(skb, ETH_HLEN, sizeof(*ip));
	__u32 check;

	if (!ip)
		return DROP(packet, DROP_INVALID_PACKET_DROPPED);
	if (ip->ttl <= 1)
		return DROP(packet, DROP_TTL_EXCEEDED);
	ip->ttl--;
	check = ip->check + (__u32)bpf_htons(0x0100);
	ip->check = (__u16)(check + (check >= 0xFFFF));
	return 0;
}
