"""Fixtures of the kernel boundary: a small object of our own, and nodes in namespaces."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kit.netns import NetnsFactory
from tests.kit.topology import Topology

SOURCE = """
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
struct small_key { __u32 prefix; __u16 port; __u8 low : 3, high : 5; __u8 last; };
volatile const __u32 endpoint_id = 1;
volatile const __u64 endpoint_mac = 0;
volatile const __u32 address_be = 0;
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __type(key, struct small_key); __type(value, __u64);
    __uint(max_entries, 16); __uint(map_flags, 1); __uint(pinning, LIBBPF_PIN_BY_NAME);
} small_table SEC(".maps");
int stage(struct __sk_buff *skb);
struct {
    __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(key_size, 4); __uint(max_entries, 4);
    __uint(pinning, LIBBPF_PIN_BY_NAME); __array(values, int(void *));
} small_calls SEC(".maps") = { .values = { [2] = (void *)&stage } };
SEC("tc") int stage(struct __sk_buff *skb) { return endpoint_id; }
SEC("tc") int cil_from_small(struct __sk_buff *skb)
{
    struct small_key key = { .prefix = 1 };
    __u64 value = endpoint_mac;
    bpf_map_update_elem(&small_table, &key, &value, 0);
    skb->mark = address_be;
    bpf_tail_call(skb, &small_calls, 2);
    return TC_ACT_SHOT;
}
#ifdef BROKEN
SEC("tc") int broken(struct __sk_buff *skb) { return *(volatile int *)(long)skb->data; }
#endif
char _license[] SEC("license") = "Dual BSD/GPL";
"""


@pytest.fixture(scope="session")
def compile_object(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Compile the small object with extra clang flags; return its path."""

    def compile_with(*flags: str) -> Path:
        folder = tmp_path_factory.mktemp("object")
        source = folder / "small.c"
        source.write_text(SOURCE)
        target = folder / "small.o"
        argv = ["clang", "-O2", "-g", "-target", "bpf", "-mcpu=v3", "-I/usr/include/x86_64-linux-gnu"]
        subprocess.run([*argv, *flags, "-c", str(source), "-o", str(target)], check=True, timeout=60)
        return target

    return compile_with


@pytest.fixture(scope="session")
def small_object(compile_object: Callable[..., Path]) -> Path:
    """An object with a hash, tail calls and three constants."""
    return compile_object()


@pytest.fixture
def topology(netns_factory: NetnsFactory, bpf_root: Path) -> Iterator[Topology]:
    """An underlay without nodes yet; everything is taken away afterwards."""
    made = Topology(netns_factory, bpf_root)
    yield made
    made.close()
