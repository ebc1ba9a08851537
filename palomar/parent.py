"""The process that started this one: a child of the agent ends with it.

Not how children are started, and started again (`agent.supervisor`). Input: the parent's process id as it
told it; output: a yes or no before anything is opened. No event loop: the ingest process has none.
"""

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int = 0) -> bool:
    """Have the kernel send SIGTERM when the process that started this one is gone (prctl(2)).

    False: the parent is not `parent_pid` (0: not checked), it was gone before the kernel was told. Then
    the caller ends: nobody else would end it.
    """
    ctypes.CDLL(None, use_errno=True)["prctl"](_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    return parent_pid in (0, os.getppid())
