"""TCP ports to be listened on later, perhaps by another process, and again after a restart.

A port that `bind` to 0 gave and that was closed again is anybody's: of another process that looks at the same
moment, or of any outgoing connection. So these are taken outside the range from which the kernel serves
connections, and claimed: by an abstract unix socket of their number, which every process of the network
namespace sees and the kernel drops when the claiming process ends.
"""

import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
FIRST, LAST = 20_000, 65_535
STRIDE = 32
"""Apart from each other begin two processes, by their ids: most find what they need without meeting."""


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nobody listens, this process's own until it ends."""
    ports = candidates(EPHEMERAL.read_text())
    start = os.getpid() * STRIDE % len(ports)
    for port in chain(ports[start:], ports[:start]):
        if claim(port):
            return port
    raise OSError(f"every port of {ports[0]} to {ports[-1]} is taken")


def candidates(ephemeral: str) -> Sequence[int]:
    """Return the ports that no outgoing connection gets; `ephemeral` is the text of the kernel's range."""
    least, most = map(int, ephemeral.split())
    return [*range(FIRST, min(least, LAST + 1)), *range(max(FIRST, most + 1), LAST + 1)]


def claim(port: int) -> bool:
    """Make `port` this process's own until it ends; False where it is another's, or somebody listens."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as mark, socket.socket() as probe:
        mark.bind(f"\0palomar-port-{port}")
        probe.bind(("127.0.0.1", port))
        mark.detach()  # stays open, and so the name stays taken
        return True
    return False
