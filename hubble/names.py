"""The names log: what the numbers in stored records stood for when they were stored.

Append-only JSON lines beside the flow store. The ingest interns names as references (`NamesWriter`), the
flow server follows the file (`NamesReader`). A reference never changes its meaning; a policy cookie, an
interface or an identity may be said again, and the last word counts. A name is written before the first
row that uses it is.

Kinds of line: `endpoint` (ref, ip, id, identity, cluster, namespace, pod, labels, workloads), `identity` (id,
labels), `policy` (cookie, policies, deny), `interface` (index, name). An unknown kind or a damaged line is
counted and skipped.
"""

import json
import logging
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from hubble.flowendpoint import FlowEndpoint, Workload
from palomar.errors import InvalidInputError

logger = logging.getLogger(__name__)

NAMES_NAME = "names.log"
COMPACT_BYTES = 16 << 20
"""A log larger than this is rewritten at start without the references no stored row uses any more."""


@dataclass(frozen=True, slots=True)
class PolicyName:
    """A policy behind a policy map entry, or one that made an endpoint deny by default."""

    name: str
    namespace: str = ""
    kind: str = ""
    labels: tuple[str, ...] = ()
    revision: int = 0
    rule: str = ""
    """The place in the policy, e.g. `ingress[0].toPorts[0]`; empty for a default deny."""


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """What a policy cookie stands for: the policies behind a policy map entry or a default deny."""

    cookie: int
    policies: tuple[PolicyName, ...] = ()
    deny: bool = False


def parse_endpoint(entry: dict[str, Any]) -> FlowEndpoint:
    """Return the endpoint in a JSON object of the wire or of the log; InvalidInputError names a bad field."""
    return FlowEndpoint(
        endpoint_id=_number(entry, "id"),
        identity=_number(entry, "identity"),
        cluster=_text(entry, "cluster"),
        namespace=_text(entry, "namespace"),
        pod=_text(entry, "pod"),
        labels=parse_labels(entry),
        workloads=tuple(
            Workload(_text(item, "name"), _text(item, "kind")) for item in _objects(entry, "workloads")
        ),
    )


def parse_policy(entry: dict[str, Any]) -> PolicyRule:
    """Return the policy rule in a JSON object of the wire or the log; InvalidInputError names a bad field."""
    return PolicyRule(
        cookie=_number(entry, "cookie"),
        policies=tuple(
            PolicyName(
                name=_text(item, "name"),
                namespace=_text(item, "namespace"),
                kind=_text(item, "kind"),
                labels=parse_labels(item),
                revision=_number(item, "revision"),
                rule=_text(item, "rule"),
            )
            for item in _objects(entry, "policies")
        ),
        deny=bool(entry.get("deny", False)),
    )


def parse_labels(entry: dict[str, Any]) -> tuple[str, ...]:
    """Return the `labels` of a JSON object; InvalidInputError when they are not a list of texts."""
    labels = entry.get("labels") or []
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise InvalidInputError("must be a list of texts", "labels")
    return tuple(labels)


def _number(entry: dict[str, Any], key: str) -> int:
    value = entry.get(key, 0)
    if not isinstance(value, int) or not 0 <= value < 1 << 64:
        raise InvalidInputError(f"{value!r} is not a number", key)
    return value


def _text(entry: dict[str, Any], key: str) -> str:
    value = entry.get(key) or ""
    if not isinstance(value, str):
        raise InvalidInputError(f"{value!r} is not a text", key)
    return value


def _objects(entry: dict[str, Any], key: str) -> list[dict[str, Any]]:
    value = entry.get(key) or []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise InvalidInputError("must be a list of objects", key)
    return value


def endpoint_entry(endpoint: FlowEndpoint) -> dict[str, Any]:
    """Return the JSON object of an endpoint; the inverse of `parse_endpoint`."""
    return {
        "id": endpoint.endpoint_id,
        "identity": endpoint.identity,
        "cluster": endpoint.cluster,
        "namespace": endpoint.namespace,
        "pod": endpoint.pod,
        "labels": list(endpoint.labels),
        "workloads": [{"name": item.name, "kind": item.kind} for item in endpoint.workloads],
    }


def policy_entry(rule: PolicyRule) -> dict[str, Any]:
    """Return the JSON object of a policy rule; the inverse of `parse_policy`."""
    return {
        "cookie": rule.cookie,
        "policies": [
            {
                "name": item.name,
                "namespace": item.namespace,
                "kind": item.kind,
                "labels": list(item.labels),
                "revision": item.revision,
                "rule": item.rule,
            }
            for item in rule.policies
        ],
        "deny": rule.deny,
    }


class NamesTable:
    """The content of a names log in memory."""

    def __init__(self) -> None:
        """Empty."""
        self.endpoints: dict[int, FlowEndpoint] = {}
        self.identities: dict[int, tuple[str, ...]] = {}
        self.policies: dict[int, PolicyRule] = {}
        self.interfaces: dict[int, str] = {}
        self.damaged = 0
        """Lines that could not be understood."""

    def add(self, line: bytes) -> None:
        """Take in one line."""
        try:
            entry = json.loads(line)
            if not isinstance(entry, dict):
                raise InvalidInputError("is not an object", "line")
            match entry.get("k"):
                case "endpoint":
                    self.endpoints[_number(entry, "ref")] = parse_endpoint(entry)
                case "identity":
                    self.identities[_number(entry, "id")] = parse_labels(entry)
                case "policy":
                    rule = parse_policy(entry)
                    self.policies[rule.cookie] = rule
                case "interface":
                    self.interfaces[_number(entry, "index")] = _text(entry, "name")
                case _:
                    self.damaged += 1
        except (ValueError, InvalidInputError):
            self.damaged += 1

    def lines(self, refs: Iterable[int]) -> list[bytes]:
        """Return the lines that say the same, with the endpoints of `refs` alone."""
        entries: list[dict[str, Any]] = []
        entries += [
            {"k": "identity", "id": key, "labels": list(value)} for key, value in self.identities.items()
        ]
        entries += [
            {"k": "endpoint", "ref": ref, **endpoint_entry(self.endpoints[ref])}
            for ref in sorted(refs)
            if ref in self.endpoints
        ]
        entries += [{"k": "policy", **policy_entry(rule)} for rule in self.policies.values()]
        entries += [{"k": "interface", "index": key, "name": value} for key, value in self.interfaces.items()]
        return [_line(entry) for entry in entries]


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


class NamesWriter:
    """The one writer. What it is told again costs no line; `flush` before committing rows with new names."""

    def __init__(self, path: Path, table: NamesTable, fd: int, next_ref: int) -> None:
        """Use `open`."""
        self.path = path
        self.table = table
        self._fd = fd
        self._refs = {endpoint: ref for ref, endpoint in table.endpoints.items()}
        self._next_ref = next_ref
        self._pending: list[bytes] = []
        self._waiting = False
        """The last flush did not write everything."""

    @classmethod
    def open(cls, directory: Path, used_refs: Collection[int] = ()) -> Self:
        """Open the log of `directory`, cutting off a torn last line.

        `used_refs` are the references that stored rows still use: they are not given again even when the log
        is gone, and a log that grew beyond `COMPACT_BYTES` is rewritten without the others.
        """
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / NAMES_NAME
        table = NamesTable()
        data = path.read_bytes() if path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        for line in whole.splitlines():
            table.add(line)
        if table.damaged:
            logger.warning("names log has damaged lines", extra={"path": str(path), "lines": table.damaged})
        next_ref = max(max(table.endpoints, default=0), max(used_refs, default=0)) + 1
        if len(data) > COMPACT_BYTES:
            kept = (set(used_refs) | {next_ref - 1}) & set(table.endpoints)
            new = path.with_suffix(".new")
            new.write_bytes(b"".join(table.lines(kept)))
            new.rename(path)
            table.endpoints = {ref: table.endpoints[ref] for ref in sorted(kept)}
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        if len(whole) != len(data) and os.fstat(fd).st_size == len(data):
            os.ftruncate(fd, len(whole))
        return cls(path, table, fd, next_ref)

    def intern(self, endpoint: FlowEndpoint, ip: str = "") -> int:
        """Return the reference of this very endpoint: the same for the same content, after a restart too."""
        ref = self._refs.get(endpoint)
        if ref is None:
            ref = self._next_ref
            self._next_ref += 1
            self._refs[endpoint] = ref
            self.table.endpoints[ref] = endpoint
            self._pending.append(_line({"k": "endpoint", "ref": ref, "ip": ip, **endpoint_entry(endpoint)}))
        return ref

    def identity(self, number: int, labels: tuple[str, ...]) -> None:
        """Say which labels a numeric identity stands for."""
        if self.table.identities.get(number) != labels:
            self.table.identities[number] = labels
            self._pending.append(_line({"k": "identity", "id": number, "labels": list(labels)}))

    def policy(self, rule: PolicyRule) -> None:
        """Say what a cookie stands for."""
        if self.table.policies.get(rule.cookie) != rule:
            self.table.policies[rule.cookie] = rule
            self._pending.append(_line({"k": "policy", **policy_entry(rule)}))

    def interface(self, index: int, name: str) -> None:
        """Say which device an index is."""
        if self.table.interfaces.get(index) != name:
            self.table.interfaces[index] = name
            self._pending.append(_line({"k": "interface", "index": index, "name": name}))

    def flush(self) -> None:
        """Write what is new, in one call.

        What a full disk does not take stays for the next call: rows go on being stored, nameless to readers
        until then.
        """
        if not self._pending:
            return
        data = memoryview(b"".join(self._pending))
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            self._pending = [bytes(data)]  # perhaps from the middle of a line, which the next call ends
            self._say_waiting(error)
            return
        self._pending.clear()
        if self._waiting:
            self._waiting = False
            logger.info("names log is written again", extra={"path": str(self.path)})

    def _say_waiting(self, error: OSError) -> None:
        if not self._waiting:
            self._waiting = True
            facts = {"path": str(self.path), "error": error.strerror}
            logger.error("names log cannot be written: new flows have no names until it can", extra=facts)

    def close(self) -> None:
        """Write what is new and close. Idempotent."""
        if self._fd >= 0:
            self.flush()
            os.close(self._fd)
            self._fd = -1


class NamesReader:
    """Follows the log. A name that is not known yet may be after the next `refresh`."""

    def __init__(self, directory: Path) -> None:
        """Read what is there; a missing log is empty."""
        self.path = directory / NAMES_NAME
        self._inode = 0
        self._offset = 0
        self._table = NamesTable()
        self.refresh()

    def refresh(self) -> bool:
        """Read the lines added since the last time; True when there were any."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            status = os.fstat(fd)
            if status.st_ino != self._inode or status.st_size < self._offset:
                self._table, self._offset, self._inode = NamesTable(), 0, status.st_ino
            if status.st_size == self._offset:
                return False
            data = os.pread(fd, status.st_size - self._offset, self._offset)
        finally:
            os.close(fd)
        whole = data[: data.rfind(b"\n") + 1]
        for line in whole.splitlines():
            self._table.add(line)
        self._offset += len(whole)
        return bool(whole)

    @property
    def damaged(self) -> int:
        """Lines that could not be understood."""
        return self._table.damaged

    def endpoint(self, ref: int) -> FlowEndpoint | None:
        """Return what `ref` stands for, looking at the log once more before saying that it is unknown."""
        found = self._table.endpoints.get(ref)
        if found is None and ref and self.refresh():
            found = self._table.endpoints.get(ref)
        return found

    def identity_labels(self, identity: int) -> tuple[str, ...] | None:
        """Return the labels of a numeric identity as they were last said."""
        return self._table.identities.get(identity)

    def policy(self, cookie: int) -> PolicyRule | None:
        """Return what a cookie stands for, looking at the log once more before saying that it is unknown."""
        found = self._table.policies.get(cookie)
        if found is None and cookie and self.refresh():
            found = self._table.policies.get(cookie)
        return found

    def interface(self, index: int) -> str | None:
        """Return the name of a network device of the node."""
        return self._table.interfaces.get(index)
