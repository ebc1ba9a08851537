"""A directory of certificates: the CA and what it issued, as files that are replaced atomically.

    ca.crt ca.key                        the authority; ca.crt is what everybody else gets
    <role>-<name>.crt <role>-<name>.key  one party's certificate and private key (0600)

The rim of `palomar.certs`: files in, files out, time as an argument. Used by `palomar certs` and the lab.
A reader that catches a pair half replaced sees that key and certificate differ and looks again
(`palomar.tls`).
"""

import os
import re
from dataclasses import dataclass, replace
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
        if self.ca_file.exists() and self.ca_key.exists():
            return False
        if self.ca_file.exists() or self.ca_key.exists():
            raise InvalidInputError(
                f"{self.directory} holds half an authority: bring back ca.crt and ca.key, or remove both"
            )
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=DIRECTORY_MODE)
        except OSError as error:
            raise CertDirError(self.directory, error) from error
        self.write(self.ca_file, self.ca_key, certs.make_ca(now))
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
        self.write(files.cert, files.key, pair)
        return files

    def renew(self, now: datetime, *, everything: bool = False) -> list[CertFile]:
        """Give what is due (or everything) a successor with the same names; return the new files.

        One that cannot be renewed is among them, with its `problem`, and holds up no other.
        """
        ca = self.ca()
        return [
            self.replace(found, ca, now)
            for found in self.entries(now)
            if found.path != self.ca_file and (found.due or everything)
        ]

    def replace(
        self, found: CertFile, ca: KeyPair, now: datetime, lifetime: timedelta | None = None
    ) -> CertFile:
        """Give one file a successor signed by `ca`; where that cannot be, say so in its `problem`."""
        try:
            pair = certs.reissue(ca, _read(found.path), now, lifetime)
        except InvalidInputError as error:
            return replace(found, problem=str(error))
        self.write(found.path, found.path.with_suffix(KEY_SUFFIX), pair)
        return _examine(found.path, now, _read(self.ca_file))

    def entries(self, now: datetime) -> list[CertFile]:
        """Every certificate file, the authority first: once for each that is in it."""
        authority = _read(self.ca_file) if self.ca_file.exists() else b""
        paths = [path for path in sorted(self.directory.glob("*" + CERT_SUFFIX)) if path != self.ca_file]
        return [*self._authorities(authority, now), *(_examine(path, now, authority) for path in paths)]

    def _authorities(self, bundle: bytes, now: datetime) -> list[CertFile]:
        if not self.ca_file.exists():
            return []
        parts = certs.split(bundle)
        if not parts:
            return [CertFile(self.ca_file, None, certs.bundle_problem(bundle), due=True)]
        infos = [certs.inspect(part) for part in parts]
        return [CertFile(self.ca_file, info, info.problem(now), due=info.due(now)) for info in infos]

    @property
    def ca_key(self) -> Path:
        """The authority's private key."""
        return self.directory / (CA_NAME + KEY_SUFFIX)

    def ca(self) -> KeyPair:
        """The authority that signs; InvalidInputError where there is none, or its key is another's."""
        if not self.ca_file.exists() or not self.ca_key.exists():
            raise InvalidInputError(f"no CA in {self.directory}: make one with `palomar certs init`")
        key = _read(self.ca_key)
        return KeyPair(certs.signer(_read(self.ca_file), key), key)

    def write(self, cert_file: Path, key_file: Path, pair: KeyPair) -> None:
        """Replace a pair, the key first; CertDirError where that cannot be."""
        try:
            write_atomically(key_file, pair.key.decode(), PRIVATE_MODE)
            write_atomically(cert_file, pair.cert.decode(), PUBLIC_MODE)
            os.chmod(key_file, PRIVATE_MODE)  # whatever the mask of the process is
            os.chmod(cert_file, PUBLIC_MODE)
        except OSError as error:
            raise CertDirError(cert_file, error) from error


def examine(path: Path, now: datetime) -> CertFile:
    """Read one certificate file, wherever it is; what cannot be read is its `problem`.

    Of several authorities in one file the one that ends first is told.
    """
    found = _examine(path, now, b"")
    if found.info is None or not found.info.is_ca:
        return found
    infos = [certs.inspect(part) for part in certs.split(_read(path))]
    info = min((info for info in infos if info.is_ca), key=lambda info: info.not_after, default=found.info)
    return CertFile(path, info, info.problem(now), due=info.due(now) or bool(info.problem(now)))


def _examine(path: Path, now: datetime, authority: bytes) -> CertFile:
    try:
        cert = _read(path)
        info = certs.inspect(cert)
    except PalomarError as error:
        return CertFile(path, None, str(error), due=True)
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
