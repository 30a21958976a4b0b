"""Signal handlers that raise, Ctrl-C's above all, while the main thread has a device.

A kernel runs in native code that calls into Python now and then, to ask whether to go on. Python runs signal handlers
in such a call, and there what a handler raises is lost. So for that time a handler of ours stands in: it runs the
program's own, keeps what that raises, and the launch ends with it. It also means that no handler raises between
taking the device's lock and giving it back.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from types import FrameType
from typing import Any

#: The signals whose handlers raise: a time limit, an orderly end, Ctrl-C.
_SIGNALS = tuple(map(int, (signal.SIGALRM, signal.SIGTERM, signal.SIGINT)))

# The functions under the module's own: turning numbers into enums is nine tenths of what those cost.
_native = import_module("_signal") if find_spec("_signal") else signal
_get: Callable[[int], Any] = _native.getsignal
_set: Callable[[int, Any], Any] = _native.signal


class HeldSignals:
    """Between :meth:`hold` and :meth:`release`, ``raised`` keeps what a signal handler raised instead of raising it.

    On a thread other than the main one it does nothing: Python runs no handlers there.
    """

    __slots__ = ("_handlers", "_is_holding", "raised")

    def __init__(self) -> None:
        self.raised: BaseException | None = None
        self._handlers: dict[int, Callable[[int, FrameType | None], object]] = {}
        self._is_holding = False

    def hold(self) -> None:
        """Put our handler in the place of those that are functions."""
        if threading.current_thread() is not threading.main_thread():
            return
        try:
            for number in _SIGNALS:
                handler = _get(number)
                if callable(handler):
                    self._handlers[number] = handler
                    _set(number, self._handle)
            self._is_holding = True
        except BaseException:  # a signal came in between
            self.release()
            raise

    def release(self) -> None:
        """Put the program's handlers back, and raise what one of them raised."""
        waiting = list(self._handlers.items())
        while True:
            try:
                self._is_holding = False
                while waiting:
                    number, handler = waiting[-1]
                    # The program's handler may have put another in its place: that one stays.
                    if _get(number) == self._handle:
                        _set(number, handler)
                    waiting.pop()
                break
            except BaseException as error:  # a signal came in between: first the other handlers
                self.raised = self.raised or error
        if self.raised is not None:
            raise self.raised from None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._is_holding:  # it came while handlers were being put in place or back
            self._handlers[number](number, frame)
            return
        try:
            self._handlers[number](number, frame)
        except BaseException as error:
            self.raised = self.raised or error
