"""The watched policy directory: files of CiliumNetworkPolicy documents, looked at twice a second.

What it is: which policies the files say now, with the errors of those that cannot be read. A bad file leaves
the policies of its last good version in force. What it is not: what becomes of them (`agent.policyset`).
Polling rather than inotify: it also sees network file systems and folders that come later, and a look at a
hundred unchanged files costs less than a millisecond.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.policy.api import Policy, PolicyName
from agent.policy.parse import ParsedPolicies
from palomar.errors import InvalidInputError

logger = logging.getLogger(__name__)

POLL_S = 0.5
SUFFIXES = (".yaml", ".yml", ".json")
MAX_FILE_BYTES = 4 << 20

Parse = Callable[[str], ParsedPolicies]
_Stamp = tuple[int, int, int]
"""Inode, size, modification time in ns: another content has another stamp."""


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """What is known of one file."""

    path: Path
    policies: tuple[Policy, ...] = ()
    """Of the last version that could be read."""
    warnings: tuple[str, ...] = ()
    error: str = ""
    """Why the newest version is not in force; empty: it is."""


class PolicyDirectory:
    """The folder and what its files say. Blocks: call `scan` in a thread."""

    def __init__(self, folder: Path, parse: Parse) -> None:
        """Nothing is read before `scan`."""
        self.folder = folder
        self.files: dict[Path, PolicyFile] = {}
        self.error = ""
        """Why the folder itself cannot be read; empty: it can."""
        self._parse = parse
        self._stamps: dict[Path, _Stamp] = {}

    def scan(self) -> bool:
        """Look at every file; tell whether anything is different from the last time."""
        before, error_before = dict(self.files), self.error
        stamps = self._list()
        if stamps is None:
            return self.error != error_before
        for path in self.files.keys() - stamps.keys():
            del self.files[path]
            logger.info("policy file removed", extra={"path": str(path)})
        for path, stamp in sorted(stamps.items()):
            if self._stamps.get(path) != stamp:
                self.files[path] = self._read(path)
        self._stamps = stamps
        return self.files != before or self.error != error_before

    def policies(self) -> tuple[dict[PolicyName, Policy], list[str]]:
        """Return the policies by name, and a line for each that two files claim: the first file has it."""
        found: dict[PolicyName, Policy] = {}
        owners: dict[PolicyName, Path] = {}
        conflicts = []
        for path in sorted(self.files):
            for policy in self.files[path].policies:
                if policy.name in found:
                    conflicts.append(
                        f"{path}: {policy.name} is in {owners[policy.name]} already, which stays in force"
                    )
                else:
                    found[policy.name] = policy
                    owners[policy.name] = path
        return found, conflicts

    def owner(self, name: PolicyName) -> Path | None:
        """Return the file that says this policy; None where none does."""
        return next(
            (
                path
                for path in sorted(self.files)
                if any(policy.name == name for policy in self.files[path].policies)
            ),
            None,
        )

    def _list(self) -> dict[Path, _Stamp] | None:
        stamps = {}
        try:
            for path in self.folder.iterdir():
                if path.suffix in SUFFIXES and not path.name.startswith("."):
                    try:
                        status = path.stat()
                    except FileNotFoundError:
                        continue
                    stamps[path] = (status.st_ino, status.st_size, status.st_mtime_ns)
        except OSError as error:
            message = f"{self.folder}: {error.strerror}: create it, or leave policy-dir out"
            if message != self.error:
                logger.warning("policy directory cannot be read", extra={"error": message})
            self.error = message
            # What was in force stays: a folder that is away for a moment must not open the network.
            return None
        self.error = ""
        return stamps

    def _read(self, path: Path) -> PolicyFile:
        before = self.files.get(path, PolicyFile(path))
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise InvalidInputError(f"is larger than {MAX_FILE_BYTES} bytes: split it")
            parsed = self._parse(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, InvalidInputError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            logger.error(
                "policy file not accepted, its last good version stays in force",
                extra={"path": str(path), "error": reason, "policies": len(before.policies)},
            )
            return PolicyFile(path, before.policies, before.warnings, f"{path}: {reason}")
        warnings = tuple(f"{path}: {warning}" for warning in parsed.warnings)
        for warning in warnings:
            logger.warning("policy file has a warning", extra={"warning": warning})
        logger.info("policy file read", extra={"path": str(path), "policies": len(parsed.policies)})
        return PolicyFile(path, parsed.policies, warnings)
