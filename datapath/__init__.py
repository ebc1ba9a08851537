"""The kernel boundary: BPF objects and maps, netlink, perf rings. The only package that imports bcc or netlink."""
