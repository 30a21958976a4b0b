"""Kernels whose threads never wait for each other: ``run`` takes the blocks one after another, their rows in strips."""

from __future__ import annotations

from collections.abc import Callable

from tensor_wasm.compiler.limits import check_size
from tensor_wasm.compiler.lowering import enter, increment, nest, skip_empty
from tensor_wasm.compiler.special import Coordinates
from tensor_wasm.compiler.strips.code import make_strip, push_bits_below, run_strip
from tensor_wasm.compiler.strips.parts import Parts
from tensor_wasm.compiler.strips.plan import KernelPlan, RegionPlan
from tensor_wasm.compiler.strips.rows import Path, find_path, is_short_of_wrapping, push_holds, write_strip
from tensor_wasm.compiler.strips.strip import Strip
from tensor_wasm.ptx.program import Kernel
from tensor_wasm.wasm import Function, ValType

I32 = ValType.I32
_LAUNCH_PARAMETERS = 8
#: What a row is given: the launch's eight, the block's three, its y and z, and its first thread.
_ROW_PARAMETERS = 14


def write_run(parts: Parts, kernel: Kernel, plan: KernelPlan) -> None:
    """Write the whole kernel into ``run``; where rows can go without tests, the others are a function of their own."""
    run = parts.module.function((I32,) * _LAUNCH_PARAMETERS, export="run")
    body = run.code
    at = Coordinates(run, parts.clock)
    (region,) = plan.regions
    strip = make_strip(parts, plan, region, body, at, None)
    _, y, z = at.thread_index
    skip_empty(body, at)
    enter(strip.first, parts.base)
    path = find_path(strip, region)
    if path is None or not is_short_of_wrapping(strip, path):
        row = _in_strips(strip, region)
    else:
        row = _in_rows(strip, path, _write_row(parts, kernel, plan))

    def block() -> None:
        for axis, variable in enumerate(parts.block_globals):
            body.get(at.block_index[axis])
            body.global_set(variable)
        body.i32_const(0)
        body.set(at.thread)
        nest(body, (y, z), at.block[1:], row)

    nest(body, at.block_index, at.grid, block)
    check_size(kernel, body)


def _write_row(parts: Parts, kernel: Kernel, plan: KernelPlan) -> Function:
    """``row(launch, block, y, z, thread)``: a row of threads, strip by strip with all tests."""
    function = parts.module.function((I32,) * _ROW_PARAMETERS, name="row")
    body = function.code
    at = Coordinates(function, parts.clock, function.parameters[8:11])
    (region,) = plan.regions
    strip = make_strip(parts, plan, region, body, at, None)
    enter(strip.first, parts.base)
    for own, given in zip((*at.thread_index[1:], at.thread), function.parameters[11:], strict=True):
        body.get(given)
        body.set(own)
    _in_strips(strip, region)()
    check_size(kernel, body)
    return function


def _in_rows(strip: Strip, path: Path, slow: Function) -> Callable[[], None]:
    """A row without tests where they hold for all of it, else by the function ``slow``."""
    body, at = strip.body, strip.first.coordinates
    x, y, z = at.thread_index

    def row() -> None:
        body.i32_const(0)
        body.set(x)
        push_holds(strip, path)
        with body.if_():
            with body.loop() as again:
                strip.enter()
                write_strip(strip, path)
                increment(body, x, strip.width)
                increment(body, at.thread, strip.width)
                body.get(x)
                body.get(at.block[0])
                body.op("i32.lt_u")
                body.br_if(again)
            body.else_()
            launch = slow.parameters[:_LAUNCH_PARAMETERS]
            for argument in (*body.parameters[: len(launch)], *at.block_index, y, z, at.thread):
                body.get(argument)
            body.call(slow)
            body.get(at.thread)
            body.get(at.block[0])
            body.op("i32.add")
            body.set(at.thread)

    return row


def _in_strips(strip: Strip, region: RegionPlan) -> Callable[[], None]:
    """A row strip by strip."""
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
            run_strip(strip, region, region.allocation.undefined)
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
