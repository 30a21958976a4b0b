"""Snapshots: all of an instance's state comes back, to each instance its own, also on another start of the node."""

from __future__ import annotations

import os

import pytest
import wasmtime

from tensor_wasm.config import load
from tensor_wasm.errors import GuestTrap, InvalidSnapshot, NotFound, QuotaExceeded, StoreError
from tensor_wasm.node import Node

#: Counts in memory, in two variables that nobody exports and in a table; its start function counts too.
WAT = """(module
  (memory (export "memory") 1 200)
  (table $t 4 16 funcref)
  (type $f (func (result i32)))
  (global $i (mut i32) (i32.const 1))
  (global $l (mut i64) (i64.const 5000000000))
  (global $d (mut f64) (f64.const nan:0x123456))
  (global $v (mut v128) (v128.const i64x2 1 2))
  (func $one (result i32) i32.const 1)
  (func $two (result i32) i32.const 2)
  (elem (i32.const 0) $one $two)
  (data (i32.const 8) "data")
  (func $begin (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 100))))
  (start $begin)
  (func (export "step") (result i32)
    (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
    (global.set $i (i32.add (global.get $i) (i32.const 10)))
    (global.set $l (i64.add (global.get $l) (i64.const 1)))
    (i32.load (i32.const 0)))
  (func (export "variables") (result i32 i64 i64 i64)
    (global.get $i) (global.get $l) (i64.reinterpret_f64 (global.get $d)) (i64x2.extract_lane 1 (global.get $v)))
  (func (export "change") (i32.store8 (i32.const 8) (i32.const 68))
    (table.set $t (i32.const 0) (table.get $t (i32.const 1)))
    (table.set $t (i32.const 1) (ref.null func))
    (drop (table.grow $t (ref.func $one) (i32.const 2)))
    (table.set $t (i32.const 3) (table.get $t (i32.const 4)))
    (global.set $v (v128.const i64x2 3 4)))
  (func (export "through") (param i32) (result i32) (call_indirect (type $f) (local.get 0)))
  (func (export "size") (result i32) (table.size $t))
  (func (export "byte") (param i32) (result i32) (i32.load8_u (local.get 0)))
  (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
  (func (export "fill") (param i32 i32 i32) (memory.fill (local.get 0) (local.get 1) (local.get 2)))
  (func (export "foreign") (table.set $t (i32.const 2) (ref.func $hidden)))
  (func $hidden (result i32) i32.const 3)
  (elem declare func $one $hidden))"""
WASM = bytes(wasmtime.wat2wasm(WAT))


@pytest.fixture
def config(tmp_path):
    return load({}, {"home": tmp_path}).config


@pytest.fixture
def node(config):
    with Node(config) as node:
        yield node


@pytest.fixture
def kept(node):
    return node.spawner.spawn(node.functions.deploy("state", WASM, 1).id, tenant=1)


def call(node, instance, export, *args):
    return node.kept.call(instance.id, export, args, tenant=1).results


def files(tmp_path):
    return sorted(path.name for path in (tmp_path / "snapshots").iterdir())


def test_memory_variables_and_tables_come_back(node, kept):
    assert call(node, kept, "step") == [101]
    call(node, kept, "change")
    call(node, kept, "grow", 2)
    call(node, kept, "fill", 150_000, 7, 100)
    snapshot = node.snapshots.capture(kept.id, 1)
    assert snapshot.size_bytes == 3 << 16
    assert call(node, kept, "step") == [102]
    first, second = (node.spawner.restore(snapshot.id, tenant=1) for _ in range(2))
    for restored in (first, second):
        assert call(node, restored, "variables") == [11, 5000000001, 0x7FF0000000123456, 4]
        assert call(node, restored, "step") == [102], "the start function was not run again"
        assert (call(node, restored, "through", 0), call(node, restored, "through", 3)) == ([2], [1])
        assert (call(node, restored, "size"), call(node, restored, "byte", 8)) == ([6], [68])
        assert call(node, restored, "byte", 150_099) == [7]
        assert call(node, restored, "grow", 1) == [3]
        with pytest.raises(GuestTrap):
            call(node, restored, "through", 1)
    assert len(node.kept.list(1)) == 1
    assert call(node, kept, "step") == [103]


def test_what_one_writes_no_other_sees(node, kept):
    snapshot = node.snapshots.capture(kept.id, 1)
    first, second = (node.spawner.restore(snapshot.id, tenant=1) for _ in range(2))
    call(node, first, "fill", 0, 255, 65_536)
    assert call(node, second, "byte", 9) == [ord("a")]
    node.kept.delete(first.id, 1)
    # The next instance gets the address space that the first one had.
    fresh = node.spawner.spawn(kept.function_id, tenant=1)
    assert call(node, fresh, "byte", 60_000) == [0]
    assert call(node, node.spawner.restore(snapshot.id, tenant=1), "byte", 60_000) == [0]
    call(node, second, "fill", 0, 254, 65_536)
    assert call(node, node.spawner.restore(snapshot.id, tenant=1), "byte", 9) == [ord("a")]


@pytest.mark.parametrize("pages", [0, 1, 3, 100])
def test_whoever_gets_the_address_space_next_finds_zeros(node, kept, pages):
    call(node, kept, "grow", pages)
    size_bytes = (pages + 1) << 16
    call(node, kept, "fill", 0, 7, size_bytes)
    snapshot = node.snapshots.capture(kept.id, 1)
    node.kept.delete(kept.id, 1)
    restored = node.spawner.restore(snapshot.id, tenant=1)
    call(node, restored, "fill", 0, 8, 100)
    node.kept.delete(restored.id, 1)
    theirs = node.functions.deploy("theirs", WASM, 2)
    fresh = node.spawner.spawn(theirs.id, tenant=2)
    node.kept.call(fresh.id, "grow", [pages], tenant=2)
    for place in (50, size_bytes // 2 + 50, size_bytes - 1):
        assert node.kept.call(fresh.id, "byte", [place], tenant=2).results == [0], place


def test_a_snapshot_outlives_its_instance_its_function_and_the_node(config, tmp_path):
    with Node(config) as node:
        kept = node.spawner.spawn(node.functions.deploy("state", WASM, 1).id, tenant=1)
        call(node, kept, "step")
        snapshot = node.snapshots.capture(kept.id, 1)
        node.kept.delete(kept.id, 1)
        node.functions.delete(kept.function_id, 1)
    with Node(config) as node:
        assert node.snapshots.list(1) == [snapshot]
        assert node.functions.list(1).items == []
        restored = node.spawner.restore(snapshot.id, tenant=1)
        assert call(node, restored, "step") == [102]
        node.snapshots.delete(snapshot.id, 1)
        assert call(node, restored, "step") == [103], "its pages are still there"
        assert node.snapshots.list(1) == []
        with pytest.raises(NotFound):
            node.spawner.restore(snapshot.id, tenant=1)
        assert files(tmp_path) == []
        assert node.administration.tenant(1).usage.stored_bytes == 0
        assert not list((tmp_path / "artifacts").glob("??/*"))


def test_to_another_tenant_it_does_not_exist(node, kept):
    snapshot = node.snapshots.capture(kept.id, 1)
    for act in (node.snapshots.show, node.snapshots.delete, node.snapshots.capture):
        with pytest.raises(NotFound):
            act(snapshot.id, 2)
    with pytest.raises(NotFound):
        node.snapshots.capture(kept.id, 2)
    with pytest.raises(NotFound):
        node.spawner.restore(snapshot.id, tenant=2)
    assert node.snapshots.list(2) == []


def test_it_counts_as_stored_and_is_refused_beyond_the_quota(node, kept, tmp_path):
    node.snapshots.capture(kept.id, 1)
    stored_bytes = node.administration.tenant(1).usage.stored_bytes
    node.snapshots.delete(node.snapshots.list(1)[0].id, 1)
    assert stored_bytes > (1 << 16) + 2 * len(WASM), "its file, its state, and the module that it needs"
    node.administration.change_tenant(1, {"stored_bytes": stored_bytes})
    snapshot = node.snapshots.capture(kept.id, 1)
    with pytest.raises(QuotaExceeded):
        node.snapshots.capture(kept.id, 1)
    assert files(tmp_path) == [snapshot.id]
    node.snapshots.delete(snapshot.id, 1)
    node.snapshots.capture(kept.id, 1)


def test_a_function_that_cannot_be_found_again_is_an_obstacle_and_does_no_harm(node, kept, tmp_path):
    call(node, kept, "foreign")
    with pytest.raises(InvalidSnapshot, match="table"):
        node.snapshots.capture(kept.id, 1)
    assert files(tmp_path) == []
    assert call(node, kept, "step") == [101]


@pytest.mark.parametrize("size", [0, 100, (1 << 16) - 1, (1 << 16) + 1])
def test_a_file_that_was_cut_is_refused_and_does_not_end_the_node(node, kept, tmp_path, size):
    snapshot = node.snapshots.capture(kept.id, 1)
    os.truncate(tmp_path / "snapshots" / snapshot.id, size)
    with pytest.raises(StoreError, match="size"):
        node.spawner.restore(snapshot.id, tenant=1)
    (tmp_path / "snapshots" / snapshot.id).unlink()
    with pytest.raises(StoreError):
        node.spawner.restore(snapshot.id, tenant=1)
    assert call(node, kept, "step") == [101]


def test_what_a_crash_left_is_removed_at_the_start(config, tmp_path):
    with Node(config) as node:
        kept = node.spawner.spawn(node.functions.deploy("state", WASM, 1).id, tenant=1)
        snapshot = node.snapshots.capture(kept.id, 1)
    for name in (".new-abc", "00000000-0000-4000-8000-00000000000a"):
        (tmp_path / "snapshots" / name).write_bytes(b"x")
    with Node(config) as node:
        assert files(tmp_path) == [snapshot.id]


def test_the_memory_of_a_restored_instance_counts(node, kept):
    call(node, kept, "grow", 3)
    snapshot = node.snapshots.capture(kept.id, 1)
    node.kept.delete(kept.id, 1)
    node.administration.change_tenant(1, {"guest_memory_bytes": 3 << 16})
    with pytest.raises(QuotaExceeded):
        node.spawner.restore(snapshot.id, tenant=1)
    node.administration.change_tenant(1, {"guest_memory_bytes": 4 << 16})
    restored = node.spawner.restore(snapshot.id, tenant=1)
    assert node.administration.tenant(1).usage.guest_memory_bytes == 4 << 16
    node.kept.delete(restored.id, 1)
    assert node.administration.tenant(1).usage.guest_memory_bytes == 0
