"""Filter flags become exactly the filters the field's tools would send; nonsense names its flag."""

import json

import pytest

from cli import filterflags, flowfilter
from cli.errors import UsageError
from cli.format.protojson import JsonFormat
from cli.parser import CommandParser
from hubble.filters import compile_filters
from hubble.observingnode import ObservingNode


def parse(words):
    parser = CommandParser(prog="test")
    filterflags.add_filter_flags(parser)
    return filterflags.collected(parser.parse_args(words))


def lists(words):
    built = flowfilter.build(parse(words))
    tree = JsonFormat().tree
    return [tree(item) for item in built.allow], [tree(item) for item in built.deny]


UUID = "12345678-9abc-8def-8000-000000000007"
# flags -> (allow list, deny list)
CASES = [
    ([], [], []),
    # the same flag again is OR in one filter
    (["--verdict", "DROPPED", "--verdict", "AUDIT"], [{"verdict": ["DROPPED", "AUDIT"]}], []),
    # different flags are AND
    (
        ["--verdict", "dropped", "--protocol", "tcp"],
        [{"verdict": ["DROPPED"], "protocol": ["tcp"]}],
        [],
    ),
    # either side makes two filters
    (["--ip", "10.0.0.1"], [{"source_ip": ["10.0.0.1"]}, {"destination_ip": ["10.0.0.1"]}], []),
    (["--port", "80"], [{"source_port": ["80"]}, {"destination_port": ["80"]}], []),
    (
        ["--pod", "a", "--port", "80"],
        [
            {"source_pod": ["default/a"], "source_port": ["80"]},
            {"destination_pod": ["default/a"], "destination_port": ["80"]},
        ],
        [],
    ),
    (
        ["--from-pod", "a", "--to-pod", "b"],
        [{"source_pod": ["default/a"], "destination_pod": ["default/b"]}],
        [],
    ),
    (
        ["--ip", "10.0.0.0/8", "--verdict", "FORWARDED"],
        [
            {"source_ip": ["10.0.0.0/8"], "verdict": ["FORWARDED"]},
            {"destination_ip": ["10.0.0.0/8"], "verdict": ["FORWARDED"]},
        ],
        [],
    ),
    # --not moves one flag to the deny list
    (
        ["--protocol", "tcp", "--not", "--port", "22"],
        [{"protocol": ["tcp"]}],
        [{"source_port": ["22"]}, {"destination_port": ["22"]}],
    ),
    (["--not", "--verdict", "FORWARDED"], [], [{"verdict": ["FORWARDED"]}]),
    (
        ["--not", "--from-pod", "a", "--from-pod", "b"],
        [{"source_pod": ["default/b"]}],
        [{"source_pod": ["default/a"]}],
    ),
    # pods and namespaces
    (["-n", "demo"], [{"source_pod": ["demo/"]}, {"destination_pod": ["demo/"]}], []),
    (["--pod", "web", "-n", "demo"], [{"source_pod": ["demo/web"]}, {"destination_pod": ["demo/web"]}], []),
    (
        ["-n", "a", "-n", "b", "--pod", "x"],
        [{"source_pod": ["a/x", "b/x"]}, {"destination_pod": ["a/x", "b/x"]}],
        [],
    ),
    (["--from-pod", "demo/web-1"], [{"source_pod": ["demo/web-1"]}], []),
    (["--from-pod", "web", "--from-namespace", "demo"], [{"source_pod": ["demo/web"]}], []),
    (["--to-namespace", "kube-system"], [{"destination_pod": ["kube-system/"]}], []),
    (["-A"], [], []),
    # event types
    (
        ["--type", "trace:to-endpoint"],
        [{"event_type": [{"type": 4, "match_sub_type": True}]}],
        [],
    ),
    (["-t", "trace:to-overlay"], [{"event_type": [{"type": 4, "match_sub_type": True, "sub_type": 4}]}], []),
    (["-t", "drop"], [{"event_type": [{"type": 1}]}], []),
    (
        ["-t", "drop:policy_denied"],
        [{"event_type": [{"type": 1, "match_sub_type": True, "sub_type": 133}]}],
        [],
    ),
    (
        ["-t", "drop:Policy denied"],
        [{"event_type": [{"type": 1, "match_sub_type": True, "sub_type": 133}]}],
        [],
    ),
    (["-t", "drop:181"], [{"event_type": [{"type": 1, "match_sub_type": True, "sub_type": 181}]}], []),
    (["-t", "policy-verdict", "-t", "l7"], [{"event_type": [{"type": 5}, {"type": 129}]}], []),
    (["-t", "129"], [{"event_type": [{"type": 129}]}], []),
    # one of each of the others
    (["--identity", "world"], [{"source_identity": [2]}, {"destination_identity": [2]}], []),
    (["--from-identity", "reserved:host"], [{"source_identity": [1]}], []),
    (["--to-identity", "48291"], [{"destination_identity": [48291]}], []),
    (
        ["-l", "app=web,env in (a,b)"],
        [{"source_label": ["app=web,env in (a,b)"]}, {"destination_label": ["app=web,env in (a,b)"]}],
        [],
    ),
    (["--from-label", "k8s:app"], [{"source_label": ["k8s:app"]}], []),
    (["--to-service", "web"], [{"destination_service": ["default/web"]}], []),
    (["--to-service", "demo/web"], [{"destination_service": ["demo/web"]}], []),
    (
        ["-n", "a", "-n", "b", "--service", "web", "--service", "api"],
        [
            {"source_service": ["a/web", "b/web", "a/api", "b/api"]},
            {"destination_service": ["a/web", "b/web", "a/api", "b/api"]},
        ],
        [],
    ),
    (["-A", "--pod", "web"], [{"source_pod": ["/web"]}, {"destination_pod": ["/web"]}], []),
    (["--to-all-namespaces", "--to-pod", "web"], [{"destination_pod": ["/web"]}], []),
    (["--from-all-namespaces", "--from-service", "web"], [{"source_service": ["/web"]}], []),
    (["-A", "--from-pod", "web"], [{"source_pod": ["/web"]}], []),
    (["-A", "--pod", "demo/web"], [{"source_pod": ["demo/web"]}, {"destination_pod": ["demo/web"]}], []),
    (["-A"], [], []),
    (
        ["-n", "demo", "--not", "--service", "web"],
        [{"source_pod": ["demo/"]}, {"destination_pod": ["demo/"]}],
        [{"source_service": ["default/web"]}, {"destination_service": ["default/web"]}],
    ),
    (
        ["--from-workload", "Deployment/web"],
        [{"source_workload": [{"name": "web", "kind": "Deployment"}]}],
        [],
    ),
    (["--from-workload", "web"], [{"source_workload": [{"name": "web"}]}], []),
    (["--to-fqdn", "*.example.com"], [{"destination_fqdn": ["*.example.com"]}], []),
    (["--from-cluster", "eu-*"], [{"source_cluster_name": ["eu-*"]}], []),
    (["--drop-reason-desc", "policy_deny"], [{"drop_reason_desc": ["POLICY_DENY"]}], []),
    (["--traffic-direction", "egress"], [{"traffic_direction": ["EGRESS"]}], []),
    (["--tcp-flags", "syn,ack"], [{"tcp_flags": [{"SYN": True, "ACK": True}]}], []),
    (["--tcp-flags", "FIN", "--tcp-flags", "RST"], [{"tcp_flags": [{"FIN": True}, {"RST": True}]}], []),
    (["-4"], [{"ip_version": ["IPv4"]}], []),
    (["-6"], [{"ip_version": ["IPv6"]}], []),
    (["--ip-version", "v6"], [{"ip_version": ["IPv6"]}], []),
    (["--snat-ip", "192.0.2.1"], [{"source_ip_xlated": ["192.0.2.1"]}], []),
    (["--node-name", "default/node-*"], [{"node_name": ["default/node-*"]}], []),
    (["--node-label", "zone=a"], [{"node_labels": ["zone=a"]}], []),
    (["--interface", "lxc0"], [{"interface": [{"name": "lxc0"}]}], []),
    (["--uuid", UUID], [{"uuid": [UUID]}], []),
    (
        ["--trace-id", "0AF7651916CD43DD8448EB211C80319C"],
        [{"trace_id": ["0af7651916cd43dd8448eb211c80319c"]}],
        [],
    ),
    (["--ip-trace-id", "7"], [{"ip_trace_id": ["7"]}], []),
    (["--http-status", "404", "--http-status", "5+"], [{"http_status_code": ["404", "5+"]}], []),
    (["--http-method", "get"], [{"http_method": ["get"]}], []),
    (["--http-path", "/api/.*"], [{"http_path": ["/api/.*"]}], []),
    (["--http-url", "example"], [{"http_url": ["example"]}], []),
    (["--http-header", "X-A: b"], [{"http_header": [{"key": "X-A", "value": "b"}]}], []),
    (["--encrypted"], [{"encrypted": [True]}], []),
    (["--unencrypted"], [{"encrypted": [False]}], []),
    (
        ["--cel-expression", "_flow.verdict == 2"],
        [{"experimental": {"cel_expression": ["_flow.verdict == 2"]}}],
        [],
    ),
]


@pytest.mark.parametrize(
    ("words", "allow", "deny"), CASES, ids=[" ".join(case[0]) or "none" for case in CASES]
)
def test_flags_become_filters(words, allow, deny):
    assert lists(words) == (allow, deny)


@pytest.mark.parametrize(
    "words", [case[0] for case in CASES if "--cel-expression" not in case[0]], ids=" ".join
)
def test_what_the_flags_accept_a_flow_server_can_read(words):
    built = flowfilter.build(parse(words))
    compile_filters(built.allow, built.deny, ObservingNode("default/worker"))


CONFLICTS = [
    (["--from-ip", "10.0.0.1", "--ip", "10.0.0.2"], "filters --from-ip and --ip cannot be combined"),
    (["--ip", "10.0.0.2", "--from-ip", "10.0.0.1"], "filters --from-ip and --ip cannot be combined"),
    (["--to-pod", "a", "--pod", "b"], "filters --to-pod and --pod cannot be combined"),
    (["--port", "1", "--to-port", "2"], "filters --to-port and --port cannot be combined"),
    (["-n", "a", "-A"], "filters --namespace and --all-namespaces cannot be combined"),
    (["--encrypted", "--unencrypted"], "filters --encrypted and --unencrypted cannot be combined"),
    (["-n", "a", "--pod", "b/c"], "name different namespaces"),
]


@pytest.mark.parametrize(("words", "message"), CONFLICTS, ids=[" ".join(case[0]) for case in CONFLICTS])
def test_flags_that_contradict_are_refused(words, message):
    with pytest.raises(UsageError, match=message):
        lists(words)


def test_a_conflict_does_not_reach_across_not():
    assert lists(["--ip", "10.0.0.1", "--not", "--from-ip", "10.0.0.2"])[1] == [{"source_ip": ["10.0.0.2"]}]


NONSENSE = [
    ("--pod", "Web_1"),
    ("--pod", ""),
    ("--namespace", "a/b"),
    ("--ip", "10.0.0.300"),
    ("--ip", "10.0.0.0/33"),
    ("--identity", "wrold"),
    ("--identity", "4294967296"),
    ("--label", "app=(web"),
    ("--label", ""),
    ("--port", "0"),
    ("--port", "65536"),
    ("--port", "http"),
    ("--port", "٨٠"),
    ("--service", "A b"),
    ("--workload", "/"),
    ("--workload", "a/b/c"),
    ("--fqdn", "exa mple"),
    ("--cluster", ""),
    ("--type", "tracer"),
    ("--type", "trace:to-nowhere"),
    ("--type", "drop:none of these"),
    ("--type", "policy-verdict:x"),
    ("--type", "300"),
    ("--verdict", "DROP"),
    ("--drop-reason-desc", "POLICY"),
    ("--protocol", "quic"),
    ("--traffic-direction", "sideways"),
    ("--tcp-flags", "SYN,FOO"),
    ("--tcp-flags", ""),
    ("--ip-version", "5"),
    ("--snat-ip", "x"),
    ("--node-name", "a b"),
    ("--node-name", "/"),
    ("--node-label", "a=b=c,,"),
    ("--interface", " "),
    ("--uuid", "abc"),
    ("--trace-id", "zz"),
    ("--ip-trace-id", "x"),
    ("--http-status", "4x"),
    ("--http-status", "2000"),
    ("--http-status", "600"),
    ("--http-status", "404+"),
    ("--http-method", "G3T"),
    ("--http-path", "["),
    ("--http-url", "("),
    ("--http-header", "novalue"),
    ("--cel-expression", " "),
]


@pytest.mark.parametrize(("flag", "value"), NONSENSE, ids=[f"{flag}={value}" for flag, value in NONSENSE])
def test_nonsense_names_the_flag_and_what_is_accepted(flag, value):
    with pytest.raises(UsageError, match="accepted is") as caught:
        lists([flag, value])
    assert str(caught.value).startswith(flag)


def test_every_filter_flag_is_understood():
    """A flag that parses but means nothing would silently show too much."""
    parser = CommandParser(prog="test")
    filterflags.add_filter_flags(parser)
    flags = {
        option for action in parser._actions for option in action.option_strings if option.startswith("--")
    }
    covered = {word for case in CASES for word in case[0]} | {flag for flag, _ in NONSENSE}
    sided = {flag.replace("--from-", "--").replace("--to-", "--") for flag in flags}
    assert sided - covered - {"--not", "--help", "--ipv4", "--ipv6", "--all-namespaces"} == set()


@pytest.mark.parametrize(
    "words", [["--not"], ["--verdict", "DROPPED", "--not"], ["--not", "--not", "--ipv4"]]
)
def test_not_needs_a_filter_to_negate(words):
    with pytest.raises(UsageError, match="--not"):
        parse(words)


def test_raw_filters_are_added_and_bad_json_is_refused():
    built = flowfilter.with_raw(
        flowfilter.build(parse(["--verdict", "DROPPED"])), ['{"source_pod":["a/"]}'], ['{"reply":[true]}']
    )
    tree = JsonFormat().tree
    assert [tree(item) for item in built.allow] == [{"verdict": ["DROPPED"]}, {"source_pod": ["a/"]}]
    assert [tree(item) for item in built.deny] == [{"reply": [True]}]
    for bad in ("{", '{"nonsense":1}', json.dumps([1])):
        with pytest.raises(UsageError, match="--allowlist"):
            flowfilter.with_raw(built, [bad], [])


def test_flags_without_a_value_may_be_given_the_one_they_stand_for():
    bare = lists(["-4", "--encrypted", "--not", "--verdict", "DROPPED"])
    assert lists(["--ipv4=v4", "--encrypted=true", "--not=true", "--verdict", "DROPPED"]) == bare
    for wrong in ("--ipv4=v6", "--encrypted=false", "--not=false"):
        with pytest.raises(UsageError, match=wrong):
            parse([wrong, "--verdict", "DROPPED"])


@pytest.mark.parametrize("version", ["4", "v4", "ip4", "IPv4"])
def test_an_ip_version_is_named_in_many_ways(version):
    assert lists(["--ip-version", version]) == lists(["-4"])
