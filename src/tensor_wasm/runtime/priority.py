"""Priorities of threads: what runs guests steps back for what serves them."""

from __future__ import annotations

import contextlib
import os
import threading

#: By how much a thread of a node that runs guests and kernels steps back. A thread of the same priority as theirs,
#: the event loop's, would wait for its turn behind each of them. Not by more: such a thread holds the interpreter lock
#: now and then, and must come to a core with it also beside other processes that are busy.
GUEST_NICENESS = 5


def step_back(niceness: int) -> None:
    """Lower the calling thread's priority. On Linux each thread has its own; where that is not so nothing happens."""
    if not niceness:
        return
    with contextlib.suppress(OSError, AttributeError):
        before = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), before + niceness)
