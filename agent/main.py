"""`palomar agent`: arguments in, exit status out; logging and signals around `agent.daemon`.

Exit status: 0 stopped by SIGTERM or SIGINT, 1 the agent could not start or broke, 2 the configuration is
wrong.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence

from agent.config import AgentConfig, ConfigError, load, machine_problems
from agent.daemon import Daemon
from palomar import log
from palomar.clock import SystemClock
from palomar.errors import PalomarError

logger = logging.getLogger(__name__)

EXIT_OK, EXIT_FAILED, EXIT_BAD_CONFIG = 0, 1, 2


def run(argv: Sequence[str]) -> int:
    """Run the agent until SIGTERM or SIGINT; return its exit status."""
    try:
        config = load(argv, os.environ)
        problems = machine_problems(config)
        if problems:
            raise ConfigError(problems)
    except ConfigError as error:
        sys.stderr.write(f"palomar agent: {error}\n")
        return EXIT_BAD_CONFIG
    log.configure(config.log_level, config.log_format)
    try:
        asyncio.run(_serve(config))
    except PalomarError as error:
        logger.error("agent ends", extra={"error": str(error)})
        sys.stderr.write(f"palomar agent: {error}\n")
        return EXIT_FAILED
    return EXIT_OK


async def _serve(config: AgentConfig) -> None:
    daemon = Daemon(config, SystemClock())
    running = asyncio.current_task()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        daemon.stopped.set()
        # Before it is ready nobody waits for `stopped`: break off the start.
        if running is not None and not daemon.bootstrap.is_ready:
            running.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        await daemon.run()
    except asyncio.CancelledError:
        if not daemon.stopped.is_set():
            raise
        logger.info("start broken off")


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
