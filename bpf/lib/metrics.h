/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once
/*
 * cilium_metrics: packets and bytes by reason, direction and place in the source. Reason 0 is
 * forwarded; 130 and up are drops.
 */

#include "lib/common.h"
#include "lib/drop_reasons.h"
#include "lib/source_info.h"

struct metrics_key {
	__u8 reason;
	__u8 dir : 2,
	     pad : 6;
	__u16 line;
	__u8 file;
	__u8 reserved[3];
};

struct metrics_value {
	__u64 count;
	__u64 bytes;
};

/* Written by every program, read by the agent. 65536: the field's; reasons x places stay far
 * below it, and entries are allocated as they appear. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__type(key, struct metrics_key);
	__type(value, struct metrics_value);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} cilium_metrics SEC(".maps");

static __always_inline void metrics_add(const struct __sk_buff *skb, __u8 reason, __u8 dir, __u16 line,
					__u8 file)
{
	struct metrics_key key = { .reason = reason, .dir = dir, .line = line, .file = file };
	struct metrics_value *value = bpf_map_lookup_elem(&cilium_metrics, &key);

	if (likely(value)) {
		value->count += packet_count(skb);
		value->bytes += skb->len;
	} else {
		struct metrics_value first = { .count = packet_count(skb), .bytes = skb->len };

		bpf_map_update_elem(&cilium_metrics, &key, &first, BPF_NOEXIST);
	}
}

/* Count a packet that goes on; the place is the line this is written on. */
#define METRICS_FORWARDED(skb, dir) \
	metrics_add(skb, REASON_FORWARDED, dir, __LINE__, SOURCE_FILE_ID)
