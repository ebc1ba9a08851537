/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * For tests: gives the packet a tunnel key, as the VXLAN device does, and goes on in the program of slot 0.
 * What the reader of the key takes for the other node is the local address of the key we set.
 */

#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

volatile const __u32 shim_identity = 0;
volatile const __u32 shim_node = 0;	/* host order */

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
	__uint(max_entries, 1);
} shim_next SEC(".maps");

SEC("tc")
int shim_tunnel(struct __sk_buff *skb)
{
	struct bpf_tunnel_key key = { .tunnel_id = shim_identity, .local_ipv4 = shim_node, .tunnel_ttl = 64 };

	if (bpf_skb_set_tunnel_key(skb, &key, sizeof(key), 0))
		return TC_ACT_UNSPEC;
	bpf_tail_call(skb, &shim_next, 0);
	return TC_ACT_UNSPEC;
}

char _license[] SEC("license") = "Dual BSD/GPL";
