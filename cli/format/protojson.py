"""Messages as one line of JSON, as the field's tools write and read it.

Pure. Proto field names in declaration order, enums by name, 64-bit integers as strings, defaults
left out, well-known types in their short forms. Not `google.protobuf.json_format`, which orders by field
number. Unknown enum numbers are written as numbers.
"""

import base64
import json
import math
from collections.abc import Callable
from operator import itemgetter
from typing import Any

from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

_WIDE = frozenset(
    {
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_UINT64,
        FieldDescriptor.TYPE_SINT64,
        FieldDescriptor.TYPE_FIXED64,
        FieldDescriptor.TYPE_SFIXED64,
    }
)
_WRAPPERS = frozenset(
    f"google.protobuf.{name}Value"
    for name in ("Bool", "Int32", "UInt32", "Int64", "UInt64", "String", "Bytes", "Float", "Double")
)

_PLAIN_BELOW = 1e21
"""Larger whole numbers are written with an exponent."""

Plan = dict[int, tuple[int, str, Callable[[Any], Any]]]
"""By field number: place in the declaration, name, how its value is written."""


class JsonFormat:
    """An encoder that remembers how each message type is written."""

    def __init__(self) -> None:
        """Start with no plans; they are made on first sight of a type."""
        self._plans: dict[str, Plan] = {}

    def line(self, message: Message) -> str:
        """Return `message` as one line of JSON."""
        return json.dumps(self.tree(message), ensure_ascii=False, separators=(",", ":"))

    def tree(self, message: Message) -> Any:
        """Return `message` as dicts, lists and scalars in the order they are written."""
        descriptor = message.DESCRIPTOR
        special = self._special(descriptor, message)
        if special is not None:
            return special[0]
        plan = self._plans.get(descriptor.full_name)
        if plan is None:
            plan = self._plans[descriptor.full_name] = self._plan(descriptor)
        found = []
        for field, value in message.ListFields():
            place, name, encode = plan[field.number]
            found.append((place, name, encode(value)))
        found.sort(key=itemgetter(0))
        return {name: value for _, name, value in found}

    def _plan(self, descriptor: Any) -> Plan:
        return {
            field.number: (
                place,
                field.name,
                _each(self._encoder(field)) if field.is_repeated else self._encoder(field),
            )
            for place, field in enumerate(descriptor.fields)
        }

    def _encoder(self, field: Any) -> Callable[[Any], Any]:
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            return self.tree
        if field.type == FieldDescriptor.TYPE_ENUM:
            names = {value.number: value.name for value in reversed(field.enum_type.values)}
            return lambda number: names.get(number, number)
        if field.type in _WIDE:
            return str
        if field.type in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
            return _real
        if field.type == FieldDescriptor.TYPE_BYTES:
            return lambda data: base64.b64encode(data).decode()
        return lambda value: value

    def _special(self, descriptor: Any, message: Any) -> tuple[Any] | None:
        """Return the short form of a well-known type, in a tuple; None for any other."""
        name = descriptor.full_name
        if not name.startswith("google.protobuf."):
            return None
        if name == "google.protobuf.Timestamp":
            return (message.ToJsonString(),)
        if name in _WRAPPERS:
            return (self._encoder(descriptor.fields[0])(message.value),)
        if name == "google.protobuf.Any":
            return (_any(message),)
        return (json_format.MessageToDict(message, preserving_proto_field_name=True),)


def _any(message: AnyMessage) -> dict[str, Any]:
    """Return what a message of any type says; one of a type that is not known here as its bytes."""
    try:
        return json_format.MessageToDict(message, preserving_proto_field_name=True)
    except (TypeError, DecodeError):
        return {"@type": message.type_url, "value": base64.b64encode(message.value).decode()}


def _real(value: float) -> float | int | str:
    """Return a number without `.0`; JSON has no other way to write what is none."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"
    return int(value) if value.is_integer() and abs(value) < _PLAIN_BELOW else value


def _each(encode: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda values: [encode(value) for value in values]
