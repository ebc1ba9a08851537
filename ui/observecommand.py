"""What a page shows as a `palomar observe` command, so that a person can go on in a terminal.

Pure. Input: the page's state, the edges shown and the selected flow (a card's name alone does not tell
whether it came from a workload, a label or an address: a flow does); output: the words of the command line,
and sentences on what it leaves out. Only flags whose meaning is the page's are used; an edge's replies need
a second filter, which the command line takes as JSON. Not here: quoting for the shell (`ui.panel`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from google.protobuf import json_format

from palomar.identity import reserved_name
from palomar_pb.flow import flow_pb2
from ui.flowrow import EdgeKey, FlowRow, VerdictClass, verdict_class
from ui.names import NODE_NAMES, NODES, clip, deciding_label, deciding_workload, network_of, pod_prefix
from ui.servicemap import EdgeStat
from ui.state import PageState

NEWEST = 100
"""As many as the page's table holds."""
MAX_VALUE_CHARS = 250


@dataclass(frozen=True, slots=True)
class Command:
    """A command line and what to know about it."""

    words: tuple[str, ...]
    """From `palomar` on, unquoted; empty where there is none."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Term:
    """One condition on a side of a flow: `namespace`, `workload`, `pod`, `label`, `identity` or `ip`."""

    flag: str
    value: str


NO_UUID = Command((), ("It has no uuid by which a command could ask for it.",))


def observe_command(state: PageState, stats: Sequence[EdgeStat], server: Sequence[str] = ()) -> Command:
    """Return the command for the selected flow, edge or workload, else for the filters; `server` ends it."""
    if state.flow:
        return _command(["--uuid", state.flow], server) if _is_uuid(state.flow) else NO_UUID
    verdicts = _verdict_words(state.verdict)
    notes = ["The search text has no flag: the command shows more than the page."] if state.text else []
    if state.edge:
        stat = next((stat for stat in stats if stat.key.id == state.edge), None)
        row = _sample(stat) if stat is not None else None
        if stat is None or row is None:
            return Command((), ("The edge has no flow here to make a command from.",))
        return _edge_command(stat, row, verdicts, notes, server)
    if state.workload:
        return _workload_command(state, stats, verdicts, notes, server)
    return _filters_command(state, verdicts, notes, server)


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _command(words: Iterable[str], server: Sequence[str], notes: Iterable[str] = ()) -> Command:
    told = tuple(dict.fromkeys(note for note in notes if note))
    made = ("palomar", "observe", *words, *server)
    if any(len(word) > MAX_VALUE_CHARS and not word.startswith("{") for word in made):
        return Command((), ("A name is too long for a command line.",))
    return Command(made, told)


def _edge_command(
    stat: EdgeStat, row: FlowRow, verdicts: Sequence[str], notes: Sequence[str], server: Sequence[str]
) -> Command:
    key, flow = stat.key, row.message
    caller, callee = (flow.destination, flow.source) if row.is_reply else (flow.source, flow.destination)
    addresses = (
        (flow.IP.destination, flow.IP.source) if row.is_reply else (flow.IP.source, flow.IP.destination)
    )
    source, source_note = _side(caller, addresses[0])
    target, target_note = _side(callee, addresses[1])
    words = [*_flags("from-", source), *_flags("to-", target)]
    protocol, port_note = _protocol(key)
    words += ["--protocol", protocol] if protocol else []
    words += ["--to-port", str(key.port)] if key.port else []
    words += [word for name in verdicts for word in ("--verdict", name)]
    if stat.forwarded or stat.audit:
        answers = _filter(target, source, protocol, key.port, verdicts)
        words += [
            "--allowlist",
            json_format.MessageToJson(answers, indent=None, preserving_proto_field_name=True),
        ]
    return _command(["--last", str(NEWEST), *words], server, [*notes, source_note, target_note, port_note])


def _workload_command(
    state: PageState,
    stats: Sequence[EdgeStat],
    verdicts: Sequence[str],
    notes: list[str],
    server: Sequence[str],
) -> Command:
    for stat in stats:
        row = _sample(stat)
        if row is None or state.workload not in (stat.key.source.id, stat.key.destination.id):
            continue
        as_source = (stat.key.source.id == state.workload) is not row.is_reply
        endpoint = row.message.source if as_source else row.message.destination
        terms, note = _side(endpoint, row.message.IP.source if as_source else row.message.IP.destination)
        namespace = (
            stat.key.source if stat.key.source.id == state.workload else stat.key.destination
        ).namespace
        if state.namespaces and namespace not in state.namespaces:
            notes.append("The namespace filter is left out: the command shows more than the page.")
        words = [*_flags("", terms), *(word for name in verdicts for word in ("--verdict", name))]
        return _command(["--last", str(NEWEST), *words], server, [*notes, note])
    return Command((), ("The workload has no flow here to make a command from.",))


def _filters_command(
    state: PageState, verdicts: Sequence[str], notes: list[str], server: Sequence[str]
) -> Command:
    named = [name for name in state.namespaces if name and not name.startswith("@")]
    words = [word for name in named for word in ("--namespace", name)]
    if list(state.namespaces) == [NODES]:
        words = [word for name in sorted(NODE_NAMES) for word in ("--identity", name)]
    elif len(named) < len(state.namespaces):
        words = []
        notes.append(
            "Groups that are no namespace cannot be named together: the command shows more than the page."
        )
    words += [word for name in verdicts for word in ("--verdict", name)]
    return _command(["--last", str(NEWEST), *words], server, notes)


def _sample(stat: EdgeStat) -> FlowRow | None:
    rows = stat.record.latest or stat.record.latest_dropped
    return rows[-1] if rows else None


def _side(endpoint: flow_pb2.Endpoint, address: str) -> tuple[list[_Term], str]:
    """Return what names this side as the page does, and what that says too much."""
    space = [_Term("namespace", endpoint.namespace)] if endpoint.namespace else []
    workload = deciding_workload(endpoint)
    if workload:
        return [*space, _Term("workload", workload)], ""
    label = deciding_label(endpoint)
    if endpoint.pod_name:
        if label:
            return [*space, _Term("label", label)], ""
        name = pod_prefix(endpoint.pod_name)
        note = "" if name == endpoint.pod_name else f"Every pod whose name begins with {clip(name)} is shown."
        return [_Term("pod", f"{endpoint.namespace}/{name}")], note
    network = network_of(endpoint)
    if network:
        return [_Term("ip", network)], "Narrower networks inside a named one are shown too."
    if reserved_name(endpoint.identity) and endpoint.identity:
        return [_Term("identity", str(reserved_name(endpoint.identity)))], ""
    if label:
        return [*space, _Term("label", label)], ""
    if endpoint.identity:
        return [_Term("identity", str(endpoint.identity))], ""
    return [
        _Term("ip", address)
    ] if address else [], "" if address else "One side has no name and no address."


def _flags(side: str, terms: Iterable[_Term]) -> list[str]:
    return [word for term in terms for word in (f"--{side}{term.flag}", term.value)]


def _protocol(key: EdgeKey) -> tuple[str, str]:
    if key.protocol == "IP":
        return "", "Every protocol is shown: this one has no name."
    if key.port:
        return key.protocol.lower(), ""
    if key.protocol in ("TCP", "UDP", "SCTP"):
        return key.protocol.lower(), "Every port between the two is shown."
    return key.protocol.lower(), "Answers to calls the other way are shown too: this protocol has no ports."


def _filter(
    source: Sequence[_Term], target: Sequence[_Term], protocol: str, port: int, verdicts: Sequence[str]
) -> flow_pb2.FlowFilter:
    """Return the filter of an edge's replies: from callee to caller, out of the callee's port."""
    made = flow_pb2.FlowFilter(verdict=[flow_pb2.Verdict.Value(name) for name in verdicts])
    for side, terms in (("source", source), ("destination", target)):
        for term in terms:
            _put(made, side, term)
    if protocol:
        made.protocol.append(protocol)
    if port:
        made.source_port.append(str(port))
    return made


def _put(message: flow_pb2.FlowFilter, side: str, term: _Term) -> None:
    if term.flag == "workload":
        getattr(message, f"{side}_workload").add(name=term.value)
    elif term.flag == "namespace":
        getattr(message, f"{side}_pod").append(f"{term.value}/")
    elif term.flag == "identity":
        numbers = [number for number in range(256) if reserved_name(number) == term.value]
        getattr(message, f"{side}_identity").append(numbers[0] if numbers else int(term.value))
    else:
        getattr(message, f"{side}_{term.flag}").append(term.value)


def _verdict_words(verdict: str) -> list[str]:
    if not verdict:
        return []
    wanted = VerdictClass[verdict.upper()]
    known = [value for value in flow_pb2.Verdict.values() if value != flow_pb2.VERDICT_UNKNOWN]
    return [
        flow_pb2.Verdict.Name(value)
        for value in known
        if verdict_class(flow_pb2.Flow(verdict=flow_pb2.Verdict.ValueType(value))) is wanted
    ]
