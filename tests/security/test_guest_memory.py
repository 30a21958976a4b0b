"""What a guest takes: memory, tables, stack. It gets its limit and no more, and all of it comes back."""

from __future__ import annotations

import pytest

from security import bombs
from security.attacked import MIB, Attacked
from security.guests import I32, I64, WASI, for_ever
from tensor_wasm.wasm import Body, Module, ValType

_LIMIT_PAGES = 64 * MIB // 65_536
_AT_ONCE = 4
#: What the node itself may need beside its guests while they run.
_OWN_BYTES = 192 * MIB


def test_memory_grows_to_the_limit_of_an_instance(node: Attacked, function: str):
    """Bound: TENSOR_WASM_INSTANCE_MEMORY_BYTES an instance; past it memory.grow gives -1. All of it comes back."""
    before = node.resident_bytes
    node.worst()
    answers = node.invoke_many(3 * _AT_ONCE, function, "grow")
    assert {tuple(answer.result) for answer in answers} == {(_LIMIT_PAGES,)}
    assert node.worst().resident_bytes < before + _AT_ONCE * 64 * MIB + _OWN_BYTES
    assert node.resident_bytes < before + _OWN_BYTES


def test_a_huge_memory_at_the_start(node: Attacked):
    """Bound: a module that starts with more than an instance may have is refused before it is compiled."""
    for pages in (_LIMIT_PAGES + 1, 65_536, 65_537, (1 << 32) - 1):
        assert node.offer(bombs.memory_of(pages)).kind == "invalid_wasm"


def test_many_memories(node: Attacked):
    """Bound: one memory a guest."""
    for count in (2, 100, 100_000):
        assert node.offer(bombs.many_memories(count)).kind == "invalid_wasm"


def test_a_segment_outside_memory(node: Attacked):
    """Bound: a data segment that does not fit is a trap of that invocation; nothing is written."""
    identity = node.deploy(bombs.segment_outside())
    assert node.invoke(identity).kind == "trap"


def test_tables_grow_to_their_limit(node: Attacked):
    """Bound: 100 tables of 100,000 entries, 8 bytes each; past it table.grow gives -1. All of it comes back."""
    module = Module()
    tables = [module.table(0) for _ in range(100)]
    function = module.function([], [I32], export="run")
    body = function.code
    total = body.local(I32)
    for table in tables:
        with body.loop() as again:
            body.ref_null()
            body.i32_const(1000)
            body.table_grow(table.index)
            body.i32_const(-1)
            body.op("i32.ne")
            body.br_if(again)
        body.table_size(table.index)
        body.get(total)
        body.op("i32.add")
        body.set(total)
    body.get(total)
    identity = node.deploy(module.encode().wasm)
    before = node.resident_bytes
    node.worst()
    answers = node.invoke_many(2 * _AT_ONCE, identity)
    assert {tuple(answer.result) for answer in answers} == {(100 * 100_000,)}
    assert node.worst().resident_bytes < before + _AT_ONCE * 100 * 100_000 * 8 + _OWN_BYTES


def test_a_huge_table_at_the_start(node: Attacked):
    """Bound: 100,000 entries a table, 100 tables a module; more is refused before it is compiled."""
    for wasm in (bombs.tables_of(1, 100_001), bombs.tables_of(1, (1 << 32) - 1), bombs.tables_of(101, 1)):
        assert node.offer(wasm).kind == "invalid_wasm"


def _recursion(big_frames: bool = False, start: bool = False, host: bool = False, indirect: bool = False) -> bytes:
    module = Module()
    clock = module.import_function(WASI, "clock_time_get", [I32, I64, I32], [I32])
    poll = module.import_function(WASI, "poll_oneoff", [I32] * 4, [I32])
    module.export("memory", module.memory(1))
    kinds = [ValType.I64] * (800 if big_frames else 0)
    deep = module.function(kinds, [], name="deep")
    signature = deep.type
    body = deep.code
    if host:
        for imported, values in ((clock, (1, 0, 0)), (poll, (0, 0, 0, 0))):
            for kind, value in zip(imported.type.parameters, values, strict=True):
                (body.i64_const if kind is I64 else body.i32_const)(value)
            body.call(imported)
            body.op("drop")
    for parameter in deep.parameters:
        body.get(parameter)
        body.i64_const(1)
        body.op("i64.add")
    if indirect:
        table = module.table(1, 1)
        module.elements(table, 0, [deep])
        body.i32_const(0)
        body.call_indirect(signature)
    else:
        body.call(deep)
    for parameter in deep.parameters:  # used after the call: the frame must hold them all
        body.get(parameter)
        body.op("drop")
    run = module.function([], [], export="run")
    for _ in kinds:
        run.code.i64_const(0)
    run.code.call(deep)
    if start:
        module.start(run)
    return module.encode().wasm


@pytest.mark.parametrize(
    "how", [{}, {"big_frames": True}, {"start": True}, {"indirect": True}], ids=["small", "big", "start", "indirect"]
)
def test_infinite_recursion(node: Attacked, how: dict[str, bool]):
    """Bound: Wasmtime's stack limit, whatever the frames: a trap of that invocation, by run and by start alike."""
    identity = node.deploy(_recursion(**how))
    for answer in node.invoke_many(_AT_ONCE, identity):
        assert answer.kind == "trap"
        assert "stack" in answer.message


def test_recursion_that_calls_the_host_at_every_depth(node: Attacked):
    """Bound: the host's functions have stack enough wherever the guest calls them from; the guest's own ends first."""
    identity = node.deploy(_recursion(host=True))
    for answer in node.invoke_many(_AT_ONCE, identity):
        assert answer.kind == "trap"
        assert "stack" in answer.message


def test_a_start_function_that_never_ends(node: Attacked):
    """Bound: the deadline counts from before instantiation; a start function is guest code like any other."""
    module = Module()
    start = module.function([], [])

    def nothing() -> None:
        pass

    for_ever(start.code, nothing)
    module.start(start)
    module.function([], [], export="run")
    identity = node.deploy(module.encode().wasm)
    answers = node.invoke_many(2 * _AT_ONCE, identity, deadline_ms=300)
    assert {answer.kind for answer in answers} == {"invoke_timeout"}


def test_a_loop_of_tail_calls(node: Attacked):
    """Bound: tail calls need no stack and are interrupted like loops: the deadline ends them."""
    code = bombs.one_function(b"\x12\0")  # return_call 0
    identity = node.deploy(code)
    assert node.invoke(identity, deadline_ms=300).kind == "invoke_timeout"


def test_bulk_operations_that_take_long(node: Attacked):
    """Bound: memory.fill and memory.copy of all of memory, for ever: the deadline ends them between two of them."""
    module = Module()
    module.memory(_LIMIT_PAGES - 8)
    body: Body = module.function([], [], export="run").code

    def fill() -> None:
        body.i32_const(0)
        body.i32_const(7)
        body.i32_const((_LIMIT_PAGES - 8) * 65_536)
        body.memory_fill()

    for_ever(body, fill)
    identity = node.deploy(module.encode().wasm)
    for answer in node.invoke_many(_AT_ONCE, identity, deadline_ms=300):
        assert answer.kind == "invoke_timeout"
