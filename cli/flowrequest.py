"""Range, filters and fields to the request a flow server understands.

Pure. Input: what `cli.selectors` and `cli.flowfilter` made of the flags.
"""

from collections.abc import Sequence

from cli.errors import UsageError
from cli.flowfilter import FilterLists
from cli.observeflags import TEXT_OUTPUTS
from cli.selectors import Range, split_ns
from palomar_pb.observer import observer_pb2

DEFAULT_FIELD_MASK = (
    "time",
    "verdict",
    "ethernet",
    "IP",
    "l4",
    "source.identity",
    "source.namespace",
    "source.pod_name",
    "destination.identity",
    "destination.namespace",
    "destination.pod_name",
    "Type",
    "node_name",
    "l7",
    "event_type",
    "source_service",
    "destination_service",
    "source_names",
    "destination_names",
    "is_reply",
    "Summary",
    "ip_trace_id",
    "traffic_direction",
    "policy_match_type",
    "drop_reason_desc",
    "egress_allowed_by",
    "ingress_allowed_by",
    "egress_denied_by",
    "ingress_denied_by",
    "extensions",
)
"""What the text outputs show; asked for over a network, where the rest would only cost bytes."""


def fields_of(given: Sequence[str], output: str, remote: bool, use_defaults: bool) -> tuple[str, ...]:
    """Return the field mask: what was asked for, else over a network what text shows; empty for all.

    Raises UsageError where a mask would take from text what it prints.
    """
    fields = tuple(part for text in given for part in text.split(",") if part)
    if fields and output in TEXT_OUTPUTS:
        raise UsageError("--field-mask needs -o json: text would lack what it prints")
    if not fields and remote and use_defaults and output in TEXT_OUTPUTS:
        return DEFAULT_FIELD_MASK
    return fields


def flows_request(wanted: Range, lists: FilterLists, fields: Sequence[str]) -> observer_pb2.GetFlowsRequest:
    """Build the request for flows."""
    request = observer_pb2.GetFlowsRequest(
        number=wanted.number,
        first=wanted.first,
        follow=wanted.follow,
        whitelist=lists.allow,
        blacklist=lists.deny,
    )
    _bound(request, wanted)
    if fields:
        request.field_mask.paths.extend(fields)
    return request


def agent_events_request(wanted: Range) -> observer_pb2.GetAgentEventsRequest:
    """Build the request for agent events."""
    request = observer_pb2.GetAgentEventsRequest(
        number=wanted.number, first=wanted.first, follow=wanted.follow
    )
    _bound(request, wanted)
    return request


def _bound(request: observer_pb2.GetFlowsRequest | observer_pb2.GetAgentEventsRequest, wanted: Range) -> None:
    if wanted.since_ns is not None:
        request.since.seconds, request.since.nanos = split_ns(wanted.since_ns)
    if wanted.until_ns is not None:
        request.until.seconds, request.until.nanos = split_ns(wanted.until_ns)
