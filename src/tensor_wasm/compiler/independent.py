"""Kernels whose threads never wait for each other: the blocks one after another, and their rows in strips."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tensor_wasm.compiler.axes import increment, nest, push_least, skip_empty
from tensor_wasm.compiler.grid import LAUNCH_PARAMETERS, coordinates, each_block, push_neighbours, write_entries
from tensor_wasm.compiler.limits import check_size
from tensor_wasm.compiler.lowering import enter
from tensor_wasm.compiler.ordering import is_ordered
from tensor_wasm.compiler.special import Coordinates
from tensor_wasm.compiler.strips.code import make_strip, push_bits_below, run_strip
from tensor_wasm.compiler.strips.parts import Parts
from tensor_wasm.compiler.strips.plan import KernelPlan, RegionPlan
from tensor_wasm.compiler.strips.rows import ROW_MAX, Carried, Row, Segments, find_segments
from tensor_wasm.compiler.strips.strip import Strip, scalar_types
from tensor_wasm.ptx.program import Kernel
from tensor_wasm.wasm import Function, Global, Label, Local, ValType

I32 = ValType.I32
#: What a row is given: the launch's eight, the block's three, its y and z, its first thread, how many it has, and where
#: it goes on.
_ROW_PARAMETERS = 16


def write_run(parts: Parts, kernel: Kernel, plan: KernelPlan, *, is_joined: bool) -> None:
    """Write the function for a run of blocks; where rows can go without tests, others are a function of their own.

    ``is_joined``: neighbouring blocks may be done as one (see :mod:`.joining`).
    """
    run = write_entries(parts.module)
    body = run.code
    at = coordinates(run, parts.clock)
    (region,) = plan.regions
    strip = make_strip(parts, plan, region, body, at, None)
    _, y, z = at.thread_index
    skip_empty(body, at)
    enter(strip.first, parts.base, parts.variables)
    joint = Joint(run, at, plan.width) if is_joined else None
    # A row without tests has another order of accesses than the text.
    is_free = not any(is_ordered(i) for block in kernel.blocks for i in block.instructions)
    segments = find_segments(strip, region) if is_free else None
    if segments is None:
        row = _in_strips(strip, region)
    else:
        row = _in_rows(strip, segments, _write_row(parts, kernel, plan, segments), joint)

    def block() -> None:
        for axis, variable in enumerate(parts.block_globals):
            body.get(at.block_index[axis])
            body.global_set(variable)
        body.i32_const(0)
        body.set(at.thread)
        nest(body, (y, z), at.block[1:], row)

    if joint is None:
        each_block(run, at, block)
    else:
        each_block(run, at, lambda: joint.write(parts.row_global, block), joint.count)
    check_size(kernel, body)


class Joint:
    """Writes how many blocks are done as one, ``count`` of them.

    Rows have up to :data:`ROW_MAX` threads where blocks have one row; else as many as fill a strip, so that what a
    block's rows have in common stays near. Where the tests of a whole row fail, half as many are tried.
    """

    def __init__(self, run: Function, at: Coordinates, width: int) -> None:
        body = self._body = run.code
        self._run, self._at, self._width = run, at, width
        self.count = body.local(I32)
        self._row = at.row = body.local(I32)
        self._least, self._most, self._want = body.local(I32), body.local(I32), body.local(I32)
        self._again: Label | None = None
        self._enter()

    def _enter(self) -> None:
        body, (x, y, z) = self._body, self._at.block
        body.i32_const(self._width - 1)
        body.get(x)
        body.op("i32.add")
        body.get(x)
        body.op("i32.div_u")
        body.set(self._least)
        body.i32_const(ROW_MAX)
        body.get(x)
        body.op("i32.div_u")
        body.get(self._least)
        body.get(y)
        body.get(z)
        body.op("i32.or")
        body.i32_const(1)
        body.op("i32.eq", "select")
        body.tee(self._most)
        body.set(self._want)

    def write(self, row_global: Global, blocks: Callable[[], None]) -> None:
        """Write ``blocks`` for the next few of the run."""
        body, count = self._body, self.count
        with body.loop() as self._again:
            push_neighbours(self._run, self._at)
            body.set(count)
            push_least(body, count, self._want)
            body.tee(count)
            body.get(self._at.block[0])
            body.op("i32.mul")
            body.tee(self._row)
            body.global_set(row_global)
            blocks()
        body.get(count)
        body.i32_const(1)
        body.op("i32.shl")
        body.set(self._want)
        push_least(body, self._want, self._most)
        body.set(self._want)

    def try_fewer(self, state: Local) -> None:
        """Write what begins again, with fewer blocks, where nothing of these was done yet."""
        body = self._body
        assert self._again is not None
        body.get(state)
        body.get(self._at.thread)
        body.op("i32.or", "i32.eqz")
        body.get(self.count)
        body.get(self._least)
        body.op("i32.gt_u", "i32.and")
        with body.if_():
            body.get(self._least)
            body.get(self.count)
            body.i32_const(1)
            body.op("i32.shr_u")
            body.tee(self._want)
            body.get(self._least)
            body.get(self._want)
            body.op("i32.gt_u", "select")
            body.set(self._want)
            body.br(self._again)


def _write_row(parts: Parts, kernel: Kernel, plan: KernelPlan, segments: Segments) -> Function:
    """``row(launch, block, y, z, thread, threads, state, carried …)``: the rest of a row, by strips with all tests.

    It goes on at segment ``state``; ``carried`` are the scalars of the registers that are alive there, for the row's
    first thread.
    """
    kinds = [I32] * _ROW_PARAMETERS
    for register in segments.carried:
        kinds += scalar_types(plan.shapes, register)
    function = parts.module.function(kinds, name="row")
    body = function.code
    at = Coordinates(function, parts.clock, function.parameters[8:11])
    (region,) = plan.regions
    strip = make_strip(parts, plan, region, body, at, None)
    enter(strip.first, parts.base, parts.variables)
    y, z, thread, at.row, state, *given = function.parameters[11:]
    for own, source in zip((*at.thread_index[1:], at.thread), (y, z, thread), strict=True):
        body.get(source)
        body.set(own)
    carried = Carried(strip, segments.carried, given)
    _in_strips(strip, region, lambda: carried.set(at.thread_index[0]), (state, tuple(segments.by_head)))()
    check_size(kernel, body)
    return function


def _in_rows(strip: Strip, segments: Segments, slow: Function, joint: Joint | None) -> Callable[[], None]:
    """A row without tests for each strip, as far as that goes, and then by the function ``slow``."""
    body, at = strip.body, strip.first.coordinates

    def bail() -> None:
        if joint is not None:
            joint.try_fewer(row.state)
        launch = body.parameters[:LAUNCH_PARAMETERS]
        for argument in (*launch, *at.block_index, *at.thread_index[1:], at.thread, strip.row, row.state):
            body.get(argument)
        for register in segments.carried:
            strip.push_scalars(register)
        body.call(slow)

    row = Row(strip, segments, bail)

    def write() -> None:
        row.write()
        body.get(at.thread)
        body.get(strip.row)
        body.op("i32.add")
        body.set(at.thread)

    return write


def _in_strips(
    strip: Strip,
    region: RegionPlan,
    prepare: Callable[[], None] | None = None,
    entry: tuple[Local, Sequence[int]] | None = None,
) -> Callable[[], None]:
    """A row strip by strip; ``prepare`` writes what sets the registers of one, ``entry`` says where it starts."""
    body, at = strip.body, strip.first.coordinates
    x = at.thread_index[0]
    left = body.local(I32)

    def row() -> None:
        body.i32_const(0)
        body.set(x)
        body.get(strip.row)
        body.set(left)
        with body.loop() as again:
            body.i32_const(strip.all_bits)
            push_bits_below(body, left)
            body.get(left)
            body.i32_const(strip.width)
            body.op("i32.ge_s", "select")
            body.set(strip.mask.bits)
            strip.enter()
            if prepare is None:
                run_strip(strip, region, region.allocation.undefined)
            else:
                prepare()
                run_strip(strip, region, (), entry)
            increment(body, x, strip.width)
            increment(body, at.thread, strip.width)
            increment(body, left, -strip.width)
            body.get(left)
            body.i32_const(0)
            body.op("i32.gt_s")
            body.br_if(again)
        # The last strip counted lanes that the row has not.
        body.get(at.thread)
        body.get(left)
        body.op("i32.add")
        body.set(at.thread)

    return row
