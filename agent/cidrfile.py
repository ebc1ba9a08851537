"""The numbers of CIDR identities across restarts: one JSON file of prefix to number.

With the same numbers after a restart, policy maps and ipcache in the kernel stay right while they are read
again. A file that cannot be read costs only that: numbers are given anew.
"""

import json
import logging
from collections.abc import Mapping
from ipaddress import IPv4Network
from pathlib import Path

from palomar.files import write_atomically

logger = logging.getLogger(__name__)


def read_cidr_numbers(path: Path) -> dict[IPv4Network, int]:
    """Return what was kept; nothing where there is no file, or one that makes no sense."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        return {IPv4Network(text): int(number) for text, number in tree.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        logger.warning("numbers of CIDR identities forgotten", extra={"path": str(path), "error": str(error)})
        return {}


def write_cidr_numbers(path: Path, numbers: Mapping[IPv4Network, int]) -> None:
    """Keep the numbers; a failure is logged, for enforcement does not need the file."""
    text = json.dumps({str(network): int(number) for network, number in sorted(numbers.items())}, indent=1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text + "\n")
    except OSError as error:
        logger.warning("numbers of CIDR identities not kept", extra={"path": str(path), "error": str(error)})
