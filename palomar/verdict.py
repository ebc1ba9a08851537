"""The words of an event: its type, verdict, direction, observation point, trace reason, match type.

Numbers are the datapath's (`bpf/lib/event.h`); where the flow API counts differently the mapping is
a function here. Source: the field's public monitor and flow enums.
"""

from enum import IntEnum


class EventType(IntEnum):
    """What kind of event a record is (the field's monitor message types)."""

    DROP = 1
    CAPTURE = 3
    TRACE = 4
    POLICY_VERDICT = 5
    L7 = 129
    AGENT = 130


class Verdict(IntEnum):
    """What became of the packet (`flow.Verdict`)."""

    UNKNOWN = 0
    FORWARDED = 1
    DROPPED = 2
    ERROR = 3
    AUDIT = 4
    REDIRECTED = 5
    TRACED = 6
    TRANSLATED = 7


class TrafficDirection(IntEnum):
    """Direction as seen from the endpoint (`flow.TrafficDirection`)."""

    UNKNOWN = 0
    INGRESS = 1
    EGRESS = 2


class ObservationPoint(IntEnum):
    """Where in the datapath a trace event was made; datapath numbering (0 is to-endpoint)."""

    TO_ENDPOINT = 0
    TO_PROXY = 1
    TO_HOST = 2
    TO_STACK = 3
    TO_OVERLAY = 4
    FROM_ENDPOINT = 5
    FROM_PROXY = 6
    FROM_HOST = 7
    FROM_STACK = 8
    FROM_OVERLAY = 9
    FROM_NETWORK = 10
    TO_NETWORK = 11
    FROM_CRYPTO = 12
    TO_CRYPTO = 13

    @property
    def display(self) -> str:
        """`to-endpoint` for TO_ENDPOINT."""
        return self.name.lower().replace("_", "-")

    @property
    def flow_number(self) -> int:
        """The number in `flow.TraceObservationPoint`: the same but for TO_ENDPOINT, which is 101."""
        return 101 if self is ObservationPoint.TO_ENDPOINT else int(self)


class TraceReason(IntEnum):
    """What connection tracking said of the packet; datapath numbering."""

    NEW = 0
    ESTABLISHED = 1
    REPLY = 2
    RELATED = 3
    REOPENED = 4
    UNKNOWN = 5

    @property
    def flow_number(self) -> int:
        """The number in `flow.TraceReason`: one more, and 0 for unknown."""
        return 0 if self is TraceReason.UNKNOWN else int(self) + 1


class PolicyMatchType(IntEnum):
    """How specific the deciding policy entry was (`flow.policy_match_type`)."""

    NONE = 0
    L3_ONLY = 1
    L3_L4 = 2
    L4_ONLY = 3
    ALL = 4
    L3_PROTO = 5
    PROTO_ONLY = 6

    @property
    def display(self) -> str:
        """The text of the TYPE column: `L3-L4`, `all`, `none`, ..."""
        return _MATCH_TEXT[self]


_MATCH_TEXT = {
    PolicyMatchType.NONE: "none",
    PolicyMatchType.L3_ONLY: "L3-Only",
    PolicyMatchType.L3_L4: "L3-L4",
    PolicyMatchType.L4_ONLY: "L4-Only",
    PolicyMatchType.ALL: "all",
    PolicyMatchType.L3_PROTO: "L3-Proto",
    PolicyMatchType.PROTO_ONLY: "Proto-Only",
}


class IpProtocol(IntEnum):
    """IANA protocol numbers the datapath tells apart."""

    ANY = 0
    ICMP = 1
    TCP = 6
    UDP = 17
    ICMPV6 = 58
    SCTP = 132
