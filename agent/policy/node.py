"""Reading a document with its path: every mistake is noted where it is, and reading goes on.

What it is: a cursor over a tree of dict, list and scalars that knows its path and collects problems.
What it is not: knowledge of policies; that is in the parse modules that use it.
"""

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.policy.errors import PolicyProblem

NOT_ENFORCED = "not enforced yet"

_PLAIN = re.compile(r"^[A-Za-z0-9_-]+$")


@dataclass(slots=True)
class Report:
    """What was found wrong so far, and what a person should know."""

    policy: str = ""
    problems: list[PolicyProblem] = field(default_factory=list)
    warnings: list[PolicyProblem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Node:
    """A value of the document and where it is."""

    value: Any
    path: str
    report: Report

    def error(self, message: str) -> None:
        """Note that this value is wrong."""
        self.report.problems.append(PolicyProblem(self.path, message, self.report.policy))

    def warn(self, message: str) -> None:
        """Note something that is allowed but probably not meant."""
        self.report.warnings.append(PolicyProblem(self.path, message, self.report.policy))

    def child(self, name: str) -> "Node":
        """Return the value under `name` of a mapping."""
        path = f"{self.path}.{name}" if self.path else name
        if not _PLAIN.match(name):
            path = f"{self.path}[{name!r}]"
        return Node(self.value[name], path, self.report)

    def fields(
        self,
        known: Collection[str],
        *,
        not_enforced: Collection[str] = (),
        nullable: Collection[str] = (),
        forbidden: Mapping[str, str] | None = None,
    ) -> dict[str, "Node"]:
        """Return the known fields of a mapping; every other one is an error with its path.

        `not_enforced` are fields that exist but have no effect yet, `forbidden` those that have no place
        here, with the reason. A field that is null is an error unless it is `nullable`, which is then
        absent: an empty `fromEndpoints:` would otherwise open a rule to everybody.
        """
        found = {}
        for name, child in self.entries().items():
            if name in known:
                if child.value is None:
                    if name not in nullable:
                        child.error("is null: give it a value or leave it out")
                else:
                    found[name] = child
            elif name in not_enforced:
                child.error(NOT_ENFORCED)
            elif forbidden and name in forbidden:
                child.error(forbidden[name])
            else:
                near = nearest(name, [*known, *not_enforced])
                child.error(f"unknown field: did you mean {near}?" if near else "unknown field")
        return found

    def entries(self) -> dict[str, "Node"]:
        """Return every entry of a mapping; anything else is an error and has none."""
        if not isinstance(self.value, dict):
            self.error(f"must be a mapping, not {describe(self.value)}")
            return {}
        found = {}
        for name in self.value:
            if isinstance(name, str):
                found[name] = self.child(name)
            else:
                self.error(f"key {name!r} must be text: put it in quotes")
        return found

    def items(self, max_items: int = 0) -> list["Node"]:
        """Return the items of a list; anything else is an error and has none."""
        if not isinstance(self.value, list):
            self.error(f"must be a list, not {describe(self.value)}")
            return []
        if max_items and len(self.value) > max_items:
            self.error(f"has {len(self.value)} items: at most {max_items}")
        return [Node(value, f"{self.path}[{index}]", self.report) for index, value in enumerate(self.value)]

    def text(self) -> str | None:
        """Return a text; anything else is an error and None."""
        if isinstance(self.value, str):
            return self.value
        hint = ""
        if isinstance(self.value, bool | int | float):
            hint = ": put it in quotes"
        self.error(f"must be text, not {describe(self.value)}{hint}")
        return None

    def boolean(self) -> bool | None:
        """Return true or false; anything else is an error and None."""
        if isinstance(self.value, bool):
            return self.value
        self.error(f"must be true or false, not {describe(self.value)}")
        return None

    def integer(self, low: int, high: int) -> int | None:
        """Return a whole number from `low` to `high`; anything else is an error and None."""
        if not isinstance(self.value, int) or isinstance(self.value, bool):
            self.error(f"must be a number, not {describe(self.value)}")
            return None
        if not low <= self.value <= high:
            self.error(f"{self.value} is not between {low} and {high}")
            return None
        return self.value

    def choice(self, choices: Collection[str]) -> str | None:
        """Return a text that is one of `choices`; anything else is an error and None."""
        text = self.text()
        if text is None or text in choices:
            return text
        near = nearest(text, choices)
        hint = f"did you mean {near}?" if near else f"one of {', '.join(choices)}"
        self.error(f"unknown value {text!r}: {hint}")
        return None


def nearest(text: str, choices: Collection[str]) -> str | None:
    """Return the choice that was probably meant; None where none is near."""
    same = [choice for choice in choices if choice.casefold() == text.casefold()]
    return next(iter(same or difflib.get_close_matches(text, choices, n=1)), None)


def describe(value: object) -> str:
    """Say what a value is, in the document's words."""
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text {value[:60]!r}"
    return f"the value {value!r}"
