"""Device times: how long the GPU took for a request whose owner wants to know.

Events of the driver's around the kernel and its copies take the time. When they have happened the GPU writes ``ENDED``,
not ``DONE``: the worker, which looks for that whenever it looks for requests, asks the driver how far apart they were,
and writes the times and then ``DONE``. What the driver has no events for is not timed, and runs all the same.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from tensor_wasm.device.cuda.board import COPY_IN_NS, COPY_OUT_NS, DONE, ENDED, KERNEL_NS
from tensor_wasm.device.cuda.driver import NOT_READY, Driver, DriverError
from tensor_wasm.device.cuda.records import WORD_BYTES, Lane

#: Lanes that one poll looks at: others' requests wait meanwhile.
_LOOKS: Final = 8
_DONE: Final = DONE // WORD_BYTES
_ENDED: Final = ENDED // WORD_BYTES
_LONG_BYTES: Final = 8
_NS_PER_MS: Final = 1e6


class Mark(IntEnum):
    """What an event comes before or after."""

    BEFORE_COPIES = 0
    BEFORE_KERNEL = 1
    AFTER_KERNEL = 2
    AFTER_COPIES = 3


#: What is told, and between which marks it is.
_TIMES: Final = (
    (KERNEL_NS, Mark.BEFORE_KERNEL, Mark.AFTER_KERNEL),
    (COPY_IN_NS, Mark.BEFORE_COPIES, Mark.BEFORE_KERNEL),
    (COPY_OUT_NS, Mark.AFTER_KERNEL, Mark.AFTER_COPIES),
)


@dataclass(slots=True)
class Timing:
    """A request that is timed: its number, and its events. ``is_known`` is false once one could not be recorded."""

    request: int
    events: dict[Mark, int]
    is_known: bool = True


class Timings:
    """The requests of a board's lanes that are timed. ``words`` and ``longs`` are the doorbells.

    Every call may raise a :class:`DriverError` that is sticky, and no other.
    """

    def __init__(self, driver: Driver, words: memoryview, longs: memoryview) -> None:
        self._driver = driver
        self._words = words
        self._longs = longs
        #: Events that nobody uses.
        self._idle: list[int] = []
        #: Lanes whose timed request the driver has, and some that were closed since.
        self.waiting: deque[Lane] = deque()

    # --- while a request is begun -----------------------------------------------------------------------

    def begin(self, lane: Lane, copies_in: bool, copies_out: bool) -> Timing | None:
        """Time the lane's request; None where that cannot be: its end is the GPU's to tell then."""
        start = lane.word * WORD_BYTES
        for place, _, _ in _TIMES:
            self._longs[(start + place) // _LONG_BYTES] = 0
        if lane.timing is not None:  # its owner says that the one before is over, which it is not
            return None
        marks = [Mark.BEFORE_KERNEL, Mark.AFTER_KERNEL]
        if copies_in:
            marks.append(Mark.BEFORE_COPIES)
        if copies_out:
            marks.append(Mark.AFTER_COPIES)
        try:
            while len(self._idle) < len(marks):
                self._idle.append(self._driver.create_event())
        except DriverError as error:
            if error.is_sticky:
                raise
            return None
        timing = lane.timing = Timing(lane.started, {mark: self._idle.pop() for mark in marks})
        return timing

    def mark(self, timing: Timing, mark: Mark, stream: int) -> None:
        """Have an event happen where the stream is now, if the request has one for this mark."""
        event = timing.events.get(mark)
        if event is None or not timing.is_known:
            return
        try:
            self._driver.record(event, stream)
        except DriverError as error:
            if error.is_sticky:
                raise
            timing.is_known = False

    # --- once the driver has it -------------------------------------------------------------------------

    def poll(self) -> None:
        """Tell of requests that have ended, of a few lanes, others each time."""
        waiting, words = self.waiting, self._words
        for _ in range(min(_LOOKS, len(waiting))):
            lane = waiting.popleft()
            timing = lane.timing
            if timing is not None and (words[lane.word + _ENDED] != timing.request or not self._tell(lane, timing)):
                waiting.append(lane)

    def _tell(self, lane: Lane, timing: Timing) -> bool:
        """Write how long a request took, and that it is over; False when the driver says that it is not."""
        start = lane.word * WORD_BYTES
        try:
            for place, first, last in _TIMES if timing.is_known else ():
                if first in timing.events and last in timing.events:
                    spent_ms = self._driver.elapsed_ms(timing.events[first], timing.events[last])
                    self._longs[(start + place) // _LONG_BYTES] = max(round(spent_ms * _NS_PER_MS), 0)
        except DriverError as error:
            if error.is_sticky:
                raise
            if error.code == NOT_READY:
                return False
        self.end(lane)
        return True

    def end(self, lane: Lane) -> None:
        """Have a lane's request be timed no more, if it was; its stream is done. Where the GPU says so it is over."""
        timing = lane.timing
        if timing is None:
            return
        lane.timing = None
        self._idle.extend(timing.events.values())
        if self._words[lane.word + _ENDED] == timing.request == lane.started:
            self._words[lane.word + _DONE] = timing.request

    def release(self) -> None:
        """Forget all events. Raises :class:`DriverError`; what is left then can be released again."""
        while self._idle:
            self._driver.destroy_event(self._idle[-1])
            self._idle.pop()
