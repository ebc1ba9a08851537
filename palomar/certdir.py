"""A directory of certificates: the CA and what it issued, as files that are replaced atomically.

    ca.crt ca.key                        the authority; ca.crt is what everybody else gets
    <role>-<name>.crt <role>-<name>.key  one party's certificate and private key (0600)

The rim of `palomar.certs`: files in, files out, time as an argument. Used by `palomar certs` and the lab.
A reader that catches a pair half replaced sees that key and certificate differ and looks again
(`palomar.tls`).
"""

import os
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from palomar import certs
from palomar.certs import LEAF_LIFETIME, CertInfo, KeyPair, Role
from palomar.errors import InvalidInputError, PalomarError
from palomar.files import write_atomically
from palomar.tls import TlsFiles

CA_NAME = "ca"
CERT_SUFFIX = ".crt"
KEY_SUFFIX = ".key"
PRIVATE_MODE = 0o600
PUBLIC_MODE = 0o644
DIRECTORY_MODE = 0o755
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class CertDirError(PalomarError):
    """A certificate file cannot be read or written; the message names it."""

    def __init__(self, path: Path, error: OSError) -> None:
        """Keep the file and the system's number."""
        self.path = path
        self.errno = error.errno
        super().__init__(f"{path}: {error.strerror or error}")


@dataclass(frozen=True, slots=True)
class CertFile:
    """One certificate file and what is wrong with it."""

    path: Path
    info: CertInfo | None
    """None where the file is no certificate."""
    problem: str
    """Empty while it serves."""
    due: bool
    """To be renewed now."""


class CertDirectory:
    """Makes, renews and lists the certificates of one directory."""

    def __init__(self, directory: Path) -> None:
        """Nothing is read or made yet."""
        self.directory = directory

    @property
    def ca_file(self) -> Path:
        """What everybody needs to check the others."""
        return self.directory / (CA_NAME + CERT_SUFFIX)

    def files(self, role: Role, name: str) -> TlsFiles:
        """Where the certificate of `name` in `role` is, or would be."""
        stem = f"{role.value}-{name}"
        return TlsFiles(
            self.directory / (stem + CERT_SUFFIX), self.directory / (stem + KEY_SUFFIX), self.ca_file
        )

    def init(self, now: datetime) -> bool:
        """Make the authority; False where there is one already, which stays."""
        key_file = self.directory / (CA_NAME + KEY_SUFFIX)
        if self.ca_file.exists() and key_file.exists():
            return False
        if self.ca_file.exists() or key_file.exists():
            raise InvalidInputError(
                f"{self.directory} holds half an authority: bring back ca.crt and ca.key, or remove both"
            )
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=DIRECTORY_MODE)
        except OSError as error:
            raise CertDirError(self.directory, error) from error
        self._write(self.ca_file, key_file, certs.make_ca(now))
        return True

    def issue(
        self,
        role: Role,
        name: str,
        now: datetime,
        *,
        lifetime: timedelta = LEAF_LIFETIME,
        names: tuple[str, ...] = (),
        cluster: str = "default",
    ) -> TlsFiles:
        """Make a certificate for `name`, in place of one it may have; `names` are further server names."""
        if not _NAME.fullmatch(name):
            raise InvalidInputError(f"{name!r}: letters, digits, dots, dashes; at most 63", "NAME")
        if lifetime <= timedelta(0):
            raise InvalidInputError("must be longer than nothing", "lifetime")
        pair = certs.issue(self.ca(), role, name, now, lifetime=lifetime, names=names, cluster=cluster)
        files = self.files(role, name)
        self._write(files.cert, files.key, pair)
        return files

    def renew(self, now: datetime, *, everything: bool = False) -> list[CertFile]:
        """Give what is due (or everything) a successor with the same names; return the new files."""
        ca = self.ca()
        renewed = []
        for found in self.entries(now):
            if found.info is None or found.info.is_ca or not (found.due or everything):
                continue
            pair = certs.reissue(ca, _read(found.path), now)
            self._write(found.path, found.path.with_suffix(KEY_SUFFIX), pair)
            renewed.append(_examine(found.path, now, ca.cert))
        return renewed

    def entries(self, now: datetime) -> list[CertFile]:
        """Every certificate file, the authority first."""
        paths = sorted(self.directory.glob("*" + CERT_SUFFIX), key=lambda path: (path != self.ca_file, path))
        authority = _read(self.ca_file) if self.ca_file.exists() else b""
        return [_examine(path, now, authority) for path in paths]

    def ca(self) -> KeyPair:
        """The authority; InvalidInputError where there is none."""
        key_file = self.directory / (CA_NAME + KEY_SUFFIX)
        if not self.ca_file.exists() or not key_file.exists():
            raise InvalidInputError(f"no CA in {self.directory}: make one with `palomar certs init`")
        return KeyPair(_read(self.ca_file), _read(key_file))

    def _write(self, cert_file: Path, key_file: Path, pair: KeyPair) -> None:
        try:
            write_atomically(key_file, pair.key.decode(), PRIVATE_MODE)
            write_atomically(cert_file, pair.cert.decode(), PUBLIC_MODE)
            os.chmod(key_file, PRIVATE_MODE)  # whatever the mask of the process is
            os.chmod(cert_file, PUBLIC_MODE)
        except OSError as error:
            raise CertDirError(cert_file, error) from error


def examine(path: Path, now: datetime) -> CertFile:
    """Read one certificate file, wherever it is; what cannot be read is its `problem`."""
    return _examine(path, now, b"")


def _examine(path: Path, now: datetime, authority: bytes) -> CertFile:
    try:
        cert = _read(path)
        info = certs.inspect(cert)
    except PalomarError as error:
        return CertFile(path, None, str(error), due=False)
    problem = info.problem(now)
    if not problem and authority and not certs.signed_by(cert, authority):
        problem = "not signed by this directory's CA"
    key_file = path.with_suffix(KEY_SUFFIX)
    if not problem and authority and not _has_its_key(cert, key_file):
        problem = f"{key_file.name} is missing or not its key"
    return CertFile(path, info, problem, due=info.due(now) or bool(problem))


def _has_its_key(cert: bytes, key_file: Path) -> bool:
    try:
        return certs.is_pair(KeyPair(cert, key_file.read_bytes()))
    except OSError:
        return False


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertDirError(path, error) from error
