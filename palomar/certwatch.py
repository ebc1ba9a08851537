"""Telling in time that a certificate runs out: state for status and metrics, a warning in the log.

Input: certificate files and a clock; output: an Expiry per file and log lines. It renews nothing
(`palomar certs renew` does) and opens no connection. `check` is cheap: call it every minute.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from palomar import certs
from palomar.certdir import CertFile, examine
from palomar.clock import Clock

logger = logging.getLogger(__name__)

CHECK_S = 60.0
REPEAT_NS = 3_600 * 1_000_000_000
"""A standing problem is logged again after this."""


@dataclass(frozen=True, slots=True)
class Expiry:
    """How one certificate stands."""

    file: str
    subject: str
    not_after: str
    """`2026-11-21T08:00:00Z`; empty for a file that is no certificate."""
    seconds_left: float
    """Negative after its end; 0 for a file that is no certificate."""
    problem: str
    """Why it does not serve, or that it is due; empty while all is well."""


class CertificateWatch:
    """Watches some certificate files."""

    def __init__(self, files: Iterable[Path], clock: Clock) -> None:
        """`files` are PEM certificates: one's own and the CA's."""
        self._files = tuple(dict.fromkeys(files))
        self._clock = clock
        self._told: dict[Path, tuple[str, int]] = {}

    def check(self) -> list[Expiry]:
        """Look at every file; log what is wrong or due, at once and then hourly."""
        now = certs.utc(self._clock.wall_ns())
        expiries = []
        for path in self._files:
            found = examine(path, now)
            if found.info is None:
                expiries.append(Expiry(str(path), "", "", 0.0, found.problem))
            else:
                left_s = (found.info.not_after - now).total_seconds()
                problem = found.problem or ("due for renewal" if found.due else "")
                not_after = certs.iso(found.info.not_after)
                expiries.append(Expiry(str(path), found.info.subject, not_after, left_s, problem))
            self._tell(path, found, expiries[-1])
        return expiries

    def _tell(self, path: Path, found: CertFile, expiry: Expiry) -> None:
        if not expiry.problem:
            self._told.pop(path, None)
            return
        kind = "due" if found.info is not None and not found.problem else expiry.problem
        before, at_ns = self._told.get(path, ("", 0))
        now_ns = self._clock.monotonic_ns()
        if kind == before and now_ns - at_ns < REPEAT_NS:
            return
        self._told[path] = (kind, now_ns)
        facts = {
            "file": expiry.file,
            "subject": expiry.subject,
            "not_after": expiry.not_after,
            "problem": expiry.problem,
            "remedy": "palomar certs renew",
        }
        if found.info is not None and found.info.is_ca:
            facts["remedy"] = "palomar certs rotate-ca"
        if kind == "due":
            logger.warning("certificate is due: renew it", extra=facts)
        else:
            logger.error("certificate does not serve: renew it", extra=facts)
