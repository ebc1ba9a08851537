"""The stream client against a real server: both streams, return after an outage, mutual TLS, silence."""

import json
import logging
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from palomar import certs, tls
from palomar.clock import SystemClock
from palomar.errors import TransientError
from palomar_pb.relay import relay_pb2
from tests.kit.wait import eventually
from tests.ui.conftest import StartUi
from tests.ui.flowserver import FlowServer, flow_of, shop
from ui import client
from ui.client import ServerTarget
from ui.hub import Link, LinkPhase
from ui.listen import ListenAddress
from ui.main import UiConfig, UiServer


def flows(server: UiServer) -> int:
    with server.hub.locked() as model:
        return model.counters.flows


def get(url: str, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.parametrize("batched", [True, False])
def test_flows_nodes_and_losses_arrive_by_either_stream(start_ui: StartUi, batched: bool) -> None:
    """The batched stream is used where the server knows it, the plain one otherwise."""
    with FlowServer(shop(), rate=50, batched=batched) as source:
        server = start_ui(source.address)
        eventually(lambda: flows(server) > source.backlog)
        source.say_lost("default/node-2", 3)
        eventually(lambda: server.hub.link.batched is batched)

        def known() -> Any:
            with server.hub.locked() as model:
                return model.lost == 3 and len(model.nodes) == 3 and model.server.max_flows

        eventually(known)
        assert server.hub.link.phase is LinkPhase.CONNECTED


def test_a_server_that_goes_and_returns_is_followed_again_without_doubles(start_ui: StartUi) -> None:
    """The link says broken with the cause, then connected; flows sent twice count once."""
    source = FlowServer([], rate=0).start()
    known = flow_of(shop()[0], SystemClock().wall_ns())
    source.extra.append(known)
    try:
        server = start_ui(source.address)
        eventually(lambda: flows(server) == 1)
        source.stop()
        link: Link = eventually(lambda: server.hub.link.phase is LinkPhase.BROKEN and server.hub.link)
        assert link.reason
        assert link.attempts >= 1
        source.extra.append(flow_of(shop()[1], SystemClock().wall_ns()))
        source.start()
        eventually(lambda: flows(server) == 2, timeout_s=20)
        assert server.hub.link.phase is LinkPhase.CONNECTED
        assert server.hub.link.reconnects == 1
        with server.hub.locked() as model:
            assert model.counters.repeated == 1
    finally:
        source.stop()


class ManyNodes(FlowServer):
    """A relay that says how many nodes it has."""

    def ServerStatus(self, request: Any, context: Any) -> Any:  # noqa: N802 - wire
        status = super().ServerStatus(request, context)
        status.num_connected_nodes.value = 20
        return status


def test_a_relays_nodes_are_asked_for_their_share_of_the_backlog(start_ui: StartUi) -> None:
    """Each node gives as many as are asked for: 20 of them 100 each, not 40,000 flows in all."""
    with ManyNodes(shop(), rate=0) as source:
        server = start_ui(source.address)
        eventually(lambda: flows(server) > 0)
        assert [request.number for request in source.requests] == [100]


class Mute(FlowServer):
    """A relay whose status comes once and never again."""

    asked = 0

    def ServerStatus(self, request: Any, context: Any) -> Any:  # noqa: N802 - wire
        self.asked += 1
        if self.asked > 1:
            context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "a node hangs")
        return super().ServerStatus(request, context)


def test_a_stream_that_goes_on_is_kept_when_the_status_does_not_come(
    start_ui: StartUi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One hanging node delays a relay's status, not its flows: nothing is cut and asked for again."""
    monkeypatch.setattr(client, "POLL_S", 0.3)
    with Mute(shop(), rate=100) as source:
        server = start_ui(source.address)
        eventually(lambda: source.asked > 2 * client.SILENT_POLLS)
        assert (server.hub.link.phase, len(source.requests)) == (LinkPhase.CONNECTED, 1)


def test_a_server_without_status_and_flows_counts_as_gone(
    start_ui: StartUi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After three polls without an answer the silent stream is given up, and asked for anew."""
    monkeypatch.setattr(client, "POLL_S", 0.05)
    with Mute(shop(), rate=0) as source:
        server = start_ui(source.address)
        link: Link = eventually(lambda: server.hub.link.phase is LinkPhase.BROKEN and server.hub.link)
        assert "silent" in link.reason


def test_no_server_at_all_is_a_state_with_a_cause(start_ui: StartUi) -> None:
    """The page server runs, answers, and says whom it cannot reach and why."""
    server = start_ui("127.0.0.1:1")
    link: Link = eventually(lambda: server.hub.link.phase is LinkPhase.BROKEN and server.hub.link)
    assert "refused" in link.reason.lower()
    status, body = get(f"{server.listen.url}healthz")
    assert status == 200
    assert json.loads(body)["stream"] == "broken"


def test_something_that_is_no_flow_server_is_named_as_such(start_ui: StartUi) -> None:
    """A gRPC server without Observer: the cause says so."""
    other = grpc.server(__import__("concurrent.futures").futures.ThreadPoolExecutor(1))
    port = other.add_insecure_port("127.0.0.1:0")
    other.start()
    try:
        server = start_ui(f"127.0.0.1:{port}")
        eventually(lambda: "no flow server" in server.hub.link.reason)
    finally:
        other.stop(0).wait()


class Authority:
    """A CA and the files of one party."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = certs.make_ca(datetime.now(UTC))
        (folder / "ca.pem").write_bytes(self.ca.cert)

    def files(self, role: certs.Role, name: str) -> tls.TlsFiles:
        pair = certs.issue(self.ca, role, name, datetime.now(UTC))
        cert, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        cert.write_bytes(pair.cert)
        key.write_bytes(pair.key)
        return tls.TlsFiles(cert, key, self.folder / "ca.pem")


def test_mutual_tls_connects_and_follows_replaced_certificates(start_ui: StartUi, tmp_path: Path) -> None:
    """With its certificate the page is served; new files on disk mean a new connection, no flow lost."""
    authority = Authority(tmp_path)
    files = authority.files(certs.Role.UI, "ui")
    credentials = tls.server_credentials(authority.files(certs.Role.RELAY, "relay"))
    with FlowServer(shop(), rate=50, credentials=credentials) as source:
        server = start_ui(source.address, tls=files, server_name=certs.RELAY_SERVER_NAME)
        eventually(lambda: flows(server) > 0)
        authority.files(certs.Role.UI, "ui")
        eventually(lambda: len(source.requests) >= 2 and server.hub.link.phase is LinkPhase.CONNECTED, 20)


def test_a_certificate_of_another_authority_is_refused_with_a_cause(
    start_ui: StartUi, tmp_path: Path
) -> None:
    """The link is broken and says so; nothing comes in."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one, two = Authority(tmp_path / "one"), Authority(tmp_path / "two")
    credentials = tls.server_credentials(one.files(certs.Role.RELAY, "relay"))
    with FlowServer(shop(), rate=50, credentials=credentials) as source:
        files = two.files(certs.Role.UI, "ui")
        server = start_ui(source.address, tls=files, server_name=certs.RELAY_SERVER_NAME)
        link: Link = eventually(lambda: server.hub.link.phase is LinkPhase.BROKEN and server.hub.link)
        assert link.reason
        assert flows(server) == 0


@pytest.mark.parametrize(
    ("days", "whose", "why"),
    [(-40, "our own certificate", "expired at"), (40, "our own certificate", "not valid before")],
)
def test_a_certificate_out_of_its_time_is_named_with_its_dates(
    start_ui: StartUi, tmp_path: Path, days: int, whose: str, why: str
) -> None:
    """On the page and in the log: whose, why, until when; the metric says how long it is over."""
    authority = Authority(tmp_path)
    files = authority.files(certs.Role.UI, "ui")
    begins = datetime.now(UTC) + timedelta(days=days)
    pair = certs.issue(
        authority.ca,
        certs.Role.UI,
        "ui",
        datetime.now(UTC),
        not_before=begins,
        lifetime=timedelta(days=30 + days),
    )
    files.cert.write_bytes(pair.cert)
    files.key.write_bytes(pair.key)
    credentials = tls.server_credentials(authority.files(certs.Role.RELAY, "relay"))
    with FlowServer(shop(), rate=0, credentials=credentials) as source:
        server = start_ui(source.address, tls=files, server_name=certs.RELAY_SERVER_NAME)
        eventually(lambda: server.hub.link.phase is LinkPhase.BROKEN)
        said = server.hub.link.reason
        assert whose in said
        assert str(files.cert) in said
        assert why in said
        _, text = get(f"{server.listen.url}metrics")
        assert f'palomar_certificate_expiry_seconds{{file="{files.cert}"}}' in text


def test_the_servers_certificate_is_named_when_it_is_over(start_ui: StartUi, tmp_path: Path) -> None:
    """A person reads on the page that it is the relay's, not their own."""
    authority = Authority(tmp_path)
    files = authority.files(certs.Role.UI, "ui")
    relay = authority.files(certs.Role.RELAY, "relay")
    now = datetime.now(UTC)
    begun = now - timedelta(days=3)
    pair = certs.issue(
        authority.ca, certs.Role.RELAY, "relay", now, not_before=begun, lifetime=-timedelta(days=1)
    )
    relay.cert.write_bytes(pair.cert)
    relay.key.write_bytes(pair.key)
    with FlowServer(shop(), rate=0, credentials=tls.server_credentials(relay)) as source:
        server = start_ui(source.address, tls=files, server_name=certs.RELAY_SERVER_NAME)
        eventually(lambda: "its certificate (" in server.hub.link.reason)
        assert "expired at" in server.hub.link.reason


def test_unusable_certificate_files_leave_the_connection(
    start_ui: StartUi, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A half written file is no reason to lose a stream that works; a whole one is taken up."""
    authority = Authority(tmp_path)
    files = authority.files(certs.Role.UI, "ui")
    credentials = tls.server_credentials(authority.files(certs.Role.RELAY, "relay"))
    with FlowServer(shop(), rate=50, credentials=credentials) as source:
        server = start_ui(source.address, tls=files, server_name=certs.RELAY_SERVER_NAME)
        eventually(lambda: flows(server) > 0)
        whole = files.cert.read_bytes()
        files.cert.write_bytes(whole[:100])
        eventually(lambda: "certificate files unusable, the connection stays" in caplog.messages, 20)
        assert server.hub.link.phase is LinkPhase.CONNECTED
        assert len(source.requests) == 1
        files.cert.write_bytes(whole)
        eventually(lambda: len(source.requests) >= 2 and server.hub.link.phase is LinkPhase.CONNECTED, 20)


def test_missing_certificate_files_are_named(start_ui: StartUi, tmp_path: Path) -> None:
    """The cause names the file and how to make it; the page server runs on and looks again."""
    files = tls.TlsFiles(tmp_path / "no.pem", tmp_path / "no.key", tmp_path / "ca.pem")
    server = start_ui("127.0.0.1:1", tls=files)
    eventually(lambda: "no.key" in server.hub.link.reason and "palomar certs" in server.hub.link.reason)


def test_node_states_follow_the_server(start_ui: StartUi) -> None:
    """A node that the relay loses is unavailable here within seconds, and connected when it is back."""
    with FlowServer(shop(), rate=10) as source:
        server = start_ui(source.address)

        def state(name: str) -> str:
            with server.hub.locked() as model:
                return model.nodes[name].state if name in model.nodes else ""

        eventually(lambda: state("default/node-2") == "connected")
        source.nodes["default/node-2"] = relay_pb2.NODE_UNAVAILABLE
        eventually(lambda: state("default/node-2") == "unavailable")
        source.nodes["default/node-2"] = relay_pb2.NODE_CONNECTED
        eventually(lambda: state("default/node-2") == "connected")


def test_metrics_count_what_came(start_ui: StartUi) -> None:
    """/metrics has the flows by verdict, edges, nodes and the state of the stream."""
    with FlowServer(shop(), rate=0, backlog=100) as source:
        server = start_ui(source.address)
        eventually(lambda: flows(server) == 100)
        _, text = get(f"{server.listen.url}metrics")
        values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        received = [
            value for name, value in values.items() if name.startswith("palomar_ui_flows_received_total")
        ]
        assert sum(map(float, received)) == 100
        assert values["palomar_ui_stream_connected"] == "1.0"
        assert float(values["palomar_ui_edges"]) > 3


def test_requests_under_another_name_are_refused(start_ui: StartUi) -> None:
    """A web page that points its own name at this machine gets nothing."""
    server = start_ui("127.0.0.1:1")
    assert get(server.listen.url)[0] == 200
    status, body = get(server.listen.url, Host="evil.example:8080")
    assert status == 403
    assert "127.0.0.1" in body


def test_the_page_loads_nothing_from_elsewhere(start_ui: StartUi) -> None:
    """No address of another machine in the page, and a policy that forbids them."""
    server = start_ui("127.0.0.1:1")
    with urllib.request.urlopen(server.listen.url, timeout=5) as answer:
        text, headers = answer.read().decode(), answer.headers
    assert "//" not in text.replace(server.listen.url, "").replace("<!--", "")
    assert "default-src 'self'" in headers["Content-Security-Policy"]


def test_a_taken_port_is_an_error_with_the_remedy(start_ui: StartUi) -> None:
    """The second page server says which address and what to do."""
    first = start_ui("127.0.0.1:1")
    config = UiConfig(ServerTarget("x", "127.0.0.1:1"), ListenAddress("127.0.0.1", first.listen.port))
    with pytest.raises(TransientError, match=r"cannot listen on .*--listen"):
        UiServer(config, SystemClock())


def test_the_log_says_once_that_the_stream_is_lost(
    start_ui: StartUi, caplog: pytest.LogCaptureFixture
) -> None:
    """Not a line per attempt."""
    with caplog.at_level(logging.INFO, logger="ui.client"):
        server = start_ui("127.0.0.1:1")
        eventually(lambda: server.hub.link.attempts >= 3, timeout_s=10)
    assert [record.message for record in caplog.records] == ["flow stream lost"]
