"""The agent's own events as a log of JSON lines, which the flow server tails and serves as agent events.

Not the process log. One line is an object with `time_ns` (wall clock) and the fields of flow.AgentEvent in
protobuf's JSON. Bounded: a log of MAX_BYTES is renamed to `.1` (one is kept) and begun again. An event that
cannot be written is counted in `dropped`, for a full disk must not stop the agent.
"""

import json
import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from palomar.clock import Clock

logger = logging.getLogger(__name__)

LOG_NAME = "agent-events.log"
MAX_BYTES = 4 << 20


class AgentEventLog:
    """Appends to the log in `folder`."""

    def __init__(self, folder: Path, clock: Clock, max_bytes: int = MAX_BYTES) -> None:
        """Nothing is opened before the first event."""
        self.path = folder / LOG_NAME
        self.written = 0
        self.dropped = 0
        self._clock = clock
        self._max_bytes = max_bytes

    def agent_started(self) -> None:
        """The agent is ready."""
        seconds, nanos = divmod(self._clock.wall_ns(), 10**9)
        stamp = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        self._append("AGENT_STARTED", agent_start={"time": f"{stamp}.{nanos:09d}Z"})

    def endpoint_created(self, endpoint_id: int, labels: Iterable[str], namespace: str, pod: str) -> None:
        """An endpoint is ready for the first time."""
        self._endpoint("ENDPOINT_CREATED", endpoint_id, labels, namespace, pod)

    def endpoint_deleted(self, endpoint_id: int, labels: Iterable[str], namespace: str, pod: str) -> None:
        """An endpoint is gone."""
        self._endpoint("ENDPOINT_DELETED", endpoint_id, labels, namespace, pod)

    def regenerated(self, endpoint_id: int, labels: Iterable[str], error: str = "") -> None:
        """An endpoint's policy or programs were made anew, or could not be (`error`)."""
        kind = "ENDPOINT_REGENERATE_FAILURE" if error else "ENDPOINT_REGENERATE_SUCCESS"
        fields: dict[str, Any] = {"id": str(endpoint_id), "labels": list(labels)}
        self._append(kind, endpoint_regenerate=fields | ({"error": error} if error else {}))

    def policy_updated(self, labels: Iterable[str], revision: int, rule_count: int) -> None:
        """Policies were added or replaced."""
        self._policy("POLICY_UPDATED", labels, revision, rule_count)

    def policy_deleted(self, labels: Iterable[str], revision: int, rule_count: int) -> None:
        """Policies were removed."""
        self._policy("POLICY_DELETED", labels, revision, rule_count)

    def ipcache_changed(
        self,
        cidr: str,
        identity: int,
        old_identity: int | None,
        host_ip: IPv4Address | None,
        namespace: str,
        pod: str,
        *,
        deleted: bool,
    ) -> None:
        """An address or prefix got another identity, or none any more."""
        notification: dict[str, Any] = {"cidr": cidr, "identity": identity}
        if old_identity is not None:
            notification["oldIdentity"] = old_identity
        for name, value in (("hostIp", host_ip), ("namespace", namespace), ("podName", pod)):
            if value:
                notification[name] = str(value)
        self._append("IPCACHE_DELETED" if deleted else "IPCACHE_UPSERTED", ipcache_update=notification)

    def _endpoint(self, kind: str, endpoint_id: int, labels: Iterable[str], namespace: str, pod: str) -> None:
        fields = {"id": str(endpoint_id), "labels": list(labels), "podName": pod, "namespace": namespace}
        self._append(kind, endpoint_update=fields)

    def _policy(self, kind: str, labels: Iterable[str], revision: int, rule_count: int) -> None:
        fields = {"labels": list(labels), "revision": str(revision), "ruleCount": str(rule_count)}
        self._append(kind, policy_update=fields)

    def _append(self, kind: str, **notification: dict[str, Any]) -> None:
        entry = {"time_ns": self._clock.wall_ns(), "type": kind, **notification}
        line = json.dumps(entry, separators=(",", ":")) + "\n"
        try:
            self._rotate(len(line))
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            self.dropped += 1
            if self.dropped == 1:
                logger.warning("agent event lost", extra={"path": str(self.path), "error": str(error)})
        else:
            self.written += 1

    def _rotate(self, coming: int) -> None:
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return
        if size + coming > self._max_bytes:
            self.path.replace(self.path.with_name(f"{LOG_NAME}.1"))
