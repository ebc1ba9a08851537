"""The exporter against collectors that work, fail, hang, or are none: every flow is accounted for."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from hubble.exporter.exporter import Exporter
from hubble.flowendpoint import FlowEndpoint
from hubble.telemetry import Telemetry
from palomar.certs import KeyPair, Role, issue, make_ca, utc
from palomar.clock import SystemClock
from palomar.tls import TlsFiles, server_credentials
from tests.kit.flows import record
from tests.kit.otlpreceiver import TestReceiver, otlp_receiver, tcp_peer
from tests.kit.telemetry import MIXED, flows, telemetry
from tests.kit.wait import eventually_async

PROTOCOLS = pytest.mark.parametrize("protocol", ["grpc", "http"])


def settings(receiver: TestReceiver | int, protocol: str, **values: Any) -> dict[str, Any]:
    port = receiver
    if isinstance(receiver, TestReceiver):
        port = receiver.grpc_port if protocol == "grpc" else receiver.http_port
    return {
        "endpoint": f"http://127.0.0.1:{port}",
        "protocol": protocol,
        "interval_s": 0.05,
        "timeout_s": 0.4,
        "metrics": False,
        **values,
    }


def exporter_of(running: Telemetry) -> Exporter:
    assert running.exporter is not None
    return running.exporter


def accounted(exporter: Exporter) -> int:
    counts = exporter.counts
    done = counts.exported["logs"] + counts.refused["logs"] + counts.filtered
    return done + exporter.overrun + exporter.follower.lag


@PROTOCOLS
async def test_collector_that_fails_for_a_while_gets_every_flow_once(tmp_path: Path, protocol: str) -> None:
    """What is retried arrives when the collector recovers: nothing twice, nothing missing."""
    with flows(tmp_path) as source:
        async with otlp_receiver() as receiver:
            receiver.grpc_status, receiver.http_status = grpc.StatusCode.UNAVAILABLE, 503
            source.write(*MIXED)
            async with telemetry(tmp_path, otlp=settings(receiver, protocol)) as running:
                exporter = exporter_of(running)
                await eventually_async(lambda: exporter.counts.failures["unavailable"])
                assert not exporter.counts.is_up
                assert exporter.follower.lag == len(MIXED)
                source.write(*MIXED)
                receiver.grpc_status, receiver.http_status = None, 200
                await eventually_async(lambda: exporter.counts.exported["logs"] == 2 * len(MIXED), 10)
                assert exporter.counts.is_up
            uuids = {flow["attributes"]["palomar.flow.uuid"] for flow in receiver.flows}
            assert len(receiver.flows) == len(uuids) == 2 * len(MIXED)


@PROTOCOLS
async def test_hanging_collector_holds_up_nothing_and_costs_bounded_memory(
    tmp_path: Path, protocol: str
) -> None:
    """A request that is never answered times out; flows beyond the bound are given up and counted."""
    with flows(tmp_path) as source:
        async with otlp_receiver() as receiver:
            receiver.hangs = True
            source.write(*MIXED)
            otlp = settings(receiver, protocol, catch_up_flows=100, batch_flows=10)
            async with telemetry(tmp_path, metrics="flow", otlp=otlp) as running:
                exporter = exporter_of(running)
                await eventually_async(lambda: exporter.counts.failures["timeout"])
                for _ in range(30):
                    source.write(*MIXED)
                    await asyncio.sleep(0)
                written = source.writer.head
                # The metrics of the same process go on meanwhile.
                counting = running.counting
                assert counting is not None
                await eventually_async(lambda: counting.registry.flows == written)
                await eventually_async(lambda: exporter.counts.failures["timeout"] >= 2, 10)
                receiver.hangs = False
                receiver.freed.set()
                await eventually_async(lambda: exporter.follower.lag == 0, 15)
                assert exporter.overrun >= written - 100 - 10
                assert accounted(exporter) == written
                assert exporter.counts.exported["logs"] > 0


@PROTOCOLS
async def test_refused_batches_are_dropped_counted_and_paced(tmp_path: Path, protocol: str) -> None:
    """An answer that forbids a retry is not retried, and does not come at full speed."""
    with flows(tmp_path) as source:
        async with otlp_receiver() as receiver:
            receiver.grpc_status, receiver.http_status = grpc.StatusCode.INVALID_ARGUMENT, 400
            source.write(*MIXED * 20)
            otlp = settings(receiver, protocol, batch_flows=10)
            async with telemetry(tmp_path, otlp=otlp) as running:
                exporter = exporter_of(running)
                await eventually_async(lambda: receiver.seen >= 2)
                assert exporter.counts.refused["logs"] <= 10 * receiver.seen
                assert receiver.seen <= 3
                assert accounted(exporter) == source.writer.head
                receiver.grpc_status, receiver.http_status = None, 200
                await eventually_async(lambda: exporter.follower.lag == 0, 10)
                exported = exporter.counts.exported["logs"]
                assert exported + exporter.counts.refused["logs"] == source.writer.head
                assert exported == len(receiver.flows)


@PROTOCOLS
async def test_partial_success_counts_what_was_rejected(tmp_path: Path, protocol: str) -> None:
    with flows(tmp_path) as source:
        async with otlp_receiver() as receiver:
            receiver.rejects = 3
            source.write(*MIXED)
            async with telemetry(tmp_path, otlp=settings(receiver, protocol)) as running:
                exporter = exporter_of(running)
                await eventually_async(lambda: exporter.follower.lag == 0 and exporter.follower.store)
                assert exporter.counts.refused["logs"] == 3
                assert exporter.counts.exported["logs"] == len(MIXED) - 3


@pytest.mark.parametrize("says_when", [True, False])
async def test_exhausted_grpc_collector_is_retried_only_when_it_says_when(
    tmp_path: Path, says_when: bool
) -> None:
    """RESOURCE_EXHAUSTED with RetryInfo is throttling, without it a refusal (OTLP specification)."""
    status = status_pb2.Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0])
    status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=Duration(nanos=1000)))
    with flows(tmp_path) as source:
        async with otlp_receiver() as receiver:
            receiver.grpc_status = grpc.StatusCode.RESOURCE_EXHAUSTED
            if says_when:
                receiver.trailers = (("grpc-status-details-bin", status.SerializeToString()),)
            source.write(*MIXED)
            async with telemetry(tmp_path, otlp=settings(receiver, "grpc")) as running:
                exporter = exporter_of(running)
                await eventually_async(lambda: sum(exporter.counts.failures.values()))
                assert exporter.counts.failures["throttled"] == says_when
                receiver.grpc_status = None
                await eventually_async(lambda: exporter.follower.lag == 0, 10)
                assert exporter.counts.exported["logs"] == len(MIXED) * says_when


async def test_throttling_http_collector_is_asked_again_after_its_delay(tmp_path: Path) -> None:
    with flows(tmp_path) as source:
        async with otlp_receiver() as receiver:
            receiver.http_status, receiver.http_headers = 429, {"Retry-After": "1"}
            source.write(*MIXED)
            async with telemetry(tmp_path, otlp=settings(receiver, "http")) as running:
                exporter = exporter_of(running)
                await eventually_async(lambda: exporter.counts.failures["throttled"])
                receiver.http_status = 200
                begin = asyncio.get_running_loop().time()
                await eventually_async(lambda: exporter.counts.exported["logs"] == len(MIXED), 10)
                assert asyncio.get_running_loop().time() - begin > 0.6


async def say_html(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    body = b"<html>Welcome to nginx!</html>"
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )
    await writer.drain()
    await reader.read()


async def say_redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")
    await writer.drain()
    await reader.read()


async def say_garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(16)
    writer.write(b"SSH-2.0-OpenSSH_9.2\r\n" * 10)
    await writer.drain()
    await reader.read()


async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(65536):
        pass


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)


async def never_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\n\r\n")
    while True:
        writer.write(b"\x0a" * 4096)
        await writer.drain()


@PROTOCOLS
@pytest.mark.parametrize("talk", [say_html, say_redirect, say_garbage, say_nothing, hang_up, never_end])
async def test_something_that_is_no_collector_gets_nothing_counted_as_exported(
    tmp_path: Path, protocol: str, talk: Callable[..., Any]
) -> None:
    """Whatever it answers: no flow counts as exported, the process goes on, every flow is accounted for."""
    with flows(tmp_path) as source:
        source.write(*MIXED)
        async with (
            tcp_peer(talk) as port,
            telemetry(tmp_path, metrics="flow", otlp=settings(port, protocol)) as running,
        ):
            exporter = exporter_of(running)
            await eventually_async(lambda: sum(exporter.counts.failures.values()), 10)
            assert exporter.counts.exported["logs"] == 0
            assert not exporter.counts.is_up
            assert exporter.counts.last_error
            assert accounted(exporter) == source.writer.head


@PROTOCOLS
async def test_nobody_listening_is_unavailable(tmp_path: Path, protocol: str) -> None:
    with flows(tmp_path) as source:
        source.write(*MIXED)
        async with tcp_peer(hang_up) as port:
            pass
        async with telemetry(tmp_path, otlp=settings(port, protocol)) as running:
            exporter = exporter_of(running)
            await eventually_async(lambda: exporter.counts.failures["unavailable"], 10)
            assert exporter.follower.lag == len(MIXED)


@PROTOCOLS
async def test_filters_and_headers(tmp_path: Path, protocol: str) -> None:
    """Only flows of the allow list that the deny list does not have are exported; the rest is counted."""
    with flows(tmp_path) as source:
        source.write(*MIXED)
        async with otlp_receiver() as receiver:
            otlp = settings(
                receiver,
                protocol,
                headers={"X-Api-Key": "secret"},
                allow=[{"verdict": ["DROPPED"]}],
                deny=[{"event_type": [{"type": 1}]}],
            )
            async with telemetry(tmp_path, otlp=otlp) as running:
                exporter = exporter_of(running)
                await eventually_async(lambda: exporter.counts.filtered == len(MIXED) - 1)
            assert [flow["attributes"]["palomar.flow.type"] for flow in receiver.flows] == ["PolicyVerdict"]
            assert {key.lower(): value for key, value in receiver.metadata.items()}["x-api-key"] == "secret"


async def test_store_that_is_replaced_is_read_to_its_end_first(tmp_path: Path) -> None:
    """The ingest set the file aside: what was in it is exported, then the new one from its beginning."""
    async with otlp_receiver() as receiver:
        with flows(tmp_path) as source:
            source.write(*MIXED)
            async with telemetry(tmp_path, metrics="flow", otlp=settings(receiver, "grpc")) as running:
                exporter = exporter_of(running)
                await eventually_async(lambda: exporter.counts.exported["logs"] == len(MIXED))
                source.write(*MIXED[:2])
                source.names.close()
                source.writer.close()
                with flows(tmp_path, capacity=8192) as second:
                    second.write(*MIXED[:5])
                    await eventually_async(lambda: exporter.counts.exported["logs"] == len(MIXED) + 7)
                    counting = running.counting
                    assert counting is not None
                    await eventually_async(lambda: counting.registry.flows == len(MIXED) + 7)
                    assert exporter.overrun == 0


async def test_large_records_are_split_over_requests(tmp_path: Path) -> None:
    """A batch of records with 1 kB labels stays below what a collector takes."""
    huge = FlowEndpoint(
        labels=tuple(f"k8s:l{n}={'<b>x</b>' * 125}" for n in range(60)), namespace="n", pod="p"
    )
    with flows(tmp_path) as source:
        ref = source.names.intern(huge)
        source.names.flush()
        source.write(*[record(src_ref=ref, src_identity=0)] * 100)
        async with otlp_receiver() as receiver:
            async with telemetry(tmp_path, otlp=settings(receiver, "grpc", timeout_s=10)) as running:
                exporter = exporter_of(running)
                await eventually_async(lambda: exporter.counts.exported["logs"] == 100, 10)
                assert exporter.counts.requests["logs"] == 2
            assert receiver.flows[0]["attributes"]["source.palomar.labels"] == list(huge.labels)


def overwrite(name: str, content: bytes) -> None:
    Path(name).write_bytes(content)


def tls_files(folder: Path, name: str, pair: KeyPair, ca: bytes) -> dict[str, str]:
    paths = {}
    for key, content in (("cert_file", pair.cert), ("key_file", pair.key), ("ca_file", ca)):
        path = folder / f"{name}-{key}.pem"
        path.write_bytes(content)
        paths[key] = str(path)
    return paths


@pytest.mark.parametrize("trusts", [True, False])
async def test_mutual_tls_to_the_collector(tmp_path: Path, trusts: bool) -> None:
    """With the right CA and a client certificate flows arrive; a collector of another CA gets none."""
    now = utc(SystemClock().wall_ns())
    ca, other_ca = make_ca(now), make_ca(now)
    server = tls_files(
        tmp_path, "server", issue(ca, Role.RELAY, "collector", now, names=["127.0.0.1"]), ca.cert
    )
    client = tls_files(
        tmp_path, "client", issue(ca, Role.CLIENT, "node", now), ca.cert if trusts else other_ca.cert
    )
    credentials = server_credentials(
        TlsFiles(Path(server["cert_file"]), Path(server["key_file"]), Path(server["ca_file"]))
    )
    with flows(tmp_path) as source:
        source.write(*MIXED)
        async with otlp_receiver(credentials=credentials) as receiver:
            otlp = settings(
                receiver, "grpc", **client, endpoint=f"https://127.0.0.1:{receiver.grpc_port}", timeout_s=2
            )
            async with telemetry(tmp_path, otlp=otlp) as running:
                exporter = exporter_of(running)
                if trusts:
                    await eventually_async(lambda: exporter.counts.exported["logs"] == len(MIXED))
                else:
                    await eventually_async(lambda: exporter.counts.failures["unavailable"], 10)
                    assert receiver.seen == 0


async def test_missing_tls_file_is_a_failure_that_names_it(tmp_path: Path) -> None:
    """The file may come later: flows wait for it."""
    with flows(tmp_path) as source:
        source.write(*MIXED)
        otlp = settings(1, "grpc", endpoint="https://127.0.0.1:1", ca_file=str(tmp_path / "ca.pem"))
        async with telemetry(tmp_path, otlp=otlp) as running:
            exporter = exporter_of(running)
            await eventually_async(lambda: exporter.counts.failures["tls"])
            assert "ca.pem" in exporter.counts.last_error
            assert exporter.follower.lag == len(MIXED)


SPOILED = {
    "CA is none": ("ca_file", b"nonsense", "ca_file.pem: no PEM certificate"),
    "CA is empty": ("ca_file", b"", "ca_file.pem: no PEM certificate"),
    "certificate is half": ("cert_file", b"-----BEGIN CERTIFICATE-----\nMII", "no PEM certificate"),
    "key is half": ("key_file", b"-----BEGIN PRIVATE KEY-----\nMII", "the key is no PEM key"),
    "key is another's": ("key_file", b"", "the key belongs to another certificate"),
}


@PROTOCOLS
@pytest.mark.parametrize("how", sorted(SPOILED))
async def test_an_unusable_tls_file_is_named_and_flows_wait_for_a_good_one(
    tmp_path: Path, protocol: str, how: str
) -> None:
    """Whichever of the three, and what is wrong with it."""
    now = utc(SystemClock().wall_ns())
    ca = make_ca(now)
    client = tls_files(tmp_path, "client", issue(ca, Role.CLIENT, "node", now), ca.cert)
    which, content, words = SPOILED[how]
    overwrite(client[which], make_ca(now).key if how == "key is another's" else content)
    with flows(tmp_path) as source:
        source.write(*MIXED)
        otlp = settings(1, protocol, **client, endpoint="https://127.0.0.1:1")
        async with telemetry(tmp_path, otlp=otlp) as running:
            exporter = exporter_of(running)
            await eventually_async(lambda: exporter.counts.failures["tls"])
            assert client[which] in exporter.counts.last_error
            assert words in exporter.counts.last_error
            assert exporter.follower.lag == len(MIXED)
            overwrite(client[which], b"")
            for key, path in tls_files(tmp_path, "client", issue(ca, Role.CLIENT, "n", now), ca.cert).items():
                assert client[key] == path
            await eventually_async(lambda: exporter.counts.failures["unavailable"], 10)


async def test_half_replaced_tls_files_leave_the_connection_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What works stays, the log says why, and the whole files are taken up."""
    now = utc(SystemClock().wall_ns())
    ca = make_ca(now)
    server = tls_files(
        tmp_path, "server", issue(ca, Role.RELAY, "collector", now, names=["127.0.0.1"]), ca.cert
    )
    client = tls_files(tmp_path, "client", issue(ca, Role.CLIENT, "node", now), ca.cert)
    credentials = server_credentials(
        TlsFiles(Path(server["cert_file"]), Path(server["key_file"]), Path(server["ca_file"]))
    )
    with flows(tmp_path) as source:
        async with otlp_receiver(credentials=credentials) as receiver:
            otlp = settings(
                receiver, "grpc", **client, endpoint=f"https://127.0.0.1:{receiver.grpc_port}", timeout_s=2
            )
            async with telemetry(tmp_path, otlp=otlp) as running:
                exporter = exporter_of(running)
                source.write(*MIXED)
                await eventually_async(lambda: exporter.counts.exported["logs"] == len(MIXED))
                overwrite(client["key_file"], make_ca(now).key)
                source.write(*MIXED)
                await eventually_async(lambda: exporter.counts.exported["logs"] == 2 * len(MIXED))
                assert not exporter.counts.failures
                told = [r for r in caplog.records if "the old ones stay" in r.message]
                assert len(told) == 1
                assert client["key_file"] in str(told[0].__dict__["error"])
                tls_files(tmp_path, "client", issue(ca, Role.CLIENT, "node", now), ca.cert)
                source.write(*MIXED)
                await eventually_async(lambda: exporter.counts.exported["logs"] == 3 * len(MIXED))
                assert not exporter.counts.failures


async def test_an_expired_certificate_of_ours_is_told_with_its_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A collector that refuses it only closes the connection: the log says whose it is and since when."""
    now = utc(SystemClock().wall_ns())
    ca = make_ca(now)
    old = issue(ca, Role.CLIENT, "node", now, not_before=now - timedelta(days=3), lifetime=-timedelta(days=1))
    client = tls_files(tmp_path, "client", old, ca.cert)
    otlp = settings(1, "grpc", **client, endpoint="https://127.0.0.1:1")
    with flows(tmp_path):
        async with telemetry(tmp_path, otlp=otlp):
            await eventually_async(lambda: "certificate does not serve" in caplog.text)
    [told] = [r.__dict__ for r in caplog.records if r.name == "palomar.certwatch"]
    assert told["file"] == client["cert_file"]
    assert told["subject"] == "CN=node,OU=client"
    assert told["problem"] == f"expired at {told['not_after']}"


async def test_a_collector_that_takes_only_logs_is_down_for_metrics_all_the_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`up` does not flap between the two signals, and each trouble is logged once, not at every turn."""
    caplog.set_level("INFO")
    with flows(tmp_path) as source:
        async with otlp_receiver() as receiver:
            receiver.refuses = "metrics"
            otlp = settings(receiver, "grpc", metrics=True, metrics_interval_s=0.05)
            async with telemetry(tmp_path, metrics="flow", otlp=otlp) as running:
                exporter = exporter_of(running)
                source.write(*MIXED)
                await eventually_async(lambda: exporter.counts.failures["refused"] >= 3)
                exported = exporter.counts.exported["logs"]
                for turn in range(1, 4):
                    source.write(*MIXED)
                    await eventually_async(
                        lambda t=turn: exporter.counts.exported["logs"] == exported + t * len(MIXED)
                    )
                    assert not exporter.counts.is_up
                receiver.refuses = ""
                await eventually_async(lambda: exporter.counts.is_up)
    told = [r.message for r in caplog.records if r.name == "hubble.exporter.exporter"]
    assert told == ["OTLP export failed, trying again", "OTLP collector answers again"]
