"""Kernels whose threads never wait for each other: the blocks one after another, and their rows in strips."""

from __future__ import annotations

from tensor_wasm.compiler.grid import coordinates, each_block, write_entries
from tensor_wasm.compiler.limits import check_size
from tensor_wasm.compiler.lowering import enter, increment, nest, skip_empty
from tensor_wasm.compiler.strips.code import Parts, make_strip, push_bits_below, run_strip
from tensor_wasm.compiler.strips.plan import KernelPlan
from tensor_wasm.ptx.program import Kernel
from tensor_wasm.wasm import ValType

I32 = ValType.I32


def write_run(parts: Parts, kernel: Kernel, plan: KernelPlan) -> None:
    """Write the whole kernel into the function for a run of blocks."""
    run = write_entries(parts.module)
    body = run.code
    at = coordinates(run, parts.clock)
    (region,) = plan.regions
    strip = make_strip(parts, plan, region, body, at, None)
    x, y, z = at.thread_index
    left = body.local(I32)
    skip_empty(body, at)
    enter(strip.first, parts.base, parts.variables)

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

    each_block(run, at, block)
    check_size(kernel, body)
