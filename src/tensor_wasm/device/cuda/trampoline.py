"""The trampoline: what stands in a guest's store for a kernel that runs on a GPU, in WebAssembly.

It has a kernel's exports, so the gate calls it as one. It writes the launch on the lane's part of the board and waits
until that says it is over. The bytes of guest pointers are copied by the GPU itself, to and from pages of the staging
area that are the guest's memory at the same time. The host is asked where they are not, or do not fit what the guest
has on the device.

All bytes between the first and the last that a guest pointer shows have one place on the device, the *arena*: pointers
keep their distances, and what overlaps stays one. Which of these bytes are copied there depends on how many lie
between; back go those of pointers that the kernel may write through.

A guest that is ended while it waits leaves its request on the board, and the lane busy: the host's to deal with.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Final

from tensor_wasm.compiler.grid import LAUNCH_PARAMETERS, SHARE_PARAMETERS
from tensor_wasm.device.cuda import board
from tensor_wasm.device.cuda.board import Direction, Result
from tensor_wasm.dispatch import layout, scratch
from tensor_wasm.wasm import Body, Function, Global, Label, Local, Module, ValType

I32, I64 = ValType.I32, ValType.I64
_GUEST, _SCRATCH, _BOARD, _LEDGER = range(4)

# A kernel's region in scratch memory, which the host writes.
KERNEL: Final = 0  # u32: its number, as the worker gave it
PARAMETER_BYTES: Final = 4  # u32
WRITTEN: Final = 8  # a bit for each 64-bit word of the parameter block: whether it writes through a pointer there
_WRITTEN_BYTES: Final = board.PARAMETERS_MAX // 64
REGION_BYTES: Final = WRITTEN + _WRITTEN_BYTES

#: All bytes between the first and the last of the guest pointers' are copied at once when those that nobody asked for
#: are at most half as many as the others.
_DENSE_BYTES, _DENSE_SPAN = 3, 2
#: Looks at the board without sleeping, some 50 µs: as long as it takes to fall asleep and wake up.
_SPINS: Final = 2500
#: Then the sleep is this part of what was slept so far: a launch is noticed late by a small part of its time.
_SLEEP_SHIFT: Final = 4
_SLEEP_MIN_NS, _SLEEP_MAX_NS = 50_000, 1_000_000


def region(kernel: int, parameter_bytes: int, written: int) -> bytes:
    """A kernel's region. ``written`` has a bit for each 64-bit word of the parameter block that the kernel may write
    through.
    """
    return struct.pack("<2I", kernel, parameter_bytes) + written.to_bytes(_WRITTEN_BYTES, "little")


@cache
def trampoline() -> bytes:
    """The module. Imports what every kernel does, then the board's memory, the ledger's, and three host functions:

    - ``reach(low, high) -> i32``: all bytes of guest memory from ``low``, a multiple of ``ARENA_ALIGNMENT``, to before
      ``high`` are to have a place on the device; both are u32, and a ``high`` of 0 means 4 GiB. The host makes room and
      places the guest anew, see :meth:`Gate.place`. It gives 0 when the staging area has those bytes too, or else
      copies the bytes of the guest pointers to the device itself, and gives 1.
    - ``fetch()``: after a launch for which it gave 1, copy those bytes back.
    - ``fail(result, fault line)``: the launch failed. It does not return.
    """
    module = Module()
    module.import_memory("guest", "memory")
    module.import_memory("gate", "scratch")
    base = module.import_global("gate", "base", I32)
    module.import_global("gate", "variables", I32)
    module.import_memory("gpu", "board")
    module.import_memory("ledger", "memory", layout.PAGES, layout.PAGES, shared=True)
    reach = module.import_function("host", "reach", [I32, I32], [I32])
    fetch = module.import_function("host", "fetch", [])
    fail = module.import_function("host", "fail", [I32, I32])
    run = module.function([I32] * LAUNCH_PARAMETERS, export="run")
    writer = _Run(run.code, reach, fail)
    *shape, parameters = run.parameters
    writer.find_places()
    writer.measure()
    writer.make_room()
    writer.write_parameters(base, parameters)
    writer.write_windows(base)
    writer.ask(base, shape)
    writer.wait()
    writer.take_result()
    run.code.get(writer.by_host)
    with run.code.if_():
        run.code.call(fetch)
    # Launches on several cores are for kernels that run in WebAssembly.
    module.function([I32] * SHARE_PARAMETERS, export="share").code.op("unreachable")
    return module.encode().wasm


class _Run:
    """Writes a launch, step by step."""

    def __init__(self, body: Body, reach: Function, fail: Function) -> None:
        self.body = body
        self.reach = reach
        self.fail = fail
        #: Where the lane's doorbell and body are on the board, and the request's number.
        self.doorbell, self.place, self.request = (body.local(I32) for _ in range(3))
        #: How many guest pointers there are, and how many windows go on the board.
        self.pointers, self.windows = body.local(I32), body.local(I32)
        #: Bytes of guest memory that pointers show: first, one after the last, and the sum over pointers.
        self.start, self.end, self.sum = (body.local(I64) for _ in range(3))
        #: The first of them rounded down: what lies there in guest memory comes first in the arena.
        self.low = body.local(I32)
        #: Who copies: the host; else all at once, or each pointer's by itself.
        self.by_host, self.is_dense = body.local(I32), body.local(I32)

    # --- memory -----------------------------------------------------------------------------------------

    def load_word(self, place: int, load: str = "i32.load") -> None:
        """Push a word of scratch memory."""
        self.body.i32_const(0)
        self.body.memory(load, place, memory=_SCRATCH)

    @contextmanager
    def storing(self, base: Local, place: int, store: str = "i32.store", align: int | None = None) -> Iterator[None]:
        """Store on the board what is pushed inside."""
        self.body.get(base)
        yield
        self.body.memory(store, place, align=align, memory=_BOARD)

    @contextmanager
    def each_pointer(self) -> Iterator[tuple[Local, Local, Local, Label]]:
        """The list of guest pointers: where the entry is, where in guest memory the bytes start, how many there are.

        A branch to the label goes on with the next one.
        """
        body = self.body
        entry, left = body.local(I32), body.local(I32)
        start, size = body.local(I32), body.local(I32)
        body.i32_const(scratch.WINDOWS)
        body.set(entry)
        body.get(self.pointers)
        body.set(left)
        with body.block() as done, body.loop() as again:
            body.get(left)
            body.op("i32.eqz")
            body.br_if(done)
            for local, place in ((start, scratch.WINDOW_START), (size, scratch.WINDOW_SIZE)):
                body.get(entry)
                body.memory("i32.load", place, memory=_SCRATCH)
                body.set(local)
            with body.block() as next_pointer:
                yield entry, start, size, next_pointer
            for local, step in ((entry, scratch.WINDOW_BYTES), (left, -1)):
                body.get(local)
                body.i32_const(step)
                body.op("i32.add")
                body.set(local)
            body.br(again)
        body.release(entry, left, start, size)

    def skip_if_empty(self, size: Local, next_pointer: Label) -> None:
        self.body.get(size)
        self.body.op("i32.eqz")
        self.body.br_if(next_pointer)

    def give_up(self, result: Result) -> None:
        self.body.i32_const(result)
        self.body.i32_const(0)
        self.body.call(self.fail)
        self.body.op("unreachable")

    # --- before the launch ------------------------------------------------------------------------------

    def find_places(self) -> None:
        """Find the lane, which must be idle."""
        body = self.body
        for place, stride, start in (
            (self.doorbell, board.DOORBELL_BYTES, 0),
            (self.place, board.BODY_BYTES, board.BODIES),
        ):
            self.load_word(scratch.GPU_LANE)
            body.i32_const(stride)
            body.op("i32.mul")
            body.i32_const(start)
            body.op("i32.add")
            body.set(place)
        body.get(self.doorbell)
        body.memory("i32.atomic.load", board.REQUEST, memory=_BOARD)
        body.tee(self.request)
        body.get(self.doorbell)
        body.memory("i32.atomic.load", board.DONE, memory=_BOARD)
        body.op("i32.ne")
        with body.if_():
            self.give_up(Result.REFUSED)
        body.get(self.request)
        body.i32_const(1)
        body.op("i32.add")
        body.set(self.request)

    def measure(self) -> None:
        """Find which bytes of guest memory the pointers show. 64 bits: the last may be the last of 4 GiB."""
        body = self.body
        end = body.local(I64)
        self.load_word(scratch.WINDOW_COUNT)
        body.set(self.pointers)
        for local, value in ((self.start, 1 << 32), (self.end, 0), (self.sum, 0)):
            body.i64_const(value)
            body.set(local)
        with self.each_pointer() as (_, start, size, next_pointer):
            self.skip_if_empty(size, next_pointer)
            body.get(self.sum)
            body.get(size)
            body.op("i64.extend_i32_u", "i64.add")
            body.set(self.sum)
            self.widen(start, size, self.start, self.end, end)
        body.get(self.start)
        body.op("i32.wrap_i64")
        body.i32_const(-scratch.ARENA_ALIGNMENT)
        body.op("i32.and")
        body.set(self.low)
        body.release(end)

    def widen(self, start: Local, size: Local, first: Local, end: Local, scrap: Local) -> None:
        """Have the 64-bit range from ``first`` to before ``end`` span ``size`` bytes from ``start`` too."""
        body = self.body
        body.get(start)
        body.op("i64.extend_i32_u")
        body.get(size)
        body.op("i64.extend_i32_u", "i64.add")
        body.tee(scrap)
        body.get(end)
        body.op("i64.gt_u")
        with body.if_():
            body.get(scrap)
            body.set(end)
        body.get(start)
        body.op("i64.extend_i32_u")
        body.get(first)
        body.op("i64.lt_u")
        with body.if_():
            body.get(start)
            body.op("i64.extend_i32_u")
            body.set(first)

    def make_room(self) -> None:
        """Ask the host where the arena is too small or bytes are not in the staging area, and find out who copies."""
        body = self.body
        with body.block() as nothing:
            body.get(self.sum)
            body.op("i64.eqz")
            body.br_if(nothing)
            body.get(self.end)
            body.get(self.low)
            body.op("i64.extend_i32_u", "i64.sub")
            self.load_word(scratch.GPU_ARENA_BYTES, "i64.load32_u")
            body.op("i64.gt_u")
            self.push_hidden()
            body.op("i32.or")
            with body.if_():
                body.get(self.low)
                body.get(self.end)
                body.op("i32.wrap_i64")
                body.call(self.reach)
                body.tee(self.by_host)
                body.br_if(nothing)
                self.push_hidden()
                with body.if_():  # what lies there is another guest's
                    self.give_up(Result.REFUSED)
            # Neither product comes near 64 bits: argv has no more pointers than fit its records.
            body.get(self.end)
            body.get(self.start)
            body.op("i64.sub")
            body.i64_const(_DENSE_SPAN)
            body.op("i64.mul")
            body.get(self.sum)
            body.i64_const(_DENSE_BYTES)
            body.op("i64.mul", "i64.le_u")
            body.set(self.is_dense)

    def push_hidden(self) -> None:
        """Push whether some of the bytes are not in the staging area."""
        body = self.body
        body.get(self.start)
        self.load_word(scratch.GPU_SHOWN, "i64.load32_u")
        body.op("i64.lt_u")
        body.get(self.end)
        self.load_word(scratch.GPU_SHOWN, "i64.load32_u")
        self.load_word(scratch.GPU_SHOWN_BYTES, "i64.load32_u")
        body.op("i64.add", "i64.gt_u", "i32.or")

    def write_parameters(self, base: Global, parameters: Local) -> None:
        """Copy the parameter block, and make the guest's pointers the device's."""
        body = self.body
        body.get(self.place)
        body.i32_const(board.PARAMETERS)
        body.op("i32.add")
        body.get(parameters)
        body.global_get(base)
        body.memory("i32.load", PARAMETER_BYTES, memory=_SCRATCH)
        body.memory_copy(_BOARD, _SCRATCH)
        with self.each_pointer() as (entry, start, size, _):
            body.get(self.place)
            body.get(entry)
            body.memory("i32.load", scratch.WINDOW_PARAMETER, memory=_SCRATCH)
            body.op("i32.add")
            self.push_address(start)
            self.load_word(scratch.GPU_EMPTY, "i64.load")
            body.get(size)
            body.op("select")
            body.memory("i64.store", board.PARAMETERS, align=0, memory=_BOARD)

    def push_address(self, start: Local) -> None:
        """Push where on the device a byte of guest memory is."""
        body = self.body
        self.load_word(scratch.GPU_ARENA, "i64.load")
        body.get(start)
        body.get(self.low)
        body.op("i32.sub", "i64.extend_i32_u", "i64.add")

    def write_windows(self, base: Global) -> None:
        """Write which bytes go where."""
        body = self.body
        body.i32_const(0)
        body.set(self.windows)
        with body.block() as nothing:
            body.get(self.by_host)
            body.get(self.sum)
            body.op("i64.eqz", "i32.or")
            body.br_if(nothing)
            place, direction = body.local(I32), body.local(I32)
            body.get(self.place)
            body.set(place)
            body.get(self.is_dense)
            with body.if_():
                self.write_dense(place, direction, base)
                body.else_()
                with self.each_pointer() as (entry, start, size, next_pointer):
                    self.skip_if_empty(size, next_pointer)
                    self.push_written(entry, base)
                    body.i32_const(Direction.OUT)
                    body.op("i32.mul")
                    body.i32_const(Direction.IN)
                    body.op("i32.or")
                    body.set(direction)
                    self.write_window(place, start, size, direction)
            body.release(place, direction)

    def write_dense(self, place: Local, direction: Local, base: Global) -> None:
        """One window to the device, of all bytes; one back, from the first to the last that may be written."""
        body = self.body
        first, size, window_end = body.local(I32), body.local(I32), body.local(I64)
        first_written, end_written = body.local(I64), body.local(I64)
        for local, value in ((first_written, 1 << 32), (end_written, 0)):
            body.i64_const(value)
            body.set(local)
        with self.each_pointer() as (entry, start, window_bytes, next_pointer):
            self.skip_if_empty(window_bytes, next_pointer)
            self.push_written(entry, base)
            body.op("i32.eqz")
            body.br_if(next_pointer)
            self.widen(start, window_bytes, first_written, end_written, window_end)
        # There are less than 4 GiB, since the staging area has them.
        for begin, end, way in (
            (self.start, self.end, Direction.IN),
            (first_written, end_written, Direction.OUT),
        ):
            body.get(end)
            body.op("i64.eqz", "i32.eqz")
            with body.if_():
                body.get(begin)
                body.op("i32.wrap_i64")
                body.set(first)
                body.get(end)
                body.get(begin)
                body.op("i64.sub", "i32.wrap_i64")
                body.set(size)
                body.i32_const(way)
                body.set(direction)
                self.write_window(place, first, size, direction)
        body.release(first, size, window_end, first_written, end_written)

    def push_written(self, entry: Local, base: Global) -> None:
        """Push 1 where the kernel may write through a pointer, 0 where it does not."""
        body = self.body
        word = body.local(I32)
        body.get(entry)
        body.memory("i32.load", scratch.WINDOW_PARAMETER, memory=_SCRATCH)
        body.i32_const(3)
        body.op("i32.shr_u")
        body.tee(word)
        body.i32_const(3)
        body.op("i32.shr_u")
        body.global_get(base)
        body.op("i32.add")
        body.memory("i32.load8_u", WRITTEN, memory=_SCRATCH)
        body.get(word)
        body.i32_const(7)
        body.op("i32.and", "i32.shr_u")
        body.i32_const(1)
        body.op("i32.and")
        body.release(word)

    def write_window(self, place: Local, start: Local, size: Local, direction: Local) -> None:
        """Write the next window, of which ``place`` is board.WINDOWS before."""
        body = self.body
        with self.storing(place, board.WINDOWS + board.WINDOW_ADDRESS, "i64.store"):
            self.push_address(start)
        with self.storing(place, board.WINDOWS + board.WINDOW_STAGING):
            self.load_word(scratch.GPU_STAGING)
            body.get(start)
            self.load_word(scratch.GPU_SHOWN)
            body.op("i32.sub", "i32.add")
        for word, value in ((board.WINDOW_SIZE, size), (board.WINDOW_DIRECTION, direction)):
            with self.storing(place, board.WINDOWS + word):
                body.get(value)
        for local, step in ((place, board.WINDOW_BYTES), (self.windows, 1)):
            body.get(local)
            body.i32_const(step)
            body.op("i32.add")
            body.set(local)

    def ask(self, base: Global, shape: Sequence[Local]) -> None:
        """Write the rest of the request, and then its number."""
        body = self.body
        for place, source in ((board.KERNEL, KERNEL), (board.PARAMETER_BYTES, PARAMETER_BYTES)):
            with self.storing(self.place, place):
                body.global_get(base)
                body.memory("i32.load", source, memory=_SCRATCH)
        *axes, shared_bytes = shape
        for number, axis in enumerate(axes):
            with self.storing(self.place, board.GRID + 4 * number):
                body.get(axis)
        for place, value in ((board.SHARED, shared_bytes), (board.WINDOW_COUNT, self.windows)):
            with self.storing(self.place, place):
                body.get(value)
        with self.storing(self.place, board.TIMED):
            self.load_word(scratch.GPU_TIMED)
        for place in (board.RESULT, board.FAULT_LINE):
            with self.storing(self.doorbell, place):
                body.i32_const(0)
        with self.storing(self.doorbell, board.ACCEPTED_NS, "i64.store"):
            body.i64_const(0)
        with self.storing(self.doorbell, board.REQUEST, "i32.atomic.store"):
            body.get(self.request)

    # --- after it ---------------------------------------------------------------------------------------

    def wait(self) -> None:
        """Look at the board until the request is over, at first without sleeping.

        The board is no shared memory to Wasmtime, on which one could wait, and who writes it, a GPU, wakes nobody.
        """
        body = self.body
        spins, slept, sleep = body.local(I32), body.local(I64), body.local(I64)
        body.i32_const(_SPINS)
        body.set(spins)
        body.i64_const(0)
        body.set(slept)
        with body.block() as done:
            with body.loop() as again:
                self.leave_if_over(done)
                body.op("atomic.fence")
                body.get(spins)
                body.i32_const(1)
                body.op("i32.sub")
                body.tee(spins)
                body.br_if(again)
            with body.loop() as again:
                self.leave_if_over(done)
                body.get(slept)
                body.i64_const(_SLEEP_SHIFT)
                body.op("i64.shr_u")
                body.set(sleep)
                for bound, relation in ((_SLEEP_MIN_NS, "i64.gt_u"), (_SLEEP_MAX_NS, "i64.lt_u")):
                    body.get(sleep)
                    body.i64_const(bound)
                    body.get(sleep)
                    body.i64_const(bound)
                    body.op(relation, "select")
                    body.set(sleep)
                body.i32_const(0)
                body.i32_const(0)
                body.get(sleep)
                body.memory("memory.atomic.wait32", layout.QUIET, memory=_LEDGER)
                body.op("drop")
                body.get(slept)
                body.get(sleep)
                body.op("i64.add")
                body.set(slept)
                body.br(again)
        body.release(spins, slept, sleep)

    def leave_if_over(self, done: Label) -> None:
        self.body.get(self.doorbell)
        self.body.memory("i32.atomic.load", board.DONE, memory=_BOARD)
        self.body.get(self.request)
        self.body.op("i32.eq")
        self.body.br_if(done)

    def take_result(self) -> None:
        """Have the host end the guest unless all went well; note when the driver had the launch, and for how long."""
        body = self.body
        result, line = body.local(I32), body.local(I32)
        for local, place in ((result, board.RESULT), (line, board.FAULT_LINE)):
            body.get(self.doorbell)
            body.memory("i32.atomic.load", place, memory=_BOARD)
            body.set(local)
        body.get(result)
        body.get(line)
        body.op("i32.or")
        with body.if_():
            body.get(result)
            body.get(line)
            body.call(self.fail)
            body.op("unreachable")
        body.i32_const(0)
        body.get(self.doorbell)
        body.memory("i64.atomic.load", board.ACCEPTED_NS, memory=_BOARD)
        body.memory("i64.store", scratch.GPU_ACCEPTED_NS, memory=_SCRATCH)
        self.load_word(scratch.GPU_TIMED)
        with body.if_():
            for source, place in (
                (board.KERNEL_NS, scratch.GPU_KERNEL_NS),
                (board.COPY_IN_NS, scratch.GPU_COPY_IN_NS),
                (board.COPY_OUT_NS, scratch.GPU_COPY_OUT_NS),
            ):
                body.i32_const(0)
                body.get(self.doorbell)
                body.memory("i64.atomic.load", source, memory=_BOARD)
                body.memory("i64.store", place, memory=_SCRATCH)
        body.release(result, line)
