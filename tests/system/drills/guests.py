"""The guest of the drills: it launches as often as it is told, kernels as long as it is told."""

from __future__ import annotations

import wasmtime

from tensor_wasm.abi import Tag, pack
from tensor_wasm.bench.working_guest import COMPUTE_PTX

#: What takes about 1 ms on a core of some 3 GHz, and next to nothing.
LONG, SHORT = 1_000_000, 1
FOR_EVER = 0

_ENTRY = b"compute"
_ARGUMENTS = pack([(Tag.U32, 0)])
_ENTRY_AT, _ARGUMENTS_AT, _PTX_AT = 16, 64, 1024


def guest() -> bytes:
    """``launch(steps, count) -> i32`` launches a kernel ``count`` times (0: until it is refused or ended), on a grid of
    1 x 1 x 1, and gives the last code. ``launch_tall(steps, count)`` does so on a grid of 1 x 2 x 1.
    """
    module: bytes = bytes(wasmtime.wat2wasm(_TEXT))
    return module


def _escaped(data: bytes) -> str:
    return "".join(f"\\{byte:02x}" for byte in data)


def _export(name: str, height: int) -> str:
    return f"""
  (func (export "{name}") (param $steps i32) (param $count i32) (result i32)
    (local $kernel i64) (local $code i32)
    (local.set $kernel (call $load
      (i32.const {_PTX_AT}) (i32.const {len(COMPUTE_PTX)}) (i32.const {_ENTRY_AT}) (i32.const {len(_ENTRY)})))
    (if (i64.lt_s (local.get $kernel) (i64.const 0)) (then (return (i32.wrap_i64 (local.get $kernel)))))
    (i32.store align=1 (i32.const {_ARGUMENTS_AT + 1}) (local.get $steps))
    (loop $again
      (local.set $code (call $launch (local.get $kernel)
        (i32.const 1) (i32.const {height}) (i32.const 1) (i32.const 1) (i32.const 1) (i32.const 1) (i32.const 0)
        (i32.const {_ARGUMENTS_AT}) (i32.const {len(_ARGUMENTS)})))
      (if (local.get $code) (then (return (local.get $code))))
      (local.set $count (i32.sub (local.get $count) (i32.const 1)))
      (br_if $again (local.get $count)))
    (local.get $code))"""


_TEXT = f"""(module
  (import "wasi:cuda/host@0.2.0" "wasi_cuda_load_ptx" (func $load (param i32 i32 i32 i32) (result i64)))
  (import "wasi:cuda/host@0.2.0" "wasi_cuda_launch"
    (func $launch (param i64 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const {_ENTRY_AT}) "{_escaped(_ENTRY)}")
  (data (i32.const {_ARGUMENTS_AT}) "{_escaped(_ARGUMENTS)}")
  (data (i32.const {_PTX_AT}) "{_escaped(COMPUTE_PTX)}")
  {_export("launch", 1)}
  {_export("launch_tall", 2)}
)"""
