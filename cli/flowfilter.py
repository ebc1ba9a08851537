"""Filter flags to flow filters: what `--pod web --not --verdict DROPPED` asks the flow server for.

Pure. Input: the `FilterArg`s of `cli.filterflags` in the order given. Output: an allow list and a
deny list of `flow.FlowFilter`. Semantics are the field's: the same flag again is OR, different flags
are AND, `--not` moves a flag to the (one) deny filter. A flag for either side (`--pod`) makes two
filters, one per side, and therefore cannot be combined with its `--from-` and `--to-` flavours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cli.errors import UsageError
from cli.filterfields import PLAIN_SETTERS, SIDED_SETTERS, checked_name
from cli.filterflags import FilterArg
from hubble.filterfields.values import DEFAULT_NAMESPACE
from palomar_pb.flow import flow_pb2

_SIDES = ("source", "destination")
_SIDED = ("ip", "pod", "namespace", "fqdn", "label", "service", "port", "identity", "workload", "cluster")


@dataclass(frozen=True, slots=True)
class FilterLists:
    """The two lists of a request; both empty means every flow."""

    allow: tuple[flow_pb2.FlowFilter, ...] = ()
    deny: tuple[flow_pb2.FlowFilter, ...] = ()


def build(args: Sequence[FilterArg]) -> FilterLists:
    """Turn flags into filters; raise UsageError naming the flag and what it accepts."""
    return FilterLists(
        allow=_filters([arg for arg in args if not arg.negated]),
        deny=_filters([arg for arg in args if arg.negated]),
    )


def with_raw(lists: FilterLists, allow: Sequence[str], deny: Sequence[str]) -> FilterLists:
    """Add filters written as JSON (`--allowlist`, `--denylist`); raise UsageError for a bad one."""
    return FilterLists(
        allow=(*lists.allow, *(_from_json(text, "--allowlist") for text in allow)),
        deny=(*lists.deny, *(_from_json(text, "--denylist") for text in deny)),
    )


def _from_json(text: str, flag: str) -> flow_pb2.FlowFilter:
    from google.protobuf import json_format  # only who writes raw filters pays for it

    try:
        return json_format.Parse(text, flow_pb2.FlowFilter())
    except json_format.ParseError as error:
        raise UsageError(f"{flag} {text!r} is no FlowFilter in JSON: {error}") from error


@dataclass(slots=True)
class _Pair:
    """The source-side and the destination-side filter in the making."""

    left: flow_pb2.FlowFilter = field(default_factory=flow_pb2.FlowFilter)
    right: flow_pb2.FlowFilter = field(default_factory=flow_pb2.FlowFilter)

    def both(self) -> tuple[flow_pb2.FlowFilter, flow_pb2.FlowFilter]:
        return self.left, self.right


def _filters(args: Sequence[FilterArg]) -> tuple[flow_pb2.FlowFilter, ...]:
    _check_conflicts({arg.name for arg in args})
    pair = _Pair()
    for arg in args:
        _apply(pair, arg)
    _apply_names(pair, args)
    if pair.left == flow_pb2.FlowFilter() and pair.right == flow_pb2.FlowFilter():
        return ()
    return (pair.left,) if pair.left == pair.right else (pair.left, pair.right)


def _check_conflicts(given: set[str]) -> None:
    for name in _SIDED:
        for flavour in (f"from-{name}", f"to-{name}"):
            if name in given and flavour in given:
                raise UsageError(f"filters --{flavour} and --{name} cannot be combined")
    for side in ("", "from-", "to-"):
        for namespace in ("namespace", f"{side}namespace"):
            if f"{side}all-namespaces" in given and namespace in given:
                raise UsageError(f"filters --{namespace} and --{side}all-namespaces cannot be combined")
    for one, other in (("ipv4", "ipv6"), ("encrypted", "unencrypted")):
        if one in given and other in given:
            raise UsageError(f"filters --{one} and --{other} cannot be combined")


def _apply(pair: _Pair, arg: FilterArg) -> None:
    flavour, _, plain = arg.name.partition("-")
    name = plain if flavour in ("from", "to") else arg.name
    if name in ("pod", "service", "namespace", "all-namespaces"):
        return  # they depend on each other: see _apply_names
    if name in SIDED_SETTERS:
        setter = SIDED_SETTERS[name]
        if flavour in ("from", "to"):
            for message in pair.both():
                setter(message, "source" if flavour == "from" else "destination", arg)
        else:
            for message, side in zip(pair.both(), _SIDES, strict=True):
                setter(message, side, arg)
        return
    for message in pair.both():
        PLAIN_SETTERS[arg.name](message, arg)


# Pods, services and namespaces


def _apply_names(pair: _Pair, args: Sequence[FilterArg]) -> None:
    """Bind the names of pods and services to their namespaces and write both to the fields for names."""
    given: dict[str, list[FilterArg]] = {}
    for arg in args:
        given.setdefault(arg.name, []).append(arg)
    for flavour, places in (
        ("", tuple(zip(pair.both(), _SIDES, strict=True))),
        ("from-", tuple((message, "source") for message in pair.both())),
        ("to-", tuple((message, "destination") for message in pair.both())),
    ):
        pods, services = given.get(f"{flavour}pod", []), given.get(f"{flavour}service", [])
        namespaces = _namespaces(given, flavour)
        if not namespaces and (pods or services):
            namespaces = _namespaces(given, "")
        fields = {
            "pod": _bound(pods, namespaces, "[NS/]POD"),
            "service": _bound(services, namespaces, "[NS/]NAME"),
        }
        if not pods and not services:
            fields["pod"] = [f"{arg.value}/" for arg in namespaces if arg.value]
        for kind, values in fields.items():
            if values:
                for message, side in places:
                    _set(message, f"{side}_{kind}", values)


def _namespaces(given: Mapping[str, Sequence[FilterArg]], flavour: str) -> list[FilterArg]:
    """Return the checked namespaces of a flavour; an empty one is any."""
    named = given.get(f"{flavour}namespace", [])
    for arg in named:
        checked_name(arg, "a namespace name")
    return [*named, *(FilterArg(arg.name, "") for arg in given.get(f"{flavour}all-namespaces", [])[:1])]


def _bound(args: Sequence[FilterArg], namespaces: Sequence[FilterArg], accepted: str) -> list[str]:
    names = [arg.value for arg in namespaces]
    bound: list[str] = []
    for arg in args:
        namespace, slash, _ = arg.value.partition("/")
        checked_name(FilterArg(arg.name, arg.value.replace("/", "", 1)), accepted)
        if not slash:
            bound.extend(f"{name}/{arg.value}" for name in names or [DEFAULT_NAMESPACE])
        elif names and "" not in names and namespace not in names:
            raise UsageError(
                f"--{arg.name} {arg.value} and --{namespaces[0].name} {', '.join(names)} name different"
                " namespaces: no flow can match both"
            )
        else:
            bound.append(arg.value)
    return bound


def _set(message: flow_pb2.FlowFilter, name: str, values: Sequence[str]) -> None:
    del getattr(message, name)[:]
    getattr(message, name).extend(values)
