"""Warm starts: an export is run once, and every instance starts from there, each with its own copy."""

from __future__ import annotations

import threading

import pytest
import wasmtime

from tensor_wasm.config import load
from tensor_wasm.errors import GuestTrap, InvalidArguments, InvalidSnapshot, MissingExport, QuotaExceeded
from tensor_wasm.node import Node

WAT = """(module (memory (export "memory") 2) (global $ready (mut i32) (i32.const 0))
  (table $t 2 funcref) (elem (i32.const 0) $one $two) (type $f (func (result i32)))
  (func $one (result i32) i32.const 1) (func $two (result i32) i32.const 2)
  (func (export "init") (global.set $ready (i32.add (global.get $ready) (i32.const 1)))
    (table.set $t (i32.const 0) (table.get $t (i32.const 1)))
    (memory.fill (i32.const 0) (i32.const 7) (i32.const 100000)))
  (func (export "take") (param i32) (result i32 i32 i32)
    (memory.fill (i32.const 0) (local.get 0) (i32.const 10))
    (global.get $ready) (i32.load8_u (i32.const 99999)) (call_indirect (type $f) (i32.const 0)))
  (func (export "first") (result i32) (i32.load8_u (i32.const 0)))
  (func (export "trap") unreachable)
  (func (export "hidden") (table.set $t (i32.const 0) (ref.func $three)))
  (func $three (result i32) i32.const 3) (elem declare func $three))"""
WASM = bytes(wasmtime.wat2wasm(WAT))


@pytest.fixture
def node(tmp_path):
    with Node(load({}, {"home": tmp_path}).config) as node:
        yield node


def test_every_instance_starts_from_the_end_of_init_and_has_its_own_copy(node):
    function = node.functions.deploy("warm", WASM, 1, prewarm="init")
    assert node.functions.show(function.id, 1).prewarm == "init"
    for fill in (1, 2):
        assert node.invocations.invoke(function.id, "take", [fill], tenant=1).results == [1, 7, 2]
        assert node.invocations.invoke(function.id, "first", tenant=1).results == [7]
    kept = node.spawner.spawn(function.id, tenant=1)
    assert node.kept.call(kept.id, "take", [3], tenant=1).results == [1, 7, 2]
    assert node.kept.call(kept.id, "first", tenant=1).results == [3]
    restored = node.spawner.restore(node.snapshots.capture(kept.id, 1).id, tenant=1)
    assert node.kept.call(restored.id, "first", tenant=1).results == [3]
    assert node.kept.call(restored.id, "take", [4], tenant=1).results == [1, 7, 2]


def test_it_holds_after_a_restart(tmp_path):
    config = load({}, {"home": tmp_path}).config
    with Node(config) as node:
        function = node.functions.deploy("warm", WASM, 1, prewarm="init")
    with Node(config) as node:
        assert node.functions.list(1).items == [function]
        assert node.invocations.invoke(function.id, "take", [1], tenant=1).results == [1, 7, 2]


@pytest.mark.parametrize(
    ("prewarm", "error"),
    [("nothing", MissingExport), ("take", InvalidArguments), ("trap", GuestTrap), ("hidden", InvalidSnapshot)],
)
def test_what_cannot_be_a_start_is_refused_at_the_deploy(node, prewarm, error):
    with pytest.raises(error):
        node.functions.deploy("warm", WASM, 1, prewarm=prewarm)
    assert node.functions.list(1).items == []
    usage = node.administration.tenant(1).usage
    assert (usage.instances, usage.guest_memory_bytes, usage.stored_bytes) == (0, 0, 0)


def test_its_state_counts_as_stored_until_the_function_is_deleted(node):
    node.administration.change_tenant(1, {"stored_bytes": (2 << 16) + len(WASM) - 1})
    with pytest.raises(QuotaExceeded):
        node.functions.deploy("warm", WASM, 1, prewarm="init")
    node.administration.change_tenant(1, {"stored_bytes": (2 << 16) + len(WASM)})
    function = node.functions.deploy("warm", WASM, 1, prewarm="init")
    assert node.administration.tenant(1).usage.stored_bytes == (2 << 16) + len(WASM)
    node.functions.delete(function.id, 1)
    assert node.administration.tenant(1).usage.stored_bytes == 0


def test_many_first_calls_make_one_state(tmp_path):
    config = load({}, {"home": tmp_path}).config
    with Node(config) as node:
        function = node.functions.deploy("warm", WASM, 1, prewarm="init")
    with Node(config) as node:
        results = []
        threads = [
            threading.Thread(
                target=lambda: results.append(node.invocations.invoke(function.id, "take", [1], tenant=1).results)
            )
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [[1, 7, 2]] * 8
        assert node.statistics.read().spawns[1] == 9
        assert node.administration.tenant(1).usage.stored_bytes == (2 << 16) + len(WASM)
