"""What a process is told by the one that starts it: a dataclass, handed over as one JSON object.

Pure. Not the configuration that people write (`agent.config`). Input: the text of `--config-json`; output:
the dataclass, or an InvalidInputError that names the key. What a value may be besides its type is not
known here.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, fields
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, TypeVar

from palomar.errors import InvalidInputError

PATH = "config-json"
_TEXTS = tuple[str, ...]
NO_READERS: Mapping[str, Callable[[Any], Any]] = MappingProxyType({})


class Dataclass(Protocol):
    """Any dataclass whose fields are texts, whole numbers, tuples of texts, or have a reader."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


T = TypeVar("T", bound=Dataclass)


def decode(cls: type[T], text: str, readers: Mapping[str, Callable[[Any], Any]] = NO_READERS) -> T:
    """Read what `encode` wrote; a key may be missing where its field has a default.

    `readers` make the values of fields that are none of these types, by name.
    Raises InvalidInputError at a key that is unknown, missing or of the wrong type.
    """
    try:
        values = json.loads(text)
    except ValueError as error:
        raise InvalidInputError(f"no JSON: {error}", PATH) from error
    if not isinstance(values, dict):
        raise InvalidInputError("not a JSON object", PATH)
    known = {field.name: field for field in fields(cls)}
    for key in values:
        if key not in known:
            raise InvalidInputError(f"unknown key; known are {', '.join(known)}", key)
    for key, field in known.items():
        if field.default is MISSING and key not in values:
            raise InvalidInputError("missing", key)
    for key, value in values.items():
        reader = readers.get(key)
        values[key] = reader(value) if reader else _value(key, value, known[key].type)
    return cls(**values)


def encode(config: Dataclass) -> str:
    """Return the JSON object that `decode` reads."""
    return json.dumps(asdict(config))


def _value(key: str, value: Any, kind: Any) -> Any:
    if kind == _TEXTS:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise InvalidInputError("not a list of texts", key)
        return tuple(value)
    if isinstance(value, bool) or not isinstance(value, kind):
        raise InvalidInputError(f"{value!r} is of the wrong type", key)
    return value
