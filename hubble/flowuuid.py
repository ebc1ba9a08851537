"""The uuid of a flow: computed from where it is stored, so asking twice gives the same.

Pure. A version 8 UUID (RFC 9562, section 5.8): 60 bits name the store, 62 bits are the position in it.
Used by `hubble.flowbuilder` to write and by `hubble.filters` to find a flow without searching.
"""

import uuid
from typing import NewType

from palomar.errors import InvalidInputError

StoreId = NewType("StoreId", int)
"""60 bits that no other store has."""

STORE_ID_MASK = (1 << 60) - 1
_POSITION_MASK = (1 << 62) - 1
_VARIANT = 1 << 63
_VERSION = 8
LENGTH = 36
"""Characters of a uuid."""


def prefix(store: StoreId) -> str:
    """The first 19 characters of every uuid of `store`: `xxxxxxxx-xxxx-8xxx-`."""
    digits = f"{store & STORE_ID_MASK:015x}"
    return f"{digits[:8]}-{digits[8:12]}-{_VERSION}{digits[12:]}-"


def tail(position: int) -> bytes:
    """The other 17 characters, for the flow at `position`."""
    low = _VARIANT | position
    return b"%04x-%012x" % (low >> 48, low & 0xFFFFFFFFFFFF)


def parse(value: str) -> tuple[StoreId, int] | None:
    """The store and position in `value`; None for a UUID that is not of this kind.

    Raises InvalidInputError for what is not a UUID.
    """
    try:
        number = uuid.UUID(value)
    except ValueError as error:
        raise InvalidInputError(f"{value!r} is not a UUID") from error
    if number.version != _VERSION:
        return None
    high, low = number.int >> 64, number.int & ((1 << 64) - 1)
    store = (high >> 16) << 12 | (high & 0xFFF)
    return StoreId(store), low & _POSITION_MASK
