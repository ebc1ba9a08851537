"""What each filter flag accepts and which field of a `flow.FlowFilter` it fills.

Pure. One setter per flag: flags with a source and a destination flavour in SIDED_SETTERS, the others
in PLAIN_SETTERS; each raises UsageError naming its flag and what is accepted. Which texts a flow server
can read is its own `hubble.filterfields.values`. How setters combine (OR, AND, sides, `--not`) is
`cli.flowfilter`, and so are pods and namespaces.
"""

import re
from collections.abc import Callable, Sequence

from cli.errors import UsageError
from cli.filterflags import FilterArg
from hubble import flowuuid, labelselector
from hubble.filterfields import values
from hubble.flowtext import TCP_FLAG_BITS
from palomar.drop import DropReason, display
from palomar.errors import InvalidInputError
from palomar.identity import Reserved
from palomar.verdict import EventType, ObservationPoint, Verdict
from palomar_pb.flow import flow_pb2

EVENT_TYPES = {
    "drop": EventType.DROP,
    "debug": 2,
    "capture": EventType.CAPTURE,
    "trace": EventType.TRACE,
    "policy-verdict": EventType.POLICY_VERDICT,
    "recorder": 6,
    "trace-sock": 7,
    "l7": EventType.L7,
    "agent": EventType.AGENT,
}
TCP_FLAGS = (*TCP_FLAG_BITS, "NS")
VERDICTS = tuple(verdict.name for verdict in Verdict if verdict is not Verdict.UNKNOWN)

_CAPTURE_POINTS = {
    "delivery": 4,
    "from-lb": 5,
    "after-v46": 6,
    "after-v64": 7,
    "proxy-pre": 8,
    "proxy-post": 9,
    "snat-pre": 10,
    "snat-post": 11,
}
_SOCK_POINTS = {"pre-xlate-fwd": 1, "post-xlate-fwd": 2, "pre-xlate-rev": 3, "post-xlate-rev": 4}


def _bad(arg: FilterArg, accepted: str) -> UsageError:
    return UsageError(f"--{arg.name} {arg.value!r}: accepted is {accepted}")


def _chosen(arg: FilterArg, names: Sequence[str]) -> str:
    """Return the member of `names` that equals the value, whatever its case."""
    for name in names:
        if name.lower() == arg.value.lower():
            return name
    raise _bad(arg, f"one of {', '.join(names)}")


def _some(arg: FilterArg, what: str) -> str:
    if not arg.value.strip():
        raise _bad(arg, what)
    return arg.value


def _read(arg: FilterArg, read: Callable[[str], object], accepted: str) -> str:
    """Return the value where the flow server can read it."""
    try:
        read(arg.value)
    except InvalidInputError:
        raise _bad(arg, accepted) from None
    return arg.value


_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*)")


def checked_name(arg: FilterArg, accepted: str) -> str:
    """Return the value where it is a Kubernetes name; raise UsageError otherwise."""
    if not _NAME.fullmatch(arg.value):
        raise _bad(arg, f"{accepted} of lower-case letters, digits, - and .")
    return arg.value


# Flags with a source and a destination flavour

_Sided = Callable[[flow_pb2.FlowFilter, str, FilterArg], None]


def _strings(suffix: str, check: Callable[[FilterArg], str]) -> _Sided:
    def put(message: flow_pb2.FlowFilter, side: str, arg: FilterArg) -> None:
        getattr(message, f"{side}_{suffix}").append(check(arg))

    return put


def _ip(arg: FilterArg) -> str:
    accepted = "an address such as 10.0.0.5 or fd00::5, or a CIDR such as 10.0.0.0/8"
    return _read(arg, values.read_network, accepted)


def _port(arg: FilterArg) -> str:
    accepted = f"a port number from 1 to {values.MAX_PORT}"
    if not int(_read(arg, values.read_port, accepted)):
        raise _bad(arg, accepted)
    return arg.value


def _selector(arg: FilterArg) -> str:
    text = _some(arg, "a label selector such as 'app=web,env in (a,b)'")
    try:
        labelselector.parse(text)
    except InvalidInputError as error:
        raise _bad(arg, f"a label selector such as 'app=web,env in (a,b)': {error}") from error
    return text


def _pattern(arg: FilterArg) -> str:
    return _read(arg, values.read_glob, "a name of letters, digits, - . _ with * as wildcard")


def _identity(message: flow_pb2.FlowFilter, side: str, arg: FilterArg) -> None:
    field_of = getattr(message, f"{side}_identity")
    name = arg.value.removeprefix("reserved:").lower()
    reserved = {item.label_name: int(item) for item in Reserved}
    if name in reserved:
        field_of.append(reserved[name])
    elif arg.value.isascii() and arg.value.isdigit() and int(arg.value) < 2**32:
        field_of.append(int(arg.value))
    else:
        raise _bad(arg, f"a numeric identity or one of {', '.join(reserved)}")


def _workload(message: flow_pb2.FlowFilter, side: str, arg: FilterArg) -> None:
    kind, slash, name = _some(arg, "[KIND/]NAME").rpartition("/")
    if not name or (slash and not kind) or "/" in kind:
        raise _bad(arg, "[KIND/]NAME, e.g. web or Deployment/web")
    getattr(message, f"{side}_workload").add(name=name, kind=kind)


SIDED_SETTERS: dict[str, _Sided] = {
    "ip": _strings("ip", _ip),
    "fqdn": _strings("fqdn", _pattern),
    "label": _strings("label", _selector),
    "port": _strings("port", _port),
    "cluster": _strings("cluster_name", _pattern),
    "identity": _identity,
    "workload": _workload,
}

# Flags without sides

_Plain = Callable[[flow_pb2.FlowFilter, FilterArg], None]


def _type(message: flow_pb2.FlowFilter, arg: FilterArg) -> None:
    name, colon, sub_type = arg.value.partition(":")
    number = EVENT_TYPES.get(name.lower())
    if number is None and name.isascii() and name.isdigit() and int(name) < 256:
        number = int(name)
    if number is None:
        raise _bad(arg, f"TYPE[:SUBTYPE] with TYPE one of {', '.join(EVENT_TYPES)}")
    if not colon:
        message.event_type.add(type=number)
        return
    known = _sub_types(number)
    wanted = sub_type.strip().lower()
    value = known.get(wanted)
    if value is None and wanted.isascii() and wanted.isdigit() and int(wanted) < 256:
        value = int(wanted)
    if value is None:
        accepted = f"one of {', '.join(known)}" if 0 < len(known) < 20 else "a drop reason or a number"
        raise _bad(arg, f"{name}:SUBTYPE with SUBTYPE {accepted}")
    message.event_type.add(type=number, match_sub_type=True, sub_type=value)


def _sub_types(event_type: int) -> dict[str, int]:
    if event_type == EVENT_TYPES["trace"]:
        return {point.display: int(point) for point in ObservationPoint}
    if event_type == EVENT_TYPES["drop"]:
        names = {reason.name.lower(): int(reason) for reason in DropReason}
        return names | {display(reason).lower(): int(reason) for reason in DropReason}
    if event_type == EVENT_TYPES["capture"]:
        return _CAPTURE_POINTS
    return _SOCK_POINTS if event_type == EVENT_TYPES["trace-sock"] else {}


def _verdict(message: flow_pb2.FlowFilter, arg: FilterArg) -> None:
    message.verdict.append(flow_pb2.Verdict.Value(_chosen(arg, VERDICTS)))


def _drop_reason(message: flow_pb2.FlowFilter, arg: FilterArg) -> None:
    wanted = arg.value.upper()
    known = flow_pb2.DropReason.DESCRIPTOR.values_by_name
    if wanted not in known:
        near = [name for name in known if wanted and wanted in name][:4]
        raise _bad(arg, f"a drop reason such as {', '.join(near or ['POLICY_DENIED', 'POLICY_DENY'])}")
    message.drop_reason_desc.append(flow_pb2.DropReason.Value(wanted))


def _direction(message: flow_pb2.FlowFilter, arg: FilterArg) -> None:
    name = _chosen(arg, ("ingress", "egress")).upper()
    message.traffic_direction.append(flow_pb2.TrafficDirection.Value(name))


def _tcp_flags(message: flow_pb2.FlowFilter, arg: FilterArg) -> None:
    names = [name.strip().upper() for name in arg.value.split(",")]
    for name in names:
        if name not in TCP_FLAGS:
            raise _bad(arg, f"a comma list of {', '.join(TCP_FLAGS)}")
    message.tcp_flags.add(**dict.fromkeys(names, True))


def _ip_version(message: flow_pb2.FlowFilter, arg: FilterArg) -> None:
    versions = {
        "none": flow_pb2.IPVersion.IP_NOT_USED,
        "v4": flow_pb2.IPVersion.IPv4,
        "v6": flow_pb2.IPVersion.IPv6,
    }
    known = {f"{prefix}{number}": f"v{number}" for prefix in ("", "ip", "ipv") for number in (4, 6)}
    meant = FilterArg(arg.name, known.get(arg.value.lower(), arg.value))
    message.ip_version.append(versions[_chosen(meant, tuple(versions))])


def _http_status(message: flow_pb2.FlowFilter, arg: FilterArg) -> None:
    accepted = "a status code such as 404, or a prefix such as 4+ or 50+"
    message.http_status_code.append(_read(arg, values.check_http_status, accepted))


def _http_header(message: flow_pb2.FlowFilter, arg: FilterArg) -> None:
    key, colon, value = arg.value.partition(":")
    if not colon or not key.strip():
        raise _bad(arg, "KEY:VALUE")
    message.http_header.add(key=key.strip(), value=value.strip())


def _regex(name: str) -> _Plain:
    def put(message: flow_pb2.FlowFilter, arg: FilterArg) -> None:
        try:
            re.compile(_some(arg, "a regular expression"))
        except re.error as error:
            raise _bad(arg, f"a regular expression ({error})") from None
        getattr(message, name).append(arg.value)

    return put


def _checked(name: str, check: Callable[[FilterArg], str]) -> _Plain:
    def put(message: flow_pb2.FlowFilter, arg: FilterArg) -> None:
        getattr(message, name).append(check(arg))

    return put


def _node_name(arg: FilterArg) -> str:
    return _read(arg, values.read_node_pattern, "[CLUSTER/]NODE with * as wildcard")


def _http_method(arg: FilterArg) -> str:
    if not re.fullmatch(r"[A-Za-z]+", arg.value):
        raise _bad(arg, "an HTTP method such as GET")
    return arg.value


def _trace_id(arg: FilterArg) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{32}", arg.value):
        raise _bad(arg, "32 hexadecimal digits")
    return arg.value.lower()


def _ip_trace_id(message: flow_pb2.FlowFilter, arg: FilterArg) -> None:
    if not arg.value.isascii() or not arg.value.isdigit() or not int(arg.value) < 2**64:
        raise _bad(arg, "a number")
    message.ip_trace_id.append(int(arg.value))


def _interface(message: flow_pb2.FlowFilter, arg: FilterArg) -> None:
    message.interface.add(name=_some(arg, "an interface name"))


def _encrypted(value: bool) -> _Plain:
    def put(message: flow_pb2.FlowFilter, arg: FilterArg) -> None:
        if value not in message.encrypted:
            message.encrypted.append(value)

    return put


def _only_version(version: "flow_pb2.IPVersion.ValueType") -> _Plain:
    def put(message: flow_pb2.FlowFilter, arg: FilterArg) -> None:
        if version not in message.ip_version:
            message.ip_version.append(version)

    return put


def _cel(message: flow_pb2.FlowFilter, arg: FilterArg) -> None:
    message.experimental.cel_expression.append(_some(arg, "a CEL expression"))


PLAIN_SETTERS: dict[str, _Plain] = {
    "type": _type,
    "verdict": _verdict,
    "drop-reason-desc": _drop_reason,
    "protocol": _checked("protocol", lambda arg: _chosen(arg, tuple(values.PROTOCOLS))),
    "traffic-direction": _direction,
    "tcp-flags": _tcp_flags,
    "ip-version": _ip_version,
    "ipv4": _only_version(flow_pb2.IPVersion.IPv4),
    "ipv6": _only_version(flow_pb2.IPVersion.IPv6),
    "snat-ip": _checked("source_ip_xlated", _ip),
    "node-name": _checked("node_name", _node_name),
    "node-label": _checked("node_labels", _selector),
    "interface": _interface,
    "uuid": _checked("uuid", lambda arg: _read(arg, flowuuid.parse, "a flow's uuid")),
    "trace-id": _checked("trace_id", _trace_id),
    "ip-trace-id": _ip_trace_id,
    "http-status": _http_status,
    "http-method": _checked("http_method", _http_method),
    "http-path": _regex("http_path"),
    "http-url": _regex("http_url"),
    "http-header": _http_header,
    "encrypted": _encrypted(True),
    "unencrypted": _encrypted(False),
    "cel-expression": _cel,
}
