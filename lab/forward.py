"""Doors from this machine's loopback into a lab: a listening socket made here, connections made there.

The command that brings a lab up binds the sockets on 127.0.0.1 of the machine; the process that serves
them (`python -m lab.forward FD=HOST:PORT ...`) runs in the lab's namespace and connects from there. So no
route, address or rule of the machine changes.
"""

import asyncio
import contextlib
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.network import in_namespace
from lab.process import child_environment
from palomar.proc import run

LOOPBACK = "127.0.0.1"
CHUNK = 65536
COMMAND_CHARS = 60
"""Of a command line, where a process is named."""


def bind(preferred_port: int) -> socket.socket:
    """Listen on loopback at `preferred_port`, or at any free one where that is taken."""
    for port in (preferred_port, 0):
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
        except OSError:
            listener.close()
            continue
        listener.listen()
        return listener
    raise OSError("no free port on loopback")


def holder(port: int) -> str:
    """Say who listens at `port` of this machine: ` by process 123 (nginx -g ...)`; empty where not told."""
    listed = run(["ss", "-Htlnp", f"sport = :{port}"], check=False).stdout
    found = re.search(r"pid=(\d+)", listed)
    if found is None:
        return ""
    try:
        words = Path(f"/proc/{found.group(1)}/cmdline").read_text().replace("\0", " ").strip()
    except OSError:
        return ""
    return f" by process {found.group(1)} ({words[:COMMAND_CHARS]})"


def start(namespace: str, targets: Mapping[str, tuple[int, str]], log: Path) -> dict[str, str]:
    """Open a door for each `name: (preferred port, HOST:PORT there)`; return name -> address here."""
    listeners = {name: bind(port) for name, (port, _) in targets.items()}
    argv = [sys.executable, "-m", "lab.forward"]
    argv += [f"{listener.fileno()}={targets[name][1]}" for name, listener in listeners.items()]
    with log.open("ab") as output:
        process = subprocess.Popen(
            in_namespace(namespace, argv),
            pass_fds=[listener.fileno() for listener in listeners.values()],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
            env=child_environment(),
        )
    process.returncode = 0  # it outlives this command on purpose
    addresses = {}
    for name, listener in listeners.items():
        host, port = listener.getsockname()
        addresses[name] = f"{host}:{port}"
        listener.close()
    return addresses


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()


async def _serve(descriptor: int, host: str, port: int) -> asyncio.Server:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        try:
            await asyncio.gather(_copy(reader, there_writer), _copy(there_reader, writer))
        finally:
            there_writer.close()
            writer.close()

    listener = socket.socket(fileno=descriptor)
    listener.setblocking(False)
    return await asyncio.start_server(connected, sock=listener)


async def _run(words: Sequence[str]) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    for word in words:
        descriptor, _, target = word.partition("=")
        host, _, port = target.rpartition(":")
        await _serve(int(descriptor), host, int(port))
    await stopped.wait()


if __name__ == "__main__":
    asyncio.run(_run(sys.argv[1:]))
