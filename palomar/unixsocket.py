"""Unix sockets that their owner and a group may use, and nobody else at any moment.

Not the servers behind them (`palomar.rpclistener`, `agent.api.server`). Input: a path and a group's name.
"""

import contextlib
import grp
import logging
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

logger = logging.getLogger(__name__)

SOCKET_MODE = 0o660
PROBE_TIMEOUT_S = 1.0


@contextlib.contextmanager
def made_for_group(path: Path, group: str) -> Iterator[None]:
    """Make the folder of `path`; the socket bound inside has its final mode from the start, then the group.

    An empty group is none; one that does not exist is warned of. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    before = os.umask(0o777 & ~SOCKET_MODE)
    try:
        yield
    finally:
        os.umask(before)
    if not group:
        return
    try:
        shutil.chown(path, group=grp.getgrnam(group).gr_gid)
    except (KeyError, PermissionError) as error:
        facts = {"group": group, "socket": str(path), "error": str(error)}
        logger.warning("socket stays with its owner's group", extra=facts)


def answers(path: Path) -> bool:
    """Tell whether somebody listens on the socket at `path`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_TIMEOUT_S)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def inode(path: Path) -> tuple[int, int] | None:
    """Return what tells this file from a later one of the same name; None where there is none."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
