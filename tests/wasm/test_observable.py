"""The rewritten module is valid, does the same, and shows all of its state."""

from __future__ import annotations

import wasmtime

from tensor_wasm.wasm import Module, ValType
from tensor_wasm.wasm.inspector import inspect
from tensor_wasm.wasm.observable import observable

WAT = """(module
  (memory 1)
  (table $t 3 funcref)
  (table 2 externref)
  (global $a (mut i32) (i32.const 7))
  (global $constant i32 (i32.const 1))
  (global $b (mut i64) (i64.const -5))
  (global $c (mut f64) (f64.const 1.5))
  (global $d (mut v128) (v128.const i64x2 1 2))
  (func $go (global.set $a (i32.const 99)))
  (start $go)
  (elem (i32.const 0) $go)
  (data (i32.const 0) "hello")
  (export "a" (global $a))
  (export "tensor_wasm:0:x" (func $go)))"""


def instance(wasm):
    store = wasmtime.Store()
    return store, wasmtime.Instance(store, wasmtime.Module(store.engine, wasm), [])


def test_everything_that_changes_is_exported_and_the_start_function_is_left_to_the_caller():
    found = observable(bytes(wasmtime.wat2wasm(WAT)))
    assert found.memory == "tensor_wasm:1:memory"
    assert [kind for _, kind in found.globals] == ["i32", "i64", "f64", "v128"]
    assert len(found.tables) == 2
    assert found.obstacle is None
    store, made = instance(found.wasm)
    exports = made.exports(store)
    (a, _), (b, _), *_ = found.globals
    assert (exports[a].value(store), exports[b].value(store)) == (7, -5)
    exports[found.start](store)
    assert exports[a].value(store) == exports["a"].value(store) == 99
    assert exports[found.memory].read(store, 0, 5) == b"hello"
    assert not inspect(found.wasm).has_start


def test_a_module_without_exports_gets_some():
    found = observable(bytes(wasmtime.wat2wasm("(module (memory 1) (func $f) (start $f) (func))")))
    store, made = instance(found.wasm)
    assert sorted(name for name in made.exports(store)) == sorted([found.memory, found.start])
    nothing = observable(bytes(wasmtime.wat2wasm("(module)")))
    assert (nothing.memory, nothing.globals, nothing.tables, nothing.start) == (None, (), (), None)
    instance(nothing.wasm)


def test_a_variable_that_holds_references_is_an_obstacle():
    found = observable(bytes(wasmtime.wat2wasm("(module (global (mut funcref) (ref.null func)))")))
    assert "references" in found.obstacle
    instance(found.wasm)


def test_what_our_own_writer_makes():
    module = Module()
    module.memory(1, export="memory")
    variable = module.global_(ValType.I32, 3, export="v")
    bump = module.function([], [], export="bump").code
    bump.global_get(variable)
    bump.i32_const(1)
    bump.op("i32.add")
    bump.global_set(variable)
    found = observable(module.encode().wasm)
    store, made = instance(found.wasm)
    exports = made.exports(store)
    exports["bump"](store)
    assert exports[found.globals[0][0]].value(store) == 4
