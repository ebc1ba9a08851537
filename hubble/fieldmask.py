"""Field masks: which parts of a `flow.Flow` a client wants.

Pure. Input: the paths of a google.protobuf.FieldMask; output: a tree that says per field whether it is
wanted whole, in parts, or not. Used by `hubble.flowbuilder`, which skips what nobody asked for.
"""

from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from palomar.errors import InvalidInputError
from palomar_pb.flow import flow_pb2

Tree = dict[str, Any]
"""Field name to the Tree of its wanted parts; an empty Tree is the whole field."""


@dataclass(frozen=True, slots=True)
class FlowMask:
    """The wanted fields of a flow."""

    tree: Tree

    def wants(self, name: str) -> bool:
        """Tell whether anything of the top-level field `name` is wanted."""
        return name in self.tree

    def parts(self, name: str) -> Tree:
        """The wanted parts of `name`; empty for all of it."""
        parts: Tree = self.tree[name]
        return parts


def compile_mask(mask: FieldMask) -> FlowMask | None:
    """Read `mask`; None when it is empty (everything is wanted).

    Raises InvalidInputError naming the path that is not one of flow.Flow.
    """
    tree: Tree = {}
    for index, path in enumerate(mask.paths):
        _check(path, f"field_mask.paths[{index}]")
        node = tree
        *parents, last = path.split(".")
        for name in parents:
            if name in node and not node[name]:
                break  # the whole field is wanted already
            node = node.setdefault(name, {})
        else:
            node[last] = {}
    return FlowMask(tree) if tree else None


def trim(message: Message, tree: Tree) -> None:
    """Clear every field of `message` that `tree` does not want."""
    for field, value in message.ListFields():
        if field.name not in tree:
            message.ClearField(field.name)
        elif tree[field.name]:
            trim(value, tree[field.name])


def _check(path: str, where: str) -> None:
    descriptor: Descriptor | None = flow_pb2.Flow.DESCRIPTOR
    for name in path.split("."):
        field = None if descriptor is None else descriptor.fields_by_name.get(name)
        if field is None:
            raise InvalidInputError(f"flow.Flow has no field {path!r}", where)
        descriptor = None if field.is_repeated else field.message_type
