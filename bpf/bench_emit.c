/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A source of events for benchmarks and loss tests: each run of the program sends `bench_events`
 * trace events by the way every other program sends them. Run it with BPF_PROG_TEST_RUN and a repeat
 * count; it is attached nowhere. `bench_vary` spreads identities and ports over 2^n values each.
 */

#include "lib/common.h"
#include "lib/config.h"
#include "lib/trace.h"

volatile const __u32 bench_events = 1;
volatile const __u32 bench_vary = 0;		/* bits, 0..16 */
volatile const __u32 bench_src_ipv4 = 0;	/* network order; 10.1.0.1 in the low 8 bits varies */
volatile const __u32 bench_dst_ipv4 = 0;

#define BENCH_IDENTITY 1000
#define BENCH_PORT 1024

static long bench_emit_one(__u32 index, void *context)
{
	struct __sk_buff *skb = *(struct __sk_buff **)context;
	__u32 mask = (1u << (bench_vary & 31)) - 1;
	__u32 varied = (index * 2654435761u >> 8) & mask;
	struct packet packet = {
		.saddr = bench_src_ipv4,
		.daddr = bench_dst_ipv4,
		.sport = bpf_htons(BENCH_PORT + varied),
		.dport = bpf_htons(80),
		.protocol = IPPROTO_TCP,
		.l4_flags = 0x18,
		.src_identity = BENCH_IDENTITY + varied,
		.dst_identity = BENCH_IDENTITY + (varied >> 1),
		.endpoint_id = 1,
		.direction = DIR_INGRESS,
		.packets = index + 1,
		.bytes = (index + 1) * 100ULL,
		.trace_reason = TRACE_REASON_ESTABLISHED,
		.report = true,
	};

	trace_emit(skb, &packet, TRACE_TO_ENDPOINT, skb->ifindex, 1);
	return 0;
}

SEC("tc")
int bench_emit(struct __sk_buff *skb)
{
	struct __sk_buff *context = skb;

	bpf_loop(bench_events, bench_emit_one, &context, 0);
	return TC_ACT_OK;
}

char _license[] SEC("license") = "Dual BSD/GPL";
