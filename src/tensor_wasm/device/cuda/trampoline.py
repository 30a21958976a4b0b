"""The trampoline: what stands in a guest's store for a kernel that runs on a GPU, in WebAssembly.

It has a kernel's exports, so the gate calls it as one. It copies the guest pointers' bytes to the staging area, writes
the launch on the lane's part of the board, waits until that says it is over, and copies the bytes back. The host is
asked only where the bytes do not fit what the guest has on the device.

All bytes between the first and the last that a guest pointer shows have one place on the device, the *arena*: pointers
keep their distances, and what overlaps stays one. Which of these bytes are copied depends on how many lie between.

A guest that is ended while it waits leaves its request on the board, and the lane busy: the host's to deal with.
"""

from __future__ import annotations

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
REGION_BYTES: Final = 16

#: So many bytes at most are copied at a time: between two times the guest can be ended.
_COPY_BYTES: Final = 8 << 20
#: All bytes between the first and the last of the guest pointers' are copied at once when those that nobody asked for
#: are at most half as many as the others.
_DENSE_BYTES, _DENSE_SPAN = 3, 2
#: Looks at the board without sleeping, some 50 µs: as long as it takes to fall asleep and wake up.
_SPINS: Final = 2500
#: Then the sleep is this part of what was slept so far: a launch is noticed late by a small part of its time.
_SLEEP_SHIFT: Final = 4
_SLEEP_MIN_NS, _SLEEP_MAX_NS = 50_000, 1_000_000


@cache
def trampoline() -> bytes:
    """The module. Imports what every kernel does, then the board's memory, the ledger's, and three host functions:

    - ``reach(low, high) -> i32``: all bytes of guest memory from ``low``, a multiple of ``ARENA_ALIGNMENT``, to before
      ``high`` are to have a place on the device; both are u32, and a ``high`` of 0 means 4 GiB. The host makes room and
      places the guest anew, see :meth:`Gate.place`. It gives 0 when the staging area has room for as many bytes too,
      or else copies the bytes of the guest pointers to the device itself, and gives 1.
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
    copy_in = _copy(module, "copy_in", _BOARD, _GUEST)
    copy_out = _copy(module, "copy_out", _GUEST, _BOARD)
    run = module.function([I32] * LAUNCH_PARAMETERS, export="run")
    writer = _Run(run.code, reach, fail)
    *shape, parameters = run.parameters
    writer.find_places()
    writer.measure()
    writer.make_room()
    writer.write_parameters(base, parameters)
    writer.write_windows(copy_in)
    writer.ask(base, shape)
    writer.wait()
    writer.take_result()
    writer.copy_back(copy_out, fetch)
    # Launches on several cores are for kernels that run in WebAssembly.
    module.function([I32] * SHARE_PARAMETERS, export="share").code.op("unreachable")
    return module.encode().wasm


def _copy(module: Module, name: str, to_memory: int, from_memory: int) -> Function:
    """``(to, from, bytes)``: copy in pieces."""
    function = module.function([I32] * 3, name=name)
    body, (to, source, left) = function.code, function.parameters
    piece = body.local(I32)
    with body.block() as done, body.loop() as again:
        body.get(left)
        body.op("i32.eqz")
        body.br_if(done)
        body.get(left)
        body.i32_const(_COPY_BYTES)
        body.get(left)
        body.i32_const(_COPY_BYTES)
        body.op("i32.lt_u", "select")
        body.set(piece)
        for operand in (to, source, piece):
            body.get(operand)
        body.memory_copy(to_memory, from_memory)
        for place, change in ((to, "i32.add"), (source, "i32.add"), (left, "i32.sub")):
            body.get(place)
            body.get(piece)
            body.op(change)
            body.set(place)
        body.br(again)
    return function


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
        #: The first of them rounded down: what lies there in the arena and in the staging area comes first.
        self.low = body.local(I32)
        #: Who copies: the host; else all at once, or each pointer's by itself.
        self.by_host, self.is_dense = body.local(I32), body.local(I32)
        #: Where the staging area's part is in the board's memory.
        self.staging = body.local(I32)

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
            body.get(start)
            body.op("i64.extend_i32_u")
            body.get(size)
            body.op("i64.extend_i32_u", "i64.add")
            body.tee(end)
            body.get(self.end)
            body.op("i64.gt_u")
            with body.if_():
                body.get(end)
                body.set(self.end)
            body.get(start)
            body.op("i64.extend_i32_u")
            body.get(self.start)
            body.op("i64.lt_u")
            with body.if_():
                body.get(start)
                body.op("i64.extend_i32_u")
                body.set(self.start)
        body.get(self.start)
        body.op("i32.wrap_i64")
        body.i32_const(-scratch.ARENA_ALIGNMENT)
        body.op("i32.and")
        body.set(self.low)
        body.release(end)

    def make_room(self) -> None:
        """Ask the host where the arena or the staging area is too small, and find out who copies what."""
        body = self.body
        span = body.local(I64)
        with body.block() as nothing:
            body.get(self.sum)
            body.op("i64.eqz")
            body.br_if(nothing)
            body.get(self.end)
            body.get(self.low)
            body.op("i64.extend_i32_u", "i64.sub")
            body.set(span)
            for number, size in enumerate((scratch.GPU_ARENA_BYTES, scratch.GPU_STAGING_BYTES)):
                body.get(span)
                self.load_word(size, "i64.load32_u")
                body.op("i64.gt_u", *["i32.or"] * number)
            with body.if_():
                body.get(self.low)
                body.get(self.end)
                body.op("i32.wrap_i64")
                body.call(self.reach)
                body.tee(self.by_host)
                body.br_if(nothing)
                body.get(span)
                self.load_word(scratch.GPU_STAGING_BYTES, "i64.load32_u")
                body.op("i64.gt_u")
                with body.if_():  # what lies behind it is another guest's
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
            self.load_word(scratch.GPU_STAGING)
            body.i32_const(board.BYTES)
            body.op("i32.add")
            body.set(self.staging)
        body.release(span)

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

    def write_windows(self, copy_in: Function) -> None:
        """Copy the bytes to the staging area, and write which go where."""
        body = self.body
        place = body.local(I32)
        body.i32_const(0)
        body.set(self.windows)
        with body.block() as nothing:
            body.get(self.by_host)
            body.get(self.sum)
            body.op("i64.eqz", "i32.or")
            body.br_if(nothing)
            body.get(self.place)
            body.set(place)
            body.get(self.is_dense)
            with body.if_():
                start, size = body.local(I32), body.local(I32)
                self.take_dense(start, size)
                self.write_window(place, start, size, copy_in)
                body.release(start, size)
                body.else_()
                with self.each_pointer() as (_, start, size, next_pointer):
                    self.skip_if_empty(size, next_pointer)
                    self.write_window(place, start, size, copy_in)
        body.release(place)

    def take_dense(self, start: Local, size: Local) -> None:
        """The window of all bytes; there are less than 4 GiB, since the staging area has room for them."""
        body = self.body
        body.get(self.start)
        body.op("i32.wrap_i64")
        body.set(start)
        body.get(self.end)
        body.get(self.start)
        body.op("i64.sub", "i32.wrap_i64")
        body.set(size)

    def write_window(self, place: Local, start: Local, size: Local, copy_in: Function) -> None:
        """Write the next window, of which ``place`` is board.WINDOWS before, and copy its bytes to the staging area."""
        body = self.body
        self.push_staged(start)
        body.get(start)
        body.get(size)
        body.call(copy_in)
        with self.storing(place, board.WINDOWS + board.WINDOW_ADDRESS, "i64.store"):
            self.push_address(start)
        with self.storing(place, board.WINDOWS + board.WINDOW_STAGING):
            self.load_word(scratch.GPU_STAGING)
            body.get(start)
            body.get(self.low)
            body.op("i32.sub", "i32.add")
        with self.storing(place, board.WINDOWS + board.WINDOW_SIZE):
            body.get(size)
        with self.storing(place, board.WINDOWS + board.WINDOW_DIRECTION):
            body.i32_const(Direction.IN | Direction.OUT)
        for local, step in ((place, board.WINDOW_BYTES), (self.windows, 1)):
            body.get(local)
            body.i32_const(step)
            body.op("i32.add")
            body.set(local)

    def push_staged(self, start: Local) -> None:
        """Push where in the board's memory a byte of guest memory is staged."""
        body = self.body
        body.get(self.staging)
        body.get(start)
        body.get(self.low)
        body.op("i32.sub", "i32.add")

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
        """Have the host end the guest unless all went well; note when the driver had the launch."""
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
        body.release(result, line)

    def copy_back(self, copy_out: Function, fetch: Function) -> None:
        """Copy the bytes from where they came."""
        body = self.body
        body.get(self.by_host)
        with body.if_():
            body.call(fetch)
            body.op("return")
        body.get(self.windows)
        body.op("i32.eqz")
        with body.if_():
            body.op("return")
        body.get(self.is_dense)
        with body.if_():
            start, size = body.local(I32), body.local(I32)
            self.take_dense(start, size)
            self.copy_window_back(start, size, copy_out)
            body.release(start, size)
            body.else_()
            with self.each_pointer() as (_, start, size, next_pointer):
                self.skip_if_empty(size, next_pointer)
                self.copy_window_back(start, size, copy_out)

    def copy_window_back(self, start: Local, size: Local, copy_out: Function) -> None:
        self.body.get(start)
        self.push_staged(start)
        self.body.get(size)
        self.body.call(copy_out)
