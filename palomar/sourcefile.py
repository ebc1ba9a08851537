"""Names of the BPF source files that drop packets; one byte in events and in the metrics map.

Mirrors `bpf/lib/source_info.h`; tests/hubble/test_flowbuilder.py compares the two.
"""

SOURCE_FILES = {
    1: "bpf_host.c",
    2: "bpf_lxc.c",
    3: "bpf_overlay.c",
    101: "arp.h",
    102: "ipv4.h",
    103: "conntrack.h",
    104: "policy.h",
    105: "encap.h",
    106: "l3.h",
    107: "eps.h",
    108: "eth.h",
}


def source_file_name(number: int) -> str:
    """`bpf_lxc.c` for 2; `unknown(<number>)` for a number this build does not know."""
    return SOURCE_FILES.get(number, f"unknown({number})")
