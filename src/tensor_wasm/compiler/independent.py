"""Kernels whose threads never wait for each other: the blocks one after another, and their rows in strips."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tensor_wasm.compiler.axes import increment, nest, skip_empty
from tensor_wasm.compiler.grid import LAUNCH_PARAMETERS, coordinates, each_block, write_entries
from tensor_wasm.compiler.limits import check_size
from tensor_wasm.compiler.lowering import enter
from tensor_wasm.compiler.ordering import is_ordered
from tensor_wasm.compiler.special import Coordinates
from tensor_wasm.compiler.strips.code import make_strip, push_bits_below, run_strip
from tensor_wasm.compiler.strips.parts import Parts
from tensor_wasm.compiler.strips.plan import KernelPlan, RegionPlan
from tensor_wasm.compiler.strips.rows import Carried, Row, Segments, find_segments
from tensor_wasm.compiler.strips.strip import Strip, scalar_types
from tensor_wasm.ptx.program import Kernel
from tensor_wasm.wasm import Function, Local, ValType

I32 = ValType.I32
#: What a row is given: the launch's eight, the block's three, its y and z, its first thread, and where it goes on.
_ROW_PARAMETERS = 15


def write_run(parts: Parts, kernel: Kernel, plan: KernelPlan) -> None:
    """Write the function for a run of blocks; where rows can go without tests, others are a function of their own."""
    run = write_entries(parts.module)
    body = run.code
    at = coordinates(run, parts.clock)
    (region,) = plan.regions
    strip = make_strip(parts, plan, region, body, at, None)
    _, y, z = at.thread_index
    skip_empty(body, at)
    enter(strip.first, parts.base, parts.variables)
    # A row without tests has another order of accesses than the text.
    is_free = not any(is_ordered(i) for block in kernel.blocks for i in block.instructions)
    segments = find_segments(strip, region) if is_free else None
    if segments is None:
        row = _in_strips(strip, region)
    else:
        row = _in_rows(strip, segments, _write_row(parts, kernel, plan, segments))

    def block() -> None:
        for axis, variable in enumerate(parts.block_globals):
            body.get(at.block_index[axis])
            body.global_set(variable)
        body.i32_const(0)
        body.set(at.thread)
        nest(body, (y, z), at.block[1:], row)

    each_block(run, at, block)
    check_size(kernel, body)


def _write_row(parts: Parts, kernel: Kernel, plan: KernelPlan, segments: Segments) -> Function:
    """``row(launch, block, y, z, thread, state, carried …)``: the rest of a row, strip by strip with all tests.

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
    y, z, thread, state, *given = function.parameters[11:]
    for own, source in zip((*at.thread_index[1:], at.thread), (y, z, thread), strict=True):
        body.get(source)
        body.set(own)
    carried = Carried(strip, segments.carried, given)
    _in_strips(strip, region, lambda: carried.set(at.thread_index[0]), (state, tuple(segments.by_head)))()
    check_size(kernel, body)
    return function


def _in_rows(strip: Strip, segments: Segments, slow: Function) -> Callable[[], None]:
    """A row without tests for each strip, as far as that goes, and then by the function ``slow``."""
    body, at = strip.body, strip.first.coordinates

    def bail() -> None:
        launch = body.parameters[:LAUNCH_PARAMETERS]
        for argument in (*launch, *at.block_index, *at.thread_index[1:], at.thread, row.state):
            body.get(argument)
        for register in segments.carried:
            strip.push_scalars(register)
        body.call(slow)

    row = Row(strip, segments, bail)

    def write() -> None:
        row.write()
        body.get(at.thread)
        body.get(at.block[0])
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
        body.get(at.block[0])
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
