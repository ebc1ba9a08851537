"""`palomar agent` as a program: exit statuses, help, a start that is broken off."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent import main
from agent.children import python_path
from tests.kit.wait import eventually

ROOT = Path(__file__).resolve().parents[2]


def test_a_wrong_configuration_is_status_2_with_every_problem(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--pod-cidr=x", "--node-ipv4=y", "--nonsense"]) == main.EXIT_BAD_CONFIG
    error = capsys.readouterr().err
    assert error.count("\n") == 4
    assert "pod-cidr (from --pod-cidr)" in error
    assert "--nonsense: no such flag" in error


def test_help_ends_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.run(["--help"])
    assert ended.value.code == 0
    assert "--node-ipv4 VALUE" in capsys.readouterr().out


def test_children_find_the_packages_of_this_checkout() -> None:
    parts = python_path("/elsewhere").split(os.pathsep)
    assert parts == [str(ROOT), str(ROOT / "proto"), "/elsewhere"]
    assert python_path("") == os.pathsep.join(parts[:2])


@pytest.mark.root
@pytest.mark.bpf
def test_sigterm_during_the_start_ends_it_in_order(bpf_root: Path, tmp_path: Path) -> None:
    """The store never answers, so the start waits: SIGTERM ends it with status 0 and the socket is gone."""
    folder = Path("/tmp") / bpf_root.name
    folder.mkdir()
    argv = [
        "unshare",
        "--net",
        "--",
        "sh",
        "-c",
        'ip link set lo up && exec "$@"',
        "sh",
        *(sys.executable, "-m", "agent.main", "--node-name=one", "--node-ipv4=127.0.0.1"),
        *("--pod-cidr=10.1.0.0/24", f"--run-dir={folder}/run", f"--state-dir={folder}/state"),
        *(f"--bpf-root={bpf_root}", "--kvstore=etcd", "--etcd-endpoints=http://127.0.0.1:1"),
        *("--bpf-ct-global-tcp-max=1024", "--bpf-ct-global-any-max=1024", "--mtu=1400"),
    ]
    environment = {**os.environ, "PYTHONPATH": python_path(os.environ.get("PYTHONPATH", ""))}
    log = folder / "log"
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(argv, stdout=output, stderr=output, cwd="/", env=environment)
        eventually((folder / "run" / "palomar.sock").exists, 20)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, log.read_text()
        assert not (folder / "run" / "palomar.sock").exists()
        assert "Traceback" not in log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        folder.rmdir()
        lock = str(bpf_root).strip("/").replace("/", "-")
        Path(f"/run/palomar-bpffs-{lock}.lock").unlink(missing_ok=True)
