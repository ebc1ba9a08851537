"""Keys and values of the pinned maps as bytes: one module for each concept header of bpf/lib.

Pure: no kernel, no files. Outside this package addresses are `ipaddress` objects and ports host order;
inside, integers of the kernel are little endian (amd64, arm64) and addresses network order. Source of the
layouts: docs/abi.md; tests/datapath/abi compares each struct with the C one through BTF.
"""
