"""Field masks: which parts of a `flow.Flow` a client wants.

Pure. Input: a request's google.protobuf.FieldMask; output: a tree that says per field whether it is
wanted whole, in parts, or not. Used by `hubble.flowbuilder`, which skips what nobody asked for.
"""

from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.empty_pb2 import Empty
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from palomar.errors import InvalidInputError
from palomar_pb.flow import flow_pb2
from palomar_pb.observer import observer_pb2
from palomar_pb.palomar.v1.flow_ext_pb2 import FlowExtension

EXPERIMENTAL_MASK = 1
"""Number that `GetFlowsRequest.Experimental` has reserved for what it once was."""

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


def flow_mask(request: observer_pb2.GetFlowsRequest) -> FlowMask | None:
    """Return what `request` wants of a flow; None for everything, our extension among it.

    `Flow.extensions` holds a message of a type that only our own clients know, and JSON encoders of protobuf
    fail on an unknown one. It is left out of a flow for a client that names no fields and whose request says
    in its own `extensions` that it understands something else, or nothing (see `say_nothing_understood`).
    Raises InvalidInputError naming the path that is not one of flow.Flow.
    """
    mask = compile_mask(requested_mask(request))
    if mask is not None or not request.HasField("extensions"):
        return mask
    return None if request.extensions.Is(FlowExtension.DESCRIPTOR) else PUBLIC_MASK


def say_nothing_understood(request: observer_pb2.GetFlowsRequest) -> None:
    """Note in a `request` of the public service that its client knows that alone, unless it says."""
    if not request.HasField("extensions"):
        request.extensions.Pack(Empty())


def requested_mask(request: observer_pb2.GetFlowsRequest) -> FieldMask:
    """Return the mask of `request`, wherever its client has put it.

    Before there was `field_mask`, clients (Cilium up to 1.18) sent the same message as field 1 of
    `experimental`, where the API now has a reserved number. Raises InvalidInputError for one that is none.
    """
    if request.field_mask.paths:
        return request.field_mask
    extra = UnknownFieldSet(request.experimental)
    for field in (extra[index] for index in range(len(extra))):
        if field.field_number == EXPERIMENTAL_MASK and isinstance(field.data, bytes):
            try:
                return FieldMask.FromString(field.data)
            except DecodeError as error:
                raise InvalidInputError("no field mask", "experimental.field_mask") from error
    return request.field_mask


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


PUBLIC_MASK = FlowMask({name: {} for name in flow_pb2.Flow.DESCRIPTOR.fields_by_name if name != "extensions"})
"""Every field of a flow but `extensions`."""


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
