"""Running other programs: always an argument list, a time limit and a log line.

Never a shell. Failure is `CommandError` with the program's own words.
"""

import logging
import subprocess
from collections.abc import Sequence

from palomar.errors import TransientError

logger = logging.getLogger(__name__)


class CommandError(TransientError):
    """A program ended with a non-zero status, is missing, or took too long."""

    def __init__(self, argv: Sequence[str], returncode: int, output: str) -> None:
        """Keep the argument list, the status (-1: did not run or timed out) and what it printed."""
        self.argv = list(argv)
        self.returncode = returncode
        self.output = output
        super().__init__(f"{' '.join(argv)}: status {returncode}: {output.strip() or 'no output'}")


def run(
    argv: Sequence[str],
    *,
    timeout_s: float = 30.0,
    check: bool = True,
    stdin: str | None = None,
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `argv` to its end and return it with captured text output.

    Raises `CommandError` when it is missing, exceeds `timeout_s`, or (with `check`) fails.
    """
    logger.debug("run", extra={"argv": list(argv)})
    try:
        done = subprocess.run(
            list(argv),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            input=stdin,
            env=env,
            check=False,
        )
    except FileNotFoundError as error:
        raise CommandError(argv, -1, f"{argv[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(argv, -1, f"no end within {timeout_s} s") from error
    if check and done.returncode != 0:
        raise CommandError(argv, done.returncode, done.stderr or done.stdout)
    return done
