"""Serving the agent's API: the unix socket, the listening address of metrics, errors as JSON texts.

Not the answers (`routes`) and not the metrics (`agent.metrics`). The socket is 0660 and belongs to the
configured group where that exists. Until the start is over only `/v1/healthz` and `/metrics` answer.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from agent.api.maps import UnknownMapError
from agent.api.routes import CHANGES, RUNTIME, IdentityNotFoundError, NoSuchLabelsError, add_routes
from agent.endpoint.errors import EndpointExistsError, EndpointIdsExhaustedError, EndpointNotFoundError
from agent.ipam import AddressInUseError, PoolExhaustedError
from agent.metrics.registry import Metrics
from agent.policyset import PolicyNotFoundError, PolicyOwnedByFileError
from agent.runtime import Runtime
from datapath.errors import DeviceExistsError, NamespaceMissingError
from palomar.clock import Clock
from palomar.errors import InvalidInputError, PalomarError, PermanentError, TransientError
from palomar.unixsocket import answers, made_for_group

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 4 << 20
STOP_TIMEOUT_S = 5.0
"""How long answers and changes under way may take when the agent stops."""
VERSION_HEADER = "X-Palomar-Version"
ALWAYS = ("/v1/healthz", "/metrics")
_STATUS: tuple[tuple[type[PalomarError], int], ...] = (
    (EndpointNotFoundError, 404),
    (PolicyNotFoundError, 404),
    (IdentityNotFoundError, 404),
    (NoSuchLabelsError, 404),
    (UnknownMapError, 404),
    (EndpointExistsError, 409),
    (AddressInUseError, 409),
    (DeviceExistsError, 409),
    (PolicyOwnedByFileError, 409),
    (PoolExhaustedError, 503),
    (EndpointIdsExhaustedError, 503),
    (NamespaceMissingError, 400),
    (InvalidInputError, 400),
    (TransientError, 503),
)
"""First match counts; everything else is 500."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class SocketInUseError(PermanentError):
    """Another agent answers on the API socket."""

    def __init__(self, path: Path) -> None:
        """Name the socket."""
        self.path = path
        super().__init__(f"another agent answers on {path}: stop it or choose another run-dir")


def status_of(error: PalomarError) -> int:
    """Return the HTTP status that stands for an error."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def error_response(status: int, reason: str) -> web.Response:
    """Return the field's Error: a JSON text."""
    return web.json_response(reason, status=status)


def make_app(runtime: Runtime, metrics: Metrics) -> web.Application:
    """Return the application with every path."""

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        began_ns = runtime.clock.monotonic_ns()
        response = await _answer(request, handler, runtime)
        response.headers[VERSION_HEADER] = runtime.version
        resource = request.match_info.route.resource
        path = resource.canonical if resource is not None else "unknown"
        seconds = (runtime.clock.monotonic_ns() - began_ns) / 1e9
        metrics.observe_api(path, request.method, response.status, seconds)
        return response

    app = web.Application(middlewares=[answer], client_max_size=MAX_BODY_BYTES)
    app[RUNTIME] = runtime
    app[CHANGES] = set()
    add_routes(app)
    app.router.add_get("/metrics", metrics_handler(metrics))
    return app


async def _answer(request: web.Request, handler: Handler, runtime: Runtime) -> web.StreamResponse:
    if not runtime.bootstrap.is_ready and request.path not in ALWAYS:
        reason = f"the agent is starting ({runtime.bootstrap.stage}): try again in a second"
        return error_response(503, reason)
    try:
        return await handler(request)
    except PalomarError as error:
        status = status_of(error)
        if status >= 500:
            logger.error("request failed", extra={"path": request.path, "error": str(error)})
        return error_response(status, str(error))
    except web.HTTPException as error:
        reason = {
            404: f"no path {request.path} in this API",
            405: f"{request.method} is not possible on {request.path}",
            413: f"the body is larger than {MAX_BODY_BYTES} bytes",
        }.get(error.status, error.reason)
        return error_response(error.status, reason)
    except Exception:
        logger.exception("request failed", extra={"path": request.path})
        return error_response(500, "internal error: the agent's log has the traceback")


def metrics_handler(metrics: Metrics) -> Handler:
    """Return a handler that answers a scrape."""

    async def scrape(_: web.Request) -> web.StreamResponse:
        body = await metrics.render()
        return web.Response(body=body, headers={"Content-Type": metrics.content_type})

    return scrape


class ApiServer:
    """The listeners."""

    def __init__(self, runtime: Runtime, metrics: Metrics) -> None:
        """Nothing listens before `start`."""
        self._path = runtime.config.paths.api_socket
        self._group = runtime.config.socket_group
        self._listen = runtime.config.prometheus_serve_addr
        self._clock: Clock = runtime.clock
        self._app = make_app(runtime, metrics)
        self._metrics = metrics
        self._runners: list[web.AppRunner] = []

    async def start(self) -> None:
        """Listen. Raises SocketInUseError, and InvalidInputError for an address that cannot be had."""
        if answers(self._path):
            raise SocketInUseError(self._path)
        self._path.unlink(missing_ok=True)
        with made_for_group(self._path, self._group):
            runner = await self._run(self._app)
            await web.UnixSite(runner, str(self._path)).start()
        if self._listen is not None:
            await self._serve_metrics(*self._listen)

    async def _serve_metrics(self, host: str, port: int) -> None:
        app = web.Application()
        app.router.add_get("/metrics", metrics_handler(self._metrics))
        runner = await self._run(app)
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise InvalidInputError(
                f"cannot listen on {host}:{port}: {error.strerror}: choose another address",
                "prometheus-serve-addr",
            ) from error

    async def _run(self, app: web.Application) -> web.AppRunner:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_TIMEOUT_S)
        await runner.setup()
        self._runners.append(runner)
        return runner

    async def stop(self) -> None:
        """Close every listener."""
        for runner in self._runners:
            await runner.cleanup()
        self._runners = []
        changes = self._app[CHANGES]
        if changes:
            await asyncio.wait(changes, timeout=STOP_TIMEOUT_S)
        self._path.unlink(missing_ok=True)
