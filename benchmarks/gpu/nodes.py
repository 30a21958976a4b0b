"""A node on the GPU, and guests in it that time their launches themselves."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import wasmtime
from part import EMULATED, ROOT

from tensor_wasm.bench.background import serving
from tensor_wasm.node import Node

_PAGE_BYTES = 65_536
_ARRAYS_AT = 4 * _PAGE_BYTES
_ARGV_AT = 1024
_CLOCK_AT = 512
_POINTER, _I32 = 7, 1


@contextmanager
def gpu_node(gpu: str, **settings: object) -> Iterator[tuple[Node, str]]:
    """A node whose kernels run on the GPU, with its HTTP server; gives its base URL too."""
    if gpu == EMULATED:
        from system.emulated_node import emulate

        emulate()
        settings = {"cuda_partition_mib": 4, "cuda_staging_mib": 16, **settings}
        gpu = "0"
    with (
        tempfile.TemporaryDirectory() as home,
        serving(Path(home), device=f"cuda:{gpu}", invoke_deadline_s=60, **settings) as (node, url),
    ):
        yield node, url


class Guest:
    """An instance of a tenant's that is kept."""

    def __init__(self, node: Node, function: str, tenant: int = 0) -> None:
        self._node = node
        self._tenant = tenant
        self._id = node.spawner.spawn(function, tenant=tenant).id

    def call(self, export: str, *args: int) -> int:
        """Call an export that gives a number. Raises for a code below 0."""
        (found,) = self._node.kept.call(self._id, export, list(args), tenant=self._tenant).results
        if found < 0:
            raise RuntimeError(f"{export} gave {found}")
        return int(found)

    def times_us(self, rounds: int, count: int) -> list[float]:
        """Microseconds of launches, of the benchmark's guest."""
        found: list[float] = []
        for _ in range(rounds):
            self.call("time_loop", count)
            found += self.samples_us(count)
        return found

    def samples_us(self, count: int) -> list[float]:
        """Those of the latest loop. What reading the clock costs is taken off."""
        samples = [self.call("sample", n) for n in range(count)]
        self.call("clock_loop", 200)
        clock_ns = float(np.median([self.call("sample", n) for n in range(200)]))
        return [max(sample - clock_ns, 0.0) / 1e3 for sample in samples]


def window_guest(count: int) -> bytes:
    """A module that launches ``vector_add`` over three arrays of ``count`` f32 in its memory.

    ``prepare`` loads the kernel, ``fill`` writes the arrays, ``launch`` launches once and gives the nanoseconds,
    ``right`` how many of the sums are right, of those that it looks at, one in a thousand.
    """
    text = (ROOT / "tests" / "corpus" / "vector_add.ptx").read_bytes()
    places = [_ARRAYS_AT + 4 * count * n for n in range(3)]
    argv = b"".join(struct.pack("<BII", _POINTER, place, 4 * count) for place in places)
    argv += struct.pack("<Bi", _I32, count)
    pages = -(-(places[2] + 4 * count) // _PAGE_BYTES)
    a, b, c = places
    code = f"""
    (module
      (import "wasi:cuda/host@0.2.0" "wasi_cuda_load_ptx" (func $load (param i32 i32 i32 i32) (result i64)))
      (import "wasi:cuda/host@0.2.0" "wasi_cuda_launch"
        (func $launch (param i64 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
      (memory (export "memory") {pages})
      (data (i32.const {_ARGV_AT}) "{_escaped(argv)}")
      (data (i32.const 2048) "vector_add")
      (data (i32.const {_PAGE_BYTES}) "{_escaped(text)}")
      (global $kernel (mut i64) (i64.const -1))
      (func (export "prepare") (result i64)
        (global.set $kernel
          (call $load (i32.const {_PAGE_BYTES}) (i32.const {len(text)}) (i32.const 2048) (i32.const 10)))
        (global.get $kernel))
      (func (export "fill") (result i32) (local $i i32)
        (loop $next
          (f32.store offset={a} (i32.shl (local.get $i) (i32.const 2)) (f32.convert_i32_u (local.get $i)))
          (f32.store offset={b} (i32.shl (local.get $i) (i32.const 2)) (f32.const 1))
          (f32.store offset={c} (i32.shl (local.get $i) (i32.const 2)) (f32.const 0))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br_if $next (i32.lt_u (local.get $i) (i32.const {count}))))
        (i32.const 0))
      (func (export "launch") (result i64) (local $start i64)
        (drop (call $clock (i32.const 1) (i64.const 1) (i32.const {_CLOCK_AT})))
        (local.set $start (i64.load (i32.const {_CLOCK_AT})))
        (if (call $launch (global.get $kernel) (i32.const {-(-count // 256)}) (i32.const 1) (i32.const 1)
              (i32.const 256) (i32.const 1) (i32.const 1) (i32.const 0) (i32.const {_ARGV_AT}) (i32.const {len(argv)}))
          (then (return (i64.const -1))))
        (drop (call $clock (i32.const 1) (i64.const 1) (i32.const {_CLOCK_AT})))
        (i64.sub (i64.load (i32.const {_CLOCK_AT})) (local.get $start)))
      (func (export "right") (result i32) (local $i i32) (local $right i32)
        (loop $next
          (local.set $right (i32.add (local.get $right) (f32.eq
            (f32.load offset={c} (i32.shl (local.get $i) (i32.const 2)))
            (f32.add (f32.convert_i32_u (local.get $i)) (f32.const 1)))))
          (local.set $i (i32.add (local.get $i) (i32.const 1000)))
          (br_if $next (i32.lt_u (local.get $i) (i32.const {count}))))
        (local.get $right)))
    """
    return bytes(wasmtime.wat2wasm(code))


def _escaped(data: Sequence[int]) -> str:
    return "".join(f"\\{octet:02x}" for octet in data)
