"""The cast of policy tests: identities by name, and policies written short."""

from collections.abc import Mapping
from ipaddress import IPv4Network
from typing import Any

import yaml

from agent.identity.cidr import cidr_labels
from agent.identity.reserved import reserved_identities
from agent.policy.api import Policy
from agent.policy.engine import PolicyConfig, PolicyEngine
from agent.policy.mapstate import Decision, lookup
from agent.policy.parse import parse_policies
from agent.policy.resolve import EnforcementMode
from palomar.identity import EndpointId, NumericIdentity, Reserved
from palomar.labels import CLUSTER_KEY, NAMESPACE_KEY, LabelSet

TCP, UDP, ICMP, SCTP, GRE = 6, 17, 1, 132, 47

HOST = int(Reserved.HOST)
WORLD = int(Reserved.WORLD)
INIT = int(Reserved.INIT)
HEALTH = int(Reserved.HEALTH)
REMOTE_NODE = int(Reserved.REMOTE_NODE)
KUBE_APISERVER = int(Reserved.KUBE_APISERVER)
INGRESS = int(Reserved.INGRESS)
UNMANAGED = int(Reserved.UNMANAGED)
WEB, API, CLIENT, OTHER_NS, CONTAINER, OTHER_CLUSTER = 1000, 1001, 1002, 1003, 1004, 1005
NET_10, NET_10_1, NET_10_1_2, NET_192 = 16777217, 16777218, 16777219, 16777220
UNKNOWN = 60000
"""A number that no identity has."""


def pod(*labels: str, namespace: str = "demo", cluster: str = "default") -> LabelSet:
    """Labels of a pod."""
    return LabelSet.parse([*labels, f"{NAMESPACE_KEY}={namespace}", f"{CLUSTER_KEY}={cluster}"])


IDENTITIES: dict[int, LabelSet] = {
    **reserved_identities(),
    WEB: pod("app=web", "tier=front"),
    API: pod("app=api", "tier=back"),
    CLIENT: pod("app=client"),
    OTHER_NS: pod("app=web", "tier=front", namespace="other"),
    CONTAINER: LabelSet.parse(["container:app=web", f"k8s:{NAMESPACE_KEY}=demo", f"{CLUSTER_KEY}=default"]),
    OTHER_CLUSTER: pod("app=far", namespace="other", cluster="far"),
    NET_10: cidr_labels(IPv4Network("10.0.0.0/8")),
    NET_10_1: cidr_labels(IPv4Network("10.1.0.0/16")),
    NET_10_1_2: cidr_labels(IPv4Network("10.1.2.0/24")),
    NET_192: cidr_labels(IPv4Network("192.168.0.0/16")),
}

SUBJECT = EndpointId(7)


def document(
    *specs: Mapping[str, Any],
    name: str = "p",
    namespace: str = "demo",
    kind: str = "CiliumNetworkPolicy",
) -> dict[str, Any]:
    """Build a policy document; specs without endpointSelector select everything."""
    full = [{"endpointSelector": {}, **spec} for spec in specs]
    metadata = {"name": name}
    if kind == "CiliumNetworkPolicy":
        metadata["namespace"] = namespace
    body = {"spec": full[0]} if len(full) == 1 else {"specs": full}
    return {"apiVersion": "cilium.io/v2", "kind": kind, "metadata": metadata, **body}


def parsed(*documents: Mapping[str, Any]) -> tuple[Policy, ...]:
    """Parse documents; none are no policies."""
    if not documents:
        return ()
    return parse_policies(yaml.safe_dump_all(list(documents))).policies


def policies(*specs: Mapping[str, Any], kind: str = "CiliumNetworkPolicy") -> tuple[Policy, ...]:
    """One policy for each spec."""
    return parsed(*(document(spec, name=f"p{index}", kind=kind) for index, spec in enumerate(specs)))


def clusterwide(*specs: Mapping[str, Any]) -> tuple[Policy, ...]:
    """One clusterwide policy for each spec."""
    return policies(*specs, kind="CiliumClusterwideNetworkPolicy")


def engine(
    *found: Policy,
    subject: LabelSet = IDENTITIES[WEB],
    mode: EnforcementMode = EnforcementMode.DEFAULT,
    allow_localhost: bool = False,
    identities: Mapping[int, LabelSet] = IDENTITIES,
) -> PolicyEngine:
    """Build an engine with the cast, one endpoint (SUBJECT) and policies."""
    made = PolicyEngine(PolicyConfig(mode, allow_localhost), identities)
    made.set_endpoint(SUBJECT, subject)
    made.change_policies(found)
    return made


def decide(
    found: PolicyEngine, identity: int, port: int = 80, protocol: int = TCP, *, egress: bool = False
) -> Decision:
    """Ask the resolved map about a flow of SUBJECT."""
    entries = found.policy(SUBJECT).entries
    return lookup(entries, NumericIdentity(identity), egress=egress, protocol=protocol, dport=port)
