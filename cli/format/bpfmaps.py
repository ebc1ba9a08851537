"""Entries of the kernel's maps as lines, and as trees for JSON.

Pure. Input: the typed keys and values of `datapath.abi`; nothing here opens a map.
"""

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address
from typing import Any

from cli.format import columns
from datapath.abi.addresses import (
    EndpointFlag,
    EndpointInfo,
    EndpointKey,
    IpcacheEntry,
    IpcacheKey,
    TunnelEntry,
    TunnelKey,
)
from datapath.abi.conntrack import CtEntry, CtFlag, CtKey, Direction
from datapath.abi.counters import MetricsKey, MetricsValue
from datapath.abi.mapspecs import RuntimeConfig
from datapath.abi.policy import PolicyEntry, PolicyKey
from palomar import drop, sourcefile
from palomar.identity import reserved_name
from palomar.verdict import IpProtocol

_DIRECTIONS = {1: "INGRESS", 2: "EGRESS", 3: "SERVICE"}
_TCP = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")

AGGREGATION = ("none", "low", "medium", "maximum")


def ipcache_rows(entries: Iterable[tuple[IpcacheKey, IpcacheEntry]]) -> list[dict[str, Any]]:
    """Return prefixes with their identity and node, in address order."""
    return [
        {
            "cidr": str(key.net),
            "identity": entry.identity,
            "encryptkey": entry.encrypt_key,
            "tunnelendpoint": str(entry.tunnel_endpoint or IPv4Address(0)),
        }
        for key, entry in sorted(entries, key=lambda item: item[0].net)
    ]


def ipcache_lines(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return `IP PREFIX/ADDRESS   IDENTITY` and a line per prefix."""
    table: list[Sequence[str]] = [("IP PREFIX/ADDRESS", "IDENTITY")]
    for row in rows:
        keys = ("identity", "encryptkey", "tunnelendpoint")
        table.append((row["cidr"], " ".join(f"{key}={row[key]}" for key in keys)))
    return columns.align(table)


def lxc_rows(entries: Iterable[tuple[EndpointKey, EndpointInfo]]) -> list[dict[str, Any]]:
    """Return local endpoints by address; the node's own addresses are `host`."""
    return [
        {
            "ip": str(key.ipv4),
            "id": info.endpoint_id,
            "sec_id": info.identity,
            "flags": int(info.flags),
            "host": bool(info.flags & EndpointFlag.HOST),
            "ifindex": info.ifindex,
            "mac": info.mac.hex(":"),
            "nodemac": info.node_mac.hex(":"),
        }
        for key, info in sorted(entries, key=lambda item: item[0].ipv4)
    ]


def lxc_lines(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return `IP ADDRESS   LOCAL ENDPOINT INFO` and a line per address."""
    table: list[Sequence[str]] = [("IP ADDRESS", "LOCAL ENDPOINT INFO")]
    for row in rows:
        if row["host"]:
            table.append((row["ip"], "(localhost)"))
            continue
        info = (
            f"id={row['id']:<5} sec_id={row['sec_id']:<5} flags=0x{row['flags']:04x}"
            f" ifindex={row['ifindex']:<3} mac={row['mac'].upper()} nodemac={row['nodemac'].upper()}"
        )
        table.append((row["ip"], info))
    return columns.align(table)


def tunnel_rows(entries: Iterable[tuple[TunnelKey, TunnelEntry]]) -> list[dict[str, Any]]:
    """Return pod CIDR addresses with the node behind them."""
    return [
        {"prefix": str(key.prefix), "tunnel": str(entry.node_ipv4)}
        for key, entry in sorted(entries, key=lambda item: item[0].prefix)
    ]


def tunnel_lines(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return `TUNNEL   VALUE` and a line per pod CIDR."""
    return columns.align([("TUNNEL", "VALUE"), *((row["prefix"], row["tunnel"]) for row in rows)])


def port_text(key: PolicyKey) -> str:
    """Return `ANY`, `ANY/TCP`, `80/TCP`, `8080-8095/TCP`, or `8/ICMP` (the type) for a policy key."""
    if not key.protocol:
        return "ANY"
    protocol = protocol_name(key.protocol)
    if not key.dport_prefix_bits:
        return f"ANY/{protocol}"
    last = key.dport + (1 << (16 - key.dport_prefix_bits)) - 1
    return f"{key.dport}/{protocol}" if last == key.dport else f"{key.dport}-{last}/{protocol}"


def protocol_name(number: int) -> str:
    """Return `TCP` for 6; the number where there is no name."""
    try:
        return IpProtocol(number).name
    except ValueError:
        return str(number)


def policy_rows(entries: Mapping[PolicyKey, PolicyEntry]) -> list[dict[str, Any]]:
    """Return an endpoint's policy entries: ingress first, then by identity and port."""
    ordered = sorted(
        entries.items(),
        key=lambda item: (item[0].egress, item[0].identity, item[0].protocol, item[0].dport),
    )
    return [
        {
            "policy": "Deny" if entry.deny else "Allow",
            "direction": "Egress" if key.egress else "Ingress",
            "identity": key.identity,
            "port": port_text(key),
            "proxy_port": entry.proxy_port,
            "prefix": key.lpm_prefix_length,
            "cookie": entry.cookie,
        }
        for key, entry in ordered
    ]


def policy_lines(
    rows: Iterable[Mapping[str, Any]], labels: Mapping[int, Sequence[str]], numeric: bool = False
) -> list[str]:
    """Return the policy table; an identity is its labels where they are known, one per line."""
    table: list[Sequence[str]] = [
        (
            "POLICY",
            "DIRECTION",
            "IDENTITY" if numeric else "LABELS (source:key[=value])",
            "PORT/PROTO",
            "PROXY PORT",
            "AUTH TYPE",
            "PREFIX",
            "COOKIE",
        )
    ]
    for row in rows:
        first, *others = [str(row["identity"])] if numeric else identity_labels(row["identity"], labels)
        table.append(
            (
                row["policy"],
                row["direction"],
                first,
                row["port"],
                str(row["proxy_port"] or "NONE"),
                "disabled",
                str(row["prefix"]),
                str(row["cookie"]),
            )
        )
        table += [("", "", label) for label in others]
    return columns.align(table)


def identity_labels(identity: int, labels: Mapping[int, Sequence[str]]) -> list[str]:
    """Return the labels of `identity`, `ANY` for 0, `reserved:<name>`, or its number."""
    if not identity:
        return ["ANY"]
    known = list(labels.get(identity) or ())
    if known:
        return known
    name = reserved_name(identity)
    return [f"reserved:{name}" if name else str(identity)]


def ct_rows(entries: Iterable[tuple[CtKey, CtEntry]], now_s: int) -> list[dict[str, Any]]:
    """Return connections; `lifetime_s` counts from `now_s` (monotonic) and is negative once over."""
    return [
        {
            "protocol": protocol_name(key.protocol),
            "direction": Direction(key.direction).name,
            "source": f"{key.saddr}:{key.sport}",
            "destination": f"{key.daddr}:{key.dport}",
            "lifetime_s": entry.lifetime_s - now_s,
            "rx_packets": entry.rx_packets,
            "rx_bytes": entry.rx_bytes,
            "tx_packets": entry.tx_packets,
            "tx_bytes": entry.tx_bytes,
            "flags": ct_flags(entry.flags),
            "rx_flags_seen": tcp_flags(entry.rx_flags_seen),
            "tx_flags_seen": tcp_flags(entry.tx_flags_seen),
            "source_identity": entry.source_identity,
            "rtt_us": entry.rtt_us,
            "policy_revision": entry.policy_revision,
            "policy_cookie": entry.policy_cookie,
        }
        for key, entry in entries
    ]


def ct_flags(flags: CtFlag) -> str:
    """Return `rx+tx closing`, `tx closing`, or `-`."""
    sides = [name for name, flag in (("rx", CtFlag.RX_CLOSING), ("tx", CtFlag.TX_CLOSING)) if flags & flag]
    return f"{'+'.join(sides)} closing" if sides else "-"


def tcp_flags(union: int) -> str:
    """Return `SYN,ACK` for a flags byte; `-` for none."""
    return ",".join(name for bit, name in enumerate(_TCP) if union & (1 << bit)) or "-"


def ct_lines(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return one line per connection."""
    return [
        f"{row['protocol']} {row['direction']} SRC: {row['source']} DST: {row['destination']}"
        f" Flags: {row['flags']} Lifetime: {row['lifetime_s']}s"
        f" RxPackets: {row['rx_packets']} RxBytes: {row['rx_bytes']}"
        f" TxPackets: {row['tx_packets']} TxBytes: {row['tx_bytes']}"
        f" RxFlagsSeen: {row['rx_flags_seen']} TxFlagsSeen: {row['tx_flags_seen']}"
        f" SourceSecurityID: {row['source_identity']}"
        + (f" RTT: {row['rtt_us'] / 1000:.3f}ms" if row["rtt_us"] else "")
        for row in rows
    ]


def metrics_rows(entries: Mapping[MetricsKey, MetricsValue]) -> list[dict[str, Any]]:
    """Return the datapath's counters, forwards first."""
    ordered = sorted(entries.items(), key=lambda item: (item[0].reason, item[0].direction, item[0].file))
    return [
        {
            "reason": drop.display(key.reason),
            "reason_code": key.reason,
            "direction": _DIRECTIONS.get(key.direction, "UNKNOWN"),
            "packets": value.packets,
            "bytes": value.bytes,
            "line": key.line,
            "file": sourcefile.source_file_name(key.file),
        }
        for key, value in ordered
    ]


def metrics_lines(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return `REASON DIRECTION PACKETS BYTES LINE FILE`."""
    keys = ("reason", "direction", "packets", "bytes", "line", "file")
    return columns.align(
        [
            tuple(key.upper() for key in keys),
            *(tuple(str(row[key]) for key in keys) for row in rows),
        ]
    )


def config_rows(values: Mapping[RuntimeConfig, int]) -> list[dict[str, Any]]:
    """Return the switches running programs read, with their meaning."""
    return [
        {"key": index.name.lower().replace("_", "-"), "value": value, "means": _means(index, value)}
        for index, value in values.items()
    ]


def _means(index: RuntimeConfig, value: int) -> str:
    if index is RuntimeConfig.AGGREGATION:
        return AGGREGATION[value] if value < len(AGGREGATION) else "unknown"
    if index is RuntimeConfig.REPORT_INTERVAL_NS:
        return f"{(value or 5_000_000_000) / 1e9:g}s"
    if index is RuntimeConfig.EVENTS_OFF:
        return "events off" if value else "events on"
    if index is RuntimeConfig.AUDIT_MODE:
        return "audit" if value else "enforce"
    return ""


def config_lines(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return `KEY VALUE` with the meaning behind it."""
    return columns.align(
        [("KEY", "VALUE", ""), *((row["key"], str(row["value"]), row["means"]) for row in rows)]
    )
