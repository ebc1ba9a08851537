"""One module per command: `add_parser(subparsers)` describes it, `run(args) -> int` does it.

Modules here import at their top only what `--help` needs; protobuf, grpc, yaml and the kernel's maps
are loaded inside `run`.
"""
