"""Filter flags to flow filters: what `--pod web --not --verdict DROPPED` asks the flow server for.

Pure. Input: the `FilterArg`s of `cli.filterflags` in the order given. Output: an allow list and a
deny list of `flow.FlowFilter`. Semantics are the field's: the same flag again is OR, different flags
are AND, `--not` moves a flag to the (one) deny filter. A flag for either side (`--pod`) makes two
filters, one per side, and therefore cannot be combined with its `--from-` and `--to-` flavours.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from cli.errors import UsageError
from cli.filterfields import DEFAULT_NAMESPACE, PLAIN_SETTERS, SIDED_SETTERS, checked_name
from cli.filterflags import FilterArg
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
    _apply_pods(pair, args)
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
    if name in ("pod", "namespace") or name == "all-namespaces":
        return  # pods and namespaces depend on each other: see _apply_pods
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


# Pods and namespaces


def _apply_pods(pair: _Pair, args: Sequence[FilterArg]) -> None:
    """Bind pod names to their namespaces and write both to the pod fields."""
    given: dict[str, list[FilterArg]] = {}
    for arg in args:
        given.setdefault(arg.name, []).append(arg)
    shared = given.get("namespace", [])
    _extend(pair.left, "source_pod", _pods(given.get("pod", []), shared))
    _extend(pair.right, "destination_pod", _pods(given.get("pod", []), shared))
    for flavour, side in (("from", "source_pod"), ("to", "destination_pod")):
        pods = given.get(f"{flavour}-pod", [])
        own = given.get(f"{flavour}-namespace", [])
        values = _pods(pods, own or shared if pods else own)
        if values:
            for message in pair.both():
                del getattr(message, side)[:]
                _extend(message, side, values)


def _pods(pods: Sequence[FilterArg], namespaces: Sequence[FilterArg]) -> list[str]:
    names = [checked_name(arg, "a namespace name") for arg in namespaces]
    if not pods:
        return [f"{name}/" for name in names]
    bound: list[str] = []
    for arg in pods:
        namespace, slash, _ = arg.value.partition("/")
        if not slash:
            checked_name(arg, "[NS/]POD")
            bound.extend(f"{name}/{arg.value}" for name in names or [DEFAULT_NAMESPACE])
            continue
        if names and namespace not in names:
            raise UsageError(
                f"--{arg.name} {arg.value} and --{namespaces[0].name} {', '.join(names)} name different"
                " namespaces: no flow can match both"
            )
        checked_name(FilterArg(arg.name, arg.value.replace("/", "", 1)), "[NS/]POD")
        bound.append(arg.value)
    return bound


def _extend(message: flow_pb2.FlowFilter, name: str, values: Sequence[str]) -> None:
    getattr(message, name).extend(values)
