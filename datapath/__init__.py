"""The kernel boundary: BPF objects, maps, netlink, perf rings. Only this package imports bcc or netlink."""
