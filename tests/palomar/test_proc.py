"""Programs are run by an argument list, within a time, and fail in their own words."""

import sys

import pytest

from palomar.proc import CommandError, run

PYTHON = (sys.executable, "-c")


def test_output_and_input_are_text() -> None:
    done = run([*PYTHON, "print(input()[::-1])"], stdin="abc\n")
    assert (done.returncode, done.stdout) == (0, "cba\n")


def test_words_stay_words() -> None:
    """There is no shell that reads them."""
    word = "$HOME; exit 3 'quoted'"
    assert run([*PYTHON, "import sys; print(sys.argv[1])", word]).stdout == f"{word}\n"


@pytest.mark.parametrize(
    ("argv", "timeout_s", "returncode", "said"),
    [
        ([*PYTHON, "import sys; sys.exit('no such link')"], 30.0, 1, "no such link"),
        (["no-such-program-here"], 30.0, -1, "no-such-program-here is not installed"),
        ([*PYTHON, "import signal; signal.pause()"], 0.2, -1, "no end within 0.2 s"),
    ],
)
def test_failure_is_one_error(argv: list[str], timeout_s: float, returncode: int, said: str) -> None:
    with pytest.raises(CommandError, match=said) as caught:
        run(argv, timeout_s=timeout_s)
    assert (caught.value.argv, caught.value.returncode) == (argv, returncode)


def test_a_status_may_be_looked_at_instead() -> None:
    assert run([*PYTHON, "import sys; sys.exit(3)"], check=False).returncode == 3
