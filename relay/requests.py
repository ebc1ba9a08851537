"""What a relay itself can tell to be wrong with a request, and what it adds; filters are the nodes' to judge.

Pure but for that. A node's INVALID_ARGUMENT is passed on; with no node connected there is nobody to ask, so
the rest of what is checked here is what every node would refuse.
"""

from ipaddress import ip_network

from google.protobuf.empty_pb2 import Empty
from google.protobuf.timestamp_pb2 import Timestamp

from palomar_pb.observer import observer_pb2

NS_PER_S = 1_000_000_000
ADDRESS_FIELDS = ("source_ip", "destination_ip")
PORT_FIELDS = ("source_port", "destination_port")
MAX_PORT = 65535
WRITE_PORT = f"write a number from 0 to {MAX_PORT}"


def check_request(request: observer_pb2.GetFlowsRequest) -> str:
    """Name the first field that cannot be meant and why; empty where none."""
    for name in ("since", "until"):
        moment: Timestamp = getattr(request, name)
        if request.HasField(name) and not 0 <= moment.nanos < NS_PER_S:
            return f"{name}: {moment.nanos} nanoseconds in a second"
    for kind, filters in (("whitelist", request.whitelist), ("blacklist", request.blacklist)):
        for index, item in enumerate(filters):
            for field in ADDRESS_FIELDS:
                for place, text in enumerate(getattr(item, field)):
                    if not _is_network(text):
                        return (
                            f"{kind}[{index}].{field}[{place}]: {text!r} is neither an IP address nor a CIDR"
                        )
            for field in PORT_FIELDS:
                for place, text in enumerate(getattr(item, field)):
                    if not (text.isascii() and text.isdigit() and int(text[:6]) <= MAX_PORT):
                        return f"{kind}[{index}].{field}[{place}]: {text!r} is not a port: {WRITE_PORT}"
    return ""


def say_nothing_understood(request: observer_pb2.GetFlowsRequest) -> None:
    """Note in a `request` of the public service that its client knows that alone, unless it says.

    Nodes are asked through our batched service, which takes a request without a word on it for one of ours.
    """
    if not request.HasField("extensions"):
        request.extensions.Pack(Empty())


def _is_network(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True
