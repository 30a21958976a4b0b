"""The part of the gate that notes a traced launch in its instance's ring.

It is in a launch function of its own, which stands in the link's table while an instance is traced: one that is not
traced does not even ask.
"""

from __future__ import annotations

from collections.abc import Sequence

from tensor_wasm.dispatch import layout, scratch
from tensor_wasm.dispatch.gate_words import I32, I64, LEDGER, SCRATCH
from tensor_wasm.wasm import Body, Function, Local

#: What a GPU says of its time: where it stands in an event, and where in scratch memory.
_DEVICE_TIMES = (
    (layout.EVENT_KERNEL_NS, scratch.GPU_KERNEL_NS),
    (layout.EVENT_COPY_IN_NS, scratch.GPU_COPY_IN_NS),
    (layout.EVENT_COPY_OUT_NS, scratch.GPU_COPY_OUT_NS),
)


class Notes:
    """Writes the code that notes one launch: :meth:`begin`, then :meth:`run` before its kernel, :meth:`measure` after
    it where a GPU ran it, then :meth:`end`.

    An event is in the ring before its kernel runs: a launch that faults is the last one there, and still open.
    """

    def __init__(self, body: Body, slot: Local) -> None:
        self._body = body
        self._slot = slot
        self._event = body.local(I32)

    def begin(self, kernel: Local, axes: Sequence[Local], shared_bytes: Local, entered: Local) -> None:
        """Take the next place of the ring, and note what is launched. ``axes`` are the grid's and the block's."""
        self._take_place()
        self._store("i64", layout.EVENT_KERNEL, kernel)
        for position, axis in enumerate(axes):
            self._store("i32", layout.EVENT_GRID + 4 * position, axis)
        self._store("i32", layout.EVENT_SHARED, shared_bytes)
        self._store("i64", layout.EVENT_ENTERED, entered)
        self._store_constant("i32", layout.EVENT_CODE, layout.EVENT_OPEN)
        self._store_constant("i32", layout.EVENT_KIND, layout.KIND_LAUNCH)
        zeros = (layout.EVENT_WAITED, layout.EVENT_STARTED, layout.EVENT_ENDED)
        for field in (*zeros, *(field for field, _ in _DEVICE_TIMES)):
            self._store_constant("i64", field, 0)

    def run(self, started: Local) -> None:
        """Note that the kernel begins."""
        self._store("i64", layout.EVENT_STARTED, started)
        self._move_wait()

    def measure(self) -> None:
        """Note how long the GPU took."""
        for field, place in _DEVICE_TIMES:
            self._body.get(self._event)
            self._body.i32_const(0)
            self._body.memory("i64.load", place, memory=SCRATCH)
            self._body.memory("i64.store", field, memory=LEDGER)

    def end(self, code: Local, ended: Local, clock: Function) -> None:
        """Note what the launch came to; a refused one ends now."""
        body = self._body
        body.get(code)
        with body.if_():
            self._move_wait()
            body.get(self._slot)
            body.call(clock)
            body.set(ended)
        self._store("i64", layout.EVENT_ENDED, ended)
        self._store("i32", layout.EVENT_CODE, code)

    def _take_place(self) -> None:
        body, event = self._body, self._event
        ring, count = body.local(I32), body.local(I64)
        body.get(self._slot)
        body.memory("i32.load", layout.RING, memory=LEDGER)
        body.tee(ring)
        body.get(ring)
        body.memory("i64.load", layout.RING_EVENTS, memory=LEDGER)
        body.tee(count)
        body.i64_const(1)
        body.op("i64.add")
        body.memory("i64.store", layout.RING_EVENTS, memory=LEDGER)
        body.get(count)
        body.get(count)
        body.i64_const(layout.RING_LAST - 1)
        body.op("i64.and")
        body.i64_const(layout.RING_FIRST)
        body.op("i64.add")
        body.get(count)
        body.i64_const(layout.RING_FIRST)
        body.op("i64.lt_u", "select", "i32.wrap_i64")
        body.i32_const(layout.EVENT_BYTES)
        body.op("i32.mul")
        body.get(ring)
        body.op("i32.add")
        body.i32_const(layout.RING_HEADER_BYTES)
        body.op("i32.add")
        body.set(event)
        body.release(ring, count)

    def _move_wait(self) -> None:
        body = self._body
        body.get(self._event)
        body.get(self._slot)
        body.memory("i64.load", layout.WAITED_NS, memory=LEDGER)
        body.memory("i64.store", layout.EVENT_WAITED, memory=LEDGER)
        body.get(self._slot)
        body.i64_const(0)
        body.memory("i64.store", layout.WAITED_NS, memory=LEDGER)

    def _store(self, kind: str, field: int, value: Local) -> None:
        self._body.get(self._event)
        self._body.get(value)
        self._body.memory(f"{kind}.store", field, memory=LEDGER)

    def _store_constant(self, kind: str, field: int, value: int) -> None:
        self._body.get(self._event)
        (self._body.i32_const if kind == "i32" else self._body.i64_const)(value)
        self._body.memory(f"{kind}.store", field, memory=LEDGER)
