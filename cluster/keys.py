"""Key paths and value formats of the shared state: the public ones, so that other tools read them.

Pure: values in, text out, and back. Below the root `cilium/state/`:
`identities/v1/id/<number>` = labels, `identities/v1/value/<labels>/<node ip>` = number (leased),
`ip/v1/default/<ip or cidr>` = JSON (leased), `nodes/v1/<cluster>/<name>` = JSON (leased).
JSON follows Go's encoding: `net.IPMask` as base64, an unset `net.IP` as "", an unset slice as null.
"""

import base64
import binascii
import json
from enum import Enum
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from cluster.backend import (
    AddressType,
    IdentityEntry,
    IpAddress,
    IpEntry,
    IpNetwork,
    NamedPort,
    NodeAddress,
    NodeEntry,
)
from cluster.errors import MalformedEntryError
from palomar.errors import InvalidInputError
from palomar.identity import NumericIdentity
from palomar.labels import LabelSet

STATE_PREFIX = "cilium/state/"
IDENTITY_PREFIX = f"{STATE_PREFIX}identities/v1/id/"
REFERENCE_PREFIX = f"{STATE_PREFIX}identities/v1/value/"
IP_PREFIX = f"{STATE_PREFIX}ip/v1/default/"
NODE_PREFIX = f"{STATE_PREFIX}nodes/v1/"

MAX_IDENTITY = 0xFFFFFF
"""Identities are 24 bits wide on the wire (tunnel key)."""

Entry = IdentityEntry | IpEntry | NodeEntry


class Kind(Enum):
    """What a key below the root holds."""

    IDENTITY = "identity"
    REFERENCE = "reference"
    IP = "ip"
    NODE = "node"
    OTHER = "other"
    """Keys of parts that are not ours (services and so on)."""


_KINDS = (
    (IDENTITY_PREFIX, Kind.IDENTITY),
    (REFERENCE_PREFIX, Kind.REFERENCE),
    (IP_PREFIX, Kind.IP),
    (NODE_PREFIX, Kind.NODE),
)


def kind_of(key: str) -> Kind:
    """Tell what `key` holds."""
    for prefix, kind in _KINDS:
        if key.startswith(prefix):
            return kind
    return Kind.OTHER


def identity_key(identity: int) -> str:
    """Master key of a number; its value is the canonical label text."""
    return f"{IDENTITY_PREFIX}{identity}"


def reference_prefix(labels: LabelSet) -> str:
    """Prefix of every node's reference to `labels`: canonical text ends in `;`, so it is unique."""
    return f"{REFERENCE_PREFIX}{labels.canonical()}/"


def reference_key(labels: LabelSet, node_ip: IpAddress) -> str:
    """One node's reference to `labels`; its value is the number."""
    return f"{reference_prefix(labels)}{node_ip}"


def ip_key(network: IpNetwork) -> str:
    """Key of an address (a full-length prefix is written as a plain address)."""
    return f"{IP_PREFIX}{_address_text(network)}"


def node_key(cluster: str, name: str) -> str:
    """Key of a node."""
    return f"{NODE_PREFIX}{cluster}/{name}"


def encode_ip(entry: IpEntry) -> str:
    """JSON of an address."""
    network = entry.network
    value: dict[str, Any] = {
        "IP": str(network.network_address),
        "Mask": None if _is_address(network) else _mask_text(network),
        "HostIP": "" if entry.host_ip is None else str(entry.host_ip),
        "ID": entry.identity,
        "Key": entry.encrypt_key,
        "Metadata": entry.metadata,
    }
    if entry.namespace:
        value["K8sNamespace"] = entry.namespace
    if entry.pod:
        value["K8sPodName"] = entry.pod
    if entry.named_ports:
        value["NamedPorts"] = [
            {"Name": port.name, "Port": port.port, "Protocol": port.protocol} for port in entry.named_ports
        ]
    return _dump(value)


def encode_node(entry: NodeEntry) -> str:
    """JSON of a node."""
    return _dump(
        {
            "Name": entry.name,
            "Cluster": entry.cluster,
            "IPAddresses": [{"Type": a.type.value, "IP": a.ip} for a in entry.addresses],
            "IPv4AllocCIDR": _cidr(entry.ipv4_alloc_cidr),
            "IPv4SecondaryAllocCIDRs": [_cidr(net) for net in entry.ipv4_secondary_alloc_cidrs] or None,
            "IPv6AllocCIDR": _cidr(entry.ipv6_alloc_cidr),
            "IPv6SecondaryAllocCIDRs": [_cidr(net) for net in entry.ipv6_secondary_alloc_cidrs] or None,
            "IPv4HealthIP": "",
            "IPv6HealthIP": "",
            "IPv4IngressIP": "",
            "IPv6IngressIP": "",
            "ClusterID": entry.cluster_id,
            "Source": entry.source,
            "EncryptionKey": entry.encryption_key,
            "Labels": dict(entry.labels),
            "Annotations": dict(entry.annotations),
            "NodeIdentity": entry.node_identity,
            "WireguardPubKey": entry.wireguard_pub_key,
            "BootID": entry.boot_id,
        }
    )


def decode(key: str, value: str) -> Entry:
    """Read the entry that `key` (an identity, address or node) holds; raise MalformedEntryError."""
    kind = kind_of(key)
    try:
        if kind is Kind.IDENTITY:
            return _decode_identity(key, value)
        tree = json.loads(value)
        if not isinstance(tree, dict):
            raise MalformedEntryError(key, "value is not a JSON object")
        return _decode_ip(tree) if kind is Kind.IP else _decode_node(tree)
    except MalformedEntryError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, InvalidInputError) as error:
        raise MalformedEntryError(key, str(error) or type(error).__name__) from error


def decode_reference(key: str, value: str) -> NumericIdentity:
    """Read the number a reference key holds; raise MalformedEntryError."""
    if not value.isascii() or not value.isdigit() or not 0 < int(value) <= MAX_IDENTITY:
        raise MalformedEntryError(key, f"{value[:32]!r} is not an identity number")
    return NumericIdentity(int(value))


def _decode_identity(key: str, value: str) -> IdentityEntry:
    number = decode_reference(key, key.removeprefix(IDENTITY_PREFIX))
    return IdentityEntry(number, LabelSet.from_canonical(value))


def _decode_ip(tree: dict[str, Any]) -> IpEntry:
    address = ip_address(tree["IP"])
    mask = tree.get("Mask")
    prefix_bits = address.max_prefixlen if mask is None else _mask_bits(mask)
    host = tree.get("HostIP") or None
    return IpEntry(
        network=ip_network(f"{address}/{prefix_bits}"),
        host_ip=None if host is None else ip_address(host),
        identity=_number(tree["ID"], MAX_IDENTITY | 0xFF000000),
        encrypt_key=_number(tree.get("Key", 0), 255),
        metadata=_text(tree, "Metadata"),
        namespace=_text(tree, "K8sNamespace"),
        pod=_text(tree, "K8sPodName"),
        named_ports=tuple(
            NamedPort(_text(port, "Name"), _number(port["Port"], 65535), _text(port, "Protocol"))
            for port in tree.get("NamedPorts") or ()
        ),
    )


def _decode_node(tree: dict[str, Any]) -> NodeEntry:
    if not _text(tree, "Name"):
        raise ValueError("node without a name")
    known = {kind.value for kind in AddressType}
    ipv4_cidr = _read_cidr(tree.get("IPv4AllocCIDR"))
    ipv6_cidr = _read_cidr(tree.get("IPv6AllocCIDR"))
    ipv4_more = [_read_cidr(item) for item in tree.get("IPv4SecondaryAllocCIDRs") or ()]
    ipv6_more = [_read_cidr(item) for item in tree.get("IPv6SecondaryAllocCIDRs") or ()]
    return NodeEntry(
        name=_text(tree, "Name"),
        cluster=_text(tree, "Cluster"),
        addresses=tuple(
            NodeAddress(AddressType(item["Type"]), _text(item, "IP"))
            for item in tree.get("IPAddresses") or ()
            if item["Type"] in known
        ),
        ipv4_alloc_cidr=ipv4_cidr if isinstance(ipv4_cidr, IPv4Network) else None,
        ipv4_secondary_alloc_cidrs=tuple(net for net in ipv4_more if isinstance(net, IPv4Network)),
        ipv6_alloc_cidr=ipv6_cidr if isinstance(ipv6_cidr, IPv6Network) else None,
        ipv6_secondary_alloc_cidrs=tuple(net for net in ipv6_more if isinstance(net, IPv6Network)),
        cluster_id=_number(tree.get("ClusterID", 0), 0xFFFFFFFF),
        source=_text(tree, "Source"),
        encryption_key=_number(tree.get("EncryptionKey", 0), 255),
        labels=_texts(tree.get("Labels")),
        annotations=_texts(tree.get("Annotations")),
        node_identity=_number(tree.get("NodeIdentity", 0), 0xFFFFFFFF),
        wireguard_pub_key=_text(tree, "WireguardPubKey"),
        boot_id=_text(tree, "BootID"),
    )


def _dump(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))


def _is_address(network: IpNetwork) -> bool:
    return network.prefixlen == network.max_prefixlen


def _address_text(network: IpNetwork) -> str:
    return str(network.network_address) if _is_address(network) else str(network)


def _mask_text(network: IpNetwork) -> str:
    return base64.b64encode(network.netmask.packed).decode()


def _mask_bits(mask: object) -> int:
    try:
        packed = base64.b64decode(str(mask), validate=True)
    except binascii.Error as error:
        raise ValueError(f"mask {mask!r} is not base64") from error
    bits = "".join(f"{byte:08b}" for byte in packed)
    length = bits.count("1")
    if len(packed) not in (4, 16) or bits != "1" * length + "0" * (len(bits) - length):
        raise ValueError(f"mask {mask!r} is not a prefix mask")
    return length


def _cidr(network: IpNetwork | None) -> dict[str, str] | None:
    if network is None:
        return None
    return {"IP": str(network.network_address), "Mask": _mask_text(network)}


def _read_cidr(tree: object) -> IpNetwork | None:
    if tree is None:
        return None
    if not isinstance(tree, dict):
        raise TypeError(f"{tree!r} is not {{IP, Mask}}")
    return ip_network(f"{tree['IP']}/{_mask_bits(tree['Mask'])}")


def _number(value: object, maximum: int) -> NumericIdentity:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= maximum:
        raise ValueError(f"{value!r} is not a number from 0 to {maximum}")
    return NumericIdentity(value)


def _text(tree: dict[str, Any], name: str) -> str:
    value = tree.get(name) or ""
    if not isinstance(value, str):
        raise TypeError(f"{name} is not text")
    return value


def _texts(tree: object) -> dict[str, str]:
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise TypeError(f"{tree!r} is not a map of texts")
    return {str(name): str(value) for name, value in tree.items()}
