"""Loading kernels beside the worker's main loop, which must not wait for that: machine code, or texts, which the driver
assembles.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

#: Kernels assembled at the same time, of as many tenants.
THREADS_MAX: Final = 4
#: Kernels that may wait, of all tenants.
WAITING_MAX: Final = 4_096
#: How long a kernel may take. Its tenant is told then, and cannot have another loaded before it is done: the driver
#: cannot be stopped.
LIMIT_S: Final = 60.0
#: How long what waits for the end of kernels waits for those of no end.
PATIENCE_S: Final = 30.0


class Calm:
    """Where loads wait for the end of the kernels that run when they are asked for.

    The driver loads a module only when no kernel runs at all, and begins none meanwhile: a load beside a kernel of a
    second would hold up everybody's launches for that second. Here it holds up nobody, and it would have to wait for
    that kernel anyway.
    """

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._waiting: deque[tuple[float, threading.Event]] = deque()

    @property
    def is_awaited(self) -> bool:
        """Whether a load waits."""
        return bool(self._waiting)

    def wait(self) -> None:
        """Wait for that, not for ever."""
        moment = threading.Event()
        self._waiting.append((time.monotonic(), moment))
        moment.wait(self._patience_s)

    def tell(self, is_over: Callable[[float], bool]) -> None:
        """Have those go on for which it has come; ``is_over`` says it of a time."""
        for _ in range(len(self._waiting)):
            since_s, moment = self._waiting.popleft()
            if is_over(since_s):
                moment.set()
            else:
                self._waiting.append((since_s, moment))


@dataclass(slots=True, eq=False)
class Assembly:
    """A kernel that a client wants loaded; ``module`` or ``error`` is there once it is over.

    ``code`` is its machine code or its text, ``wide`` machine code for larger blocks, empty where there is none.
    """

    request: int
    tenant: int
    image_base: int
    leaves_faults: bool
    code: bytes
    name: str
    image: bytes
    wide: bytes = b""
    began_s: float = 0.0
    is_late: bool = False
    module: int | None = None
    error: Exception | None = None


class Assemblers:
    """Threads that are started when they are needed; each tenant has one of them at a time."""

    def __init__(self, assemble: Callable[[bytes, bytes], int], limit_s: float = LIMIT_S) -> None:
        self._assemble = assemble
        self._limit_s = limit_s
        self._changed = threading.Condition()
        self._waiting: deque[Assembly] = deque()
        self._running: list[Assembly] = []
        self._over: deque[Assembly] = deque()
        self._threads = 0

    def put(self, assembly: Assembly) -> bool:
        """Have a kernel assembled; false when too many wait."""
        with self._changed:
            if len(self._waiting) >= WAITING_MAX:
                return False
            self._waiting.append(assembly)
            if self._threads < THREADS_MAX and self._threads < len(self._waiting) + len(self._running):
                self._threads += 1
                threading.Thread(target=self._run, name="assembler", daemon=True).start()
            self._changed.notify()
        return True

    def take(self) -> Assembly | None:
        """One that is over, if there is one."""
        return self._over.popleft() if self._over else None

    def take_late(self) -> list[Assembly]:
        """Those that have taken too long, each once."""
        if not self._running:
            return []
        latest_s = time.monotonic() - self._limit_s
        with self._changed:
            late = [each for each in self._running if not each.is_late and each.began_s < latest_s]
            for each in late:
                each.is_late = True
        return late

    @property
    def is_stuck(self) -> bool:
        """Whether every thread is at one that has taken too long."""
        running = list(self._running)
        return len(running) == THREADS_MAX and all(each.is_late for each in running)

    def _run(self) -> None:
        while True:
            assembly = self._next()
            try:
                assembly.module = self._assemble(assembly.code, assembly.wide)
            except Exception as error:
                assembly.error = error
            with self._changed:
                self._running.remove(assembly)
                self._over.append(assembly)
                self._changed.notify_all()  # the tenant's next may wait for this one

    def _next(self) -> Assembly:
        with self._changed:
            while True:
                busy = {each.tenant for each in self._running}
                for position, assembly in enumerate(self._waiting):
                    if assembly.tenant not in busy:
                        del self._waiting[position]
                        assembly.began_s = time.monotonic()
                        self._running.append(assembly)
                        return assembly
                self._changed.wait()
