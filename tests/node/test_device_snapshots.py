"""What a guest has on the device comes back with its snapshot: kernels, their variables, device memory, handles."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest
import wasmtime

from tensor_wasm.config import load
from tensor_wasm.errors import InvalidSnapshot, QuotaExceeded, SnapshotVersion
from tensor_wasm.node import Node

#: ``bump`` adds one to each of n numbers but the first, which becomes the count of its launches, kept in a variable.
PTX = b""".version 7.0
.target sm_70
.address_size 64
.global .u32 launches = 5;
.visible .entry bump(.param .u64 numbers, .param .u32 n)
{
    .reg .pred %p<3>;
    .reg .u32 %r<8>;
    .reg .u64 %d<5>;
    ld.param.u64 %d1, [numbers];
    ld.param.u32 %r1, [n];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.u32 %r5, %r2, %r3, %r4;
    setp.ge.u32 %p1, %r5, %r1;
    @%p1 bra DONE;
    mul.wide.u32 %d2, %r5, 4;
    add.u64 %d3, %d1, %d2;
    setp.eq.u32 %p2, %r5, 0;
    @%p2 bra COUNT;
    ld.global.u32 %r6, [%d3];
    add.u32 %r6, %r6, 1;
    st.global.u32 [%d3], %r6;
    bra DONE;
COUNT:
    ld.global.u32 %r7, [launches];
    add.u32 %r7, %r7, 1;
    st.global.u32 [launches], %r7;
    st.global.u32 [%d3], %r7;
DONE:
    ret;
}
"""
ENTRY_AT, PTX_AT, ARGV_AT, OUT_AT = 16, 1024, 512, 8192


def text(data: bytes) -> str:
    return "".join(f"\\{byte:02x}" for byte in data)


WAT = f"""(module
  (import "wasi:cuda/host@0.3.0" "wasi_cuda_load_ptx" (func $load (param i32 i32 i32 i32) (result i64)))
  (import "wasi:cuda/host@0.3.0" "wasi_cuda_launch"
    (func $launch (param i64 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "wasi:cuda/host@0.3.0" "wasi_cuda_alloc" (func $alloc (param i32 i32) (result i64)))
  (import "wasi:cuda/host@0.3.0" "wasi_cuda_free" (func $free (param i32 i32) (result i32)))
  (import "wasi:cuda/host@0.3.0" "wasi_cuda_unload" (func $unload (param i64) (result i32)))
  (import "wasi:cuda/host@0.3.0" "wasi_cuda_memcpy_d2h" (func $d2h (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const {ENTRY_AT}) "bump")
  (data (i32.const {PTX_AT}) "{text(PTX)}")
  (func (export "load") (result i64)
    (call $load (i32.const {PTX_AT}) (i32.const {len(PTX)}) (i32.const {ENTRY_AT}) (i32.const 4)))
  (func (export "unload") (param i64) (result i32) (call $unload (local.get 0)))
  (func (export "alloc") (param i32) (result i64) (call $alloc (local.get 0) (i32.const 0)))
  (func (export "free") (param i32) (result i32) (call $free (local.get 0) (i32.const 0)))
  (func (export "thrice") (param $n i32) (result i32 i32) (local $handle i64) (local $kernel i64)
    (local.set $kernel (call $load (i32.const {PTX_AT}) (i32.const {len(PTX)}) (i32.const {ENTRY_AT}) (i32.const 4)))
    (local.set $handle (call $alloc (i32.mul (local.get $n) (i32.const 4)) (i32.const 0)))
    (drop (call $bump (local.get $kernel) (local.get $handle) (local.get $n)))
    (drop (call $bump (local.get $kernel) (local.get $handle) (local.get $n)))
    (drop (call $bump (local.get $kernel) (local.get $handle) (local.get $n)))
    (drop (call $d2h (i32.const {OUT_AT}) (i32.wrap_i64 (local.get $handle)) (i32.const 0) (i32.const 8)))
    (i32.load (i32.const {OUT_AT})) (i32.load (i32.const {OUT_AT + 4})))
  (func $bump (export "bump") (param $kernel i64) (param $handle i64) (param $n i32) (result i32)
    (i32.store8 (i32.const {ARGV_AT}) (i32.const 8))
    (i64.store (i32.const {ARGV_AT + 1}) (local.get $handle))
    (i64.store (i32.const {ARGV_AT + 9}) (i64.const 0))
    (i32.store8 (i32.const {ARGV_AT + 17}) (i32.const 5))
    (i32.store (i32.const {ARGV_AT + 18}) (local.get $n))
    (call $launch (local.get $kernel)
      (i32.div_u (i32.add (local.get $n) (i32.const 255)) (i32.const 256)) (i32.const 1) (i32.const 1)
      (i32.const 256) (i32.const 1) (i32.const 1) (i32.const 0) (i32.const {ARGV_AT}) (i32.const 22)))
  (func (export "read") (param $handle i32) (param $length i32) (result i32)
    (call $d2h (i32.const {OUT_AT}) (local.get $handle) (i32.const 0) (local.get $length)))
  (func (export "number") (param i32) (result i32)
    (i32.load (i32.add (i32.const {OUT_AT}) (i32.mul (local.get 0) (i32.const 4))))))"""
WASM = bytes(wasmtime.wat2wasm(WAT))


@pytest.fixture
def node(tmp_path):
    with Node(load({}, {"home": tmp_path, "kernel_threads": 2}).config) as node:
        yield node


@pytest.fixture
def kept(node):
    return node.spawner.spawn(node.functions.deploy("device", WASM, 1).id, tenant=1)


def call(node, instance, export, *args):
    (value,) = node.kept.call(instance.id, export, args, tenant=1).results
    return value


def numbers(node, instance, handle, count):
    assert call(node, instance, "read", handle, 4 * count) == 0
    return [call(node, instance, "number", place) for place in range(count)]


def test_kernels_their_variables_and_device_memory_come_back(node, kept):
    assert [call(node, kept, "load") for _ in range(3)] == [0, 1, 2]
    assert call(node, kept, "unload", 1) == 0
    handles = [call(node, kept, "alloc", size) for size in (4096, 100, 1 << 20)]
    assert call(node, kept, "free", handles[1]) == 0
    large = handles[2]
    for _ in range(2):
        assert call(node, kept, "bump", 0, large, 200_000) == 0
    assert numbers(node, kept, large, 4) == [7, 2, 2, 2]
    snapshot = node.snapshots.capture(kept.id, 1)
    assert call(node, kept, "bump", 0, large, 200_000) == 0
    for _ in range(2):
        restored = node.spawner.restore(snapshot.id, tenant=1)
        assert numbers(node, restored, large, 4) == [7, 2, 2, 2]
        assert call(node, restored, "bump", 0, large, 200_000) == 0
        assert numbers(node, restored, large, 4) == [8, 3, 3, 3]
        assert call(node, restored, "bump", 2, large, 3) == 0, "each loaded kernel has variables of its own"
        assert numbers(node, restored, large, 4) == [6, 4, 4, 3]
        assert call(node, restored, "bump", 1, large, 3) == -3
        assert call(node, restored, "load") == 257
        assert call(node, restored, "free", handles[1]) == -11
        again = call(node, restored, "alloc", 100)
        assert again not in handles
        assert numbers(node, restored, again, 25) == [0] * 25
        for handle in (handles[0], large, again):
            assert call(node, restored, "free", handle) == 0
        assert node.kept.show(restored.id, 1).gpu_memory_bytes == 0
        node.kept.delete(restored.id, 1)
    assert numbers(node, kept, large, 4) == [8, 3, 3, 3]


def test_everything_it_holds_is_counted_and_comes_back(node, kept):
    call(node, kept, "load")
    for size in [100] * 80 + [3 << 20]:
        assert call(node, kept, "alloc", size) > 0
    snapshot = node.snapshots.capture(kept.id, 1)
    before = node.administration.tenant(1).usage
    restored = node.spawner.restore(snapshot.id, tenant=1)
    twice = node.administration.tenant(1).usage
    assert twice.gpu_memory_bytes == 2 * before.gpu_memory_bytes == 2 * (8000 + (3 << 20))
    assert twice.guest_memory_bytes == 2 * before.guest_memory_bytes
    for instance in (restored, kept):
        node.kept.delete(instance.id, 1)
    after = node.administration.tenant(1).usage
    assert (after.gpu_memory_bytes, after.guest_memory_bytes) == (0, 0)
    node.administration.change_tenant(1, {"gpu_memory_bytes": 1 << 20})
    for _ in range(3):
        with pytest.raises(QuotaExceeded):
            node.spawner.restore(snapshot.id, tenant=1)
    after = node.administration.tenant(1).usage
    assert (after.gpu_memory_bytes, after.guest_memory_bytes, after.instances) == (0, 0, 0)


def damaged(node, snapshot, change):
    """Put another state in the place of a snapshot's, as a file that somebody trusted signed could have."""
    with contextlib.closing(sqlite3.connect(node.config.home / "node.db")) as database, database:
        ((state,),) = database.execute("SELECT state FROM snapshots WHERE id = ?", (snapshot.id,))
        fields = json.loads(state)
        change(fields["device"])
        database.execute("UPDATE snapshots SET state = ? WHERE id = ?", (json.dumps(fields), snapshot.id))


CHANGES = {
    "no kernels": lambda device: device.update(kernels=[]),
    "a kernel elsewhere": lambda device: device["kernels"][0].__setitem__(2, 1 << 40),
    "a kernel of no size": lambda device: device["kernels"][0].__setitem__(3, -1),
    "a huge kernel": lambda device: device["kernels"][0].__setitem__(3, 1 << 40),
    "scratch of another size": lambda device: device["scratch"].__setitem__(1, 1 << 30),
    "scratch elsewhere": lambda device: device["scratch"].__setitem__(0, 1 << 40),
    "a descriptor elsewhere": lambda device: device["loaded"][0].__setitem__(2, 1 << 31),
    "a region without a base": lambda device: device["loaded"][0].__setitem__(5, []),
    "memory below": lambda device: device["device"]["regions"][0].__setitem__(0, 0),
    "memory beyond": lambda device: device["device"]["regions"][0].__setitem__(0, 1 << 32),
    "memory twice": lambda device: device["device"]["regions"].append(device["device"]["regions"][0]),
    "memory of no size": lambda device: device["device"]["regions"][0].__setitem__(1, 0),
    "memory from nowhere": lambda device: device["device"]["regions"][0].__setitem__(3, 1 << 40),
    "a piece elsewhere": lambda device: device["device"]["pieces"][0].__setitem__(1, 4096),
    "a piece too large": lambda device: device["device"]["pieces"][0].__setitem__(2, 1 << 31),
    "text": lambda device: device.update(heap="x"),
    "nothing": lambda device: device.clear(),
    "an unknown number": lambda device: device.update(printers=[[77, 0]]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_device_state_that_cannot_be_is_refused_and_leaves_nothing(node, kept, change):
    call(node, kept, "load")
    call(node, kept, "alloc", 5000)
    snapshot = node.snapshots.capture(kept.id, 1)
    node.kept.delete(kept.id, 1)
    damaged(node, snapshot, change)
    with pytest.raises((InvalidSnapshot, QuotaExceeded)):
        node.spawner.restore(snapshot.id, tenant=1)
    usage = node.administration.tenant(1).usage
    assert (usage.instances, usage.gpu_memory_bytes, usage.guest_memory_bytes) == (0, 0, 0)
    assert node.invocations.invoke(kept.function_id, "alloc", [64], tenant=1).results == [1]


def test_kernels_of_another_compiler_are_refused_by_name(node, kept, tmp_path):
    call(node, kept, "load")
    snapshot = node.snapshots.capture(kept.id, 1)
    (path,) = (tmp_path / "snapshots").iterdir()
    data = path.read_bytes()
    found = data.index(b'"version"')
    path.write_bytes(data[: found + 12] + b"0" + data[found + 13 :])
    with pytest.raises(SnapshotVersion, match="another release"):
        node.spawner.restore(snapshot.id, tenant=1)


def test_helpers_that_went_to_others_are_not_used_by_the_one_before(node, kept):
    count, calls = 2_000_000, 25  # enough work for helpers each time
    assert [call(node, kept, "load") for _ in range(2)] == [0, 1]
    handle = call(node, kept, "alloc", 4 * count)
    assert call(node, kept, "bump", 1, handle, count) == 0  # has helpers, and gives them back
    with ThreadPoolExecutor(2) as threads:
        ours = threads.submit(lambda: [call(node, kept, "bump", 1, handle, count) for _ in range(calls)])
        theirs = threads.submit(
            lambda: [
                node.invocations.invoke(kept.function_id, "thrice", [count], tenant=1).results for _ in range(calls)
            ]
        )
        assert theirs.result() == [[8, 3]] * calls
        assert ours.result() == [0] * calls
    assert numbers(node, kept, handle, 4) == [5 + calls + 1, *[calls + 1] * 3]
