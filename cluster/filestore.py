"""A store in a directory: for one node, or several processes on one machine.

`state.json` holds every key with its value, lease and revision, and is replaced as a whole (write, sync,
rename) under an exclusive `flock` on `lock`, so readers need no lock and a crash leaves the old or the
new state. `leases/<id>` holds until when (CLOCK_MONOTONIC of this boot) a lease lives; whoever writes or
sweeps removes the keys of leases that ended. A watch looks at the file's stat every `poll_s` and reads
it when that differs, and in any case at every sweep. A state file that cannot be read is set aside as
`state.corrupt-<n>`: the owners of its keys write them again.
Not for network file systems: flock and the clock are the machine's.
"""

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from cluster.driver import (
    Absent,
    Batch,
    Change,
    Condition,
    Equals,
    Operation,
    Put,
    Snapshot,
    Stored,
)
from cluster.errors import BackendUnavailableError, PositionLostError
from palomar.clock import Clock, SystemClock

logger = logging.getLogger(__name__)

R = TypeVar("R")

FORMAT = 1
LOCK_TIMEOUT_S = 5.0
LOCK_RETRY_S = 0.005
SWEEP_S = 1.0


@dataclass(slots=True)
class Document:
    """What `state.json` says."""

    store: str
    """Random name given when the file was made; another one means that the store was replaced."""
    revision: int = 0
    values: dict[str, Stored] = field(default_factory=dict)


class FileDriver:
    """A `cluster.driver.Driver` over a directory."""

    def __init__(self, directory: Path, clock: Clock | None = None, poll_s: float = 0.05) -> None:
        """Use `directory`, made when missing (0750)."""
        self._directory = directory
        self._state = directory / "state.json"
        self._leases = directory / "leases"
        self._clock = clock or SystemClock()
        self._poll_s = poll_s
        self._boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        self._ttl_s: dict[int, int] = {}
        self._written: set[str] = set()

    @property
    def name(self) -> str:
        """Name for people."""
        return f"file {self._directory}"

    async def connect(self) -> None:
        """Make the directory and a state file where they are missing."""
        await self._in_thread("open", self._change, lambda _: False)

    async def close(self) -> None:
        """Nothing is held open."""

    async def grant_lease(self, ttl_s: int) -> int:
        """Write a new lease file."""
        lease = secrets.randbits(62) | 1
        self._ttl_s[lease] = ttl_s
        await self._in_thread("grant lease", self._write_lease, lease, ttl_s)
        return lease

    async def keep_alive(self, lease: int) -> bool:
        """Move the end of a lease that has not ended."""
        return await self._in_thread("keep lease alive", self._renew, lease)

    async def revoke_lease(self, lease: int) -> None:
        """Remove the lease file and with it the keys."""
        await self._in_thread("revoke lease", self._revoke, lease)

    async def snapshot(self, prefix: str) -> Snapshot:
        """Read the state file."""
        document = await self._in_thread("read", self._read)
        return Snapshot(document.revision, _below(document, prefix), document.store)

    async def transact(self, conditions: Sequence[Condition], operations: Sequence[Operation]) -> bool:
        """Check and write under the lock."""
        held = False

        def change(document: Document) -> bool:
            nonlocal held
            held = all(_holds(condition, document) for condition in conditions)
            return held and self._carry_out(operations, document)

        await self._in_thread("write", self._change, change)
        if held:
            self._written |= {put.key for put in operations if isinstance(put, Put)}
        return held

    async def watch(self, prefix: str, since: Snapshot) -> AsyncIterator[Batch]:
        """Compare the state file with what was told each time it was replaced."""
        told, revision = dict(since.values), since.revision
        seen: tuple[int, ...] | None = None
        next_sweep_ns = 0
        while True:
            now_ns = self._clock.monotonic_ns()
            if now_ns >= next_sweep_ns:
                await self._in_thread("sweep", self._sweep)
                next_sweep_ns = now_ns + int(SWEEP_S * 1e9)
                seen = None
            look = self._stat()
            if look == seen:
                await asyncio.sleep(self._poll_s)
                continue
            written = set(self._written)
            document = await self._in_thread("watch", self._read)
            if document.store != since.origin or document.revision < revision:
                raise PositionLostError(self.name, "watch", "the state file was replaced")
            seen, revision = look, document.revision
            now = _below(document, prefix)
            # What was written here and removed by another before this look must not go unheard.
            missed = sorted(key for key in written - told.keys() - now.keys() if key.startswith(prefix))
            changes = (*_difference(told, now), *(Change(key, None) for key in missed))
            told = now
            self._written -= written
            if changes:
                yield Batch(revision, changes)

    # --- in a thread

    async def _in_thread(self, operation: str, call: Callable[..., R], *args: Any) -> R:
        try:
            return await asyncio.to_thread(call, *args)
        except OSError as error:
            raise BackendUnavailableError(self.name, operation, str(error)) from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._leases.mkdir(mode=0o750, exist_ok=True)
        descriptor = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT, 0o640)
        try:
            deadline_ns = self._clock.monotonic_ns() + int(LOCK_TIMEOUT_S * 1e9)
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if self._clock.monotonic_ns() > deadline_ns:
                        raise
                    time.sleep(LOCK_RETRY_S)
            yield
        finally:
            os.close(descriptor)

    def _change(self, change: Callable[[Document], bool]) -> None:
        """Read, drop ended leases, let `change` work, and write if anything differs."""
        with self._locked():
            document = self._load()
            ended = self._drop_ended(document)
            if change(document) or ended or not self._state.exists():
                self._write_file(self._state, _dump(document), durable=True)

    def _sweep(self) -> None:
        if not self._state.exists():
            return
        alive = self._alive_leases()
        if any(stored.lease and stored.lease not in alive for stored in self._read().values.values()):
            self._change(lambda _: False)

    def _carry_out(self, operations: Sequence[Operation], document: Document) -> bool:
        alive = self._alive_leases()
        changed = False
        for operation in operations:
            if isinstance(operation, Put):
                if operation.lease and operation.lease not in alive:
                    raise OSError(f"lease {operation.lease} has ended")
                changed = True
                document.values[operation.key] = Stored(
                    operation.value, operation.lease, document.revision + 1
                )
            else:
                changed |= document.values.pop(operation.key, None) is not None
        document.revision += changed
        return changed

    def _drop_ended(self, document: Document) -> bool:
        alive = self._alive_leases(tidy=True)
        ended = [k for k, v in document.values.items() if v.lease and v.lease not in alive]
        for key in ended:
            del document.values[key]
        document.revision += bool(ended)
        return bool(ended)

    def _read(self) -> Document:
        try:
            return _parse(self._state.read_bytes())
        except FileNotFoundError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            # Replacing is atomic, so this is damage and no half-written file.
            raise PositionLostError(self.name, "read", f"damaged state file: {error}") from error

    def _load(self) -> Document:
        """Read for writing: a missing file is empty, a damaged one is set aside."""
        try:
            return self._read()
        except FileNotFoundError:
            return Document(secrets.token_hex(8))
        except PositionLostError:
            number = sum(1 for _ in self._directory.glob("state.corrupt-*")) + 1
            aside = self._directory / f"state.corrupt-{number}"
            self._state.rename(aside)
            logger.exception("state file set aside", extra={"path": str(aside)})
            return Document(secrets.token_hex(8))

    def _stat(self) -> tuple[int, ...]:
        try:
            found = os.stat(self._state)
        except OSError:
            return ()
        return (found.st_ino, found.st_mtime_ns, found.st_size)

    def _write_lease(self, lease: int, ttl_s: int) -> None:
        end_ns = self._clock.monotonic_ns() + ttl_s * 1_000_000_000
        self._leases.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._write_file(self._leases / str(lease), json.dumps({"boot": self._boot, "end_ns": end_ns}))

    def _renew(self, lease: int) -> bool:
        with self._locked():
            if lease not in self._alive_leases():
                return False
            self._write_lease(lease, self._ttl_s[lease])
            return True

    def _revoke(self, lease: int) -> None:
        (self._leases / str(lease)).unlink(missing_ok=True)
        self._change(lambda _: False)

    def _alive_leases(self, *, tidy: bool = False) -> set[int]:
        """Numbers of the leases that have not ended; `tidy` (under the lock) removes the others."""
        alive = set()
        now_ns = self._clock.monotonic_ns()
        for path in self._leases.glob("[0-9]*"):
            if not path.name.isdigit():
                continue
            try:
                lease = json.loads(path.read_bytes())
                if lease["boot"] == self._boot and lease["end_ns"] > now_ns:
                    alive.add(int(path.name))
                    continue
            except FileNotFoundError:
                continue
            except (ValueError, KeyError, TypeError):
                logger.warning("damaged lease file", extra={"path": str(path)})
            if tidy:
                path.unlink(missing_ok=True)
        return alive

    def _write_file(self, path: Path, text: str, *, durable: bool = False) -> None:
        fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            fresh.rename(path)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise
        if durable:
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def _parse(data: bytes) -> Document:
    tree = json.loads(data)
    if tree["format"] != FORMAT:
        raise ValueError(f"format {tree['format']}, this version reads {FORMAT}")
    return Document(
        store=str(tree["store"]),
        revision=int(tree["revision"]),
        values={
            key: Stored(str(item["value"]), int(item["lease"]), int(item["revision"]))
            for key, item in tree["keys"].items()
        },
    )


def _dump(document: Document) -> str:
    return json.dumps(
        {
            "format": FORMAT,
            "store": document.store,
            "revision": document.revision,
            "keys": {
                key: {"value": v.value, "lease": v.lease, "revision": v.revision}
                for key, v in document.values.items()
            },
        },
        indent=0,
    )


def _holds(condition: Condition, document: Document) -> bool:
    if isinstance(condition, Absent):
        return condition.key not in document.values
    if isinstance(condition, Equals):
        stored = document.values.get(condition.key)
        return stored is not None and stored.value == condition.value
    return not any(key.startswith(condition.prefix) for key in document.values)


def _below(document: Document, prefix: str) -> dict[str, Stored]:
    return {key: stored for key, stored in document.values.items() if key.startswith(prefix)}


def _difference(old: dict[str, Stored], new: dict[str, Stored]) -> tuple[Change, ...]:
    written = sorted(
        (key for key, stored in new.items() if old.get(key) != stored),
        key=lambda key: new[key].revision,
    )
    return (
        *(Change(key, new[key].value) for key in written),
        *(Change(key, None) for key in old if key not in new),
    )
