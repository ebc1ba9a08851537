"""The pinned maps of a node with typed keys and values: one module for each concept header of bpf/lib.

Not their layout (`datapath.abi`) and not the programs. The agent's reconcilers write here, the CLI reads,
programs do both. Updates and deletes are idempotent; a failed one raises `MapError`, which may be retried.
"""
