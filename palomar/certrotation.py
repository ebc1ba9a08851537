"""Replacing the authority itself, in three steps between which everybody goes on working.

    start    a second CA is made, and trusted: `ca.crt` holds both. The old one still signs.
    issue    the new one signs: every certificate of the directory is issued anew.
    finish   the old one leaves `ca.crt`: what it signed is not accepted any more.

Where a rotation stands is what lies in the directory, so a step that was broken off is simply done again:
`ca-next.key` waits from `start` until `issue` renames it to `ca.key`; several authorities in `ca.crt`
without it wait for `finish`. Time is an argument. The command is `palomar certs rotate-ca`.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path

from palomar import certs
from palomar.certdir import (
    KEY_SUFFIX,
    PRIVATE_MODE,
    PUBLIC_MODE,
    CertDirectory,
    CertDirError,
    CertFile,
)
from palomar.certs import LEAF_LIFETIME, KeyPair
from palomar.errors import InvalidInputError
from palomar.files import write_atomically

NEXT_KEY = "ca-next" + KEY_SUFFIX


class Stage(Enum):
    """What comes next."""

    START = "start"
    """No rotation is under way."""
    ISSUE = "issue"
    FINISH = "finish"


@dataclass(frozen=True, slots=True)
class RotationState:
    """Where a rotation stands."""

    next_step: Stage
    signer: str
    """Subject of the authority that signs."""
    others: tuple[str, ...]
    """Subjects of the other authorities in `ca.crt`: to come, or to leave."""
    pending: tuple[Path, ...]
    """Certificates that the authority which is to stay did not sign."""


class CaRotation:
    """The rotation of one directory's authority."""

    def __init__(self, directory: CertDirectory) -> None:
        """Nothing is read yet."""
        self._directory = directory
        self._next_key = directory.directory / NEXT_KEY

    def state(self, now: datetime) -> RotationState:
        """Look where it stands; InvalidInputError where there is no authority."""
        ca = self._directory.ca()
        successor = self._successor()
        others = [part for part in certs.split(self._bundle()) if part != ca.cert]
        step = Stage.FINISH if others else Stage.START
        if successor is not None:
            step = Stage.ISSUE
        staying = successor.cert if successor is not None else ca.cert
        return RotationState(
            step,
            certs.inspect(ca.cert).subject,
            tuple(certs.inspect(part).subject for part in others),
            tuple(found.path for found in self._leaves(now) if not self._is_by(found, staying)),
        )

    def start(self, now: datetime) -> RotationState:
        """Make a second authority and put both into `ca.crt`. Refused while a rotation is under way."""
        before = self.state(now)
        if before.next_step is not Stage.START:
            raise InvalidInputError(f"a rotation is under way: next is `rotate-ca {before.next_step.value}`")
        successor = certs.make_ca(now, name=f"Palomar CA {certs.iso(now)}")
        # The key first: with it alone nothing has begun.
        self._write(self._next_key, successor.key, PRIVATE_MODE)
        self._write_bundle(b"".join([*certs.split(self._bundle()), successor.cert]))
        return self.state(now)

    def issue(self, now: datetime) -> list[CertFile]:
        """Let the new authority sign, and issue every certificate anew; return the new files.

        One that cannot be issued is among them, with its `problem`.
        """
        before = self.state(now)
        if before.next_step is Stage.START:
            raise InvalidInputError("no rotation is under way: begin with `rotate-ca start`")
        old_ends = {certs.inspect(part).not_after for part in certs.split(self._bundle())}
        successor = self._successor()
        if successor is not None:
            try:
                self._next_key.replace(self._directory.ca_key)
            except OSError as error:
                raise CertDirError(self._next_key, error) from error
        ca = self._directory.ca()
        replaced = []
        for found in self._leaves(now):
            if not self._is_by(found, ca.cert):
                # What was cut short because its authority ends gets its full life again.
                cut = found.info is not None and found.info.not_after in old_ends
                replaced.append(self._directory.replace(found, ca, now, LEAF_LIFETIME if cut else None))
        return replaced

    def finish(self, now: datetime) -> RotationState:
        """Take the old authority out of `ca.crt`. Refused while a certificate here is still its."""
        before = self.state(now)
        if before.next_step is not Stage.FINISH:
            raise InvalidInputError(f"not yet: next is `rotate-ca {before.next_step.value}`")
        if before.pending:
            names = ", ".join(path.name for path in before.pending)
            raise InvalidInputError(
                f"not of the new authority yet: {names}: `rotate-ca issue`, or remove what nobody uses"
            )
        self._write_bundle(self._directory.ca().cert)
        return self.state(now)

    def _leaves(self, now: datetime) -> list[CertFile]:
        return [found for found in self._directory.entries(now) if found.path != self._directory.ca_file]

    def _is_by(self, found: CertFile, authority: bytes) -> bool:
        try:
            return certs.signed_by(found.path.read_bytes(), authority)
        except OSError:
            return False

    def _bundle(self) -> bytes:
        try:
            return self._directory.ca_file.read_bytes()
        except OSError as error:
            raise CertDirError(self._directory.ca_file, error) from error

    def _successor(self) -> KeyPair | None:
        """The authority that is to sign; None before `start` has come to its end, and after `issue`."""
        if not self._next_key.exists():
            return None
        try:
            key = self._next_key.read_bytes()
            return KeyPair(certs.signer(self._bundle(), key), key)
        except OSError as error:
            raise CertDirError(self._next_key, error) from error
        except InvalidInputError:
            return None  # `start` was broken off between its two files

    def _write_bundle(self, bundle: bytes) -> None:
        self._write(self._directory.ca_file, bundle, PUBLIC_MODE)

    def _write(self, path: Path, content: bytes, mode: int) -> None:
        try:
            write_atomically(path, content.decode(), mode)
            path.chmod(mode)  # whatever the mask of the process is
        except OSError as error:
            raise CertDirError(path, error) from error
