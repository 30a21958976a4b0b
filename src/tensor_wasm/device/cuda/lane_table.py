"""Which lanes are in use, from the client's side, and the end of what was asked on one that nobody serves any more."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Final

from tensor_wasm.device.cuda.board import (
    ACCEPTED_NS,
    BODIES,
    DONE,
    DOORBELL_BYTES,
    FAULT_LINE,
    LANES,
    REQUEST,
    RESULT,
    Result,
)
from tensor_wasm.errors import CapacityExhausted

#: How often lanes that nobody serves are looked at while there are any.
_SWEEP_S: Final = 0.002
_WORD: Final = 4
_WORDS: Final = DOORBELL_BYTES // _WORD


@dataclass(slots=True, eq=False)
class Doorbell:
    """A lane in use. ``words`` are all doorbells' as u32s, this one's from ``word`` on.

    ``is_void`` once nobody serves it any more: the worker it belonged to is gone, or its tenant's partition;
    ``is_closing`` once its owner gave it back.
    """

    words: memoryview
    number: int
    tenant: int
    is_void: bool = False
    is_closing: bool = False

    @property
    def word(self) -> int:
        """Where in ``words`` it starts."""
        return self.number * _WORDS

    @property
    def request(self) -> int:
        """The number of the latest request."""
        return self.words[self.word + REQUEST // _WORD]

    @property
    def is_busy(self) -> bool:
        """Whether a request is in flight."""
        return self.words[self.word + DONE // _WORD] != self.request

    @property
    def result(self) -> int:
        """What became of the latest request; see :class:`.board.Result`."""
        result: int = self.words[self.word + RESULT // _WORD]
        return result

    @property
    def fault_line(self) -> int:
        """The PTX line that the latest request's kernel left."""
        line: int = self.words[self.word + FAULT_LINE // _WORD]
        return line

    @property
    def accepted_ns(self) -> int:
        """When the driver had taken the latest request, by CLOCK_MONOTONIC; 0 while it has not."""
        low, high = self.words[self.word + ACCEPTED_NS // _WORD : self.word + ACCEPTED_NS // _WORD + 2]
        return low | high << 32

    def ring(self) -> None:
        """Ask for what the body says."""
        # Whole words, written in this order: on processors that reorder stores the interpreter's own locks, which
        # each call passes through, lie between them.
        self.words[self.word + RESULT // _WORD] = Result.OK
        self.words[self.word + FAULT_LINE // _WORD] = 0
        for half in (0, 1):
            self.words[self.word + ACCEPTED_NS // _WORD + half] = 0
        self.words[self.word + REQUEST // _WORD] = (self.request + 1) & 0xFFFF_FFFF

    def lose(self) -> None:
        """End a request that is in flight and that nobody serves."""
        request = self.request
        if self.words[self.word + DONE // _WORD] != request:
            self.words[self.word + RESULT // _WORD] = Result.LOST
            self.words[self.word + DONE // _WORD] = request


class LaneTable:
    """The lanes in use. Every method may be called by any thread."""

    def __init__(self, content: memoryview) -> None:
        self._words = content[:BODIES].cast("I")
        self._lock = threading.Lock()
        self._free = list(reversed(range(LANES)))
        self._used: dict[int, Doorbell] = {}
        self._is_closed = False
        self._sweeper: threading.Thread | None = None

    def take(self, tenant: int) -> Doorbell:
        """A lane for a tenant. Raises :class:`~tensor_wasm.errors.CapacityExhausted` when all are in use."""
        with self._lock:
            if not self._free:
                raise CapacityExhausted("all lanes to the GPU are in use; end instances, or threads that launch")
            lane = Doorbell(self._words, self._free.pop(), tenant)
            self._used[lane.number] = lane
            return lane

    def give(self, lane: Doorbell) -> None:
        """Have a lane's number be free: the worker serves it no more. Safe to call twice."""
        with self._lock:
            if self._used.get(lane.number) is lane:
                del self._used[lane.number]
                self._free.append(lane.number)

    def lose(self, tenant: int | None = None) -> None:
        """Have nobody serve the lanes in use any more, or those of one tenant: what is asked on them ends as lost."""
        with self._lock:
            for lane in self._used.values():
                if tenant is None or lane.tenant == tenant:
                    lane.is_void = True
                    lane.lose()
            if self._sweeper is None and self._used and not self._is_closed:
                self._sweeper = threading.Thread(target=self._sweep, name="gpu-lanes", daemon=True)
                self._sweeper.start()

    def busy(self) -> list[Doorbell]:
        """Those with a request in flight that somebody serves."""
        with self._lock:
            return [lane for lane in self._used.values() if lane.is_busy and not lane.is_void]

    def first(self) -> Doorbell | None:
        """Of those, the one whose request the driver took first; None where it has taken none.

        A GPU begins what it took in that order, as far as there is room: this one runs, and holds up what came later.
        """
        taken = [(lane.accepted_ns, lane) for lane in self.busy()]
        return min((pair for pair in taken if pair[0]), key=lambda pair: pair[0], default=(0, None))[1]

    def close(self) -> None:
        """Lose all, and look at no lane any more."""
        self.lose()
        with self._lock:
            self._is_closed = True

    def _sweep(self) -> None:
        """End what is asked on void lanes: whoever asks may be WebAssembly that waits for an answer on the board."""
        while True:
            with self._lock:
                void = [lane for lane in self._used.values() if lane.is_void]
                for lane in void:
                    lane.lose()
                if self._is_closed or not void:
                    self._sweeper = None
                    return
            time.sleep(_SWEEP_S)
