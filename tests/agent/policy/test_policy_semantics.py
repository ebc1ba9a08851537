"""What policies mean: one case or more for every row of the policy semantics that is enforced."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from agent.policy.api import Policy
from agent.policy.mapstate import Decision
from agent.policy.resolve import EnforcementMode
from palomar.drop import DropReason
from palomar.identity import Reserved
from palomar.labels import LabelSet
from tests.agent.policy.cast import (
    API,
    CLIENT,
    CONTAINER,
    HEALTH,
    HOST,
    ICMP,
    IDENTITIES,
    INGRESS,
    INIT,
    KUBE_APISERVER,
    NET_10,
    NET_10_1,
    NET_10_1_2,
    NET_192,
    OTHER_CLUSTER,
    OTHER_NS,
    REMOTE_NODE,
    SCTP,
    SUBJECT,
    TCP,
    UDP,
    UNKNOWN,
    UNMANAGED,
    WEB,
    WORLD,
    clusterwide,
    decide,
    document,
    engine,
    parsed,
    policies,
)

ALLOW = None
NO_ENTRY = DropReason.POLICY_DENIED
DENIED = DropReason.POLICY_DENY

Expect = tuple[int, str, int, DropReason | None]
"""Remote identity, `in` or `out` and protocol (`in`, `in/udp`, ...), port, what drops it."""

PROTOCOLS = {"tcp": TCP, "udp": UDP, "icmp": ICMP, "sctp": SCTP, "gre": 47}


def labels(**match: str) -> dict[str, Any]:
    return {"matchLabels": match}


def ports(*numbers: str, protocol: str = "TCP") -> list[dict[str, Any]]:
    return [{"ports": [{"port": number, "protocol": protocol} for number in numbers]}]


@dataclass(frozen=True)
class Case:
    row: str
    policies: Sequence[Policy]
    expected: Sequence[Expect]
    subject: LabelSet = field(default_factory=lambda: IDENTITIES[WEB])
    mode: EnforcementMode = EnforcementMode.DEFAULT
    allow_localhost: bool = False
    enforced: str = ""


FROM_API = {"fromEndpoints": [labels(app="api")]}
ALLOW_API: Mapping[str, Any] = {"ingress": [FROM_API]}

CASES = [
    Case(
        "1.1 no rule selects the endpoint: everything is allowed",
        policies({"endpointSelector": labels(app="other"), **ALLOW_API}),
        [(CLIENT, "in", 80, ALLOW), (WORLD, "out", 80, ALLOW), (UNKNOWN, "in/gre", 0, ALLOW)],
        enforced="none",
    ),
    Case(
        "1.2 ingress rules close ingress and leave egress alone",
        policies(ALLOW_API),
        [(API, "in", 80, ALLOW), (CLIENT, "in", 80, NO_ENTRY), (CLIENT, "out", 80, ALLOW)],
        enforced="ingress",
    ),
    Case(
        "1.2 ingressDeny alone closes ingress too",
        policies({"ingressDeny": [FROM_API]}),
        [(API, "in", 80, DENIED), (CLIENT, "in", 80, NO_ENTRY), (API, "out", 80, ALLOW)],
        enforced="ingress",
    ),
    Case(
        "1.2 egress rules close egress and leave ingress alone",
        policies({"egress": [{"toEndpoints": [labels(app="api")]}]}),
        [(API, "out", 80, ALLOW), (CLIENT, "out", 80, NO_ENTRY), (CLIENT, "in", 80, ALLOW)],
        enforced="egress",
    ),
    Case(
        "1.3 default deny follows the sections, in both directions",
        policies({"ingress": [{}], "egressDeny": [{}]}),
        [(API, "in", 80, NO_ENTRY), (API, "out", 80, NO_ENTRY)],
        enforced="both",
    ),
    Case(
        "1.4 enableDefaultDeny.ingress false: only denies bite",
        policies({"enableDefaultDeny": {"ingress": False}, "ingressDeny": [FROM_API]}),
        [(API, "in", 80, DENIED), (CLIENT, "in", 80, ALLOW), (UNKNOWN, "in/gre", 0, ALLOW)],
        enforced="ingress",
    ),
    Case(
        "1.4 enableDefaultDeny.egress false leaves the other direction closed",
        policies(
            {
                "enableDefaultDeny": {"egress": False},
                "ingress": [{}],
                "egressDeny": [{"toPorts": ports("25")}],
            }
        ),
        [(API, "out", 25, DENIED), (API, "out", 80, ALLOW), (API, "in", 80, NO_ENTRY)],
        enforced="both",
    ),
    Case(
        "1.5 one default-deny rule among several closes the direction",
        policies({"enableDefaultDeny": {"ingress": False}, "ingressDeny": [FROM_API]}, {"ingress": [{}]}),
        [(API, "in", 80, DENIED), (CLIENT, "in", 80, NO_ENTRY)],
        enforced="ingress",
    ),
    Case(
        "1.7 mode always closes both directions without any rule",
        (),
        [(API, "in", 80, NO_ENTRY), (API, "out", 80, NO_ENTRY)],
        mode=EnforcementMode.ALWAYS,
        enforced="both",
    ),
    Case(
        "1.7 mode always: rules still allow, and default allow does not open it",
        policies(ALLOW_API, {"enableDefaultDeny": {"egress": False}, "egressDeny": [{}]}),
        [(API, "in", 80, ALLOW), (CLIENT, "in", 80, NO_ENTRY), (CLIENT, "out", 80, NO_ENTRY)],
        mode=EnforcementMode.ALWAYS,
        enforced="both",
    ),
    Case(
        "1.7 an endpoint that waits for its labels is closed, but for rules that select reserved:init",
        policies({"endpointSelector": labels(**{"reserved:init": ""}), "egress": [{"toEntities": ["host"]}]}),
        [(HOST, "out", 80, ALLOW), (API, "out", 80, NO_ENTRY), (API, "in", 80, NO_ENTRY)],
        subject=LabelSet.parse(["reserved:init"]),
        enforced="both",
    ),
    Case(
        "1.8 mode never enforces nothing",
        policies({"ingressDeny": [{"fromEntities": ["all"]}]}),
        [(API, "in", 80, ALLOW), (API, "out", 80, ALLOW)],
        mode=EnforcementMode.NEVER,
        enforced="none",
    ),
    Case(
        "1.9 the host is not a subject while there is no host firewall",
        clusterwide({"ingressDeny": [{"fromEntities": ["all"]}]}),
        [(API, "in", 80, ALLOW)],
        subject=LabelSet.parse(["reserved:host"]),
        enforced="none",
    ),
    Case(
        "1.11 ingress: [{}] closes and allows nothing",
        policies({"ingress": [{}]}),
        [(API, "in", 80, NO_ENTRY), (HOST, "in", 80, NO_ENTRY), (API, "out", 80, ALLOW)],
        enforced="ingress",
    ),
    Case(
        "1.12 toPorts without peers allows anybody on the port",
        policies({"ingress": [{"toPorts": ports("80")}]}),
        [(UNKNOWN, "in", 80, ALLOW), (WORLD, "in", 80, ALLOW), (API, "in", 81, NO_ENTRY)],
    ),
    Case(
        "1.13 present but empty peers select nothing, with ports too",
        policies(
            {"ingress": [{"fromEndpoints": [], "toPorts": ports("80")}]},
            {"ingress": [{"fromCIDR": [], "toPorts": ports("80")}]},
            {"ingress": [{"fromCIDRSet": [], "toPorts": ports("80")}]},
            {"ingress": [{"fromEntities": [], "toPorts": ports("80")}]},
        ),
        [(API, "in", 80, NO_ENTRY), (WORLD, "in", 80, NO_ENTRY), (NET_10, "in", 80, NO_ENTRY)],
        enforced="ingress",
    ),
    Case(
        "1.14 fromEndpoints [{}] is everybody in the policy's namespace",
        policies({"ingress": [{"fromEndpoints": [{}]}]}),
        [(API, "in", 80, ALLOW), (OTHER_NS, "in", 80, NO_ENTRY), (HOST, "in", 80, NO_ENTRY)],
    ),
    Case(
        "1.14 clusterwide: fromEndpoints [{}] is every pod, not host or world",
        clusterwide({"ingress": [{"fromEndpoints": [{}]}]}),
        [
            (API, "in", 80, ALLOW),
            (OTHER_NS, "in", 80, ALLOW),
            (HOST, "in", 80, NO_ENTRY),
            (WORLD, "in", 80, NO_ENTRY),
        ],
    ),
    Case(
        "1.15 allow-localhost: the host reaches the endpoint, not the other way round",
        policies({"ingress": [{}], "egress": [{}]}),
        [(HOST, "in", 80, ALLOW), (HOST, "out", 80, NO_ENTRY), (REMOTE_NODE, "in", 80, NO_ENTRY)],
        allow_localhost=True,
    ),
    Case(
        "1.15 without allow-localhost the host needs a rule",
        policies({"ingress": [{}]}),
        [(HOST, "in", 80, NO_ENTRY)],
    ),
    Case(
        "1.15 a deny beats allow-localhost as any other allow",
        policies({"ingressDeny": [{"fromEntities": ["host"], "toPorts": ports("22")}]}),
        [(HOST, "in", 22, DENIED), (HOST, "in", 80, ALLOW)],
        allow_localhost=True,
    ),
    Case(
        "2 deny precedence: a deny without ports beats an allow of a port",
        policies(
            {"ingress": [{**FROM_API, "toPorts": ports("80")}]},
            {"ingressDeny": [FROM_API]},
        ),
        [(API, "in", 80, DENIED), (API, "in", 81, DENIED), (API, "in/icmp", 8, DENIED)],
    ),
    Case(
        "2 deny precedence: a deny of anybody on a port beats an allow of one peer there",
        policies({"ingress": [FROM_API]}, {"ingressDeny": [{"toPorts": ports("80")}]}),
        [(API, "in", 80, DENIED), (API, "in", 81, ALLOW), (CLIENT, "in", 80, DENIED)],
    ),
    Case(
        "2 deny precedence: a deny of all entities beats everything",
        policies(
            {"ingress": [{**FROM_API, "toPorts": ports("80")}, {"toPorts": ports("81")}]},
            {"ingressDeny": [{"fromEntities": ["all"]}]},
        ),
        [(API, "in", 80, DENIED), (API, "in", 81, DENIED), (UNKNOWN, "in", 1, DENIED)],
    ),
    Case(
        "2 deny precedence: a deny of one peer on all ports of a protocol, an allow of anybody on one port",
        policies(
            {"ingress": [{"toPorts": ports("80")}]},
            {"ingressDeny": [{**FROM_API, "toPorts": ports("0")}]},
        ),
        [(API, "in", 80, DENIED), (CLIENT, "in", 80, ALLOW), (API, "in/udp", 80, NO_ENTRY)],
    ),
    Case(
        "2 deny precedence: a denied range inside an allowed one",
        policies(
            {"ingress": [{**FROM_API, "toPorts": [{"ports": [{"port": "8000", "endPort": 8100}]}]}]},
            {"ingressDeny": [{"toPorts": [{"ports": [{"port": "8031", "endPort": 8033}]}]}]},
        ),
        [
            (API, "in", 8000, ALLOW),
            (API, "in", 8030, ALLOW),
            (API, "in", 8031, DENIED),
            (API, "in", 8033, DENIED),
            (API, "in", 8034, ALLOW),
            (API, "in", 8100, ALLOW),
            (API, "in", 8101, NO_ENTRY),
        ],
    ),
    Case(
        "2 deny precedence: an allowed port inside a denied range stays denied",
        policies(
            {"ingress": [{"toPorts": ports("8032")}]},
            {"ingressDeny": [{**FROM_API, "toPorts": [{"ports": [{"port": "8000", "endPort": 8100}]}]}]},
        ),
        [(API, "in", 8032, DENIED), (CLIENT, "in", 8032, ALLOW), (CLIENT, "in", 8031, NO_ENTRY)],
    ),
    Case(
        "2 deny precedence: the other direction is not touched",
        policies({"ingress": [FROM_API], "egressDeny": [{"toEntities": ["all"]}]}),
        [(API, "in", 80, ALLOW), (API, "out", 80, DENIED)],
    ),
    Case(
        "3 labels without a source match every source",
        policies({"ingress": [{"fromEndpoints": [labels(app="web")]}]}),
        [(WEB, "in", 80, ALLOW), (CONTAINER, "in", 80, ALLOW), (API, "in", 80, NO_ENTRY)],
    ),
    Case(
        "3 labels with a source match that source, with a colon or a dot",
        policies(
            {"ingress": [{"fromEndpoints": [labels(**{"k8s:app": "web"})]}]},
            {"ingress": [{"fromEndpoints": [labels(**{"k8s.app": "api"})]}]},
        ),
        [(WEB, "in", 80, ALLOW), (CONTAINER, "in", 80, NO_ENTRY), (API, "in", 80, ALLOW)],
    ),
    Case(
        "3 AND inside a selector, OR across the list",
        policies({"ingress": [{"fromEndpoints": [labels(app="web", tier="back"), labels(tier="back")]}]}),
        [(API, "in", 80, ALLOW), (WEB, "in", 80, NO_ENTRY)],
    ),
    *[
        Case(
            f"3 matchExpressions {operator}",
            policies(
                {
                    "ingress": [
                        {
                            "fromEndpoints": [
                                {
                                    "matchExpressions": [
                                        {
                                            "key": "tier",
                                            "operator": operator,
                                            **({"values": values} if values else {}),
                                        }
                                    ]
                                }
                            ]
                        }
                    ]
                }
            ),
            [(WEB, "in", 80, web), (API, "in", 80, api), (CLIENT, "in", 80, client)],
        )
        for operator, values, web, api, client in (
            ("In", ["front", "middle"], ALLOW, NO_ENTRY, NO_ENTRY),
            ("NotIn", ["front"], NO_ENTRY, ALLOW, ALLOW),
            ("Exists", [], ALLOW, ALLOW, NO_ENTRY),
            ("DoesNotExist", [], NO_ENTRY, NO_ENTRY, ALLOW),
        )
    ],
    Case(
        "3 namespace scoping: a selector stays in the policy's namespace",
        policies({"ingress": [{"fromEndpoints": [labels(app="web")]}]}),
        [(WEB, "in", 80, ALLOW), (OTHER_NS, "in", 80, NO_ENTRY)],
    ),
    Case(
        "3 namespace scoping: a selector that names a namespace is there",
        policies({"ingress": [{"fromEndpoints": [labels(**{"k8s:io.kubernetes.pod.namespace": "other"})]}]}),
        [(OTHER_NS, "in", 80, ALLOW), (WEB, "in", 80, NO_ENTRY)],
    ),
    Case(
        "3 namespace scoping: an expression about the namespace counts too",
        policies(
            {
                "ingress": [
                    {
                        "fromEndpoints": [
                            {
                                "matchExpressions": [
                                    {
                                        "key": "io.kubernetes.pod.namespace",
                                        "operator": "NotIn",
                                        "values": ["demo"],
                                    },
                                    {"key": "app", "operator": "Exists"},
                                ]
                            }
                        ]
                    }
                ]
            }
        ),
        [(OTHER_NS, "in", 80, ALLOW), (WEB, "in", 80, NO_ENTRY)],
    ),
    Case(
        "3 namespace scoping: reserved labels are not scoped",
        policies({"ingress": [{"fromEndpoints": [labels(**{"reserved:health": ""})]}]}),
        [(HEALTH, "in", 80, ALLOW), (API, "in", 80, NO_ENTRY)],
    ),
    Case(
        "3 subject: the policy's namespace, whatever the selector says",
        policies(
            {"endpointSelector": labels(**{"k8s:io.kubernetes.pod.namespace": "other"}), "ingress": [{}]}
        ),
        [(API, "in", 80, NO_ENTRY)],
    ),
    Case(
        "3 subject: a policy of another namespace does not select",
        parsed(document({"ingress": [{}]}, namespace="other")),
        [(API, "in", 80, ALLOW)],
    ),
    Case(
        "3 entity all: anybody, also identities that are not known yet",
        policies({"ingress": [{"fromEntities": ["all"]}]}),
        [(UNKNOWN, "in", 80, ALLOW), (WORLD, "in", 80, ALLOW), (API, "in/gre", 0, ALLOW)],
    ),
    Case(
        "3 entity world: the world and CIDRs of it, no pod and no node",
        policies({"egress": [{"toEntities": ["world"]}]}),
        [
            (WORLD, "out", 80, ALLOW),
            (int(Reserved.WORLD_IPV4), "out", 80, ALLOW),
            (NET_10_1, "out", 80, ALLOW),
            (API, "out", 80, NO_ENTRY),
            (HOST, "out", 80, NO_ENTRY),
        ],
    ),
    Case(
        "3 entity cluster: every pod of this cluster, nodes and the rest, not the world or another cluster",
        policies({"egress": [{"toEntities": ["cluster"]}]}),
        [
            *((inside, "out", 80, ALLOW) for inside in (API, OTHER_NS, HOST, REMOTE_NODE, INIT, INGRESS)),
            *((inside, "out", 80, ALLOW) for inside in (HEALTH, UNMANAGED, KUBE_APISERVER)),
            *((outside, "out", 80, NO_ENTRY) for outside in (WORLD, NET_10, OTHER_CLUSTER, UNKNOWN)),
        ],
    ),
    *[
        Case(
            f"3 entity {name}",
            policies({"ingress": [{"fromEntities": [name]}]}),
            [
                (identity, "in", 80, ALLOW if identity in allowed else NO_ENTRY)
                for identity in (HOST, REMOTE_NODE, KUBE_APISERVER, INGRESS, INIT, HEALTH, UNMANAGED, API)
            ],
        )
        for name, allowed in (
            ("host", {HOST}),
            ("remote-node", {REMOTE_NODE, KUBE_APISERVER}),
            ("kube-apiserver", {KUBE_APISERVER}),
            ("ingress", {INGRESS}),
            ("init", {INIT}),
            ("health", {HEALTH}),
            ("unmanaged", {UNMANAGED}),
            ("none", set[int]()),
        )
    ],
    Case(
        "3 toCIDR: identities of CIDRs inside, no pods and no nodes",
        policies({"egress": [{"toCIDR": ["10.1.0.0/16"]}]}),
        [
            (NET_10_1, "out", 80, ALLOW),
            (NET_10_1_2, "out", 80, ALLOW),
            (NET_10, "out", 80, NO_ENTRY),
            (NET_192, "out", 80, NO_ENTRY),
            (API, "out", 80, NO_ENTRY),
            (REMOTE_NODE, "out", 80, NO_ENTRY),
        ],
    ),
    Case(
        "3 except: what is inside of it is not selected",
        policies({"egress": [{"toCIDRSet": [{"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}]}]}),
        [(NET_10, "out", 80, ALLOW), (NET_10_1, "out", 80, NO_ENTRY), (NET_10_1_2, "out", 80, NO_ENTRY)],
    ),
    Case(
        "3 except takes away from its own item only",
        policies(
            {
                "egress": [
                    {
                        "toCIDRSet": [
                            {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]},
                            {"cidr": "10.1.2.0/24"},
                        ]
                    }
                ]
            }
        ),
        [(NET_10, "out", 80, ALLOW), (NET_10_1, "out", 80, NO_ENTRY), (NET_10_1_2, "out", 80, ALLOW)],
    ),
    Case(
        "3 0.0.0.0/0 is the world too",
        policies({"egress": [{"toCIDR": ["0.0.0.0/0"]}]}),
        [(WORLD, "out", 80, ALLOW), (NET_192, "out", 80, ALLOW), (API, "out", 80, NO_ENTRY)],
    ),
    Case(
        "3 0.0.0.0/0 except a prefix",
        policies({"egress": [{"toCIDRSet": [{"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}]}]}),
        [(WORLD, "out", 80, ALLOW), (NET_192, "out", 80, ALLOW), (NET_10_1, "out", 80, NO_ENTRY)],
    ),
    Case(
        "3 ::/0 does not open IPv4",
        policies({"egress": [{"toCIDR": ["::/0"]}]}),
        [(WORLD, "out", 80, NO_ENTRY), (NET_192, "out", 80, NO_ENTRY)],
    ),
    *[
        Case(
            f"4.1 protocol {protocol or 'left out'} is TCP, UDP and SCTP, not ICMP",
            policies({"ingress": [{"toPorts": [{"ports": [{"port": "80", **protocol}]}]}]}),
            [
                (API, "in", 80, ALLOW),
                (API, "in/udp", 80, ALLOW),
                (API, "in/sctp", 80, ALLOW),
                (API, "in/icmp", 80, NO_ENTRY),
            ],
        )
        for protocol in (dict[str, str](), {"protocol": "ANY"})
    ],
    Case(
        "4.1 one protocol is that one only",
        policies({"ingress": [{"toPorts": ports("53", protocol="UDP")}]}),
        [(API, "in/udp", 53, ALLOW), (API, "in", 53, NO_ENTRY)],
    ),
    Case(
        "4.2 port 0 is every port of the protocol",
        policies({"ingress": [{"toPorts": ports("0")}]}),
        [(API, "in", 1, ALLOW), (API, "in", 65535, ALLOW), (API, "in/udp", 1, NO_ENTRY)],
    ),
    Case(
        "4.3 endPort makes a range, both ends included; 0 is a single port",
        policies(
            {
                "ingress": [
                    {
                        "toPorts": [
                            {"ports": [{"port": "1000", "endPort": 1234}, {"port": "80", "endPort": 0}]}
                        ]
                    }
                ]
            }
        ),
        [
            (API, "in", 999, NO_ENTRY),
            (API, "in", 1000, ALLOW),
            (API, "in", 1234, ALLOW),
            (API, "in", 1235, NO_ENTRY),
            (API, "in", 80, ALLOW),
            (API, "in", 81, NO_ENTRY),
        ],
    ),
    Case(
        "4.6 icmps by number and name, without peers for anybody",
        policies(
            {"ingress": [{"icmps": [{"fields": [{"type": "EchoRequest", "family": "IPv4"}, {"type": 0}]}]}]}
        ),
        [
            (UNKNOWN, "in/icmp", 8, ALLOW),
            (API, "in/icmp", 0, ALLOW),
            (API, "in/icmp", 3, NO_ENTRY),
            (API, "in", 8, NO_ENTRY),
        ],
    ),
    Case(
        "4.6 an ICMP deny leaves the rest of an allow",
        policies({"ingress": [FROM_API]}, {"ingressDeny": [{"icmps": [{"fields": [{"type": 8}]}]}]}),
        [(API, "in/icmp", 8, DENIED), (API, "in/icmp", 0, ALLOW), (API, "in", 80, ALLOW)],
    ),
]


def split(direction: str) -> tuple[bool, int]:
    way, _, protocol = direction.partition("/")
    return way == "out", PROTOCOLS[protocol or "tcp"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.row)
def test_policies_mean_what_the_row_says(case: Case) -> None:
    """The kernel's look-up in the resolved map gives the verdict of the row."""
    found = engine(*case.policies, subject=case.subject, mode=case.mode, allow_localhost=case.allow_localhost)
    for identity, direction, port, expected in case.expected:
        egress, protocol = split(direction)
        decision = decide(found, identity, port, protocol, egress=egress)
        assert decision.drop_reason == expected, (identity, direction, port)
    if case.enforced:
        assert found.policy(SUBJECT).enforced == case.enforced


MATCHES = [
    ("L3-Only", policies(ALLOW_API), API, TCP, 80),
    ("L3-Proto", policies({"ingress": [{**FROM_API, "toPorts": ports("0")}]}), API, TCP, 80),
    ("L3-L4", policies({"ingress": [{**FROM_API, "toPorts": ports("80")}]}), API, TCP, 80),
    ("all", policies({"ingress": [{"fromEntities": ["all"]}]}), API, TCP, 80),
    ("all", (), API, TCP, 80),
    ("Proto-Only", policies({"ingress": [{"toPorts": ports("0")}]}), API, TCP, 80),
    ("L4-Only", policies({"ingress": [{"toPorts": ports("80")}]}), API, TCP, 80),
    ("none", policies(ALLOW_API), CLIENT, TCP, 80),
    # Of an entry of the identity and one of any, the longer port prefix decides; on a tie the identity's.
    ("L4-Only", policies(ALLOW_API, {"ingress": [{"toPorts": ports("80")}]}), API, TCP, 80),
    (
        "L3-L4",
        policies(
            {"ingress": [{**FROM_API, "toPorts": ports("80")}]}, {"ingress": [{"toPorts": ports("80")}]}
        ),
        API,
        TCP,
        80,
    ),
]


@pytest.mark.parametrize(("expected", "found", "identity", "protocol", "port"), MATCHES)
def test_match_type_names_the_entry_that_decided(
    expected: str, found: Sequence[Policy], identity: int, protocol: int, port: int
) -> None:
    """Section 2: the match type follows from the chosen entry and its prefix."""
    assert decide(engine(*found), identity, port, protocol).match.display == expected


def deciding(decision: Decision) -> set[str]:
    assert decision.entry is not None
    return {str(rule) for rule in decision.entry.rules}


def test_entries_name_every_rule_that_made_them() -> None:
    """Two rules that allow the same are both named; a rule of another key is not."""
    found = engine(
        *policies(
            {"ingress": [{}, {**FROM_API, "toPorts": [*ports("81"), *ports("80")]}]},
            {"ingress": [{**FROM_API, "toPorts": ports("80")}]},
            {"ingress": [{"toPorts": ports("80")}]},
        )
    )
    assert deciding(decide(found, API, 80)) == {
        "demo/p0 ingress[1].toPorts[1]",
        "demo/p1 ingress[0].toPorts[0]",
    }
    assert deciding(decide(found, CLIENT, 80)) == {"demo/p2 ingress[0].toPorts[0]"}


def test_rules_of_several_specs_are_named_by_their_spec() -> None:
    """`specs[i].` comes before the path where a policy has several specs."""
    found = engine(*parsed(document({"egress": [{}]}, {"ingress": [FROM_API]})))
    assert deciding(decide(found, API)) == {"demo/p specs[1].ingress[0]"}


def test_a_deny_names_the_denying_rules_only() -> None:
    """Allows that a deny covers leave no trace in its entry."""
    found = engine(*policies(ALLOW_API, {"ingressDeny": [FROM_API]}))
    assert deciding(decide(found, API)) == {"demo/p1 ingressDeny[0]"}


def test_default_deny_names_the_rules_that_close_the_direction() -> None:
    """Rules with default deny are named, those without are not; nor is the mode, which is no rule."""
    policy = engine(
        *policies(
            ALLOW_API,
            {"ingressDeny": [{}], "egress": [{}]},
            {"enableDefaultDeny": {"ingress": False}, "ingress": [{}]},
        )
    ).policy(SUBJECT)
    assert {str(rule) for rule in policy.ingress_default_deny} == {"demo/p0 ingress", "demo/p1 ingressDeny"}
    assert {str(rule) for rule in policy.egress_default_deny} == {"demo/p1 egress"}
    always = engine(mode=EnforcementMode.ALWAYS).policy(SUBJECT)
    assert not always.ingress_default_deny


def test_open_directions_have_one_entry_without_rules() -> None:
    """A direction that is not enforced is an allow-all entry that no rule made."""
    entries = engine().policy(SUBJECT).entries
    assert {tuple(key): entry.rules for key, entry in entries.items()} == {
        (0, False, 0, 0, 0): frozenset(),
        (0, True, 0, 0, 0): frozenset(),
    }


def test_allows_under_a_deny_of_anybody_are_left_out() -> None:
    """The map holds no entry that can never decide."""
    found = engine(*policies(ALLOW_API, {"ingressDeny": [{"fromEntities": ["all"]}]}), allow_localhost=True)
    assert {key.identity for key in found.policy(SUBJECT).entries if not key.egress} == {0}
