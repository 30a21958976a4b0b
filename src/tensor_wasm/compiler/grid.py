"""The loop over the blocks of a grid, and the two functions by which a kernel is launched.

``run`` takes all blocks in order. ``share`` takes a part of them: several instances of a kernel, each on a core of its
own, draw runs of blocks from one counter until the grid is done, or until whoever launched sets the counter to
``STOPPED``. Blocks are drawn in ascending order, so a block that waits for an earlier one (for its flag in memory, say)
waits for one that runs or has ended, as on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tensor_wasm.compiler.special import Coordinates
from tensor_wasm.wasm import Body, Function, Local, Module, ValType

I32, I64 = ValType.I32, ValType.I64
_SCRATCH = 1

#: What both take first: grid and block axes, dynamic shared bytes, address of the parameter block.
LAUNCH_PARAMETERS = 8
#: ``share`` takes two more: the address of the counter in scratch memory, an i64 at a multiple of 8 that starts at 0;
#: and how many blocks to draw at a time, at least 1. With the address 0 it takes all blocks, as ``run`` does.
SHARE_PARAMETERS = 10

#: A counter above every grid's number of blocks, as an unsigned number, however often it is drawn from.
STOPPED = 1 << 63


def write_entries(module: Module) -> Function:
    """The exported functions ``share``, to be filled, and ``run``, which calls it."""
    share = module.function([I32] * SHARE_PARAMETERS, export="share")
    run = module.function([I32] * LAUNCH_PARAMETERS, export="run")
    for parameter in run.parameters:
        run.code.get(parameter)
    run.code.i32_const(0)
    run.code.i32_const(0)
    run.code.call(share)
    return share


def each_block(share: Function, at: Coordinates, inside: Callable[[], None]) -> None:
    """Write the loop over the blocks that ``share`` takes; none of the grid's axes is 0."""
    body = share.code
    counter, count = share.parameters[LAUNCH_PARAMETERS:]
    number, last, total = (body.local(I64) for _ in range(3))
    _push_product(body, at.grid)
    body.tee(total)
    body.set(last)
    with body.block() as done, body.loop() as draw:
        body.get(counter)
        with body.if_():
            _draw(body, counter, count, number)
            body.get(number)
            body.get(total)
            body.op("i64.ge_u")
            body.br_if(done)
            _go_to(body, at, number)
            _push_end(body, number, count, total)
            body.set(last)
        with body.loop() as again:
            inside()
            _go_on(body, at)
            body.get(number)
            body.i64_const(1)
            body.op("i64.add")
            body.tee(number)
            body.get(last)
            body.op("i64.lt_u")
            body.br_if(again)
        body.get(counter)
        body.br_if(draw)


def _push_product(body: Body, axes: Sequence[Local]) -> None:
    """Push the product of three i32, below 2 ** 63 in a grid."""
    for position, axis in enumerate(axes):
        body.get(axis)
        body.op("i64.extend_i32_u")
        if position:
            body.op("i64.mul")


def _draw(body: Body, counter: Local, count: Local, number: Local) -> None:
    body.get(counter)
    body.get(count)
    body.op("i64.extend_i32_u")
    body.memory("i64.atomic.rmw.add", memory=_SCRATCH)
    body.set(number)


def _push_end(body: Body, number: Local, count: Local, total: Local) -> None:
    """Push the lesser of ``number + count`` and ``total``."""
    end = body.local(I64)
    body.get(number)
    body.get(count)
    body.op("i64.extend_i32_u", "i64.add")
    body.tee(end)
    body.get(total)
    body.get(end)
    body.get(total)
    body.op("i64.lt_u", "select")
    body.release(end)


def _go_to(body: Body, at: Coordinates, number: Local) -> None:
    """Set the block's index from its number, x fastest."""
    x, y, z = at.block_index
    row = body.local(I64)
    body.get(number)
    _extended(body, at.grid[0])
    body.op("i64.rem_u", "i32.wrap_i64")
    body.set(x)
    body.get(number)
    _extended(body, at.grid[0])
    body.op("i64.div_u")
    body.tee(row)
    _extended(body, at.grid[1])
    body.op("i64.rem_u", "i32.wrap_i64")
    body.set(y)
    body.get(row)
    _extended(body, at.grid[1])
    body.op("i64.div_u", "i32.wrap_i64")
    body.set(z)
    body.release(row)


def _extended(body: Body, local: Local) -> None:
    body.get(local)
    body.op("i64.extend_i32_u")


def _go_on(body: Body, at: Coordinates) -> None:
    """Set the index of the next block."""
    x, y, z = at.block_index
    _increment(body, x)
    body.get(x)
    body.get(at.grid[0])
    body.op("i32.eq")
    with body.if_():
        body.i32_const(0)
        body.set(x)
        _increment(body, y)
        body.get(y)
        body.get(at.grid[1])
        body.op("i32.eq")
        with body.if_():
            body.i32_const(0)
            body.set(y)
            _increment(body, z)


def _increment(body: Body, local: Local) -> None:
    body.get(local)
    body.i32_const(1)
    body.op("i32.add")
    body.set(local)
