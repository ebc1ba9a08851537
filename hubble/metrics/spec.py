"""The `hubble-metrics` setting understood: which metrics, with which options and contexts.

Pure. Input: text such as `flow:sourceContext=pod|identity drop:labelsContext=source_namespace tcp`; output:
`MetricSpec`s, or an InvalidInputError that names the word and what is possible. The syntax is Hubble's:
metrics are separated by blanks, options by `;`, an option's alternatives by `|` (labels of `labelsContext`
by `,`); names of options are case-insensitive.
"""

from dataclasses import dataclass

from palomar.errors import InvalidInputError

KEY = "hubble-metrics"
IDENTIFIERS = (
    "identity",
    "namespace",
    "pod",
    "pod-name",
    "dns",
    "ip",
    "reserved-identity",
    "workload",
    "workload-name",
    "app",
)
SIDE_LABELS = ("ip", "pod", "namespace", "workload", "workload_kind", "app")
DIRECTION_LABEL = "traffic_direction"
CONTEXT_LABELS = (
    *(f"source_{label}" for label in SIDE_LABELS),
    *(f"destination_{label}" for label in SIDE_LABELS),
    DIRECTION_LABEL,
)
"""What `labelsContext` may list; labels always come in this order."""
OWN_OPTIONS: dict[str, tuple[str, ...]] = {
    "dns": ("query", "ignoreAAAA"),
    "drop": (),
    "flow": (),
    "flows-to-world": ("any-drop", "port", "syn-only"),
    "icmp": (),
    "policy": (),
    "port-distribution": (),
    "tcp": (),
}
"""By metric, the options that are not contexts."""
NO_DATA = ("http", "httpV2", "kafka")
_CONTEXT_OPTIONS = (
    "sourceContext",
    "destinationContext",
    "sourceEgressContext",
    "sourceIngressContext",
    "destinationEgressContext",
    "destinationIngressContext",
)
_LABELS_OPTION = "labelsContext"

Alternatives = tuple[str, ...]
"""Identifiers, tried from left to right until one has a value."""


@dataclass(frozen=True, slots=True)
class SideContext:
    """The `source` or `destination` label of a metric."""

    default: Alternatives = ()
    egress: Alternatives = ()
    """Instead of the default for flows of that direction; empty: no other."""
    ingress: Alternatives = ()

    @property
    def is_used(self) -> bool:
        """Tell whether the metric has the label."""
        return bool(self.default or self.egress or self.ingress)

    @property
    def variants(self) -> tuple[Alternatives, Alternatives, Alternatives]:
        """Identifiers by traffic direction: unknown, ingress, egress."""
        return (self.default, self.ingress or self.default, self.egress or self.default)


@dataclass(frozen=True, slots=True)
class Contexts:
    """The labels that context options add."""

    source: SideContext = SideContext()
    destination: SideContext = SideContext()
    labels: tuple[str, ...] = ()
    """Of CONTEXT_LABELS, in that order."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """All labels these contexts add, in order."""
        sides = (("source", self.source), ("destination", self.destination))
        return (*self.labels, *(name for name, side in sides if side.is_used))

    def side_labels(self, side: str) -> tuple[str, ...]:
        """Return what `labelsContext` asks of `source` or `destination`, without that prefix."""
        return tuple(label.removeprefix(f"{side}_") for label in self.labels if label.startswith(f"{side}_"))

    @property
    def has_direction(self) -> bool:
        """Tell whether `traffic_direction` is a label."""
        return DIRECTION_LABEL in self.labels


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric to serve."""

    name: str
    contexts: Contexts = Contexts()
    options: frozenset[str] = frozenset()
    """Of OWN_OPTIONS."""


def parse(text: str) -> tuple[MetricSpec, ...]:
    """Return the metrics of a `hubble-metrics` setting; raise InvalidInputError naming what is wrong."""
    specs: dict[str, MetricSpec] = {}
    for word in text.split():
        spec = _parse_metric(word)
        if spec.name in specs:
            raise InvalidInputError(f"{spec.name} is given twice", KEY)
        specs[spec.name] = spec
    return tuple(specs.values())


def _parse_metric(word: str) -> MetricSpec:
    name, _, rest = word.partition(":")
    path = f"{KEY}.{name}"
    if name in NO_DATA:
        raise InvalidInputError("there is no layer 7 data for it in this version: leave it out", path)
    if name not in OWN_OPTIONS:
        raise InvalidInputError(f"no such metric; there are {', '.join(OWN_OPTIONS)}", path)
    own = {option.lower(): option for option in OWN_OPTIONS[name]}
    contexts = {option.lower(): option for option in (*_CONTEXT_OPTIONS, _LABELS_OPTION)}
    found: dict[str, tuple[str, ...]] = {}
    options = set()
    for item in filter(None, rest.split(";")):
        option, equals, value = item.partition("=")
        known = option.lower()
        if known in own and (not equals or value.lower() == "true"):
            options.add(own[known])
        elif known in contexts and contexts[known] not in found:
            found[contexts[known]] = _values(contexts[known], value, path)
        else:
            possible = ", ".join((*own.values(), *contexts.values()))
            raise InvalidInputError(f"cannot use {item!r}; options are {possible}, each once", path)
    return MetricSpec(name, _contexts(found), frozenset(options))


def _values(option: str, value: str, path: str) -> tuple[str, ...]:
    is_labels = option == _LABELS_OPTION
    possible = CONTEXT_LABELS if is_labels else IDENTIFIERS
    values = tuple(item for item in value.replace("," if is_labels else "|", " ").split(" ") if item)
    unknown = [item for item in values if item not in possible]
    if unknown or not values:
        what = f"{unknown[0]!r} is not a value" if unknown else "no value"
        raise InvalidInputError(f"{what}; there are {', '.join(possible)}", f"{path}.{option}")
    return tuple(item for item in possible if item in values) if is_labels else values


def _contexts(found: dict[str, tuple[str, ...]]) -> Contexts:
    def side(name: str) -> SideContext:
        return SideContext(
            default=found.get(f"{name}Context", ()),
            egress=found.get(f"{name}EgressContext", ()),
            ingress=found.get(f"{name}IngressContext", ()),
        )

    return Contexts(side("source"), side("destination"), found.get(_LABELS_OPTION, ()))
