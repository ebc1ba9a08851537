"""A certificate that runs out is told in time: in numbers at every look, in the log at once and hourly."""

import logging
from datetime import timedelta
from pathlib import Path

import pytest

from palomar import certs
from palomar.certdir import CertDirectory
from palomar.certs import Role
from palomar.certwatch import CertificateWatch

DAY_NS = 86_400 * 1_000_000_000
START_NS = 1_795_248_001_000_000_000


class FakeClock:
    """Wall and monotonic clock in one."""

    now_ns = START_NS

    def wall_ns(self) -> int:
        return self.now_ns

    def monotonic_ns(self) -> int:
        return self.now_ns


def test_from_good_to_due_to_expired_to_renewed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """WARNING when due, ERROR when over, nothing twice within an hour, nothing any more when renewed."""
    clock = FakeClock()
    directory = CertDirectory(tmp_path)
    directory.init(certs.utc(START_NS))
    files = directory.issue(Role.RELAY, "r", certs.utc(START_NS), lifetime=timedelta(days=30))
    watch = CertificateWatch([files.cert, files.ca, files.cert], clock)

    def levels() -> list[int]:
        caplog.clear()
        expiries = watch.check()
        assert [expiry.file for expiry in expiries] == [str(files.cert), str(files.ca)]
        return [record.levelno for record in caplog.records]

    assert levels() == []
    assert watch.check()[0].seconds_left == 30 * 86_400
    clock.now_ns = START_NS + 21 * DAY_NS
    assert levels() == [logging.WARNING]
    assert watch.check()[0].problem == "due for renewal"
    assert levels() == []
    clock.now_ns += DAY_NS // 24
    assert levels() == [logging.WARNING]
    clock.now_ns = START_NS + 31 * DAY_NS
    assert levels() == [logging.ERROR]
    record = caplog.records[0]
    assert record.__dict__["problem"] == f"expired at {record.__dict__['not_after']}"
    assert "CN=r" in record.__dict__["subject"]
    assert watch.check()[0].seconds_left == -86_400
    directory.renew(certs.utc(clock.now_ns))
    assert levels() == []
    files.cert.unlink()
    assert levels() == [logging.ERROR]
    assert "No such file" in watch.check()[0].problem
