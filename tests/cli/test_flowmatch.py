"""Filters applied to single flows: the answer for files is the answer a server would give."""

import pytest

from cli import filterflags, flowfilter
from cli.errors import UsageError
from cli.flowmatch import passes
from cli.parser import CommandParser
from palomar_pb.flow import flow_pb2
from tests.cli import flowcast

FLOWS = {name: item.flow for name, item in flowcast.samples() if item.HasField("flow")}
for _made in FLOWS.values():
    _made.node_labels.append("zone=a")
    _made.interface.name = "lxc1234"

ALL = frozenset(FLOWS)
DENIALS = frozenset({"drop", "policy-verdict deny"})
HTTP = frozenset({"L7 http request", "L7 http response"})
DNS = frozenset({"L7 dns request", "L7 dns response"})
VERDICTS = frozenset({"policy-verdict allow", "policy-verdict deny", "policy-verdict audit"})
TCP = ALL - DNS - {"icmp"}


def found(*words):
    parser = CommandParser(prog="test")
    filterflags.add_filter_flags(parser)
    lists = flowfilter.build(filterflags.collected(parser.parse_args(words)))
    return frozenset(name for name, made in FLOWS.items() if passes(made, lists))


CASES = [
    ("", ALL),
    ("--verdict DROPPED", DENIALS),
    ("--verdict DROPPED --type drop", {"drop"}),
    ("--verdict DROPPED --verdict REDIRECTED", DENIALS | {"to-proxy redirected"}),
    ("--not --verdict DROPPED", ALL - DENIALS),
    ("--type policy-verdict", VERDICTS),
    ("--type trace:to-endpoint", {"trace reply", "icmp"}),
    ("--type trace:to-stack", {"trace to-stack"}),
    ("--type drop:133", {"drop"}),
    ("--drop-reason-desc POLICY_DENIED", DENIALS),
    ("--protocol http", HTTP),
    ("--protocol dns", DNS),
    ("--protocol udp", DNS),
    ("--protocol icmp", {"icmp"}),
    ("--protocol icmpv6", frozenset()),
    ("--protocol tcp", TCP),
    ("--port 53", DNS),
    ("--to-port 443", {"to-network world fqdn"}),
    ("--from-port 8080", {"trace reply", "L7 http response"}),
    ("--ip 93.184.216.34", {"to-network world fqdn"}),
    ("--to-ip 93.184.0.0/16", {"to-network world fqdn"}),
    ("--ip fd00::/8", frozenset()),
    ("--pod client", ALL),
    ("--from-pod default/server", {"trace reply", "L7 http response"}),
    ("--pod kube-system/coredns", DNS),
    ("-n kube-system", DNS),
    ("-n nowhere", frozenset()),
    ("--to-identity world", {"to-network world fqdn"}),
    ("--identity 1111", DNS),
    ("--to-fqdn *.example.com", {"to-network world fqdn"}),
    ("--fqdn example.com", frozenset()),
    ("--from-label app=server", {"trace reply", "L7 http response"}),
    ("--to-label reserved:world", {"to-network world fqdn"}),
    ("--workload Deployment/server", ALL - DNS - {"to-network world fqdn"}),
    ("--workload server", ALL - DNS - {"to-network world fqdn"}),
    ("--workload StatefulSet/server", frozenset()),
    ("--cluster def*", ALL),
    ("--cluster other", frozenset()),
    ("--traffic-direction ingress", DENIALS | {"policy-verdict allow"}),
    ("--traffic-direction egress", {"policy-verdict audit"}),
    ("--tcp-flags SYN,ACK", {"trace reply"}),
    ("--tcp-flags PSH", {"to-network world fqdn"}),
    ("--http-status 200", {"L7 http response"}),
    ("--http-status 2+", {"L7 http response"}),
    ("--http-status 4+", frozenset()),
    ("--http-method get", HTTP),
    ("--http-path ^/api", HTTP),
    ("--http-path ^/v1", frozenset()),
    ("--http-url server:8080", HTTP),
    ("--http-header a:b", frozenset()),
    ("--node-name worker2", ALL),
    ("--node-name default/worker*", ALL),
    ("--node-name other/", frozenset()),
    ("--node-label zone=a", ALL),
    ("--node-label zone=b", frozenset()),
    ("--interface lxc1234", ALL),
    ("--interface eth0", frozenset()),
    ("-4", ALL),
    ("-6", frozenset()),
    ("--uuid 00000000-0000-0000-0000-000000000003", {"drop"}),
    ("--encrypted", frozenset()),
    ("--unencrypted", ALL),
    ("--snat-ip 10.0.0.0/8", frozenset()),
    ("--service default/x", frozenset()),
    ("--trace-id 0af7651916cd43dd8448eb211c80319c", frozenset()),
    ("--ip-trace-id 7", frozenset()),
]


@pytest.mark.parametrize(("words", "expected"), CASES, ids=[case[0] or "none" for case in CASES])
def test_filter_finds_exactly_these(words, expected):
    assert found(*words.split()) == expected


def test_reply_and_query_fields_of_raw_filters():
    def with_filter(**fields):
        lists = flowfilter.FilterLists(allow=(flow_pb2.FlowFilter(**fields),))
        return frozenset(name for name, made in FLOWS.items() if passes(made, lists))

    assert with_filter(reply=[True]) == {"trace reply", "L7 http response", "L7 dns response"}
    assert with_filter(dns_query=["^www"]) == DNS


def test_what_only_a_server_can_answer_is_said():
    with pytest.raises(UsageError, match="ask a flow server"):
        found("--cel-expression", "true")
