"""What can be wrong with a policy document: every problem with its path, all of them at once."""

from collections.abc import Sequence
from dataclasses import dataclass

from palomar.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class PolicyProblem:
    """One thing that is wrong, or (as a warning) one that a person should know of."""

    path: str
    """Where in the document: `spec.ingress[0].toPorts[1].rules.http`; empty: the document as a whole."""
    message: str
    policy: str = ""
    """Which document: `demo/allow-web`, or `document 2` where it has no name."""

    def __str__(self) -> str:
        """`demo/allow-web: spec.ingress[0].fromCIDR[0]: ...`."""
        return ": ".join(part for part in (self.policy, self.path, self.message) if part)


class InvalidPolicyError(InvalidInputError):
    """A policy text was refused as a whole; `problems` holds every reason, in document order."""

    def __init__(self, problems: Sequence[PolicyProblem]) -> None:
        """Carry at least one problem; the text has a line for each."""
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))
        self.path = self.problems[0].path
