/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once
/*
 * Names of the source files that drop packets, as one byte in events and metrics. A name that is
 * not in this list is 0 and fails a test; palomar's Python side prints the names.
 */

#define SOURCE_FILES(X)          \
	X(1, "bpf_host.c")       \
	X(2, "bpf_lxc.c")        \
	X(3, "bpf_overlay.c")    \
	X(101, "arp.h")          \
	X(102, "ipv4.h")         \
	X(103, "conntrack.h")    \
	X(104, "policy.h")       \
	X(105, "encap.h")        \
	X(106, "l3.h")           \
	X(107, "eps.h")          \
	X(108, "eth.h")

#define SOURCE_FILE_IS(id, name) __builtin_strcmp(__FILE_NAME__, name) == 0 ? id :

/* The number of the file this macro is written in; folded to a constant by the compiler. */
#define SOURCE_FILE_ID (SOURCE_FILES(SOURCE_FILE_IS) 0)
