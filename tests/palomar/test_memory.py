"""A process that runs for long: memory that another thread freed is used again, garbage does not wait."""

import subprocess
import sys
from xml.etree import ElementTree

import pytest

ARENAS = """
import ctypes, sys, threading
from palomar import memory

if sys.argv[1] == "one":
    assert memory.share_one_arena()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
together = threading.Barrier(4)

def allocate():
    together.wait()
    libc.malloc(1000)
    together.wait()

threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc.fopen.restype = ctypes.c_void_p
told = libc.fopen(b"/dev/stdout", b"w")
libc.malloc_info(0, ctypes.c_void_p(told))
libc.fclose(ctypes.c_void_p(told))
"""
GARBAGE = """
import gc, sys, weakref
from collections import deque
from palomar import memory

code = [[] for _ in range(800_000)]
gc.collect()
if sys.argv[1] == "settled":
    memory.settle()

class Cycle:
    def __init__(self):
        self.own = self

made = weakref.WeakSet()
alive = deque(maxlen=10_000)  # long enough for the collector to call them old
most = 0
for _ in range(300_000):
    alive.append(Cycle())
    made.add(alive[-1])
    most = max(most, len(made) - len(alive))
print(most)
"""


def told(program: str, word: str) -> str:
    """Run a program; return what it prints."""
    return subprocess.run(
        [sys.executable, "-c", program, word], capture_output=True, check=True, text=True
    ).stdout


@pytest.mark.parametrize(("word", "is_one"), [("one", True), ("default", False)])
def test_threads_share_an_arena_where_told(word: str, is_one: bool) -> None:
    """Without it they have several, which is what the call is for."""
    assert (len(ElementTree.fromstring(told(ARENAS, word)).findall("heap")) == 1) is is_one


@pytest.mark.parametrize(("word", "is_little"), [("settled", True), ("default", False)])
def test_garbage_does_not_wait_for_as_much_as_there_is_code(word: str, is_little: bool) -> None:
    """Cycles that lived for a while are let go by their own number, not by that of all objects."""
    assert (int(told(GARBAGE, word)) < 80_000) is is_little
