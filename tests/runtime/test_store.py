"""A store: calls, endings, limits, and failures that stay with their own thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from tensor_wasm.errors import DeadlineExceeded, QuotaExceeded
from tensor_wasm.runtime import Budget, CallFailed, Engine, HostFunction, Linker, Store
from tensor_wasm.wasm import Module, ValType

I32, I64, F32, F64 = ValType.I32, ValType.I64, ValType.F32, ValType.F64
PAGE = 65_536


def start(engine: Engine, module: Module, store: Store):
    return store.start(Linker(engine).template(engine.compile(module.encode().wasm), runs_code=False))


def endless_loop() -> Module:
    module = Module()
    body = module.function([], [], export="spin").code
    with body.loop() as again:
        body.br(again)
    return module


def test_values_of_every_type_pass_both_ways(engine: Engine) -> None:
    module = Module()
    kinds = [I32, I64, F32, F64]
    function = module.function(kinds, kinds, export="same")
    for parameter in function.parameters:
        function.code.get(parameter)
    store = Store(engine, Budget(PAGE))
    names = ["i32", "i64", "f32", "f64"]
    values = [-(2**31), 2**62 + 1, 0.5, 1e300]
    instance = start(engine, module, store)
    assert store.call(instance.function("same"), names, values, names) == values
    store.close()


def test_a_trap_names_its_reason_and_place(engine: Engine) -> None:
    module = Module()
    module.memory(1)
    body = module.function([], [I32], export="read").code
    body.i32_const(-4)
    body.memory("i32.load")
    store = Store(engine, Budget(PAGE))
    instance = start(engine, module, store)
    with pytest.raises(CallFailed) as caught:
        store.call(instance.function("read"), [], [], ["i32"])
    failure = caught.value.failure
    assert failure.text == "out-of-bounds memory access"
    assert failure.frames[0].function_index == 0
    assert failure.frames[0].module_offset > 8
    store.close()


def test_an_endless_loop_ends_when_the_interrupt_says_so(engine: Engine) -> None:
    until = time.monotonic() + 0.1

    def interrupt() -> DeadlineExceeded | None:
        return DeadlineExceeded("over") if time.monotonic() > until else None

    store = Store(engine, Budget(PAGE), interrupt=interrupt)
    instance = start(engine, endless_loop(), store)
    with pytest.raises(DeadlineExceeded):
        store.call(instance.function("spin"), [], [], [])
    store.close()


def test_memory_grows_to_the_budget_and_then_says_minus_one(engine: Engine) -> None:
    module = Module()
    module.memory(1, export="memory")
    function = module.function([I32], [I32], export="grow")
    function.code.get(function.parameters[0])
    function.code.memory_grow()
    budget = Budget(10 * PAGE)
    store = Store(engine, budget)
    instance = start(engine, module, store)
    grow = instance.function("grow")
    assert store.call(grow, ["i32"], [9], ["i32"]) == [1]
    assert store.call(grow, ["i32"], [1], ["i32"]) == [-1]
    assert budget.used_bytes == 10 * PAGE
    store.close()
    assert budget.used_bytes == 0


def test_a_module_that_starts_too_large_is_a_quota_error(engine: Engine) -> None:
    module = Module()
    module.memory(11)
    store = Store(engine, Budget(10 * PAGE))
    with pytest.raises(QuotaExceeded):
        start(engine, module, store)
    store.close()


@pytest.mark.parametrize("pages", [1, 2, 3, 40])
def test_memory_of_an_ended_store_comes_back_as_zeros(engine: Engine, pages: int) -> None:
    module = Module()
    module.memory(pages, export="memory")
    wasm = engine.compile(module.encode().wasm)
    template = Linker(engine).template(wasm, runs_code=False)
    for _ in range(3):
        store = Store(engine, Budget(64 * PAGE))
        view = store.memory_view(store.start(template).memory())
        assert len(view) == pages * PAGE
        assert not any(view)
        view[:] = b"\xff" * len(view)
        del view
        store.close()


def host_function(call: Callable[[object, object], None]) -> tuple[Module, HostFunction]:
    module = Module()
    imported = module.import_function("host", "call", [I32], [I32])
    function = module.function([I32], [I32], export="run")
    function.code.get(function.parameters[0])
    function.code.call(imported)
    return module, HostFunction("host", "call", ("i32",), ("i32",), call)


def test_a_host_functions_exception_arrives_unchanged(engine: Engine) -> None:
    def refuse(owner: object, values: object) -> None:
        raise KeyError(owner)

    module, function = host_function(refuse)
    linker = Linker(engine)
    linker.define([function])
    template = linker.template(engine.compile(module.encode().wasm), runs_code=False)
    store = Store(engine, Budget(PAGE), owner="mine")
    with pytest.raises(KeyError, match="mine"):
        store.call(store.start(template).function("run"), ["i32"], [1], ["i32"])
    store.close()


def test_failures_of_two_threads_never_mix(engine: Engine) -> None:
    class Mine(Exception):
        pass

    def refuse(owner: object, values: object) -> None:
        raise Mine(owner)

    module, function = host_function(refuse)
    linker = Linker(engine)
    linker.define([function])
    template = linker.template(engine.compile(module.encode().wasm), runs_code=False)
    mixed: list[str] = []

    def work(name: str) -> None:
        for number in range(1000):
            store = Store(engine, Budget(PAGE), owner=(name, number))
            try:
                store.call(store.start(template).function("run"), ["i32"], [1], ["i32"])
            except Mine as error:
                if error.args[0] != (name, number):
                    mixed.append(f"{name} {number} got {error.args}")
            store.close()

    threads = [threading.Thread(target=work, args=(str(n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert mixed == []


def test_a_start_function_is_interrupted_too(engine: Engine) -> None:
    module = Module()
    spin = module.function([], [])
    with spin.code.loop() as again:
        spin.code.br(again)
    module.start(spin)
    until = time.monotonic() + 0.1
    store = Store(
        engine, Budget(PAGE), interrupt=lambda: DeadlineExceeded("over") if time.monotonic() > until else None
    )
    template = Linker(engine).template(engine.compile(module.encode().wasm), runs_code=True)
    with pytest.raises(DeadlineExceeded):
        store.start(template)
    store.close()


def test_a_table_that_grows_is_bounded(engine: Engine) -> None:
    module = Module()
    table = module.table(1, None)
    function = module.function([I32], [I32], export="grow")
    function.code.ref_null()
    function.code.get(function.parameters[0])
    function.code.table_grow(table.index)
    store = Store(engine, Budget(PAGE))
    store.limit_tables()
    instance = start(engine, module, store)
    assert store.call(instance.function("grow"), ["i32"], [10_000_000], ["i32"]) == [-1]
    assert store.call(instance.function("grow"), ["i32"], [10], ["i32"]) == [1]
    store.close()
