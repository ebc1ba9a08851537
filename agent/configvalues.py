"""Readers of single configuration values: a text (flag, environment) or a YAML value in, the typed value out.

Pure. Not what values mean to one another (`agent.config`). Each raises ValueError whose text says what was
found and what to write instead.
"""

import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_MIN_MTU = 1280


def text(value: Any) -> str:
    """Return one text without spaces around it."""
    if isinstance(value, list | dict | tuple):
        raise ValueError(f"{value!r} is not one value: write it once")
    return "" if value is None else str(value).strip()


def name(value: Any) -> str:
    """Return the name of a node or cluster: it becomes part of key paths and of flows' node names."""
    found = text(value)
    if not _NAME.fullmatch(found):
        raise ValueError(f"{found!r} is no name: use letters, digits, dots, dashes and underscores")
    return found


def ipv4(value: Any) -> IPv4Address:
    """Return an IPv4 address that a host can have."""
    try:
        found = IPv4Address(text(value))
    except ValueError as error:
        raise ValueError(f"{value!r} is no IPv4 address: write like 192.0.2.1") from error
    if found.is_unspecified or found.is_multicast or int(found) == 0xFFFFFFFF:
        raise ValueError(f"{found} is no address of a host: write like 192.0.2.1")
    return found


def network(value: Any) -> IPv4Network:
    """Return an IPv4 network without host bits."""
    found = text(value)
    try:
        loose = IPv4Network(found, strict=False)
    except ValueError as error:
        raise ValueError(f"{found!r} is no IPv4 network: write like 10.1.0.0/24") from error
    if "/" not in found or str(loose.network_address) != found.partition("/")[0]:
        raise ValueError(f"{found} is an address within a network: write {loose}")
    return loose


def number(least: int, most: int) -> Callable[[Any], int]:
    """Return a reader of whole numbers from `least` to `most`."""

    def read(value: Any) -> int:
        found = text(value)
        if isinstance(value, bool) or not re.fullmatch(r"-?[0-9]+", found) or not least <= int(found) <= most:
            raise ValueError(f"{found!r} is no number from {least} to {most}")
        return int(found)

    return read


def mtu(value: Any) -> int:
    """Return 0 or an MTU."""
    found = number(0, 65535)(value)
    if 0 < found < _MIN_MTU:
        raise ValueError(f"{found} is below {_MIN_MTU}: write 0 to derive it from the underlay's device")
    return found


def boolean(value: Any) -> bool:
    """Return true or false."""
    found = text(value).lower()
    if found not in ("true", "false"):
        raise ValueError(f"{found!r} is neither true nor false")
    return found == "true"


class OneOf:
    """A reader of one of `words`."""

    def __init__(self, *words: str) -> None:
        """An empty word may be left out."""
        self.words = words

    def __call__(self, value: Any) -> str:
        """Return the word."""
        found = text(value).lower()
        if found not in self.words:
            raise ValueError(f"{found!r} is none of {', '.join(self.words)}")
        return found


def path(value: Any) -> Path:
    """Return an absolute path."""
    found = text(value)
    if not found.startswith("/") or "\0" in found:
        raise ValueError(f"{found!r} is no absolute path: start it with /")
    return Path(found)


def optional_path(value: Any) -> Path | None:
    """Return an absolute path; None for an empty text."""
    return path(value) if text(value) else None


def texts(value: Any) -> tuple[str, ...]:
    """Return the parts of a comma-separated text or of a list."""
    parts = value if isinstance(value, list | tuple) else [value]
    return tuple(part.strip() for item in parts for part in text(item).split(",") if part.strip())


def label_map(value: Any) -> tuple[tuple[str, str], ...]:
    """Return (key, value) pairs of a mapping or of `key=value,...`, sorted."""
    if isinstance(value, dict):
        return tuple(sorted((text(key), text(item)) for key, item in value.items()))
    pairs = {}
    for part in texts(value):
        key, equals, item = part.partition("=")
        if not key or not equals:
            raise ValueError(f"{part!r} is no label: write key=value")
        pairs[key.strip()] = item.strip()
    return tuple(sorted(pairs.items()))


def listen_address(value: Any) -> tuple[str, int] | None:
    """Return (host, port) of `host:port`; `:port` is loopback; None for an empty text."""
    found = text(value)
    if not found:
        return None
    host, colon, port = found.rpartition(":")
    try:
        return (host or "127.0.0.1", number(1, 65535)(port)) if colon else _not_listening(found)
    except ValueError as error:
        raise ValueError(f"{found!r} is no listening address: write like 127.0.0.1:9962") from error


def _not_listening(found: str) -> tuple[str, int]:
    raise ValueError(found)
