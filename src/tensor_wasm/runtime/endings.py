"""What a call into Wasm came to, read from Wasmtime's trap and error objects."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from tensor_wasm.runtime import bindings as native

#: Wasmtime's trap codes (``wasmtime/trap.h``) in words a guest's author understands.
TRAP_TEXTS: dict[int, str] = {
    0: "call stack exhausted",
    1: "out-of-bounds memory access",
    2: "unaligned atomic access",
    3: "out-of-bounds table access",
    4: "indirect call to a null function",
    5: "indirect call with the wrong signature",
    6: "integer overflow",
    7: "integer division by zero",
    8: "invalid conversion to integer",
    9: "unreachable instruction executed",
    10: "interrupted",
    11: "out of fuel",
    13: "atomic wait on a memory that is not shared",
    14: "null reference",
    15: "out-of-bounds array access",
    16: "allocation too large",
    17: "cast failure",
}


@dataclass(frozen=True, slots=True)
class Frame:
    """A WebAssembly frame: function index, and byte offset in the module file."""

    function_index: int
    module_offset: int


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that did not return.

    ``code`` is Wasmtime's trap code or None; ``exit_status`` is set when the guest called ``proc_exit``. ``message`` is
    Wasmtime's own text of a trap.
    """

    text: str
    code: int | None
    exit_status: int | None
    frames: tuple[Frame, ...]
    message: str = ""


def from_call(error: int | None, trap: int | None) -> Failure:
    """Read and free what a call gave that did not return: a ``wasm_trap_t``, or else a ``wasmtime_error_t``."""
    return from_trap(trap) if trap else from_error(error or 0)


def from_trap(trap: int) -> Failure:
    """Read and free a ``wasm_trap_t``."""
    code_out = ctypes.c_uint8()
    code = code_out.value if native.trap_code(trap, ctypes.byref(code_out)) else None
    frames = native.FrameVector()
    native.trap_trace(trap, ctypes.byref(frames))
    vector = native.ByteVector()
    native.trap_message(trap, ctypes.byref(vector))
    message = native.take_text(vector)
    native.trap_delete(trap)
    text = message if code is None else TRAP_TEXTS.get(code, f"trap {code}")
    return Failure(text, code, None, _take_frames(frames), message)


def from_error(error: int) -> Failure:
    """Read and free a ``wasmtime_error_t``."""
    status_out = ctypes.c_int()
    status = status_out.value if native.error_exit_status(error, ctypes.byref(status_out)) else None
    frames = native.FrameVector()
    native.error_trace(error, ctypes.byref(frames))
    return Failure(native.take_error(error), None, status, _take_frames(frames))


def _take_frames(vector: native.FrameVector) -> tuple[Frame, ...]:
    frames = tuple(
        Frame(
            native.frame_func_index(ctypes.cast(vector.data[i], ctypes.c_void_p)),
            native.frame_module_offset(ctypes.cast(vector.data[i], ctypes.c_void_p)),
        )
        for i in range(vector.size)
    )
    native.frame_vec_delete(ctypes.byref(vector))
    return frames
