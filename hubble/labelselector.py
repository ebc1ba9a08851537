"""Label selectors: the text of `source_label`, `destination_label` and `node_labels` filters.

Pure. Reads the Kubernetes selector grammar (`app=web,tier in (a, b),!debug`) where a key may carry a
label source (`k8s:app`); without one, a label of any source will do. Not the selectors of policies,
which come as objects. Used by `hubble.filters`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from palomar import labels
from palomar.errors import InvalidInputError
from palomar.labels import LabelSet


class Operator(Enum):
    """What a requirement asks of the label with its key."""

    IN = "in"
    NOT_IN = "notin"
    EXISTS = "exists"
    NOT_EXISTS = "!"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One term of a selector. A label that is not there satisfies NOT_IN and NOT_EXISTS."""

    source: str
    """A label source, or `any`."""
    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def matches(self, label_set: LabelSet) -> bool:
        """Tell whether the labels with this key satisfy the requirement."""
        found = [
            label.value
            for label in label_set
            if label.key == self.key and self.source in ("any", label.source)
        ]
        match self.operator:
            case Operator.EXISTS:
                return bool(found)
            case Operator.NOT_EXISTS:
                return not found
            case Operator.IN:
                return any(value in self.values for value in found)
            case Operator.NOT_IN:
                return all(value not in self.values for value in found)


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """A conjunction of requirements."""

    requirements: tuple[Requirement, ...]

    def matches(self, label_set: LabelSet) -> bool:
        """Tell whether every requirement holds."""
        return all(requirement.matches(label_set) for requirement in self.requirements)


_WORD = r"[^\s,()!=<>]+"
_TERM = re.compile(
    rf"""\s*(?:
      (?P<not>!)\s*(?P<absent>{_WORD})
    | (?P<set_key>{_WORD})\s+(?P<set_op>in|notin)\s*\((?P<set_values>[^()]*)\)
    | (?P<eq_key>{_WORD})\s*(?P<eq_op>==|=|!=)\s*(?P<eq_value>(?:{_WORD})?)
    | (?P<present>{_WORD})
    )\s*(?P<end>,|$)""",
    re.VERBOSE,
)


def parse(text: str) -> LabelSelector:
    """Read a selector; raise InvalidInputError that quotes the part that cannot be read.

    One without terms selects everything, as in Kubernetes.
    """
    if not text.strip():
        return LabelSelector(())
    requirements: list[Requirement] = []
    position = 0
    while True:
        term = _TERM.match(text, position)
        if term is None:
            rest = text[position:].strip() or "nothing"
            raise InvalidInputError(
                f"label selector {text!r}: cannot read {rest!r}; write key=value, key!=value, "
                "key in (a, b), key notin (a, b), key or !key, separated by commas"
            )
        requirements.append(_requirement(term, text))
        position = term.end()
        if term["end"] != ",":
            return LabelSelector(tuple(requirements))


def _requirement(term: re.Match[str], text: str) -> Requirement:
    if term["not"]:
        return Requirement(*_key(term["absent"]), Operator.NOT_EXISTS)
    if term["set_op"]:
        values = frozenset(value.strip() for value in term["set_values"].split(","))
        if any(re.fullmatch(_WORD, value) is None for value in values - {""}):
            raise InvalidInputError(f"label selector {text!r}: bad value in ({term['set_values']})")
        operator = Operator.IN if term["set_op"] == "in" else Operator.NOT_IN
        return Requirement(*_key(term["set_key"]), operator, values)
    if term["eq_op"]:
        operator = Operator.NOT_IN if term["eq_op"] == "!=" else Operator.IN
        return Requirement(*_key(term["eq_key"]), operator, frozenset({term["eq_value"]}))
    return Requirement(*_key(term["present"]), Operator.EXISTS)


def _key(text: str) -> tuple[str, str]:
    """Split `k8s:app` into source and key; without a source the source is `any`."""
    label = labels.parse(text, default_source="any")
    return label.source, label.key


def matches_any(selectors: Iterable[LabelSelector], label_set: LabelSet) -> bool:
    """Tell whether one of `selectors` selects `label_set`."""
    return any(selector.matches(label_set) for selector in selectors)
