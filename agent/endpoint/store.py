"""State files of endpoints: one JSON file each, so that the next agent knows what this one made.

Not the live endpoints (`manager`). Written whole and renamed, so a crash leaves the old or the new file. A
file that cannot be read is set aside as `<id>.json.corrupt` and reported, never fatal.
"""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from agent.endpoint.model import EndpointRecord, Workload
from palomar.errors import InvalidInputError, TransientError
from palomar.files import write_atomically
from palomar.identity import EndpointId, NumericIdentity
from palomar.labels import LabelSet

logger = logging.getLogger(__name__)

VERSION = 1


class StateFileError(TransientError):
    """A state file cannot be written."""

    def __init__(self, path: Path, error: OSError) -> None:
        """Name the file and the reason."""
        self.path = path
        self.errno = error.errno
        super().__init__(f"{path}: {error.strerror}: make room, or check the rights of state-dir")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the folder held."""

    records: tuple[EndpointRecord, ...]
    """By id."""
    corrupt: tuple[Path, ...]
    """Files that were set aside."""


class EndpointStore:
    """The folder of state files."""

    def __init__(self, folder: Path) -> None:
        """Nothing is touched before the first call."""
        self.folder = folder

    def save(self, record: EndpointRecord) -> None:
        """Write the endpoint's file. Raises StateFileError."""
        path = self._path(record.endpoint_id)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(encode(record), indent=1) + "\n")
        except OSError as error:
            raise StateFileError(path, error) from error

    def remove(self, endpoint_id: int) -> None:
        """Forget the endpoint. Idempotent."""
        self._path(endpoint_id).unlink(missing_ok=True)

    def load(self) -> Loaded:
        """Read every file; set aside those that make no sense."""
        records: dict[int, EndpointRecord] = {}
        corrupt = []
        for path in sorted(self.folder.glob("*.json")):
            try:
                record = decode(json.loads(path.read_text(encoding="utf-8")))
                if path.stem != str(record.endpoint_id):
                    raise ValueError(f"it is of endpoint {record.endpoint_id}")
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                aside = path.with_name(path.name + ".corrupt")
                logger.error(
                    "endpoint state file set aside",
                    extra={
                        "path": str(path),
                        "aside": str(aside),
                        "error": f"{type(error).__name__}: {error}",
                    },
                )
                os.replace(path, aside)
                corrupt.append(aside)
            else:
                records[record.endpoint_id] = record
        return Loaded(tuple(records[key] for key in sorted(records)), tuple(corrupt))

    def _path(self, endpoint_id: int) -> Path:
        return self.folder / f"{endpoint_id}.json"


def encode(record: EndpointRecord) -> dict[str, Any]:
    """Return the record as JSON values."""
    workload = record.workload
    return {
        "version": VERSION,
        "id": record.endpoint_id,
        "container-name": record.container_name,
        "netns": record.netns,
        "ipv4": str(record.ipv4),
        "host-ifname": record.host_ifname,
        "container-ifname": record.container_ifname,
        "labels": record.labels.texts(),
        "identity-labels": record.identity_labels.texts(),
        "identity": record.identity,
        "k8s-namespace": record.namespace,
        "k8s-pod-name": record.pod,
        "workload": {"name": workload.name, "kind": workload.kind} if workload else None,
        "created-ns": record.created_ns,
    }


def decode(tree: Mapping[str, Any]) -> EndpointRecord:
    """Read what `encode` wrote; ValueError, KeyError or TypeError for anything else."""
    if tree["version"] != VERSION:
        raise ValueError(f"version {tree['version']!r}, this build reads {VERSION}")
    endpoint_id = int(tree["id"])
    if not 0 < endpoint_id < 65536:
        raise ValueError(f"id {endpoint_id} is not in 1..65535")
    workload = tree["workload"]
    return EndpointRecord(
        endpoint_id=EndpointId(endpoint_id),
        container_name=_text(tree, "container-name"),
        netns=_text(tree, "netns"),
        ipv4=IPv4Address(_text(tree, "ipv4")),
        host_ifname=_text(tree, "host-ifname"),
        container_ifname=_text(tree, "container-ifname"),
        labels=_labels(tree["labels"]),
        identity_labels=_labels(tree["identity-labels"]),
        identity=NumericIdentity(int(tree["identity"])),
        namespace=_text(tree, "k8s-namespace"),
        pod=_text(tree, "k8s-pod-name"),
        workload=Workload(_text(workload, "name"), _text(workload, "kind")) if workload else None,
        created_ns=int(tree["created-ns"]),
    )


def _text(tree: Mapping[str, Any], name: str) -> str:
    value = tree[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} is no text")
    return value


def _labels(texts: list[str]) -> LabelSet:
    try:
        return LabelSet.parse(texts)
    except (InvalidInputError, TypeError, AttributeError) as error:  # a bad label; no list; no text in it
        raise ValueError(str(error)) from error
