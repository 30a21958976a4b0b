"""Reading what may not be readable: each part on another thread, and no longer than it may take."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_log = logging.getLogger("tensor_wasm.telemetry")

IN_TIME = "not readable in time"


class _Round:
    """One round of readings: what is still to be read, what was, and what failed. Guarded by ``changed``."""

    def __init__(self, names: Sequence[str]) -> None:
        self.left = deque(names)
        self.values: dict[str, tuple[float, Any]] = {}
        self.failures: dict[str, str] = {}
        self.current: str | None = None
        self.began_s = 0.0
        self.changed = threading.Condition()


class _Reader:
    """A thread that reads round after round until a part does not come back: another then goes on in its place."""

    def __init__(self, parts: Mapping[str, Callable[[], Any]], on_return: Callable[[str], None]) -> None:
        self._parts = parts
        self._on_return = on_return
        self._rounds: deque[_Round | None] = deque()
        self._wake = threading.Semaphore(0)
        self.is_left = False
        threading.Thread(target=self._run, name="observe-reader", daemon=True).start()

    def give(self, one: _Round | None) -> None:
        """Have a round read; None ends the thread."""
        self._rounds.append(one)
        self._wake.release()

    def _run(self) -> None:
        while not self.is_left:
            self._wake.acquire()
            one = self._rounds.popleft()
            if one is None:
                return
            self._read(one)

    def _read(self, one: _Round) -> None:
        while True:
            with one.changed:
                if self.is_left or not one.left:
                    return
                name = one.current = one.left.popleft()
                one.began_s = time.monotonic()
                one.changed.notify_all()  # from now on this part has so long
            value, failure = None, None
            try:
                value = self._parts[name]()
            except Exception as error:
                failure = type(error).__name__
                _log.debug("%s cannot be read", name, exc_info=True)
            with one.changed:
                if self.is_left:
                    self._on_return(name)
                    return
                one.current = None
                if failure is None:
                    one.values[name] = time.monotonic(), value
                else:
                    one.failures[name] = failure
                one.changed.notify_all()


class Bounded:
    """Reads parts, each by a function of its own, so that none of them holds up the caller or the others.

    A part that does not come back within ``part_s`` is left alone until it has, and read again then. No more threads
    hang than there are parts. For one caller at a time.
    """

    def __init__(self, parts: Mapping[str, Callable[[], Any]], part_s: float, whole_s: float) -> None:
        self._parts = dict(parts)
        self._part_s = part_s
        self._whole_s = whole_s
        self._stuck: set[str] = set()
        self._reader: _Reader | None = None

    def read(self, names: Sequence[str] | None = None) -> tuple[dict[str, tuple[float, Any]], dict[str, str]]:
        """What each part gave, with the moment of the monotonic clock; and why the others gave nothing.

        Returns after ``whole_s`` at the latest, or as soon as this thread is given the interpreter after that.
        """
        asked = list(self._parts) if names is None else list(names)
        one = _Round([name for name in asked if name not in self._stuck])
        until_s = time.monotonic() + self._whole_s
        with one.changed:
            self._begin(one)
            while one.left or one.current is not None:
                now_s = time.monotonic()
                end_s = until_s if one.current is None else min(until_s, one.began_s + self._part_s)
                if now_s < end_s:
                    one.changed.wait(end_s - now_s)
                    continue
                if one.current is not None:
                    self._leave(one.current)
                    one.current = None
                if now_s >= until_s:
                    one.left.clear()
                elif one.left:
                    self._begin(one)
            failures = {name: one.failures.get(name, IN_TIME) for name in asked if name not in one.values}
            return one.values, failures

    def close(self) -> None:
        """Let the thread end; one that hangs is left."""
        if self._reader is not None:
            self._reader.give(None)
            self._reader = None

    def _begin(self, one: _Round) -> None:
        if not one.left:
            return
        if self._reader is None:
            with contextlib.suppress(RuntimeError):  # the system gives no more threads: nothing is read
                self._reader = _Reader(self._parts, self._stuck.discard)
        if self._reader is None:
            one.left.clear()
        else:
            self._reader.give(one)

    def _leave(self, name: str) -> None:
        self._stuck.add(name)
        assert self._reader is not None
        self._reader.is_left = True
        self._reader = None
