"""A process of a benchmark that answers each line with a line of JSON, and ends with its standard input.

For what must not share the process that measures: nodes, a relay, clients. Input: a module and its words.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
END_S = 60.0


class Child:
    """One such process."""

    def __init__(self, module: str, *words: str) -> None:
        """Start `python -m MODULE WORDS`."""
        argv = [sys.executable, "-m", module, *words]
        self._process = subprocess.Popen(
            argv, cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def line(self) -> Any:
        """Return what it says next."""
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        if not said:
            raise SystemExit(f"{self._process.args} has ended")
        return json.loads(said)

    def ask(self) -> Any:
        """Return its answer to an empty line."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self.line()

    def close(self) -> None:
        """End it and wait."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(END_S)
