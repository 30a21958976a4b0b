"""Kernels whose threads never wait for each other: ``run`` takes the blocks one after another, and their rows in strips."""

from __future__ import annotations

from tensor_wasm.compiler.limits import check_size
from tensor_wasm.compiler.lowering import enter, increment, nest, skip_empty
from tensor_wasm.compiler.special import Coordinates
from tensor_wasm.compiler.strips.code import make_strip, push_bits_below, run_strip
from tensor_wasm.compiler.strips.parts import Parts
from tensor_wasm.compiler.strips.plan import KernelPlan
from tensor_wasm.ptx.program import Kernel
from tensor_wasm.wasm import ValType

I32 = ValType.I32
_LAUNCH_PARAMETERS = 8


def write_run(parts: Parts, kernel: Kernel, plan: KernelPlan) -> None:
    """Write the whole kernel into ``run``."""
    run = parts.module.function((I32,) * _LAUNCH_PARAMETERS, export="run")
    body = run.code
    at = Coordinates(run, parts.clock)
    (region,) = plan.regions
    strip = make_strip(parts, plan, region, body, at, None)
    x, y, z = at.thread_index
    left = body.local(I32)
    skip_empty(body, at)
    enter(strip.first, parts.base)

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

    def block() -> None:
        for axis, variable in enumerate(parts.block_globals):
            body.get(at.block_index[axis])
            body.global_set(variable)
        body.i32_const(0)
        body.set(at.thread)
        nest(body, (y, z), at.block[1:], row)

    nest(body, at.block_index, at.grid, block)
    check_size(kernel, body)
