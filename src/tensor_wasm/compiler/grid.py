"""The loop over the blocks of a grid, and the two functions by which a kernel is launched.

``run`` takes all blocks in order. ``share`` takes a part of them: several instances of a kernel, each on a core of its
own, draw runs of blocks from one counter until the grid is done, or until whoever launched sets the counter to
``STOPPED``. Blocks are drawn in ascending order, so a block that waits for an earlier one (for its flag in memory, say)
waits for one that runs or has ended, as on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tensor_wasm.compiler.axes import to_next_row
from tensor_wasm.compiler.special import Coordinates
from tensor_wasm.wasm import Body, Function, Global, Local, Module, ValType

I32, I64 = ValType.I32, ValType.I64
_SCRATCH = 1

#: What both take first: grid and block axes, dynamic shared bytes, address of the parameter block.
LAUNCH_PARAMETERS = 8
#: ``share`` takes two more: the address of the counter in scratch memory, an i64 at a multiple of 8 that starts at 0;
#: and how many blocks to draw at a time, at least 1.
SHARE_PARAMETERS = 10

#: A counter above every grid's number of blocks, as an unsigned number, however often it is drawn from.
STOPPED = 1 << 63


def write_entries(module: Module) -> Function:
    """The exported functions ``run`` and ``share``, and what both call: a function for a run of blocks, to be filled.

    It takes the launch, the index of the first block, and how many there are, an i64. It is one of its own so that what
    is needed to draw blocks takes no registers from the threads' code.
    """
    launch = [I32] * LAUNCH_PARAMETERS
    blocks = module.function([*launch, I32, I32, I32, I64], name="blocks")
    run = module.function(launch, export="run")
    for parameter in run.parameters:
        run.code.get(parameter)
    for _ in range(3):
        run.code.i32_const(0)
    _push_product(run.code, run.parameters[:3])
    run.code.call(blocks)
    _share(module.function([I32] * SHARE_PARAMETERS, export="share"), blocks)
    return blocks


def coordinates(blocks: Function, clock: Global) -> Coordinates:
    """Where the threads of the function for a run of blocks are."""
    x, y, z = blocks.parameters[LAUNCH_PARAMETERS : LAUNCH_PARAMETERS + 3]
    return Coordinates(blocks, clock, (x, y, z))


def each_block(blocks: Function, at: Coordinates, inside: Callable[[], None], count: Local | None = None) -> None:
    """Write the loop over the blocks of a run; none of the grid's axes is 0.

    ``inside`` does one of them, or as many neighbours along x as it sets ``count`` to: see :func:`push_neighbours`.
    """
    body, left = blocks.code, blocks.parameters[-1]
    with body.loop() as again:
        inside()
        body.get(at.block_index[0])
        _push_count(body, count)
        body.op("i32.add")
        body.set(at.block_index[0])
        to_next_row(body, at.block_index, at.grid)
        body.get(left)
        _push_count(body, count)
        body.op("i64.extend_i32_u", "i64.sub")
        body.tee(left)
        body.i64_const(0)
        body.op("i64.ne")
        body.br_if(again)


def push_neighbours(blocks: Function, at: Coordinates) -> None:
    """Push how many blocks of the run there are along x from the present one on, it included."""
    body, left = blocks.code, blocks.parameters[-1]
    row = body.local(I32)
    body.get(at.grid[0])
    body.get(at.block_index[0])
    body.op("i32.sub")
    body.set(row)
    _push_lesser(body, row, left)
    body.op("i32.wrap_i64")
    body.release(row)


def _share(share: Function, blocks: Function) -> None:
    body = share.code
    grid = share.parameters[:3]
    counter, count = share.parameters[LAUNCH_PARAMETERS:]
    number, total = body.local(I64), body.local(I64)
    _push_product(body, grid)
    body.set(total)
    with body.block() as done, body.loop() as draw:
        _draw(body, counter, count, number)
        body.get(number)
        body.get(total)
        body.op("i64.ge_u")
        body.br_if(done)
        for parameter in share.parameters[:LAUNCH_PARAMETERS]:
            body.get(parameter)
        _push_index(body, grid, number)
        _push_some(body, number, count, total)
        body.call(blocks)
        body.br(draw)


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


def _push_some(body: Body, number: Local, count: Local, total: Local) -> None:
    """Push the lesser of ``count`` and ``total - number``."""
    left = body.local(I64)
    body.get(total)
    body.get(number)
    body.op("i64.sub")
    body.set(left)
    _push_lesser(body, count, left)
    body.release(left)


def _push_lesser(body: Body, count: Local, left: Local) -> None:
    """Push the lesser of an i32 and an i64, without signs, as an i64."""
    body.get(left)
    _extended(body, count)
    body.get(left)
    _extended(body, count)
    body.op("i64.lt_u", "select")


def _push_index(body: Body, grid: Sequence[Local], number: Local) -> None:
    """Push the index of a block, x, y, z, from its number, x fastest."""
    row = body.local(I64)
    body.get(number)
    _extended(body, grid[0])
    body.op("i64.rem_u", "i32.wrap_i64")
    body.get(number)
    _extended(body, grid[0])
    body.op("i64.div_u")
    body.tee(row)
    _extended(body, grid[1])
    body.op("i64.rem_u", "i32.wrap_i64")
    body.get(row)
    _extended(body, grid[1])
    body.op("i64.div_u", "i32.wrap_i64")
    body.release(row)


def _extended(body: Body, local: Local) -> None:
    body.get(local)
    body.op("i64.extend_i32_u")


def _push_count(body: Body, count: Local | None) -> None:
    if count is None:
        body.i32_const(1)
    else:
        body.get(count)
