"""The process of `palomar ui`: stream client and web server, wired and run until a signal.

Input: a `UiConfig`, checked by whoever made it (`cli/commands/ui.py`); output: a page on a loopback address.
"""

import logging
import signal
import socket
import threading
from dataclasses import dataclass
from types import FrameType

import waitress  # type: ignore[import-untyped]  # ships no types

from palomar import log, memory
from palomar.certwatch import CHECK_S, CertificateWatch
from palomar.clock import Clock, SystemClock
from palomar.errors import TransientError
from ui.app import make_app
from ui.client import FlowClient, ServerTarget
from ui.hub import Hub
from ui.listen import ListenAddress

logger = logging.getLogger(__name__)
WEB_THREADS = 6


@dataclass(frozen=True, slots=True)
class UiConfig:
    """What the process needs to know."""

    server: ServerTarget
    listen: ListenAddress


class ListenError(TransientError):
    """The port cannot be had; the message names the remedy."""


def _listening_socket(listen: ListenAddress) -> socket.socket:
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((listen.host, listen.port))
    except OSError as error:
        made.close()
        remedy = "choose another address with --listen"
        raise ListenError(f"cannot listen on {listen.url}: {error.strerror}: {remedy}") from error
    return made


def server_words(server: ServerTarget) -> tuple[str, ...]:
    """Return the flags by which a command line asks the same server with the same certificates."""
    words = ["--server", server.text]
    if server.tls is not None:
        files = (("ca-cert-files", server.tls.ca), ("client-cert-file", server.tls.cert))
        for name, path in (*files, ("client-key-file", server.tls.key)):
            words += [f"--tls-{name}", str(path.absolute())]
        if server.server_name:
            words += ["--tls-server-name", server.server_name]
    return tuple(words)


class UiServer:
    """Everything of the process; also what tests start."""

    def __init__(self, config: UiConfig, clock: Clock) -> None:
        """Bind the port (ListenError when it is taken); nothing is dialled before `start`."""
        self.hub = Hub(config.server.text, clock.wall_ns())
        self.client = FlowClient(config.server, self.hub, clock)
        app = make_app(self.hub, clock, server_words(config.server))
        listening = _listening_socket(config.listen)
        self._web = waitress.create_server(
            app.server,
            sockets=[listening],
            threads=WEB_THREADS,
            ident="palomar",
            max_request_body_size=1 << 20,
            channel_timeout=30,
        )
        self.listen = ListenAddress(config.listen.host, int(listening.getsockname()[1]))
        tls = config.server.tls
        self._certificates = CertificateWatch((tls.cert, tls.ca) if tls is not None else (), clock)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._web.run, name="web", daemon=True)
        self._watcher = threading.Thread(
            target=self._watch_certificates, name="certificate-expiry", daemon=True
        )

    def start(self) -> None:
        """Serve and follow the flows."""
        self.client.start()
        self._thread.start()
        self._watcher.start()
        logger.info("page served", extra={"url": self.listen.url, "server": self.hub.link.server})

    def stop(self) -> None:
        """End both; again is no error."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        self.client.stop()
        self._web.task_dispatcher.shutdown()
        # Sockets are closed by the thread that selects on them.
        self._web.trigger.pull_trigger(self._close_sockets)
        self._thread.join(timeout=5)

    def _watch_certificates(self) -> None:
        while True:
            self.hub.expiries = self._certificates.check()
            if self._stopped.wait(CHECK_S):
                return

    def _close_sockets(self) -> None:
        for channel in list(self._web.active_channels.values()):
            channel.handle_close()
        self._web.close()


def serve(config: UiConfig) -> int:
    """Serve the page until SIGTERM or SIGINT."""
    memory.share_one_arena()
    log.configure()
    # One warning per request in flight is normal for a page that asks each second.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    ended = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        ended.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    server = UiServer(config, SystemClock())
    server.start()
    memory.settle()
    ended.wait()
    server.stop()
    return 0
