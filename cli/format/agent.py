"""Answers of the agent's API as the tables people know: endpoints, identities, nodes, health.

Pure. Input: decoded JSON of the API; output: lines. Missing keys are empty
cells: an older agent must still be readable.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cli.format import columns

Json = Mapping[str, Any]

ENDPOINT_HEADER = (
    (
        "ENDPOINT",
        "POLICY (ingress)",
        "POLICY (egress)",
        "IDENTITY",
        "LABELS (source:key[=value])",
        "IPv6",
        "IPv4",
        "STATUS",
    ),
    ("", "ENFORCEMENT", "ENFORCEMENT", "", "", "", "", ""),
)

_ENFORCED = {
    "none": ("Disabled", "Disabled"),
    "ingress": ("Enabled", "Disabled"),
    "egress": ("Disabled", "Enabled"),
    "both": ("Enabled", "Enabled"),
    "audit-ingress": ("Disabled (Audit)", "Disabled"),
    "audit-egress": ("Disabled", "Disabled (Audit)"),
    "audit-both": ("Disabled (Audit)", "Disabled (Audit)"),
}


def at(tree: Any, *keys: str) -> Any:
    """Return what lies below `keys`; None where any of them is missing."""
    for key in keys:
        if not isinstance(tree, Mapping):
            return None
        tree = tree.get(key)
    return tree


def endpoint_list(endpoints: Iterable[Json], headers: bool = True) -> list[str]:
    """Return the two-line header and, per endpoint, a line and one more per further label."""
    rows: list[Sequence[str]] = list(ENDPOINT_HEADER) if headers else []
    for endpoint in sorted(endpoints, key=lambda item: int(item.get("id") or 0)):
        rows.extend(_endpoint_rows(endpoint))
    return columns.align(rows)


def _endpoint_rows(endpoint: Json) -> Iterable[Sequence[str]]:
    status = endpoint.get("status") or {}
    policy = at(status, "policy", "realized", "policy-enabled") or "none"
    ingress, egress = _ENFORCED.get(policy, (policy, policy))
    labels = at(status, "identity", "labels") or ["no labels"]
    addressing = (at(status, "networking", "addressing") or [{}])[0]
    first, *others = labels
    yield (
        str(endpoint.get("id", "")),
        ingress,
        egress,
        str(at(status, "identity", "id") or ""),
        first,
        addressing.get("ipv6") or "",
        addressing.get("ipv4") or "",
        str(status.get("state") or ""),
    )
    for label in others:
        yield ("", "", "", "", label)


def endpoint_log(entries: Iterable[Json]) -> list[str]:
    """Return the endpoint's state changes, newest first as the agent gives them."""
    rows: list[Sequence[str]] = [("Timestamp", "Status", "State", "Message")]
    rows += [
        tuple(str(entry.get(key) or "") for key in ("timestamp", "code", "state", "message"))
        for entry in entries
    ]
    return columns.align(rows)


def endpoint_health(health: Json) -> list[str]:
    """Return the four lines of an endpoint's health."""
    return columns.align(
        [
            ("Overall Health:", str(health.get("overallHealth") or "")),
            ("BPF Health:", str(health.get("bpf") or "")),
            ("Policy Health:", str(health.get("policy") or "")),
            ("Connected:", "yes" if health.get("connected") else "no"),
        ]
    )


def identity_list(identities: Iterable[Json], users: Mapping[int, int]) -> list[str]:
    """Return identities with one label per line; `users` counts this node's endpoints per identity."""
    rows: list[Sequence[str]] = [("ID", "LABELS", "REFCOUNT")]
    for identity in sorted(identities, key=lambda item: int(item.get("id") or 0)):
        number = int(identity.get("id") or 0)
        first, *others = identity.get("labels") or [""]
        rows.append((str(number), first, str(users.get(number, 0))))
        rows += [("", label) for label in others]
    return columns.align(rows)


def identity_users(endpoints: Iterable[Json]) -> dict[int, int]:
    """Count endpoints by identity."""
    users: dict[int, int] = {}
    for endpoint in endpoints:
        number = at(endpoint, "status", "identity", "id")
        if isinstance(number, int):
            users[number] = users.get(number, 0) + 1
    return users


def flat(tree: Json, prefix: str = "") -> Iterable[tuple[str, str]]:
    """Yield `key.sub: value` pairs of nested objects, in the order given; lists as one text."""
    for key, value in tree.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            yield from flat(value, name)
        elif isinstance(value, list):
            yield name, " ".join(str(item) for item in value)
        elif isinstance(value, bool):
            yield name, "true" if value else "false"
        elif value is not None:
            yield name, str(value)
