"""Priorities of threads: what runs guests steps back for what serves them, and takes short turns."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import struct
import sys
import threading
import time
from collections.abc import Iterator
from typing import Protocol

#: By how much threads of a node that run guests and kernels step back. A thread of the same priority as theirs, the
#: event loop's, would wait for its turn behind each of them.
#:
#: ``FIRST``: a tenant's only invocation. Not by more: such a thread holds the interpreter lock now and then, and must
#: come to a core with it also beside other processes that are busy.
#: ``FURTHER``: those that a tenant runs besides. ``LONG``: those that have run for a while, of whoever it is: a short
#: one comes to a core before them.
FIRST_NICENESS, FURTHER_NICENESS, LONG_NICENESS = 5, 10, 14
#: What such a thread has used a core for when its guest counts as one that has run for a while.
LONG_NS = 40_000_000
#: How long such a thread keeps a core when others want it. Linux takes 3 ms by itself, and with more guests than cores
#: each waits for its turn behind several: a launch that was granted a permit, or a guest that is to end.
GUEST_TURN_NS = 500_000

_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
#: ``struct sched_attr`` (sched_setattr(2)): size, policy, flags, nice, priority, runtime, deadline, period. For threads
#: of the usual policy ``runtime`` is the length of a turn, from Linux 6.12 on; before, it says nothing.
_ATTRIBUTES = struct.Struct("<IIQiIQQQ")
_SCHED_OTHER = 0
_NICENESS_MAX = 19
_syscall = ctypes.CDLL(None).syscall


_thread = threading.local()


def step_back(niceness: int, turn_ns: int = GUEST_TURN_NS) -> None:
    """Lower the calling thread's priority to ``niceness`` below the process's, and shorten its turns.

    It cannot be raised again. On Linux each thread has its own; elsewhere nothing happens, nor where the system does
    not allow it.
    """
    if sys.platform != "linux" or not niceness:
        return
    number = _SCHED_SETATTR.get(platform.machine())
    with contextlib.suppress(OSError):
        # The main thread's, whose id is the process's.
        nice = min(os.getpriority(os.PRIO_PROCESS, os.getpid()) + niceness, _NICENESS_MAX)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
        if number is not None:
            attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, _SCHED_OTHER, 0, nice, 0, turn_ns, 0, 0)
            _syscall(ctypes.c_long(number), 0, attributes, 0)


class Watcher(Protocol):
    """Who is told, on the thread of a call, whether that call is one to reckon with for a core."""

    def leave_cores(self) -> None:
        """It needs none for a while, or comes after all others from now on."""

    def want_core(self) -> None:
        """It does again."""


def begin_call(watcher: Watcher) -> None:
    """Say that the calling thread begins to run something new."""
    _thread.began_ns = time.thread_time_ns()
    _thread.watcher = watcher


def let_others_first() -> None:
    """Step back if the thread's call has used a core for ``LONG_NS``; :func:`is_spent` says so from then on.

    Nothing happens to a thread that did not say when it began: it is not the node's.
    """
    began_ns: int | None = getattr(_thread, "began_ns", None)
    if began_ns is not None and not is_spent() and time.thread_time_ns() - began_ns >= LONG_NS:
        _thread.is_spent = True
        step_back(LONG_NICENESS)
        _thread.watcher.leave_cores()


def is_spent() -> bool:
    """Whether the calling thread stepped back too far to run something new."""
    return getattr(_thread, "is_spent", False)


@contextlib.contextmanager
def asleep() -> Iterator[None]:
    """While the context lasts the calling thread waits for something else than a core."""
    watcher: Watcher | None = getattr(_thread, "watcher", None)
    if watcher is None or is_spent():
        yield
        return
    watcher.leave_cores()
    try:
        yield
    finally:
        watcher.want_core()
