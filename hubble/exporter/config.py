"""Where and how to export: the `otlp` part of the telemetry process's configuration, checked whole.

Pure but for reading the TLS files when they are asked for. Input: a JSON object; output: OtlpConfig, or an
InvalidInputError that names the key and the remedy.
"""

from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from google.protobuf import json_format

from hubble.filters import FlowMatcher, compile_filters
from hubble.observingnode import ObservingNode
from palomar.certs import KeyPair, bundle_problem, pair_problem
from palomar.errors import InvalidInputError
from palomar_pb.flow import flow_pb2

PROTOCOLS = ("grpc", "http")
DEFAULT_PORTS = {"grpc": 4317, "http": 4318}
MAX_BATCH = 8192
MAX_NUMBER = 1 << 30


@dataclass(frozen=True, slots=True)
class OtlpConfig:
    """The keys of the `otlp` object."""

    endpoint: str
    """`http://host:port` (plain text) or `https://host:port`; for protocol http a path may follow."""
    protocol: str = "grpc"
    headers: tuple[tuple[str, str], ...] = ()
    """Sent with every request. Secrets belong into `headers_file`: this is on the command line."""
    headers_file: str = ""
    """More headers, one `name: value` a line; read at start-up."""
    ca_file: str = ""
    """Who the collector's certificate must be of; empty: the system's CAs."""
    cert_file: str = ""
    key_file: str = ""
    allow: tuple[flow_pb2.FlowFilter, ...] = ()
    """Export only flows that one of these matches; empty: all."""
    deny: tuple[flow_pb2.FlowFilter, ...] = ()
    logs: bool = True
    metrics: bool = True
    interval_s: float = 1.0
    """Longest time a flow waits for company in its batch."""
    metrics_interval_s: float = 15.0
    timeout_s: float = 10.0
    """Of one request, answer included."""
    batch_flows: int = 1024
    catch_up_flows: int = 262144
    """How far the export may fall behind before it gives up the oldest flows."""

    @property
    def target(self) -> str:
        """`host:port`."""
        parts = urlsplit(self.endpoint)
        return f"{_host(parts.hostname)}:{parts.port or DEFAULT_PORTS[self.protocol]}"

    @property
    def is_encrypted(self) -> bool:
        """Tell whether the endpoint speaks TLS."""
        return self.endpoint.startswith("https://")

    def url(self, signal: str) -> str:
        """Return the URL of `logs` or `metrics` for protocol http."""
        parts = urlsplit(self.endpoint)
        return f"{parts.scheme}://{self.target}{parts.path.rstrip('/')}/v1/{signal}"

    def matcher(self, node: ObservingNode) -> FlowMatcher:
        """Compile the filters; InvalidInputError names the wrong field."""
        return compile_filters(self.allow, self.deny, node)

    def tls_bytes(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """Return CA, key and certificate as PEM; InvalidInputError names the file that cannot be used."""
        ca = _read("ca_file", self.ca_file)
        key = _read("key_file", self.key_file)
        cert = _read("cert_file", self.cert_file)
        if ca is not None and (problem := bundle_problem(ca)):
            raise InvalidInputError(f"{self.ca_file}: {problem}", "otlp.ca_file")
        if cert is not None and key is not None and (problem := pair_problem(KeyPair(cert, key))):
            raise InvalidInputError(f"{self.cert_file} and {self.key_file}: {problem}", "otlp.cert_file")
        return ca, key, cert

    @property
    def certificates(self) -> tuple[Path, ...]:
        """The files that run out some day."""
        return tuple(Path(name) for name in (self.cert_file, self.ca_file) if name)

    def tls_version(self) -> tuple[int, ...]:
        """Change with the TLS files; 0 for one that cannot be looked at."""
        return tuple(_modified_ns(name) for name in (self.ca_file, self.cert_file, self.key_file) if name)


def _modified_ns(name: str) -> int:
    try:
        return Path(name).stat().st_mtime_ns
    except OSError:
        return 0


def _host(host: str | None) -> str:
    return f"[{host}]" if host and ":" in host else host or ""


def _read(key: str, name: str) -> bytes | None:
    if not name:
        return None
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise InvalidInputError(f"{name}: {error.strerror or error}", f"otlp.{key}") from error


def parse(values: Any) -> OtlpConfig:
    """Check a JSON object; InvalidInputError names the key at fault."""
    if not isinstance(values, dict):
        raise InvalidInputError("not an object", "otlp")
    known = {field.name: field for field in fields(OtlpConfig)}
    result: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise InvalidInputError(f"unknown key; known are {', '.join(known)}", f"otlp.{key}")
        result[key] = _value(key, value, known[key].default)
    if not result.get("endpoint"):
        raise InvalidInputError("missing: give http://HOST:PORT or https://HOST:PORT", "otlp.endpoint")
    config = OtlpConfig(**result)
    if config.headers_file:
        config = replace(config, headers=(*config.headers, *_file_headers(config.headers_file)))
    _check(config)
    return config


def _file_headers(name: str) -> tuple[tuple[str, str], ...]:
    """The headers of a file; its content is never part of an error."""
    path = "otlp.headers_file"
    try:
        lines = Path(name).read_text(encoding="ascii").splitlines()
    except OSError as error:
        raise InvalidInputError(f"{name}: {error.strerror or error}", path) from error
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{name}: more than ASCII", path) from error
    headers = []
    for number, line in enumerate(lines, 1):
        header, colon, text = line.partition(":")
        if not line.strip() or line.startswith("#"):
            continue
        if not colon:
            raise InvalidInputError(f"{name}: line {number} is not `name: value`", path)
        headers.append((header.strip().lower(), text.strip()))
    return tuple(headers)


def _value(key: str, value: Any, default: Any) -> Any:
    path = f"otlp.{key}"
    if key == "headers":
        if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
            raise InvalidInputError("not an object of texts", path)
        # gRPC metadata keys are lower case; HTTP does not mind.
        return tuple((name.lower(), text) for name, text in value.items())
    if key in ("allow", "deny"):
        return _filters(path, value)
    kind: Any = str if default is MISSING else type(default)
    is_bool = isinstance(value, bool)
    if is_bool is not (kind is bool) or not isinstance(value, (int, float) if kind is float else kind):
        raise InvalidInputError(f"{value!r} is of the wrong type", path)
    if isinstance(value, (int, float)) and not is_bool and not 0 < value <= MAX_NUMBER:
        raise InvalidInputError(f"{value} is not in 1..{MAX_NUMBER}", path)
    return kind(value)


def _filters(path: str, value: Any) -> tuple[flow_pb2.FlowFilter, ...]:
    if not isinstance(value, list):
        raise InvalidInputError("not a list of flow filters", path)
    filters = []
    for index, item in enumerate(value):
        try:
            filters.append(json_format.ParseDict(item, flow_pb2.FlowFilter()))
        except (json_format.ParseError, TypeError, AttributeError) as error:
            raise InvalidInputError(f"not a flow filter: {error}", f"{path}[{index}]") from error
    return tuple(filters)


def _check(config: OtlpConfig) -> None:
    if config.protocol not in PROTOCOLS:
        raise InvalidInputError(f"{config.protocol!r} is not one of {', '.join(PROTOCOLS)}", "otlp.protocol")
    try:
        parts = urlsplit(config.endpoint)
        port_ok = parts.port is None or parts.port > 0
    except ValueError:
        port_ok = False
    if not port_ok or parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInputError(
            f"{config.endpoint!r} is not http://HOST:PORT (plain text) or https://HOST:PORT", "otlp.endpoint"
        )
    if config.protocol == "grpc" and parts.path.strip("/"):
        raise InvalidInputError("protocol grpc takes no path", "otlp.endpoint")
    if bool(config.cert_file) != bool(config.key_file):
        raise InvalidInputError("a client certificate needs cert_file and key_file", "otlp.cert_file")
    if not config.is_encrypted and (config.ca_file or config.cert_file):
        raise InvalidInputError("TLS files given, but the endpoint is not https://", "otlp.endpoint")
    if config.batch_flows > MAX_BATCH:
        raise InvalidInputError(f"more than {MAX_BATCH}", "otlp.batch_flows")
    for name, text in config.headers:
        if not name or not all(char.isalnum() or char in "-_." for char in name) or not name.isascii():
            raise InvalidInputError(f"{name!r} is not a header name", "otlp.headers")
        if not text.isascii() or not text.isprintable():
            raise InvalidInputError("its value has more than printable ASCII", f"otlp.headers.{name}")
    try:
        config.matcher(ObservingNode(""))
    except InvalidInputError as error:
        path = error.path.replace("whitelist", "otlp.allow").replace("blacklist", "otlp.deny")
        raise InvalidInputError(error.reason, path) from error
