"""The lab's OTLP receiver: counts, its file, and what it refuses."""

import json
from pathlib import Path

import aiohttp
import grpc
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs

from lab.otlp import GRPC_SERVICES, OtlpReceiver, Received, main, plain


def request(count: int = 1) -> ExportLogsServiceRequest:
    verdict = KeyValue(key="palomar.flow.verdict", value=AnyValue(string_value="DROPPED"))
    records = [LogRecord(body=AnyValue(string_value="hello"), attributes=[verdict]) for _ in range(count)]
    return ExportLogsServiceRequest(resource_logs=[ResourceLogs(scope_logs=[ScopeLogs(log_records=records)])])


def test_values_of_every_kind_become_pythons() -> None:
    assert plain(AnyValue(int_value=5)) == 5
    assert plain(AnyValue()) is None
    array = ArrayValue(values=[AnyValue(bool_value=True), AnyValue(double_value=0.5)])
    assert plain(AnyValue(array_value=array)) == [True, 0.5]
    pairs = KeyValueList(values=[KeyValue(key="a", value=AnyValue(array_value=array))])
    assert plain(AnyValue(kvlist_value=pairs)) == {"a": [True, 0.5]}


async def test_http_requests_are_counted_or_refused_with_a_status() -> None:
    received = Received()
    receiver = OtlpReceiver(received)
    await receiver.start("", "127.0.0.1:0")
    base = f"http://127.0.0.1:{receiver.http_port}"
    protobuf = {"Content-Type": "application/x-protobuf"}
    try:
        async with aiohttp.ClientSession() as session:
            for path, data, headers, status in (
                ("/v1/logs", request(3).SerializeToString(), protobuf, 200),
                ("/v1/logs", b"\xff\xff", protobuf, 400),
                ("/v1/logs", b"{}", {"Content-Type": "application/json"}, 415),
                ("/v1/traces", b"", protobuf, 404),
            ):
                async with session.post(base + path, data=data, headers=headers) as answer:
                    assert answer.status == status
            async with session.get(base + "/counts") as answer:
                counts = await answer.json()
    finally:
        await receiver.stop()
    assert counts["logs"] == 3
    assert counts["by_verdict"] == {"DROPPED": 3}
    assert counts["requests"] == {"logs": 1}


def test_the_file_is_bounded(tmp_path: Path) -> None:
    output = tmp_path / "flows.jsonl"
    received = Received(output, max_bytes=2000)
    for _ in range(50):
        received.take("logs", request())
    assert output.with_name("flows.jsonl.old").stat().st_size < 2500
    lines = [json.loads(line) for line in output.read_text().splitlines()] if output.exists() else []
    assert all(line["body"] == "hello" for line in lines)
    assert received.counts()["logs"] == 50


async def test_what_cannot_be_written_down_is_sent_again_and_not_counted() -> None:
    """A full disk: UNAVAILABLE and 503, by which an exporter keeps its flows."""
    received = Received(Path("/dev/full"))
    receiver = OtlpReceiver(received)
    await receiver.start("127.0.0.1:0", "127.0.0.1:0")
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"http://127.0.0.1:{receiver.http_port}/v1/logs",
                data=request(3).SerializeToString(),
                headers={"Content-Type": "application/x-protobuf"},
            ) as answer,
        ):
            assert answer.status == 503
            assert "No space left" in await answer.text()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{receiver.grpc_port}") as channel:
            export = channel.unary_unary(
                f"/{GRPC_SERVICES['logs']}/Export",
                request_serializer=ExportLogsServiceRequest.SerializeToString,
            )
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await export(request(3), timeout=5)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    finally:
        await receiver.stop()
    assert received.counts()["logs"] == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--grpc", "", "--http", "127.0.0.1:99999"], "lab.otlp: "),
        (["--tls-cert", "x.pem"], "lab.otlp: tls: TLS needs certificate, key and CA"),
    ],
)
def test_what_cannot_work_is_said(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert says in capsys.readouterr().err
