"""The `otlp` configuration: what it means, and what is refused naming the key."""

from pathlib import Path
from typing import Any

import pytest

from hubble.exporter.config import OtlpConfig, parse
from palomar.errors import InvalidInputError

GRPC = {"endpoint": "http://collector:4317"}


@pytest.mark.parametrize(
    ("values", "target", "url"),
    [
        ({"endpoint": "http://collector"}, "collector:4317", "http://collector:4317/v1/logs"),
        (
            {"endpoint": "https://collector/base/", "protocol": "http"},
            "collector:4318",
            "https://collector:4318/base/v1/logs",
        ),
        (
            {"endpoint": "http://[fd00::1]:99", "protocol": "http"},
            "[fd00::1]:99",
            "http://[fd00::1]:99/v1/logs",
        ),
    ],
)
def test_endpoints(values: dict[str, Any], target: str, url: str) -> None:
    config = parse(values)
    assert config.target == target
    assert config.url("logs") == url


def test_numbers_filters_and_headers_are_read(tmp_path: Path) -> None:
    """Header names become lower case, as gRPC wants them; those of the file are added."""
    file = tmp_path / "headers"
    file.write_text("# key of the tenant\nAuthorization: Bearer a:b\n\n")
    config = parse(
        {
            **GRPC,
            "interval_s": 2,
            "headers": {"X-Key": "v"},
            "headers_file": str(file),
            "allow": [{"verdict": ["DROPPED"]}],
        }
    )
    assert config.interval_s == 2.0
    assert config.headers == (("x-key", "v"), ("authorization", "Bearer a:b"))
    assert len(config.allow) == 1
    assert parse(GRPC) == OtlpConfig("http://collector:4317")


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ([], "otlp"),
        ({}, "otlp.endpoint"),
        ({"endpoint": "collector:4317"}, "otlp.endpoint"),
        ({"endpoint": "http://"}, "otlp.endpoint"),
        ({"endpoint": "http://c:99999"}, "otlp.endpoint"),
        ({"endpoint": "http://c/path"}, "otlp.endpoint"),
        ({**GRPC, "ca_file": "/ca.pem"}, "otlp.endpoint"),
        ({"endpoint": "https://c", "cert_file": "/c.pem"}, "otlp.cert_file"),
        ({**GRPC, "protocol": "udp"}, "otlp.protocol"),
        ({**GRPC, "timeout": 5}, "otlp.timeout"),
        ({**GRPC, "timeout_s": "5"}, "otlp.timeout_s"),
        ({**GRPC, "timeout_s": True}, "otlp.timeout_s"),
        ({**GRPC, "timeout_s": float("nan")}, "otlp.timeout_s"),
        ({**GRPC, "batch_flows": 0}, "otlp.batch_flows"),
        ({**GRPC, "batch_flows": 1.5}, "otlp.batch_flows"),
        ({**GRPC, "batch_flows": 10**6}, "otlp.batch_flows"),
        ({**GRPC, "logs": 1}, "otlp.logs"),
        ({**GRPC, "headers": {"a": 1}}, "otlp.headers"),
        ({**GRPC, "headers": {"a b": "x"}}, "otlp.headers"),
        ({**GRPC, "headers": {"a": "x\r\ny: z"}}, "otlp.headers.a"),
        ({**GRPC, "headers_file": "/nonexistent"}, "otlp.headers_file"),
        ({**GRPC, "allow": {"verdict": []}}, "otlp.allow"),
        ({**GRPC, "deny": [{"verdicts": ["DROPPED"]}]}, "otlp.deny[0]"),
        ({**GRPC, "allow": [7]}, "otlp.allow[0]"),
        ({**GRPC, "allow": [{"source_ip": ["10.0.0.300"]}]}, "otlp.allow[0].source_ip[0]"),
    ],
)
def test_what_cannot_work_is_named(values: Any, path: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse(values)
    assert caught.value.path == path


def test_a_bad_header_line_does_not_tell_the_secret(tmp_path: Path) -> None:
    file = tmp_path / "headers"
    file.write_text("hunter2\n")
    with pytest.raises(InvalidInputError, match="line 1") as caught:
        parse({**GRPC, "headers_file": str(file)})
    assert "hunter2" not in str(caught.value)
