"""Which labels are security-relevant: they make the identity, the others only describe.

A filter is a list of patterns `[!][source:]pattern`; the pattern is a regular expression that must match from
the key's first character, `!` excludes. Without inclusive patterns of the user's own every label counts that
is not excluded. With them only what an inclusive pattern matches, the defaults' included. Where both match,
the longer match wins. Pure.
Source of the defaults: the field's documentation of identity-relevant labels.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from agent.identity.errors import InvalidLabelFilterError
from palomar.labels import CLUSTER_KEY, NAMESPACE_KEY, SOURCES, Label, LabelSet

DEFAULT_PATTERNS = (
    "reserved:.*",
    re.escape(NAMESPACE_KEY),
    r"io\.cilium\.k8s\.namespace\.labels",
    r"app\.kubernetes\.io",
    re.escape(CLUSTER_KEY),
    r"!io\.kubernetes",
    r"!kubernetes\.io",
    r"!statefulset\.kubernetes\.io/pod-name",
    r"!apps\.kubernetes\.io/pod-index",
    r"!batch\.kubernetes\.io/job-completion-index",
    r"!batch\.kubernetes\.io/controller-uid",
    r"!.*beta\.kubernetes\.io",
    r"!k8s\.io",
    "!pod-template-generation",
    "!pod-template-hash",
    "!controller-revision-hash",
    "!annotation.*",
    "!controller-uid",
    "!etcd_node",
)
"""Always in force, before the user's own; they alone do not make the filter inclusive."""


@dataclass(frozen=True, slots=True)
class LabelPattern:
    """One item of a filter."""

    pattern: re.Pattern[str]
    source: str
    """Empty: every source."""
    excludes: bool

    def match_length(self, label: Label) -> int | None:
        """How many characters of the key match from its start; None where they do not."""
        if self.source and self.source != label.source:
            return None
        found = self.pattern.match(label.key)
        return None if found is None else found.end()


class LabelFilter:
    """The defaults and the user's own patterns."""

    def __init__(self, items: Iterable[str] = ()) -> None:
        """Read the user's items; raises InvalidLabelFilterError for one that cannot be read."""
        own = [parse_pattern(item) for item in items if item]
        self.patterns = (*(parse_pattern(item) for item in DEFAULT_PATTERNS), *own)
        self._only_included = any(not pattern.excludes for pattern in own)

    def is_relevant(self, label: Label) -> bool:
        """Tell whether the label is part of the identity."""
        included, excluded = 0, 0
        for pattern in self.patterns:
            length = pattern.match_length(label)
            if length is None:
                continue
            if pattern.excludes:
                excluded = min(excluded, length) if excluded else length
            else:
                included = max(included, length)
        return included > excluded or (not self._only_included and excluded == 0)

    def split(self, labels: Iterable[Label]) -> tuple[LabelSet, LabelSet]:
        """Return (labels of the identity, labels for information)."""
        relevant: list[Label] = []
        other: list[Label] = []
        for label in labels:
            (relevant if self.is_relevant(label) else other).append(label)
        return LabelSet(relevant), LabelSet(other)


def parse_pattern(item: str) -> LabelPattern:
    """Read `[!][source:]pattern`, also `source:!pattern`; raises InvalidLabelFilterError."""
    text = item.removeprefix("!")
    head, colon, tail = text.partition(":")
    source, text = (head, tail) if colon and head in SOURCES else ("", text)
    excludes = item.startswith("!") or text.startswith("!")
    text = text.removeprefix("!")
    if not text:
        raise InvalidLabelFilterError(item, "the pattern is empty")
    try:
        return LabelPattern(re.compile(text), source, excludes)
    except re.error as error:
        raise InvalidLabelFilterError(item, f"not a regular expression ({error})") from error
