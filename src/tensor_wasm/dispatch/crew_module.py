"""WebAssembly by which several cores run one launch: the leader's part, the helpers', and a bell to wake them.

All share a *board*, words of a shared memory. Helpers wait on its bell, in WebAssembly, without the GIL. The leader
writes a launch on the board, opens it, rings, takes blocks of the grid itself (see :mod:`tensor_wasm.compiler.grid`)
until there are none, closes the launch, and waits until no helper is active in it. A helper first says that it is
active and then looks whether the launch is open; the leader first closes it and then looks who is active. So a helper
that wakes late does nothing, and nobody is in a launch whose leader has gone on.
"""

from __future__ import annotations

from functools import cache

from tensor_wasm.compiler.grid import LAUNCH_PARAMETERS, SHARE_PARAMETERS
from tensor_wasm.wasm import Body, Function, Global, Local, Module, Table, ValType

I32, I64 = ValType.I32, ValType.I64

# Words of a board, i32 each; hot ones on cache lines of their own.
BELL = 0  # counts rings; helpers wait on it
OPEN = 64  # 1 while helpers may join
FAILED = 68  # 1 once a helper's part of the launch failed
LEAVE = 72  # 1 when helpers should return from `serve`
ACTIVE = 128  # how many helpers are in a launch; the leader waits on it
KERNEL = 192  # the launch: number of its kernel, then what `share` takes
ARGUMENTS = 196
BOARD_BYTES = 256

assert ARGUMENTS + 4 * SHARE_PARAMETERS <= BOARD_BYTES

#: Kernels that helpers know at a time.
CREW_KERNELS = 256

#: How many times each core goes to the counter: the cores end at about the same time, and the counter stays cold.
_DRAWS = 32
_COUNT_MAX = 1 << 20
_FOREVER_NS = -1
#: A leader that waits for helpers looks this often whether it should end.
_SLICE_NS = 5_000_000


@cache
def helper_module(pages: int) -> bytes:
    """Imports the board's memory of so many pages; exports the table ``kernels`` of their ``share`` functions,
    ``serve(board)``, which runs launches until it is told to leave, the global ``is_active``, whether it is in one,
    and ``finish(board)``, for after one that failed.
    """
    module = Module()
    module.import_memory("board", "memory", pages, pages, shared=True)
    kernels = module.table(CREW_KERNELS, CREW_KERNELS, export="kernels")
    is_active = module.global_(I32, export="is_active")
    finish = module.function([I32], export="finish")
    finish.code.global_get(is_active)
    with finish.code.if_():
        _leave_launch(finish.code, finish.parameters[0], is_active)
    serve = module.function([I32], export="serve")
    body, (board,) = serve.code, serve.parameters
    seen = body.local(I32)
    with body.loop() as again:
        body.get(board)
        body.memory("i32.atomic.load", BELL)
        body.set(seen)
        body.get(board)
        body.memory("i32.atomic.load", LEAVE)
        with body.if_():
            body.op("return")
        # Wasmtime may interrupt at a loop's end or in a call, not between the count and the note that it was made.
        _add(body, board, ACTIVE, 1)
        body.op("drop")
        body.i32_const(1)
        body.global_set(is_active)
        body.get(board)
        body.memory("i32.atomic.load", OPEN)
        with body.if_():
            for number in range(SHARE_PARAMETERS):
                body.get(board)
                body.memory("i32.load", ARGUMENTS + 4 * number)
            body.get(board)
            body.memory("i32.load", KERNEL)
            body.call_indirect(module.type([I32] * SHARE_PARAMETERS), kernels.index)
        _leave_launch(body, board, is_active)
        body.get(board)
        body.get(seen)
        body.i64_const(_FOREVER_NS)
        body.memory("memory.atomic.wait32", BELL)
        body.op("drop")
        body.br(again)
    return module.encode().wasm


def _leave_launch(body: Body, board: Local, is_active: Global) -> None:
    """One active helper less; the last one wakes the leader."""
    _add(body, board, ACTIVE, -1)
    body.i32_const(0)
    body.global_set(is_active)
    body.i32_const(1)
    body.op("i32.eq")
    with body.if_():
        body.get(board)
        body.i32_const(1)
        body.memory("memory.atomic.notify", ACTIVE)
        body.op("drop")


def _add(body: Body, board: Local, place: int, amount: int, memory: int = 0) -> None:
    """Add to a word; its old value is pushed."""
    body.get(board)
    body.i32_const(amount)
    body.memory("i32.atomic.rmw.add", place, memory=memory)


@cache
def bell_module(pages: int) -> bytes:
    """Exports ``ring(board)``: wake all helpers, after a word for them was changed from outside."""
    module = Module()
    module.import_memory("board", "memory", pages, pages, shared=True)
    ring = module.function([I32], export="ring")
    _ring(ring.code, ring.parameters[0], 0)
    return module.encode().wasm


def _ring(body: Body, board: Local, memory: int) -> None:
    _add(body, board, BELL, 1, memory)
    body.op("drop")
    body.get(board)
    body.i32_const(-1)
    body.memory("memory.atomic.notify", BELL, memory=memory)
    body.op("drop")


@cache
def leader_module(pages: int) -> bytes:
    """Imports the board's memory and scratch memory; exports ``kernels`` and ``lead``, see :func:`write_lead`."""
    module = Module()
    board = module.import_memory("board", "memory", pages, pages, shared=True)
    scratch = module.import_memory("gate", "scratch")
    kernels = module.table(CREW_KERNELS, CREW_KERNELS, export="kernels")
    module.export("lead", write_lead(module, board.index, scratch.index, kernels))
    return module.encode().wasm


#: What ``lead`` takes, all i32: the board, the counter in scratch memory, cores, the kernel's number, then the launch.
LEAD_PARAMETERS = 4 + LAUNCH_PARAMETERS


def write_lead(module: Module, board_memory: int, scratch: int, kernels: Table) -> Function:
    """``lead``: run a launch on this core and on the helpers; 1 when a helper's part failed, else 0.

    After a trap in it helpers may still be active.
    """
    lead = module.function([I32] * LEAD_PARAMETERS, [I32], name="lead")
    body = lead.code
    board, counter, cores, kernel, *launch = lead.parameters
    count, active = body.local(I32), body.local(I32)
    body.get(counter)
    body.i64_const(0)
    body.memory("i64.store", memory=scratch)
    _push_count(body, launch[:3], cores)
    body.set(count)
    shared = (*launch, counter, count)

    def store(place: int, value: Local | int) -> None:
        body.get(board)
        if isinstance(value, Local):
            body.get(value)
        else:
            body.i32_const(value)
        body.memory("i32.atomic.store", place, memory=board_memory)

    for number, argument in enumerate(shared):
        store(ARGUMENTS + 4 * number, argument)
    store(KERNEL, kernel)
    store(FAILED, 0)
    store(OPEN, 1)
    _ring(body, board, board_memory)
    for argument in shared:
        body.get(argument)
    body.get(kernel)
    body.call_indirect(module.type([I32] * SHARE_PARAMETERS), kernels.index)
    store(OPEN, 0)
    with body.block() as done, body.loop() as again:
        body.get(board)
        body.memory("i32.atomic.load", ACTIVE, memory=board_memory)
        body.tee(active)
        body.op("i32.eqz")
        body.br_if(done)
        body.get(board)
        body.get(active)
        body.i64_const(_SLICE_NS)
        body.memory("memory.atomic.wait32", ACTIVE, memory=board_memory)
        body.op("drop")
        body.br(again)
    body.get(board)
    body.memory("i32.atomic.load", FAILED, memory=board_memory)
    return lead


def _push_count(body: Body, grid: list[Local], cores: Local) -> None:
    """Push how many blocks a core takes at a time: the grid's over the cores' draws, at least 1."""
    count = body.local(I64)
    for axis in grid:
        body.get(axis)
        body.op("i64.extend_i32_u")
    body.op("i64.mul", "i64.mul")
    body.get(cores)
    body.op("i64.extend_i32_u")
    body.i64_const(_DRAWS)
    body.op("i64.mul", "i64.div_u")
    for limit, relation in ((1, "i64.gt_u"), (_COUNT_MAX, "i64.lt_u")):
        body.tee(count)
        body.i64_const(limit)
        body.get(count)
        body.i64_const(limit)
        body.op(relation, "select")
    body.op("i32.wrap_i64")
    body.release(count)
