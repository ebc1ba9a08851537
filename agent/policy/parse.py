"""CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy documents to policies, or to every reason why not.

A policy is read whole or refused whole: a field that is not enforced yet is an error, never ignored. Peers
are read in `agent.policy.peers`, ports in `agent.policy.ports`. Pure: text in, values out. What a selector
selects is not known here; the repository warns of those that select nothing.
Source of the format: the CustomResourceDefinitions of cilium.io/v2.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from agent.policy.api import Policy, PolicyKind, PolicyName, Section, Spec
from agent.policy.document import load, to_json
from agent.policy.errors import InvalidPolicyError, PolicyProblem
from agent.policy.node import Node, Report
from agent.policy.peers import Scope, parse_peers, parse_selector
from agent.policy.ports import parse_ports
from agent.policy.selector import Selector, names_reserved, subject_in_namespace
from palomar.identity import Reserved
from palomar.labels import NAMESPACE_KEY, SOURCES

API_VERSION = "cilium.io/v2"
DEFAULT_NAMESPACE = "default"
_POLICY_LABELS = "io.cilium.k8s.policy"

_RESOURCE = ("apiVersion", "kind", "metadata", "spec", "specs", "status")
_METADATA = (
    "name",
    "namespace",
    "labels",
    "annotations",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "ownerReferences",
    "finalizers",
    "generateName",
    "selfLink",
)
_SECTIONS = ("ingress", "ingressDeny", "egress", "egressDeny")
_SPEC = ("endpointSelector", *_SECTIONS, "enableDefaultDeny", "description", "labels")

_NAME = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
_NAMESPACE = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
_MAX_NAME = 253
_MAX_NAMESPACE = 63


@dataclass(frozen=True, slots=True)
class ParsedPolicies:
    """What a text held."""

    policies: tuple[Policy, ...]
    warnings: tuple[PolicyProblem, ...]


def parse_policies(text: str, cluster: str = "default") -> ParsedPolicies:
    """Read every policy of a YAML or JSON text; `cluster` is what the entity of that name stands for.

    Raises InvalidPolicyError with every problem of every document.
    """
    documents = load(text)
    if not documents:
        raise InvalidPolicyError([PolicyProblem("", f"no policy in it: write one of kind {_kinds()}")])
    policies: list[Policy] = []
    problems: list[PolicyProblem] = []
    warnings: list[PolicyProblem] = []
    seen: set[PolicyName] = set()
    for index, document in enumerate(documents):
        report = Report(_label(document, index, len(documents)))
        policy = _policy(Node(document, "", report), cluster)
        if policy is not None:
            if policy.name in seen:
                Node(document, "metadata.name", report).error("this policy is there twice")
            seen.add(policy.name)
            policies.append(policy)
        problems += report.problems
        warnings += report.warnings
    if problems:
        raise InvalidPolicyError(problems)
    return ParsedPolicies(tuple(policies), tuple(warnings))


def _label(document: Any, index: int, count: int) -> str:
    """Name a document among several; one alone needs no name."""
    if count == 1:
        return ""
    metadata = document.get("metadata") if isinstance(document, dict) else None
    if isinstance(metadata, dict) and isinstance(metadata.get("name"), str):
        namespace = metadata.get("namespace")
        return f"{namespace}/{metadata['name']}" if namespace else metadata["name"]
    return f"document {index + 1}"


def _kinds() -> str:
    return " or ".join(PolicyKind)


def _policy(document: Node, cluster: str) -> Policy | None:
    fields = document.fields(_RESOURCE, nullable=("status",))
    if not isinstance(document.value, dict):
        return None
    kind = _kind(document, fields)
    if kind is None:
        return None
    name, uid = _metadata(document, fields, kind)
    scope = Scope(name.namespace, cluster)
    nodes = _specs(document, fields)
    if not nodes:
        return None
    labels = _identifying_labels(kind, name, uid)
    specs = tuple(_Specification(node, prefix, scope, labels).read() for node, prefix in nodes)
    return Policy(kind, name, specs, to_json(document.value))


def _kind(document: Node, fields: dict[str, Node]) -> PolicyKind | None:
    for required in ("apiVersion", "kind", "metadata"):
        if required not in document.value:
            Node(None, required, document.report).error("is missing")
    if "apiVersion" in fields and fields["apiVersion"].value != API_VERSION:
        fields["apiVersion"].error(f"{fields['apiVersion'].value!r} is not read here: write {API_VERSION}")
    if "kind" not in fields:
        return None
    text = fields["kind"].choice([kind.value for kind in PolicyKind])
    return None if text is None else PolicyKind(text)


def _metadata(document: Node, fields: dict[str, Node], kind: PolicyKind) -> tuple[PolicyName, str]:
    namespaced = kind is PolicyKind.NETWORK_POLICY
    namespace = DEFAULT_NAMESPACE if namespaced else ""
    if "metadata" not in fields:
        return PolicyName(namespace, ""), ""
    found = fields["metadata"].fields(_METADATA, nullable=set(_METADATA) - {"name", "namespace"})
    name = ""
    if "name" in found:
        name = found["name"].text() or ""
        if len(name) > _MAX_NAME or not _NAME.match(name):
            found["name"].error(f"{name!r} is not a name: lower-case letters, digits, - and . are")
    elif "name" not in fields["metadata"].value:
        Node(None, "metadata.name", document.report).error("is missing")
    if "namespace" in found:
        namespace = found["namespace"].text() or namespace
        if not namespaced:
            found["namespace"].error(f"a {kind} has no namespace")
        elif len(namespace) > _MAX_NAMESPACE or not _NAMESPACE.match(namespace):
            found["namespace"].error(
                f"{namespace!r} is not a namespace: lower-case letters, digits and - are"
            )
    uid = found["uid"].text() if "uid" in found else ""
    return PolicyName(namespace, name), uid or ""


def _specs(document: Node, fields: dict[str, Node]) -> list[tuple[Node, str]]:
    """Return every spec with the prefix that its rule paths get."""
    found = [(fields["spec"], "")] if "spec" in fields else []
    if "specs" in fields:
        found += [(node, f"specs[{index}].") for index, node in enumerate(fields["specs"].items())]
    if not found and not document.report.problems:
        Node(None, "spec", document.report).error("is missing")
    return found


def _identifying_labels(kind: PolicyKind, name: PolicyName, uid: str) -> tuple[str, ...]:
    values = {"derived-from": str(kind), "name": name.name, "namespace": name.namespace, "uid": uid}
    return tuple(f"k8s:{_POLICY_LABELS}.{key}={value}" for key, value in values.items() if value)


@dataclass(frozen=True, slots=True)
class _Specification:
    """Reads one spec."""

    node: Node
    prefix: str
    scope: Scope
    labels: tuple[str, ...]

    def read(self) -> Spec:
        """Return the spec; where it is wrong the report says so and the value means nothing."""
        fields = self.node.fields(_SPEC, not_enforced=("nodeSelector",))
        subject = self._subject(fields)
        scope = self.scope.of_subject(init=names_reserved(subject, Reserved.INIT))
        sections = tuple(
            self._section(name, index, item, scope)
            for name in _SECTIONS
            if name in fields
            for index, item in enumerate(fields[name].items())
        )
        if isinstance(self.node.value, dict) and not any(self.node.value.get(name) for name in _SECTIONS):
            self.node.error(f"says nothing: give at least one of {', '.join(_SECTIONS)} an item")
        ingress, egress = self._default_deny(fields, sections)
        return Spec(
            path=self.node.path,
            subject=subject,
            sections=sections,
            ingress_default_deny=ingress,
            egress_default_deny=egress,
            description=(fields["description"].text() or "") if "description" in fields else "",
            labels=tuple(sorted((*self.labels, *self._labels(fields)))),
        )

    def _subject(self, fields: dict[str, Node]) -> Selector:
        if "endpointSelector" not in fields:
            if isinstance(self.node.value, dict) and not {"endpointSelector", "nodeSelector"} & set(
                self.node.value
            ):
                self.node.error("endpointSelector is missing: {} selects every endpoint")
            return Selector()
        node = fields["endpointSelector"]
        selector = parse_selector(node)
        if not self.scope.namespace:
            return selector
        bound = subject_in_namespace(selector, self.scope.namespace)
        if selector.names(NAMESPACE_KEY) and bound != selector:
            node.warn(
                f"names another namespace than the policy's: endpoints of {self.scope.namespace} are selected"
            )
        return bound

    def _section(self, name: str, index: int, item: Node, scope: Scope) -> Section:
        egress, deny = name.startswith("egress"), name.endswith("Deny")
        fields = _section_fields(item, egress=egress, deny=deny)
        peers, cidrs = parse_peers(fields, scope, egress=egress)
        ports = parse_ports(item, fields, deny=deny)
        return Section(f"{self.prefix}{name}[{index}]", egress, deny, peers, ports, cidrs)

    def _default_deny(self, fields: dict[str, Node], sections: tuple[Section, ...]) -> tuple[bool, bool]:
        wanted: dict[str, bool] = {}
        if "enableDefaultDeny" in fields:
            for name, node in fields["enableDefaultDeny"].fields(("ingress", "egress")).items():
                value = node.boolean()
                if value is not None and (name == "egress") not in {section.egress for section in sections}:
                    node.warn(f"has no effect: the spec has neither {name} nor {name}Deny")
                wanted[name] = bool(value)
        spoken = {section.egress for section in sections}
        return False in spoken and wanted.get("ingress", True), True in spoken and wanted.get("egress", True)

    def _labels(self, fields: dict[str, Node]) -> Iterable[str]:
        for item in fields["labels"].items() if "labels" in fields else ():
            found = item.fields(("key", "source", "value"))
            texts = {name: node.text() for name, node in found.items()}
            if not texts.get("key"):
                item.error("needs a key")
                continue
            source = texts.get("source") or "unspec"
            if source not in SOURCES:
                found["source"].choice(sorted(SOURCES))
            value = texts.get("value")
            yield f"{source}:{texts['key']}={value}" if value else f"{source}:{texts['key']}"


def _section_fields(item: Node, *, egress: bool, deny: bool) -> dict[str, Node]:
    side = "to" if egress else "from"
    known = [f"{side}{what}" for what in ("Endpoints", "Entities", "CIDR", "CIDRSet")]
    later = [f"{side}{what}" for what in ("Requires", "Groups", "Nodes")]
    forbidden = {}
    if egress:
        later += ["toServices"]
    allow_only = ("authentication", "toFQDNs") if egress else ("authentication",)
    if deny:
        forbidden = dict.fromkeys(allow_only, "is not possible in a deny rule")
    else:
        later += allow_only
    return item.fields((*known, "toPorts", "icmps"), not_enforced=later, forbidden=forbidden)
