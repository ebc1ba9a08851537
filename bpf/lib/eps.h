/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once
/*
 * Who is behind an address: cilium_lxc (endpoints of this node, and the node itself), cilium_ipcache
 * (address -> identity and node, for the whole cluster and for policy CIDRs), cilium_tunnel_map (pod
 * CIDR -> node, the fallback while an address is not in the ipcache yet).
 */

#include "lib/common.h"
#include "lib/config.h"
#include "lib/drop.h"

#define ADDRESS_FAMILY_IPV4 1

struct endpoint_key {
	__be32 ip4;		/* first of 16 bytes of address */
	__u32 ip_rest[3];
	__u8 family;
	__u8 key;
	__u16 cluster_id;
};

enum {
	ENDPOINT_FLAG_HOST = 1,	/* an address of this node: its packets go to the stack */
};

struct endpoint_info {
	__u32 ifindex;		/* host side of the veth */
	__u16 unused;
	__u16 lxc_id;
	__u32 flags;
	__u32 pad;
	__u64 mac;		/* pod side */
	__u64 node_mac;		/* host side */
	__u32 sec_id;
	__u32 parent_ifindex;
	__u32 pad2[2];
};

/* Written by the agent when an endpoint comes and goes. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct endpoint_key);
	__type(value, struct endpoint_info);
	__uint(max_entries, 65536); /* endpoint ids are 16 bit */
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} cilium_lxc SEC(".maps");

struct ipcache_key {
	__u32 prefixlen;	/* 32 static bits + bits of the address */
	__u16 pad1;
	__u8 pad2;
	__u8 family;
	__be32 ip4;
	__u32 ip_rest[3];
};

struct remote_endpoint_info {
	__u32 sec_label;
	__be32 tunnel_endpoint;	/* the node behind which the address is; 0: reached without a tunnel */
	__u8 key;
	__u8 pad[3];
};

/* Written by the agent. 512000: the field's limit for pods of a large cluster plus policy CIDRs. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__type(key, struct ipcache_key);
	__type(value, struct remote_endpoint_info);
	__uint(max_entries, 512000);
	__uint(map_flags, BPF_F_NO_PREALLOC); /* LPM tries demand it */
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} cilium_ipcache SEC(".maps");

struct tunnel_key {
	__be32 ip4;		/* network address of a pod CIDR */
	__u32 ip_rest[3];
	__u8 family;
	__u8 pad;
	__u16 cluster_id;
};

struct tunnel_value {
	__be32 ip4;
	__u32 ip_rest[3];
	__u8 family;
	__u8 key;
	__u16 pad;
};

/* Written by the agent, an entry per node. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct tunnel_key);
	__type(value, struct tunnel_value);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} cilium_tunnel_map SEC(".maps");

/* Where a packet is to go, as far as the maps know. */
struct remote {
	struct endpoint_info *endpoint;	/* local endpoint or the host; NULL: elsewhere */
	__u32 identity;
	__be32 tunnel_endpoint;
};

static __always_inline struct endpoint_info *lookup_endpoint(__be32 address)
{
	struct endpoint_key key = { .ip4 = address, .family = ADDRESS_FAMILY_IPV4 };

	return bpf_map_lookup_elem(&cilium_lxc, &key);
}

static __always_inline const struct remote_endpoint_info *lookup_ipcache(__be32 address)
{
	struct ipcache_key key = {
		.prefixlen = 64,
		.family = ADDRESS_FAMILY_IPV4,
		.ip4 = address,
	};

	return bpf_map_lookup_elem(&cilium_ipcache, &key);
}

static __always_inline __be32 lookup_tunnel(__be32 address)
{
	struct tunnel_key key = { .ip4 = address & pod_cidr_mask, .family = ADDRESS_FAMILY_IPV4 };
	const struct tunnel_value *value = bpf_map_lookup_elem(&cilium_tunnel_map, &key);

	return value ? value->ip4 : 0;
}

static __always_inline __u32 endpoint_identity(const struct endpoint_info *endpoint)
{
	return endpoint->flags & ENDPOINT_FLAG_HOST ? IDENTITY_HOST : endpoint->sec_id;
}

/* What is known of `address`. Unknown addresses are the world, without a tunnel. */
static __always_inline void resolve(__be32 address, struct remote *remote)
{
	const struct remote_endpoint_info *info;

	remote->tunnel_endpoint = 0;
	remote->endpoint = lookup_endpoint(address);
	if (remote->endpoint) {
		remote->identity = endpoint_identity(remote->endpoint);
		return;
	}
	info = lookup_ipcache(address);
	remote->identity = info && info->sec_label ? info->sec_label : IDENTITY_WORLD;
	if (info)
		remote->tunnel_endpoint = info->tunnel_endpoint;
	if (!remote->tunnel_endpoint)
		remote->tunnel_endpoint = lookup_tunnel(address);
}

/*
 * Identity of the sender of a packet that the stack gives us. Pods' packets reach us from their own
 * device or through the tunnel, never from the stack, so there a pod's address is forged: dropped.
 */
static __always_inline int resolve_stack_sender(struct packet *packet)
{
	struct remote sender;

	resolve(packet->saddr, &sender);
	packet->src_identity = sender.identity;
	if (sender.identity >= IDENTITY_FIRST_ALLOCATED && (sender.endpoint || sender.tunnel_endpoint))
		return DROP(packet, DROP_INVALID_SOURCE_IP);
	return 0;
}
