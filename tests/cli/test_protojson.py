"""Our JSON says the same as protobuf's own encoder, in declaration order."""

import json

from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.format.protojson import JsonFormat
from palomar_pb.flow import flow_pb2
from palomar_pb.observer import observer_pb2
from tests.cli import flowcast

numbers = st.integers(0, 2**32 - 1)
texts = st.text(max_size=8)


@st.composite
def flows(draw):
    flow = flow_pb2.Flow(
        uuid=draw(texts),
        verdict=draw(st.sampled_from(list(flow_pb2.Verdict.values()))),
        drop_reason=draw(numbers),
        socket_cookie=draw(st.integers(0, 2**64 - 1)),
        source=flow_pb2.Endpoint(identity=draw(numbers), labels=draw(st.lists(texts, max_size=2))),
        l4=flow_pb2.Layer4(
            TCP=flow_pb2.TCP(source_port=draw(numbers), flags=flow_pb2.TCPFlags(SYN=draw(st.booleans())))
        ),
        ingress_denied_by=[flow_pb2.Policy(name=draw(texts), revision=draw(st.integers(0, 2**64 - 1)))],
        event_type=flow_pb2.CiliumEventType(type=draw(st.integers(-(2**31), 2**31 - 1))),
    )
    flow.time.seconds = draw(st.integers(0, 2**33))
    flow.time.nanos = draw(st.sampled_from([0, 5, 1_000, 500_000_000, 999_999_999]))
    if draw(st.booleans()):
        flow.is_reply.value = draw(st.booleans())
    if draw(st.booleans()):
        flowcast.extended(flow, bytes=draw(numbers), policy_rule=draw(texts))
    return flow


@settings(deadline=None)  # the work is small, the machine may be busy
@given(flows(), texts)
def test_content_equals_the_reference_encoder(flow, node):
    response = observer_pb2.GetFlowsResponse(flow=flow, node_name=node)
    line = JsonFormat().line(response)
    assert "\n" not in line
    assert json.loads(line) == json_format.MessageToDict(response, preserving_proto_field_name=True)
    assert json_format.Parse(line, observer_pb2.GetFlowsResponse()) == response


def test_fields_come_in_declaration_order():
    flow = flow_pb2.Flow(verdict=1, uuid="u", source=flow_pb2.Endpoint(cluster_name="c", namespace="n", ID=1))
    assert JsonFormat().line(flow) == (
        '{"uuid":"u","verdict":"FORWARDED","source":{"ID":1,"cluster_name":"c","namespace":"n"}}'
    )


def test_an_unknown_enum_number_stays_a_number():
    flow = flow_pb2.Flow()
    flow.MergeFromString(flow_pb2.Flow(verdict=1).SerializeToString().replace(b"\x10\x01", b"\x10\x63"))
    assert JsonFormat().line(flow) == '{"verdict":99}'


def test_whole_numbers_have_no_fraction():
    """As the field's encoder writes doubles."""
    encode = JsonFormat().line
    assert encode(observer_pb2.ServerStatusResponse(flows_rate=12)) == '{"flows_rate":12}'
    assert encode(observer_pb2.ServerStatusResponse(flows_rate=0.5)) == '{"flows_rate":0.5}'
    assert encode(observer_pb2.ServerStatusResponse(flows_rate=float("inf"))) == '{"flows_rate":"Infinity"}'
    assert encode(observer_pb2.ServerStatusResponse(flows_rate=float("nan"))) == '{"flows_rate":"NaN"}'
