"""Priorities of threads: what runs guests steps back for what serves them, and takes short turns."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import struct
import sys
import threading

#: By how much a thread of a node that runs guests and kernels steps back. A thread of the same priority as theirs,
#: the event loop's, would wait for its turn behind each of them. Not by more: such a thread holds the interpreter lock
#: now and then, and must come to a core with it also beside other processes that are busy.
GUEST_NICENESS = 5
#: How long such a thread keeps a core when others want it. Linux takes 3 ms by itself, and with more guests than cores
#: each waits for its turn behind several: a launch that was granted a permit, or a guest that is to end.
GUEST_TURN_NS = 500_000

_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
#: ``struct sched_attr`` (sched_setattr(2)): size, policy, flags, nice, priority, runtime, deadline, period. For threads
#: of the usual policy ``runtime`` is the length of a turn, from Linux 6.12 on; before, it says nothing.
_ATTRIBUTES = struct.Struct("<IIQiIQQQ")
_SCHED_OTHER = 0
_NICENESS_MAX = 19


def step_back(niceness: int, turn_ns: int = GUEST_TURN_NS) -> None:
    """Lower the calling thread's priority and shorten its turns. On Linux each thread has its own; elsewhere nothing
    happens, nor where the system does not allow it.
    """
    number = _SCHED_SETATTR.get(platform.machine())
    if sys.platform != "linux" or not niceness:
        return
    with contextlib.suppress(OSError):
        nice = min(os.getpriority(os.PRIO_PROCESS, 0) + niceness, _NICENESS_MAX)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
        if number is not None:
            attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, _SCHED_OTHER, 0, nice, 0, turn_ns, 0, 0)
            ctypes.CDLL(None).syscall(ctypes.c_long(number), 0, attributes, 0)
