"""Memory of a process that runs for months: what it needs does not grow with time.

Two things grow by themselves, for tens of minutes, under a load that stays the same. glibc's malloc gives
threads arenas of their own, 8 per CPU, and what gRPC's threads free in theirs no other thread can use. And
Python looks for garbage in cycles only once it amounts to a quarter of all that is alive, code included: it
waits for minutes, and each look takes tens of milliseconds, in which no flow moves.
"""

import ctypes
import gc

M_ARENA_MAX = -8
"""From malloc.h; see mallopt(3)."""


def share_one_arena() -> bool:
    """Let every thread of this process allocate from one arena; to be called before threads are started.

    False where the C library has no such setting, or refuses it: all works as before then.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # not glibc
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    return bool(mallopt(M_ARENA_MAX, 1))


def settle() -> None:
    """Take what is alive now for what stays; to be called once all is started.

    The collector does not look at it again, and the share at which it looks at all counts only what came
    after. Cost: that of one full collection.
    """
    gc.collect()
    gc.freeze()
    gc.collect()  # so that it forgets how much there was
