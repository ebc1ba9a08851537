"""Colours of text output: one function per kind of word; without colour each is the identity.

Pure. Whether to colour is decided by the command (`--color`, terminal, NO_COLOR).
"""

from collections.abc import Callable
from dataclasses import dataclass

Paint = Callable[[str], str]


def _plain(text: str) -> str:
    return text


def _sgr(code: str) -> Paint:
    def paint(text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if text else text

    return paint


@dataclass(frozen=True, slots=True)
class Palette:
    """Who paints what."""

    host: Paint = _plain
    port: Paint = _plain
    identity: Paint = _plain
    good: Paint = _plain
    """FORWARDED, ALLOWED."""
    bad: Paint = _plain
    """DROPPED, DENIED, losses."""
    notable: Paint = _plain
    """AUDIT, REDIRECTED, what is neither."""
    policy: Paint = _plain

    def verdict(self, text: str) -> str:
        """Paint a verdict by what it says."""
        word = text.partition(" ")[0]
        if word in ("FORWARDED", "ALLOWED"):
            return self.good(text)
        if word in ("DROPPED", "DENIED", "ERROR"):
            return self.bad(text)
        return self.notable(text)


PLAIN = Palette()
COLOURED = Palette(
    host=_sgr("36"),
    port=_sgr("33"),
    identity=_sgr("35"),
    good=_sgr("32"),
    bad=_sgr("31"),
    notable=_sgr("33"),
    policy=_sgr("34"),
)
