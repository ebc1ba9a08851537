"""Labels: `source:key=value`, the names that identities and selectors are made of.

Pure. Sources in use: k8s, container, reserved, cidr, any (matches every source), unspec (written
without a source). A label set has one canonical text, sorted by key, which is the key under which an
identity is shared between nodes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from palomar.errors import InvalidInputError

NAMESPACE_KEY = "io.kubernetes.pod.namespace"
CLUSTER_KEY = "io.cilium.k8s.policy.cluster"

SOURCES = frozenset(
    {"unspec", "any", "k8s", "container", "cni", "reserved", "cidr", "cidrgroup", "node", "fqdn"}
)
MAX_LABEL_CHARS = 1024


@dataclass(frozen=True, slots=True, order=True)
class Label:
    """One label; `value` is empty for `reserved:host` and the like."""

    key: str
    source: str
    value: str = ""

    def __str__(self) -> str:
        """`k8s:app=web`, or `reserved:host` when there is no value."""
        return f"{self.source}:{self.key}={self.value}" if self.value else f"{self.source}:{self.key}"


def parse(text: str, default_source: str = "k8s") -> Label:
    """Read `source:key=value`, `key=value` or `source:key`; raise InvalidInputError otherwise."""
    if len(text) > MAX_LABEL_CHARS:
        raise InvalidInputError(f"label of {len(text)} characters: at most {MAX_LABEL_CHARS}")
    name, _, value = text.partition("=")
    head, colon, tail = name.partition(":")
    source, key = (head, tail) if colon and head in SOURCES else (default_source, name)
    if not key:
        raise InvalidInputError(f"label {text!r} has no key: write [source:]key[=value]")
    if any(c in ";\n\r\0" for c in text):
        raise InvalidInputError(f"label {text!r} holds one of ; newline NUL, which labels cannot")
    return Label(key=key, source=source, value=value)


class LabelSet:
    """An immutable set of labels, unique by source and key, iterated in canonical order."""

    __slots__ = ("_by_name", "_labels", "_text")

    def __init__(self, labels: Iterable[Label] = ()) -> None:
        """Keep the last of two labels with the same source and key."""
        self._by_name = {(label.source, label.key): label for label in labels}
        self._labels = tuple(sorted(self._by_name.values()))
        self._text = "".join(f"{label.source}:{label.key}={label.value};" for label in self._labels)

    @classmethod
    def parse(cls, texts: Iterable[str], default_source: str = "k8s") -> "LabelSet":
        """Build from texts as `parse` reads them."""
        return cls(parse(text, default_source) for text in texts)

    @classmethod
    def from_canonical(cls, text: str) -> "LabelSet":
        """Read what `canonical` wrote."""
        return cls(parse(part) for part in text.split(";") if part)

    def canonical(self) -> str:
        """`k8s:app=client;k8s:io.kubernetes.pod.namespace=default;` sorted by key."""
        return self._text

    def texts(self) -> list[str]:
        """Every label as text, in canonical order."""
        return [str(label) for label in self._labels]

    def get(self, key: str, source: str | None = None) -> str | None:
        """Value of `key`, of `source` or of any source; None where there is no such label."""
        if source is not None and source != "any":
            found = self._by_name.get((source, key))
            return None if found is None else found.value
        for label in self._labels:
            if label.key == key:
                return label.value
        return None

    def has_source(self, source: str) -> bool:
        """Tell whether any label has `source`."""
        return any(label.source == source for label in self._labels)

    def __iter__(self) -> Iterator[Label]:
        """Iterate in canonical order."""
        return iter(self._labels)

    def __len__(self) -> int:
        """Count the labels."""
        return len(self._labels)

    def __eq__(self, other: object) -> bool:
        """Equal when the canonical texts are."""
        return isinstance(other, LabelSet) and self._text == other._text

    def __hash__(self) -> int:
        """Hash of the canonical text."""
        return hash(self._text)

    def __repr__(self) -> str:
        """Show the canonical text."""
        return f"LabelSet({self._text!r})"
