"""Reading policy documents: what is accepted, and the exact path and words for what is not."""

import json
from ipaddress import IPv4Network
from typing import Any

import pytest
import yaml

from agent.policy.api import PolicyKind, PolicyName, PortRange
from agent.policy.errors import InvalidPolicyError
from agent.policy.parse import parse_policies
from tests.agent.policy.cast import document, parsed

TEXT = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata:
  name: allow-web
  namespace: demo
  uid: 1234
  creationTimestamp: null
spec:
  description: the front end
  endpointSelector:
    matchLabels: {app: web}
  labels:
  - key: team
    value: shop
  - {key: x, source: k8s}
  ingress:
  - fromEndpoints:
    - matchLabels: {app: client}
    toPorts:
    - ports:
      - {port: "80", protocol: TCP}
status: {}
"""


def problems(text: str) -> list[str]:
    with pytest.raises(InvalidPolicyError) as caught:
        parse_policies(text)
    return [str(problem) for problem in caught.value.problems]


def bad_spec(**spec: Any) -> list[str]:
    return problems(yaml.safe_dump(document(spec)))


def bad_ingress(**section: Any) -> list[str]:
    return bad_spec(ingress=[{}, section])


def bad_port(**port: Any) -> list[str]:
    return bad_ingress(toPorts=[{"ports": [{"port": "80"}, port]}])


def test_a_policy_is_read_whole() -> None:
    """Names, labels, subject, sections and the document itself."""
    result = parse_policies(TEXT.replace("uid: 1234", 'uid: "1234"'))
    assert result.warnings == ()
    (policy,) = result.policies
    assert policy.kind is PolicyKind.NETWORK_POLICY
    assert policy.name == PolicyName("demo", "allow-web")
    assert str(policy.name) == "demo/allow-web"
    (spec,) = policy.specs
    assert spec.description == "the front end"
    assert str(spec.subject) == "any:app=web,k8s:io.kubernetes.pod.namespace=demo"
    assert spec.labels == (
        "k8s:io.cilium.k8s.policy.derived-from=CiliumNetworkPolicy",
        "k8s:io.cilium.k8s.policy.name=allow-web",
        "k8s:io.cilium.k8s.policy.namespace=demo",
        "k8s:io.cilium.k8s.policy.uid=1234",
        "k8s:x",
        "unspec:team=shop",
    )
    (section,) = spec.sections
    assert section.path == "ingress[0]"
    assert section.ports is not None
    assert section.ports[0].path == "toPorts[0]"
    assert section.ports[0].ports == (PortRange(6, 80, 80),)
    kept = json.loads(policy.document)
    assert kept["metadata"]["name"] == "allow-web"
    assert "status" not in kept


def test_json_and_yaml_read_the_same() -> None:
    """A policy in JSON, also indented with tabs, equals the one in YAML."""
    one = document({"ingress": [{"fromEntities": ["host"]}]})
    assert parse_policies(json.dumps(one, indent="\t")) == parse_policies(
        yaml.safe_dump(one, sort_keys=False)
    )


def test_several_documents_lists_and_arrays() -> None:
    """Documents, `kind: List` and JSON arrays all hold several policies; empty documents none."""
    one, two = document({"ingress": [{}]}, name="a"), document({"ingress": [{}]}, name="b")
    texts = [
        "---\n" + yaml.safe_dump(one) + "---\n---\n" + yaml.safe_dump(two),
        yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": [one, two]}),
        json.dumps([one, two]),
    ]
    for text in texts:
        assert [policy.name.name for policy in parse_policies(text).policies] == ["a", "b"]


def test_clusterwide_policies_have_no_namespace() -> None:
    """Their selectors are of the whole cluster."""
    kind = "CiliumClusterwideNetworkPolicy"
    (policy,) = parsed(document({"ingress": [{"fromEndpoints": [{}]}]}, kind=kind))
    assert policy.name == PolicyName("", "p")
    assert str(policy.name) == "p"
    assert policy.specs[0].subject.is_wildcard
    peers = policy.specs[0].sections[0].peers
    assert [str(peer) for peer in peers or ()] == ["k8s:io.kubernetes.pod.namespace"]


def test_the_namespace_is_default_where_none_is_given() -> None:
    """As kubectl does without a context."""
    one = document({"ingress": [{}]})
    del one["metadata"]["namespace"]
    assert parsed(one)[0].name == PolicyName("default", "p")


def test_cidrs_that_need_identities() -> None:
    """Prefixes and exceptions, each once; not everything, not IPv6."""
    (policy,) = parsed(
        document(
            {
                "egress": [
                    {"toCIDR": ["10.0.0.0/8", "10.0.0.0/8", "0.0.0.0/0", "192.0.2.1", "fd00::/8"]},
                    {"toCIDRSet": [{"cidr": "10.0.0.0/8", "except": ["10.96.0.0/12"]}]},
                ]
            }
        )
    )
    assert [section.cidrs for section in policy.specs[0].sections] == [
        (IPv4Network("10.0.0.0/8"), IPv4Network("192.0.2.1/32")),
        (IPv4Network("10.0.0.0/8"), IPv4Network("10.96.0.0/12")),
    ]


def test_enable_default_deny_needs_sections_to_act_on() -> None:
    """A direction without sections is not closed, with a warning."""
    one = document({"enableDefaultDeny": {"ingress": True, "egress": False}, "egress": [{}]})
    result = parse_policies(yaml.safe_dump(one))
    assert [str(found) for found in result.warnings] == [
        "spec.enableDefaultDeny.ingress: has no effect: the spec has neither ingress nor ingressDeny"
    ]
    spec = result.policies[0].specs[0]
    assert (spec.ingress_default_deny, spec.egress_default_deny) == (False, False)


WARNINGS = [
    (
        {"endpointSelector": {"matchLabels": {"k8s:io.kubernetes.pod.namespace": "x"}}, "ingress": [{}]},
        "spec.endpointSelector: names another namespace than the policy's: endpoints of demo are selected",
    ),
    (
        {"egress": [{"toCIDR": ["10.1.2.3/8"]}]},
        "spec.egress[0].toCIDR[0]: 10.1.2.3/8 has bits beyond its prefix: 10.0.0.0/8 is meant",
    ),
    (
        {"egress": [{"toCIDRSet": [{"cidr": "fd00::/8"}]}]},
        "spec.egress[0].toCIDRSet[0].cidr: matches nothing yet: IPv6 packets are dropped",
    ),
    (
        {"egress": [{"icmps": [{"fields": [{"family": "IPv6", "type": "EchoRequest"}]}]}]},
        "spec.egress[0].icmps[0].fields[0]: matches nothing yet: IPv6 packets are dropped",
    ),
]


@pytest.mark.parametrize(("spec", "expected"), WARNINGS)
def test_what_is_probably_not_meant_is_warned_of(spec: dict[str, Any], expected: str) -> None:
    """The policy is accepted, with a warning."""
    result = parse_policies(yaml.safe_dump(document(spec)))
    assert [str(found) for found in result.warnings] == [expected]


NOT_ENFORCED = [
    ({"nodeSelector": {}, "ingress": [{}]}, "spec.nodeSelector"),
    ({"ingress": [{"fromRequires": []}]}, "spec.ingress[0].fromRequires"),
    ({"ingress": [{"fromGroups": []}]}, "spec.ingress[0].fromGroups"),
    ({"ingress": [{"fromNodes": []}]}, "spec.ingress[0].fromNodes"),
    ({"ingress": [{"authentication": {"mode": "required"}}]}, "spec.ingress[0].authentication"),
    ({"egress": [{"toFQDNs": [{"matchName": "x.org"}]}]}, "spec.egress[0].toFQDNs"),
    ({"egress": [{"toServices": []}]}, "spec.egress[0].toServices"),
    ({"egress": [{"toNodes": []}]}, "spec.egress[0].toNodes"),
    ({"egress": [{"toRequires": []}]}, "spec.egress[0].toRequires"),
    ({"egress": [{"toGroups": []}]}, "spec.egress[0].toGroups"),
    ({"egress": [{"authentication": {}}]}, "spec.egress[0].authentication"),
    ({"egressDeny": [{"toServices": []}]}, "spec.egressDeny[0].toServices"),
    (
        {
            "ingress": [
                {
                    "toPorts": [
                        {"ports": [{"port": "1"}]},
                        {"ports": [{"port": "80"}], "rules": {"http": [{}]}},
                    ]
                }
            ]
        },
        "spec.ingress[0].toPorts[1].rules.http",
    ),
    *[
        (
            {"egress": [{"toPorts": [{"ports": [{"port": "80"}], "rules": {name: []}}]}]},
            f"spec.egress[0].toPorts[0].rules.{name}",
        )
        for name in ("kafka", "dns", "l7", "l7proto")
    ],
    *[
        (
            {"egress": [{"toPorts": [{"ports": [{"port": "80"}], name: {}}]}]},
            f"spec.egress[0].toPorts[0].{name}",
        )
        for name in ("listener", "originatingTLS", "terminatingTLS", "serverNames")
    ],
    ({"egress": [{"toCIDRSet": [{"cidrGroupRef": "x"}]}]}, "spec.egress[0].toCIDRSet[0].cidrGroupRef"),
    (
        {"egress": [{"toCIDRSet": [{"cidrGroupSelector": {}}]}]},
        "spec.egress[0].toCIDRSet[0].cidrGroupSelector",
    ),
]


@pytest.mark.parametrize(("spec", "path"), NOT_ENFORCED, ids=[path for _, path in NOT_ENFORCED])
def test_fields_that_are_not_enforced_are_refused(spec: dict[str, Any], path: str) -> None:
    """Never ignored: the error has the field's path."""
    assert bad_spec(**spec) == [f"{path}: not enforced yet"]


BAD_SPECS = [
    ({"ingres": [{}], "egress": [{}]}, ["spec.ingres: unknown field: did you mean ingress?"]),
    (
        {"ingress": []},
        ["spec: says nothing: give at least one of ingress, ingressDeny, egress, egressDeny an item"],
    ),
    ({"ingress": [[]]}, ["spec.ingress[0]: must be a mapping, not a list"]),
    ({"ingress": "all"}, ["spec.ingress: must be a list, not the text 'all'"]),
    ({"egress": None}, [
        "spec.egress: is null: give it a value or leave it out",
        "spec: says nothing: give at least one of ingress, ingressDeny, egress, egressDeny an item",
    ]),
    ({"ingress": [{"toEndpoints": []}]}, [
        "spec.ingress[0].toEndpoints: unknown field: did you mean fromEndpoints?"
    ]),
    ({"ingress": [{}], "enableDefaultDeny": {"ingress": "no"}}, [
        "spec.enableDefaultDeny.ingress: must be true or false, not the text 'no'"
    ]),
    ({"ingress": [{}], "description": 3}, [
        "spec.description: must be text, not the value 3: put it in quotes"
    ]),
    ({"ingress": [{}], "labels": [{"value": "x"}]}, ["spec.labels[0]: needs a key"]),
    ({"ingressDeny": [{"authentication": {}}]}, [
        "spec.ingressDeny[0].authentication: is not possible in a deny rule"
    ]),
    ({"egressDeny": [{"toFQDNs": []}]}, ["spec.egressDeny[0].toFQDNs: is not possible in a deny rule"]),
    ({"ingressDeny": [{"toPorts": [{"ports": [{"port": "80"}], "rules": {}}]}]}, [
        "spec.ingressDeny[0].toPorts[0].rules: is not possible in a deny rule"
    ]),
    ({"endpointSelector": {"matchLables": {}}, "ingress": [{}]}, [
        "spec.endpointSelector.matchLables: unknown field: did you mean matchLabels?"
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "expected"), BAD_SPECS, ids=[lines[0] for _, lines in BAD_SPECS])
def test_bad_specs(spec: dict[str, Any], expected: list[str]) -> None:
    """Every problem with its path."""
    assert bad_spec(**spec) == expected


VALUE_HINT = "up to 63 letters, digits, -, _ and . are, with a letter or digit at both ends"
BAD_PEERS = [
    ({"fromCIDR": ["10.0.0.0/33"]}, ".fromCIDR[0]: '10.0.0.0/33' is not a CIDR: write it like 10.0.0.0/8"),
    (
        {"fromCIDR": ["10.0.0.0/255.0.0.0"]},
        ".fromCIDR[0]: '10.0.0.0/255.0.0.0' is not a CIDR: write it like 10.0.0.0/8",
    ),
    ({"fromCIDR": ["nonsense"]}, ".fromCIDR[0]: 'nonsense' is not a CIDR: write it like 10.0.0.0/8"),
    ({"fromCIDR": [10]}, ".fromCIDR[0]: must be text, not the value 10: put it in quotes"),
    ({"fromCIDR": "10.0.0.0/8"}, ".fromCIDR: must be a list, not the text '10.0.0.0/8'"),
    (
        {"fromCIDRSet": [{"cidr": "10.0.0.0/8", "excpt": []}]},
        ".fromCIDRSet[0].excpt: unknown field: did you mean except?",
    ),
    ({"fromCIDRSet": [{"except": []}]}, ".fromCIDRSet[0]: cidr is missing"),
    (
        {"fromCIDRSet": [{"cidr": "10.0.0.0/8", "except": ["10.0.0.0/16", "11.0.0.0/8"]}]},
        ".fromCIDRSet[0].except[1]: 11.0.0.0/8 is not inside 10.0.0.0/8",
    ),
    (
        {"fromCIDRSet": [{"cidr": "fd00::/8", "except": ["10.0.0.0/8"]}]},
        ".fromCIDRSet[0].except[0]: 10.0.0.0/8 is not inside fd00::/8",
    ),
    ({"fromEntities": ["wrld"]}, ".fromEntities[0]: unknown value 'wrld': did you mean world?"),
    ({"fromEntities": ["world-ipv4"]}, ".fromEntities[0]: unknown value 'world-ipv4': did you mean world?"),
    (
        {"fromEndpoints": [{}], "fromEntities": ["all"]},
        ".fromEntities: cannot be combined with fromEndpoints in one rule: write two rules",
    ),
    (
        {"fromCIDR": ["10.0.0.0/8"], "fromCIDRSet": [{"cidr": "10.0.0.0/8"}]},
        ".fromCIDRSet: cannot be combined with fromCIDR in one rule: write two rules",
    ),
    (
        {"fromEndpoints": [{"matchLabels": {"app": True}}]},
        ".fromEndpoints[0].matchLabels.app: must be text, not true: put it in quotes",
    ),
    (
        {"fromEndpoints": [{"matchLabels": {7: "x"}}]},
        ".fromEndpoints[0].matchLabels: key 7 must be text: put it in quotes",
    ),
    (
        {"fromEndpoints": [{"matchLabels": {"app": "a b"}}]},
        f".fromEndpoints[0].matchLabels.app: 'a b' is not a label value: {VALUE_HINT}",
    ),
    (
        {"fromEndpoints": [{"matchLabels": {"a/b/c": "x"}}]},
        ".fromEndpoints[0].matchLabels['a/b/c']: 'a/b/c' is not a label key: write [source:][prefix/]name",
    ),
    (
        {"fromEndpoints": [{"matchLabels": {"k8s:": "x"}}]},
        ".fromEndpoints[0].matchLabels['k8s:']: 'k8s:' is not a label key: write [source:][prefix/]name",
    ),
    (
        {"fromEndpoints": [{"matchExpressions": [{"key": "a", "operator": "in", "values": ["b"]}]}]},
        ".fromEndpoints[0].matchExpressions[0].operator: unknown value 'in': did you mean In?",
    ),
    (
        {"fromEndpoints": [{"matchExpressions": [{"key": "a", "operator": "In"}]}]},
        ".fromEndpoints[0].matchExpressions[0]: operator In needs values",
    ),
    (
        {"fromEndpoints": [{"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}]},
        ".fromEndpoints[0].matchExpressions[0].values: operator Exists takes no values",
    ),
    (
        {"fromEndpoints": [{"matchExpressions": [{"operator": "Exists"}]}]},
        ".fromEndpoints[0].matchExpressions[0]: key is missing",
    ),
    (
        {"fromEndpoints": [{"matchExpressions": [{"key": "a", "operator": "In", "values": [1]}]}]},
        ".fromEndpoints[0].matchExpressions[0].values[0]: must be text, not the value 1: put it in quotes",
    ),
    ({"fromEndpoints": None}, ".fromEndpoints: is null: give it a value or leave it out"),
]


@pytest.mark.parametrize(("section", "expected"), BAD_PEERS, ids=[text for _, text in BAD_PEERS])
def test_bad_peers(section: dict[str, Any], expected: str) -> None:
    """Bad CIDRs, entities and selectors, each with its path."""
    assert bad_ingress(**section) == [f"spec.ingress[1]{expected}"]


BAD_PORTS = [
    ({"port": "65536"}, ".port: port 65536 is not between 0 and 65535"),
    ({"port": "9" * 5000}, f".port: port {'9' * 20} is not between 0 and 65535"),
    ({"port": "-1"}, ".port: '-1' is not a port: a number from 0 to 65535 in quotes is"),
    ({"port": "80 "}, ".port: '80 ' is not a port: a number from 0 to 65535 in quotes is"),
    ({"port": ""}, ".port: '' is not a port: a number from 0 to 65535 in quotes is"),
    ({"port": 80}, '.port: must be text: write "80"'),
    ({"port": True}, ".port: must be text, not true: put it in quotes"),
    ({"port": "http"}, ".port: named port 'http': not enforced yet"),
    ({"prot": "80"}, None),
    ({"port": "80", "endPort": 79}, ".endPort: 79 is below port 80"),
    ({"port": "80", "endPort": 65536}, ".endPort: 65536 is not between 0 and 65535"),
    ({"port": "80", "endPort": "90"}, ".endPort: must be a number, not the text '90'"),
    ({"port": "0", "endPort": 90}, ".endPort: a range cannot begin with port 0, which stands for every port"),
    ({"port": "80", "protocol": "tcp"}, ".protocol: unknown value 'tcp': did you mean TCP?"),
    ({"port": "80", "protocol": "ICMP"}, ".protocol: unknown value 'ICMP': one of TCP, UDP, SCTP, ANY"),
]


@pytest.mark.parametrize(("port", "expected"), BAD_PORTS)
def test_bad_ports(port: dict[str, Any], expected: str | None) -> None:
    """Impossible ports, each with its path."""
    path = "spec.ingress[1].toPorts[0].ports[1]"
    if expected is None:
        assert bad_port(**port) == [
            f"{path}.prot: unknown field: did you mean port?",
            f"{path}: port is missing",
        ]
    else:
        assert bad_port(**port) == [f"{path}{expected}"]


BAD_PORT_RULES = [
    ({"toPorts": [{}]}, ".toPorts[0]: ports is missing"),
    ({"toPorts": [{"ports": []}]}, '.toPorts[0].ports: is empty: name a port, "0" for every port'),
    ({"toPorts": [{"ports": [{"port": "1"}] * 41}]}, ".toPorts[0].ports: has 41 items: at most 40"),
    ({"icmps": [{"fields": [{"type": 1}] * 41}]}, ".icmps[0].fields: has 41 items: at most 40"),
    ({"icmps": [{}]}, ".icmps[0]: fields is missing or empty: name an ICMP type"),
    ({"icmps": [{"fields": [{"type": 256}]}]}, ".icmps[0].fields[0].type: 256 is not between 0 and 255"),
    ({"icmps": [{"fields": [{"type": "256"}]}]}, ".icmps[0].fields[0].type: 256 is not between 0 and 255"),
    (
        {"icmps": [{"fields": [{"type": "EchoRequst"}]}]},
        ".icmps[0].fields[0].type: unknown value 'EchoRequst': did you mean EchoRequest?",
    ),
    ({"icmps": [{"fields": [{"family": "IPv4"}]}]}, ".icmps[0].fields[0]: type is missing"),
    (
        {"icmps": [{"fields": [{"family": "ipv4", "type": 1}]}]},
        ".icmps[0].fields[0].family: unknown value 'ipv4': did you mean IPv4?",
    ),
    (
        {"icmps": [{"fields": [{"type": 8}]}], "toPorts": [{"ports": [{"port": "1"}]}]},
        ".icmps: cannot be combined with toPorts in one rule: write two rules",
    ),
]


@pytest.mark.parametrize(("section", "expected"), BAD_PORT_RULES, ids=[text for _, text in BAD_PORT_RULES])
def test_bad_port_rules(section: dict[str, Any], expected: str) -> None:
    """Port and ICMP rules that cannot be."""
    assert bad_ingress(**section) == [f"spec.ingress[1]{expected}"]


CNP = "apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy"
CCNP = "apiVersion: cilium.io/v2, kind: CiliumClusterwideNetworkPolicy"
BAD_DOCUMENTS = [
    (
        "",
        ["no policy in it: write one of kind CiliumNetworkPolicy or CiliumClusterwideNetworkPolicy"],
    ),
    ("just text", ["must be a mapping, not the text 'just text'"]),
    ("a: [", ["cannot be read: line 1: expected the node content, but found '<stream end>'"]),
    ('{"a": 1, "a": 2}', ["cannot be read: 'a' is there twice: merge them"]),
    ("a: 1\nb:\n  c: 1\n  c: 2\n", ["cannot be read: line 4: 'c' is there twice: merge them"]),
    (
        "{apiVersion: cilium.io/v2, kind: NetworkPolicy, metadata: {name: x}, spec: {}}",
        ["kind: unknown value 'NetworkPolicy': did you mean CiliumNetworkPolicy?"],
    ),
    (
        "{apiVersion: cilium.io/v1, kind: CiliumNetworkPolicy, metadata: {name: x}, specs: []}",
        ["apiVersion: 'cilium.io/v1' is not read here: write cilium.io/v2"],
    ),
    (
        "{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: x}}",
        ["spec: is missing"],
    ),
    (
        f"{{{CNP}, metadata: {{}}, spec: {{endpointSelector: {{}}, ingress: [{{}}]}}}}",
        ["metadata.name: is missing"],
    ),
    (
        f"{{{CNP}, metadata: {{name: A, namespace: a.b, nam: x}}, spec: {{ingress: [{{}}]}}}}",
        [
            "metadata.nam: unknown field: did you mean name?",
            "metadata.name: 'A' is not a name: lower-case letters, digits, - and . are",
            "metadata.namespace: 'a.b' is not a namespace: lower-case letters, digits and - are",
            "spec: endpointSelector is missing: {} selects every endpoint",
        ],
    ),
    (
        f"{{{CCNP}, metadata: {{name: a, namespace: b}}, spec: {{endpointSelector: {{}}, ingress: [{{}}]}}}}",
        ["metadata.namespace: a CiliumClusterwideNetworkPolicy has no namespace"],
    ),
    ("{metadata: {name: x}}", ["apiVersion: is missing", "kind: is missing"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), BAD_DOCUMENTS)
def test_bad_documents(text: str, expected: list[str]) -> None:
    """Texts that are no policy."""
    assert problems(text) == expected


def test_every_problem_of_every_document_is_told() -> None:
    """Not only the first; each says which policy it is in."""
    text = yaml.safe_dump_all(
        [
            document({"ingress": [{"fromCIDR": ["x"]}, {"fromEntities": ["hst"]}]}, name="one"),
            {"kind": 3},
            document(
                {"ingress": [{}]}, {"egress": [{"toPorts": [{"ports": [{"port": "99999"}]}]}]}, name="two"
            ),
        ]
    )
    assert problems(text) == [
        "demo/one: spec.ingress[0].fromCIDR[0]: 'x' is not a CIDR: write it like 10.0.0.0/8",
        "demo/one: spec.ingress[1].fromEntities[0]: unknown value 'hst': did you mean host?",
        "document 2: apiVersion: is missing",
        "document 2: metadata: is missing",
        "document 2: kind: must be text, not the value 3: put it in quotes",
        "demo/two: specs[1].egress[0].toPorts[0].ports[0].port: port 99999 is not between 0 and 65535",
    ]


def test_a_policy_twice_in_one_text_is_refused() -> None:
    """Only one of the two could be in force."""
    one = document({"ingress": [{}]})
    assert problems(yaml.safe_dump_all([one, one])) == ["demo/p: metadata.name: this policy is there twice"]


def test_text_that_unfolds_without_end_is_refused() -> None:
    """Anchors of anchors, a list that holds itself, brackets without end: an error, not a hang."""
    bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
    for old, new in zip("abcdefg", "bcdefgh", strict=True):
        bomb += f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n"
    assert problems(bomb) == ["more than 200000 values: split it"]
    assert problems("a: &a [*a]") == ["cannot be read: line 1: found unconstructable recursive node"]
    assert problems("&a [*a]") == ["more than 200000 values: split it"]
    (deep,) = problems("[" * 100_000)
    assert deep.startswith("cannot be read: ")
    assert problems("#" * (4 << 20) + "#") == [f"{(4 << 20) + 1} characters: at most {4 << 20}"]
