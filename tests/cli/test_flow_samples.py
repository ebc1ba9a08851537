"""Flows read exactly as the field's tools print them: byte for byte, in every text output."""

from datetime import UTC

import pytest
from google.protobuf import json_format

from cli.format import protojson
from cli.format.flows import PolicyNames, Style, TableFormat, as_dict, compact
from cli.format.timestamps import TimeFormat
from palomar_pb.observer import observer_pb2
from tests.cli import flowcast

EXACT = Style(time=TimeFormat("StampMilli", UTC), policy_names=PolicyNames.NEVER)

COMPACT = {
    "trace to-stack": (
        "Nov 21 08:00:01.123: default/client-6d5f7b9c4d-abcde:40912 (ID:48291) -> default/server-7c"
        "9d8f6b5-fghij:8080 (ID:53731) to-stack FORWARDED (TCP Flags: SYN)"
    ),
    "trace reply": (
        "Nov 21 08:00:02.123: default/client-6d5f7b9c4d-abcde:40912 (ID:48291) <- default/server-7c"
        "9d8f6b5-fghij:8080 (ID:53731) to-endpoint FORWARDED (TCP Flags: SYN, ACK)"
    ),
    "drop": (
        "Nov 21 08:00:03.123: default/client-6d5f7b9c4d-abcde:40912 (ID:48291) <> default/server-7c"
        "9d8f6b5-fghij:8080 (ID:53731) Policy denied DROPPED (TCP Flags: SYN)"
    ),
    "policy-verdict allow": (
        "Nov 21 08:00:04.123: default/client-6d5f7b9c4d-abcde:40912 (ID:48291) -> default/server-7c"
        "9d8f6b5-fghij:8080 (ID:53731) policy-verdict:L3-L4 INGRESS ALLOWED (TCP Flags: SYN)"
    ),
    "policy-verdict deny": (
        "Nov 21 08:00:05.123: default/client-6d5f7b9c4d-abcde:40912 (ID:48291) <> default/server-7c"
        "9d8f6b5-fghij:8080 (ID:53731) policy-verdict:none INGRESS DENIED (TCP Flags: SYN)"
    ),
    "policy-verdict audit": (
        "Nov 21 08:00:06.123: default/client-6d5f7b9c4d-abcde:40912 (ID:48291) -> default/server-7c"
        "9d8f6b5-fghij:8080 (ID:53731) policy-verdict:none EGRESS AUDITED (TCP Flags: SYN)"
    ),
    "L7 http request": (
        "Nov 21 08:00:07.123: default/client-6d5f7b9c4d-abcde:40912 (ID:48291) -> default/server-7c"
        "9d8f6b5-fghij:8080 (ID:53731) http-request FORWARDED (HTTP/1.1 GET http://server:8080/api/"
        "v1)"
    ),
    "L7 http response": (
        "Nov 21 08:00:08.123: default/client-6d5f7b9c4d-abcde:40912 (ID:48291) <- default/server-7c"
        "9d8f6b5-fghij:8080 (ID:53731) http-response FORWARDED (HTTP/1.1 200 1ms (GET http://server"
        ":8080/api/v1))"
    ),
    "L7 dns request": (
        "Nov 21 08:00:09.123: default/client-6d5f7b9c4d-abcde:51234 (ID:48291) -> kube-system/cored"
        "ns-565d847f94-xyz12:53 (ID:1111) dns-request proxy FORWARDED (DNS Query www.example.com. A"
        ")"
    ),
    "L7 dns response": (
        "Nov 21 08:00:10.123: default/client-6d5f7b9c4d-abcde:51234 (ID:48291) <- kube-system/cored"
        'ns-565d847f94-xyz12:53 (ID:1111) dns-response proxy FORWARDED (DNS Answer "93.184.216.34" '
        "TTL: 300 (Proxy www.example.com. A))"
    ),
    "to-network world fqdn": (
        "Nov 21 08:00:11.123: default/client-6d5f7b9c4d-abcde:40913 (ID:48291) -> www.example.com:4"
        "43 (world) to-network FORWARDED (TCP Flags: ACK, PSH)"
    ),
    "icmp": (
        "Nov 21 08:00:12.123: default/client-6d5f7b9c4d-abcde (ID:48291) -> default/server-7c9d8f6b"
        "5-fghij (ID:53731) to-endpoint FORWARDED (ICMPv4 EchoRequest)"
    ),
    "to-proxy redirected": (
        "Nov 21 08:00:13.123: default/client-6d5f7b9c4d-abcde:40912 (ID:48291) -> default/server-7c"
        "9d8f6b5-fghij:8080 (ID:53731) to-proxy REDIRECTED (TCP Flags: SYN)"
    ),
    "trace-sock": (
        "Nov 21 08:00:14.123: default/client-6d5f7b9c4d-abcde:40912 (ID:48291) <> default/server-7c"
        "9d8f6b5-fghij:8080 (ID:53731) post-xlate-fwd TRANSLATED (TCP)"
    ),
    "lost events": ("Nov 21 08:00:15.123 EVENTS LOST: HUBBLE_RING_BUFFER CPU(0) 5"),
}

DICT = {
    "trace to-stack": (
        "  TIMESTAMP: Nov 21 08:00:01.123\n"
        "     SOURCE: default/client-6d5f7b9c4d-abcde:40912\n"
        "DESTINATION: default/server-7c9d8f6b5-fghij:8080\n"
        "       TYPE: to-stack\n"
        "    VERDICT: FORWARDED\n"
        "    SUMMARY: TCP Flags: SYN"
    ),
    "trace reply": (
        "  TIMESTAMP: Nov 21 08:00:02.123\n"
        "     SOURCE: default/server-7c9d8f6b5-fghij:8080\n"
        "DESTINATION: default/client-6d5f7b9c4d-abcde:40912\n"
        "       TYPE: to-endpoint\n"
        "    VERDICT: FORWARDED\n"
        "    SUMMARY: TCP Flags: SYN, ACK"
    ),
    "drop": (
        "  TIMESTAMP: Nov 21 08:00:03.123\n"
        "     SOURCE: default/client-6d5f7b9c4d-abcde:40912\n"
        "DESTINATION: default/server-7c9d8f6b5-fghij:8080\n"
        "       TYPE: Policy denied\n"
        "    VERDICT: DROPPED\n"
        "    SUMMARY: TCP Flags: SYN"
    ),
    "policy-verdict allow": (
        "  TIMESTAMP: Nov 21 08:00:04.123\n"
        "     SOURCE: default/client-6d5f7b9c4d-abcde:40912\n"
        "DESTINATION: default/server-7c9d8f6b5-fghij:8080\n"
        "       TYPE: policy-verdict:L3-L4 INGRESS\n"
        "    VERDICT: ALLOWED\n"
        "    SUMMARY: TCP Flags: SYN"
    ),
    "policy-verdict deny": (
        "  TIMESTAMP: Nov 21 08:00:05.123\n"
        "     SOURCE: default/client-6d5f7b9c4d-abcde:40912\n"
        "DESTINATION: default/server-7c9d8f6b5-fghij:8080\n"
        "       TYPE: policy-verdict:none INGRESS\n"
        "    VERDICT: DENIED\n"
        "    SUMMARY: TCP Flags: SYN"
    ),
    "policy-verdict audit": (
        "  TIMESTAMP: Nov 21 08:00:06.123\n"
        "     SOURCE: default/client-6d5f7b9c4d-abcde:40912\n"
        "DESTINATION: default/server-7c9d8f6b5-fghij:8080\n"
        "       TYPE: policy-verdict:none EGRESS\n"
        "    VERDICT: AUDITED\n"
        "    SUMMARY: TCP Flags: SYN"
    ),
    "L7 http request": (
        "  TIMESTAMP: Nov 21 08:00:07.123\n"
        "     SOURCE: default/client-6d5f7b9c4d-abcde:40912\n"
        "DESTINATION: default/server-7c9d8f6b5-fghij:8080\n"
        "       TYPE: http-request\n"
        "    VERDICT: FORWARDED\n"
        "    SUMMARY: HTTP/1.1 GET http://server:8080/api/v1"
    ),
    "L7 http response": (
        "  TIMESTAMP: Nov 21 08:00:08.123\n"
        "     SOURCE: default/server-7c9d8f6b5-fghij:8080\n"
        "DESTINATION: default/client-6d5f7b9c4d-abcde:40912\n"
        "       TYPE: http-response\n"
        "    VERDICT: FORWARDED\n"
        "    SUMMARY: HTTP/1.1 200 1ms (GET http://server:8080/api/v1)"
    ),
    "L7 dns request": (
        "  TIMESTAMP: Nov 21 08:00:09.123\n"
        "     SOURCE: default/client-6d5f7b9c4d-abcde:51234\n"
        "DESTINATION: kube-system/coredns-565d847f94-xyz12:53\n"
        "       TYPE: dns-request proxy\n"
        "    VERDICT: FORWARDED\n"
        "    SUMMARY: DNS Query www.example.com. A"
    ),
    "L7 dns response": (
        "  TIMESTAMP: Nov 21 08:00:10.123\n"
        "     SOURCE: kube-system/coredns-565d847f94-xyz12:53\n"
        "DESTINATION: default/client-6d5f7b9c4d-abcde:51234\n"
        "       TYPE: dns-response proxy\n"
        "    VERDICT: FORWARDED\n"
        '    SUMMARY: DNS Answer "93.184.216.34" TTL: 300 (Proxy www.example.com. A)'
    ),
    "to-network world fqdn": (
        "  TIMESTAMP: Nov 21 08:00:11.123\n"
        "     SOURCE: default/client-6d5f7b9c4d-abcde:40913\n"
        "DESTINATION: www.example.com:443\n"
        "       TYPE: to-network\n"
        "    VERDICT: FORWARDED\n"
        "    SUMMARY: TCP Flags: ACK, PSH"
    ),
    "icmp": (
        "  TIMESTAMP: Nov 21 08:00:12.123\n"
        "     SOURCE: default/client-6d5f7b9c4d-abcde\n"
        "DESTINATION: default/server-7c9d8f6b5-fghij\n"
        "       TYPE: to-endpoint\n"
        "    VERDICT: FORWARDED\n"
        "    SUMMARY: ICMPv4 EchoRequest"
    ),
    "to-proxy redirected": (
        "  TIMESTAMP: Nov 21 08:00:13.123\n"
        "     SOURCE: default/client-6d5f7b9c4d-abcde:40912\n"
        "DESTINATION: default/server-7c9d8f6b5-fghij:8080\n"
        "       TYPE: to-proxy\n"
        "    VERDICT: REDIRECTED\n"
        "    SUMMARY: TCP Flags: SYN"
    ),
    "trace-sock": (
        "  TIMESTAMP: Nov 21 08:00:14.123\n"
        "     SOURCE: default/client-6d5f7b9c4d-abcde:40912\n"
        "DESTINATION: default/server-7c9d8f6b5-fghij:8080\n"
        "       TYPE: post-xlate-fwd\n"
        "    VERDICT: TRANSLATED\n"
        "    SUMMARY: TCP"
    ),
    "lost events": (
        "  TIMESTAMP: Nov 21 08:00:15.123\n"
        "     SOURCE: HUBBLE_RING_BUFFER\n"
        "       TYPE: EVENTS LOST\n"
        "    VERDICT: -\n"
        "    SUMMARY: CPU(0) - 5"
    ),
}

TABLE_HEADER = (
    "TIMESTAMP             SOURCE                                    DESTINATION               "
    "                TYPE                           VERDICT      SUMMARY"
)
TABLE = {
    "trace to-stack": (
        "Nov 21 08:00:01.123   default/client-6d5f7b9c4d-abcde:40912     default/server-7c9d8f6b5-f"
        "ghij:8080       to-stack                       FORWARDED    TCP Flags: SYN"
    ),
    "trace reply": (
        "Nov 21 08:00:02.123   default/server-7c9d8f6b5-fghij:8080       default/client-6d5f7b9c4d-"
        "abcde:40912     to-endpoint                    FORWARDED    TCP Flags: SYN, ACK"
    ),
    "drop": (
        "Nov 21 08:00:03.123   default/client-6d5f7b9c4d-abcde:40912     default/server-7c9d8f6b5-f"
        "ghij:8080       Policy denied                  DROPPED      TCP Flags: SYN"
    ),
    "policy-verdict allow": (
        "Nov 21 08:00:04.123   default/client-6d5f7b9c4d-abcde:40912     default/server-7c9d8f6b5-f"
        "ghij:8080       policy-verdict:L3-L4 INGRESS   ALLOWED      TCP Flags: SYN"
    ),
    "policy-verdict deny": (
        "Nov 21 08:00:05.123   default/client-6d5f7b9c4d-abcde:40912     default/server-7c9d8f6b5-f"
        "ghij:8080       policy-verdict:none INGRESS    DENIED       TCP Flags: SYN"
    ),
    "policy-verdict audit": (
        "Nov 21 08:00:06.123   default/client-6d5f7b9c4d-abcde:40912     default/server-7c9d8f6b5-f"
        "ghij:8080       policy-verdict:none EGRESS     AUDITED      TCP Flags: SYN"
    ),
    "L7 http request": (
        "Nov 21 08:00:07.123   default/client-6d5f7b9c4d-abcde:40912     default/server-7c9d8f6b5-f"
        "ghij:8080       http-request                   FORWARDED    HTTP/1.1 GET http://server:808"
        "0/api/v1"
    ),
    "L7 http response": (
        "Nov 21 08:00:08.123   default/server-7c9d8f6b5-fghij:8080       default/client-6d5f7b9c4d-"
        "abcde:40912     http-response                  FORWARDED    HTTP/1.1 200 1ms (GET http://s"
        "erver:8080/api/v1)"
    ),
    "L7 dns request": (
        "Nov 21 08:00:09.123   default/client-6d5f7b9c4d-abcde:51234     kube-system/coredns-565d84"
        "7f94-xyz12:53   dns-request proxy              FORWARDED    DNS Query www.example.com. A"
    ),
    "L7 dns response": (
        "Nov 21 08:00:10.123   kube-system/coredns-565d847f94-xyz12:53   default/client-6d5f7b9c4d-"
        'abcde:51234     dns-response proxy             FORWARDED    DNS Answer "93.184.216.34" TTL'
        ": 300 (Proxy www.example.com. A)"
    ),
    "to-network world fqdn": (
        "Nov 21 08:00:11.123   default/client-6d5f7b9c4d-abcde:40913     www.example.com:443       "
        "                to-network                     FORWARDED    TCP Flags: ACK, PSH"
    ),
    "icmp": (
        "Nov 21 08:00:12.123   default/client-6d5f7b9c4d-abcde           default/server-7c9d8f6b5-f"
        "ghij            to-endpoint                    FORWARDED    ICMPv4 EchoRequest"
    ),
    "to-proxy redirected": (
        "Nov 21 08:00:13.123   default/client-6d5f7b9c4d-abcde:40912     default/server-7c9d8f6b5-f"
        "ghij:8080       to-proxy                       REDIRECTED   TCP Flags: SYN"
    ),
    "trace-sock": (
        "Nov 21 08:00:14.123   default/client-6d5f7b9c4d-abcde:40912     default/server-7c9d8f6b5-f"
        "ghij:8080       post-xlate-fwd                 TRANSLATED   TCP"
    ),
    "lost events": (
        "Nov 21 08:00:15.123   HUBBLE_RING_BUFFER                        -                         "
        "                EVENTS LOST                    -            CPU(0) - 5"
    ),
}

JSON_DROP = (
    '{"flow":{"time":"2026-11-21T08:00:03.123456789Z","uuid":"00000000-0000-0000-0000-000000000'
    '003","verdict":"DROPPED","drop_reason":133,"ethernet":{"source":"b2:10:ef:6b:fa:0a","desti'
    'nation":"da:0c:20:4a:86:f7"},"IP":{"source":"10.0.0.185","destination":"10.0.1.110","ipVer'
    'sion":"IPv4"},"l4":{"TCP":{"source_port":40912,"destination_port":8080,"flags":{"SYN":true'
    '}}},"source":{"ID":1234,"identity":48291,"cluster_name":"default","namespace":"default","l'
    'abels":["k8s:app=client","k8s:io.kubernetes.pod.namespace=default"],"pod_name":"client-6d5'
    'f7b9c4d-abcde","workloads":[{"name":"client","kind":"Deployment"}]},"destination":{"ID":56'
    '78,"identity":53731,"cluster_name":"default","namespace":"default","labels":["k8s:app=serv'
    'er","k8s:io.kubernetes.pod.namespace=default"],"pod_name":"server-7c9d8f6b5-fghij","worklo'
    'ads":[{"name":"server","kind":"Deployment"}]},"Type":"L3_L4","node_name":"default/worker2"'
    ',"event_type":{"type":1,"sub_type":133},"traffic_direction":"INGRESS","drop_reason_desc":"'
    'POLICY_DENIED","Summary":"TCP Flags: SYN"},"node_name":"default/worker2","time":"2026-11-2'
    '1T08:00:03.123456789Z"}'
)
JSON_LOST = (
    '{"lost_events":{"source":"HUBBLE_RING_BUFFER","num_events_lost":"5"},"node_name":"default/'
    'worker2","time":"2026-11-21T08:00:15.123456789Z"}'
)
NAMED = (
    (
        "Nov 21 08:00:04.123 [default/worker2]: default/client-6d5f7b9c4d-abcde:40912 (ID:48291) ->"
        " default/server-7c9d8f6b5-fghij:8080 (ID:53731) policy-verdict:L3-L4 INGRESS ALLOWED BY al"
        "low-client (CiliumNetworkPolicy) (TCP Flags: SYN)"
    ),
    (
        "Nov 21 08:00:05.123 [default/worker2]: default/client-6d5f7b9c4d-abcde:40912 (ID:48291) <>"
        " default/server-7c9d8f6b5-fghij:8080 (ID:53731) policy-verdict:none INGRESS DENIED BY deny"
        "-x (CiliumNetworkPolicy) (TCP Flags: SYN)"
    ),
)
NUMERIC = (
    "Nov 21 08:00:01.123: 10.0.0.185:40912 (ID:48291) -> 10.0.1.110:8080 (ID:53731) to-stack FO"
    "RWARDED (TCP Flags: SYN)"
)

SAMPLES = dict(flowcast.samples())


@pytest.mark.parametrize("name", COMPACT)
def test_compact_line_is_exact(name):
    assert compact(SAMPLES[name], EXACT) == COMPACT[name]


@pytest.mark.parametrize("name", DICT)
def test_dict_block_is_exact(name):
    assert as_dict(SAMPLES[name], EXACT) == DICT[name]


def test_table_is_exact_with_header_and_widths_of_the_whole_output():
    table = TableFormat(EXACT)
    rows = [table.header(), *(table.row(SAMPLES[name]) for name in TABLE)]
    for row in rows:
        table.grow(row)
    assert [table.line(row) for row in rows] == [TABLE_HEADER, *TABLE.values()]


def test_json_of_a_drop_is_exact():
    assert protojson.JsonFormat().line(SAMPLES["drop"]) == JSON_DROP


def test_json_of_a_loss_is_exact():
    assert protojson.JsonFormat().line(SAMPLES["lost events"]) == JSON_LOST


def test_json_written_elsewhere_is_read_and_written_back_unchanged():
    read = json_format.Parse(JSON_DROP, observer_pb2.GetFlowsResponse())
    assert protojson.JsonFormat().line(read) == JSON_DROP
    assert compact(read, EXACT) == COMPACT["drop"]


def test_node_and_policy_names_are_exact():
    style = Style(time=EXACT.time, node_name=True, policy_names=PolicyNames.ALWAYS)
    assert compact(SAMPLES["policy-verdict allow"], style) == NAMED[0]
    assert compact(SAMPLES["policy-verdict deny"], style) == NAMED[1]


def test_numeric_line_shows_addresses():
    style = Style(time=EXACT.time, translate=False, policy_names=PolicyNames.NEVER)
    assert compact(SAMPLES["trace to-stack"], style) == NUMERIC


def test_a_packet_without_an_ip_header_is_shown_by_its_macs():
    arp = flowcast.flow(1, 1, 166, verdict=flowcast.DROPPED)
    arp.ClearField("IP")
    arp.ethernet.source, arp.ethernet.destination = "b2:10:ef:6b:fa:0a", "ff:ff:ff:ff:ff:ff"
    arp.Summary = "Ethernet"
    assert compact(flowcast.response(arp), EXACT).endswith(
        ": b2:10:ef:6b:fa:0a (ID:48291) <> ff:ff:ff:ff:ff:ff (ID:53731) "
        "Unsupported L2 protocol DROPPED (Ethernet)"
    )


def test_trace_id_and_authentication_stand_in_the_summary():
    flow = flowcast.flow(1, 4, 0, auth_type="SPIRE", ip_trace_id={"trace_id": 7})
    assert compact(flowcast.response(flow), EXACT).endswith(
        "FORWARDED (IP Trace ID: 7; TCP Flags: SYN; SPIRE)"
    )
