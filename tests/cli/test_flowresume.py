"""`--follow` goes on after its server was stopped and started again; what cannot be mended ends it."""

import contextlib
import re
import signal
import ssl
import subprocess
import sys
import threading

import grpc
import pytest

from cli.errors import CallError, ServerUnreachableError
from cli.flowresume import follow
from cli.resume import FIRST_WAIT_S, LONGEST_WAIT_S
from cli.seen import OVERLAP_NS
from cli.selectors import EVERYTHING
from cli.server import connect
from cli.target import TlsOptions, parse_target
from palomar_pb.observer import observer_pb2
from tests.cli.flowcast import SECOND_ZERO as SECOND
from tests.cli.flowcast import numbered
from tests.cli.flowserver import BatchServer, FlowServer, serving


class HeldServer(FlowServer):
    """Holds each follower until its call is cut: a stop is an abrupt one, as of a killed process."""

    def _hold(self, context):
        cut = threading.Event()
        if context.add_callback(cut.set):
            cut.wait(30)


def ports(batches):
    return [r.flow.l4.TCP.source_port - 1000 for batch in batches for r in batch.responses]


@pytest.mark.parametrize("batched", [False, True])
def test_a_follower_survives_a_restart_without_loss_or_repetition(tmp_path, batched):
    socket = f"unix:{tmp_path}/hubble.sock"
    first = HeldServer([numbered(1, 1), numbered(2, 20), numbered(3, 19)])
    second = HeldServer([numbered(3, 19), numbered(2, 20), numbered(4, 18), numbered(5, 21)])
    command = [sys.executable, "-m", "cli.main", "--run-dir", str(tmp_path), "observe", "--follow"]
    process = None
    try:
        with serving(first, socket, BatchServer(first) if batched else None):
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            shown = [process.stdout.readline() for _ in range(3)]
        assert re.fullmatch(
            rf"connection lost: unix://{tmp_path}/hubble.sock: .*; trying again in 0.25 s\n",
            process.stderr.readline(),
        )
        with serving(second, socket, BatchServer(second) if batched else None):
            shown += [process.stdout.readline() for _ in range(2)]
            assert process.stderr.readline().startswith("resumed after ")
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
    finally:
        if process is not None:
            process.kill()
            process.wait()
    assert re.findall(r":(100\d) ", "".join(shown)) == ["1001", "1002", "1003", "1004", "1005"]
    assert (process.returncode, out) == (0, "")
    assert err.startswith("5 flows, 0 not seen")
    request = second.requests[-1]
    assert (request.follow, request.number) == (True, EVERYTHING)
    assert request.since.ToNanoseconds() == (SECOND + 20) * 10**9 - OVERLAP_NS
    assert not first.requests[0].HasField("since")


def test_a_resumed_question_that_is_refused_ends_the_command(tmp_path):
    socket = f"unix:{tmp_path}/hubble.sock"
    target = parse_target(socket, TlsOptions())
    said = []
    with contextlib.ExitStack() as servers:
        servers.enter_context(serving(HeldServer([numbered(1, 1)]), socket))
        request = observer_pb2.GetFlowsRequest(follow=True)
        batches = follow(lambda: connect(target, 5.0), request, said.append)
        assert ports([next(batches)]) == [1]
        servers.close()
        refusing = HeldServer()
        refusing.fail = (grpc.StatusCode.INVALID_ARGUMENT, "bad selector")
        servers.enter_context(serving(refusing, socket))
        with pytest.raises(CallError, match="bad selector"):
            next(batches)
    assert [text.split()[0] for text in said] == ["connection"], "a refusal is no resumption"


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.INTERNAL]
)
def test_a_first_answer_that_is_a_refusal_is_final(tmp_path, code):
    server = HeldServer()
    server.fail = (code, "no")
    target = parse_target(f"unix:{tmp_path}/s", TlsOptions())
    said = []
    with serving(server, f"unix:{tmp_path}/s"), pytest.raises(CallError, match=code.name):
        next(follow(lambda: connect(target, 5.0), observer_pb2.GetFlowsRequest(follow=True), said.append))
    assert said == []


def test_no_server_at_the_very_start_is_an_error_at_once(tmp_path):
    target = parse_target(f"unix:{tmp_path}/s", TlsOptions())
    request = observer_pb2.GetFlowsRequest(follow=True)
    with pytest.raises(ServerUnreachableError):
        next(follow(lambda: connect(target, 0.2), request, pytest.fail))


def test_waits_grow_while_nobody_answers_and_a_refused_certificate_ends_it(tmp_path):
    """The server is real; after its end the dialling meets what the test says."""
    socket = f"unix:{tmp_path}/s"
    target = parse_target(socket, TlsOptions())
    gone = ServerUnreachableError("x", "gone", "wait")
    gone.__cause__ = ConnectionRefusedError()
    torn = ServerUnreachableError("x", "torn", "wait")
    torn.__cause__ = ssl.SSLEOFError()
    refused = ServerUnreachableError("x", "certificate not accepted", "check")
    refused.__cause__ = ssl.SSLCertVerificationError()
    meets = iter([None, *[gone] * 7, torn, refused])
    waits, said = [], []

    def dial():
        error = next(meets)
        if error is not None:
            raise error
        return connect(target, 5.0)

    with serving(HeldServer([numbered(1, 1)]), socket):
        request = observer_pb2.GetFlowsRequest(follow=True)
        batches = follow(dial, request, said.append, sleep=waits.append)
        next(batches)
    with pytest.raises(ServerUnreachableError, match="certificate"):
        next(batches)
    assert waits == [FIRST_WAIT_S * 2**n for n in range(6)] + [LONGEST_WAIT_S] * 3
    assert len(said) == 1, "a server that is away is said once"


def test_a_follower_with_an_end_ends(tmp_path):
    class Ending(FlowServer):
        def _hold(self, context):
            """Everything up to `until` has been sent."""

    socket = f"unix:{tmp_path}/s"
    request = observer_pb2.GetFlowsRequest(follow=True)
    request.until.seconds = SECOND
    with serving(Ending([numbered(1, 1)]), socket):
        target = parse_target(socket, TlsOptions())
        assert ports(follow(lambda: connect(target, 5.0), request, pytest.fail)) == [1]


def test_an_outage_is_said_once_however_many_attempts_it_takes(tmp_path):
    """Also where something answers the dial that cannot answer the question yet."""
    socket = f"unix:{tmp_path}/s"
    target = parse_target(socket, TlsOptions())
    waits, said = [], []
    server = HeldServer([numbered(1, 1)])
    with contextlib.ExitStack() as running:
        running.enter_context(serving(server, socket))

        def sleep(seconds):
            waits.append(seconds)
            if len(waits) == 1:
                running.close()
                server.fail = (grpc.StatusCode.UNAVAILABLE, "no store")
                running.enter_context(serving(server, socket))
            server.fail = server.fail if len(waits) < 4 else None
            server.responses = [numbered(len(waits), 1)]

        batches = follow(
            lambda: connect(target, 5.0), observer_pb2.GetFlowsRequest(follow=True), said.append, sleep=sleep
        )
        assert ports([next(batches)]) == [1]
        running.close()
        assert ports([next(batches)]) == [4]
        batches.close()
    assert waits == [FIRST_WAIT_S * 2**n for n in range(4)]
    assert [text.split()[0] for text in said] == ["connection", "resumed"]


@pytest.mark.parametrize("answered", [False, True])
def test_a_server_that_is_full_is_asked_again_only_by_whom_it_had_answered(tmp_path, answered):
    """It may still count the stream that was cut."""
    socket = f"unix:{tmp_path}/s"
    target = parse_target(socket, TlsOptions())
    server = HeldServer([numbered(1, 1)])
    said = []
    with contextlib.ExitStack() as running:
        running.enter_context(serving(server, socket))

        def sleep(_seconds):
            server.responses = [numbered(2, 2)]
            server.fail = None if server.fail else (grpc.StatusCode.RESOURCE_EXHAUSTED, "64 streams")
            running.close()
            running.enter_context(serving(server, socket))

        request = observer_pb2.GetFlowsRequest(follow=True)
        batches = follow(lambda: connect(target, 5.0), request, said.append, sleep=sleep)
        if answered:
            assert ports([next(batches)]) == [1]
            running.close()
            assert ports([next(batches)]) == [2]
            assert len(said) == 2
        else:
            server.fail = (grpc.StatusCode.RESOURCE_EXHAUSTED, "64 streams")
            with pytest.raises(CallError, match="64 streams"):
                next(batches)
        batches.close()
