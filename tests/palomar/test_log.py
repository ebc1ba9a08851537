"""One line per record: a constant message, the facts behind it, as text or as JSON."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from palomar import log


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """The root logger as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def logged(log_format: str, level: str = "info") -> list[str]:
    stream = io.StringIO()
    log.configure(level, log_format, stream)
    logger = logging.getLogger("test")
    logger.debug("too little")
    logger.warning("map full", extra={"map_name": "cilium_lxc", "key": 7})
    try:
        raise ValueError("wrong")
    except ValueError:
        logger.exception("task failed")
    return stream.getvalue().splitlines()


def test_text_is_for_people() -> None:
    lines = logged("text")
    assert lines[0].partition(" ")[2] == "WARNING test: map full map_name=cilium_lxc key=7"
    assert lines[1].endswith("ERROR test: task failed")
    assert lines[-1] == "ValueError: wrong"


def test_json_is_one_object_a_line() -> None:
    first, second = map(json.loads, logged("json"))
    assert {key: first[key] for key in ("level", "logger", "message", "map_name", "key")} == {
        **{"level": "WARNING", "logger": "test", "message": "map full"},
        **{"map_name": "cilium_lxc", "key": 7},
    }
    assert second["traceback"].endswith("ValueError: wrong")


@pytest.mark.parametrize(("level", "count"), [("DEBUG", 3), ("warning", 2), ("ERROR", 1)])
def test_the_level_says_what_is_kept(level: str, count: int) -> None:
    assert len(logged("json", level)) == count
