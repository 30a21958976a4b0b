"""Owned ctypes bindings to Wasmtime's C API: only the calls this project makes, each with its GIL policy.

wasmtime-py's own high-level calls keep a process-global exception and cost tens of microseconds, so calls on the
path of an invocation go through here instead. Two loaders of the same library:

- ``PyDLL`` keeps the GIL. For calls that last a microsecond or two: releasing and taking the GIL back costs more
  than the call, and a thread that has to wait for the GIL waits up to the interpreter's switch interval.
- ``CDLL`` releases it. For whatever may run guest code or compile.

Nothing here raises through C: callbacks return Wasmtime's own trap objects (see ``hostcall``).
Source: Wasmtime C API headers ``wasmtime/{store,func,instance,linker,module,memory,trap,error}.h``.
"""

from __future__ import annotations

import ctypes
from typing import Any

from wasmtime import _bindings as _c
from wasmtime import _ffi

Pointer = ctypes.c_void_p
_Size = ctypes.c_size_t

RawValue = _c.wasmtime_val_raw_t
RawValuePointer = ctypes.POINTER(RawValue)
Instance = _c.wasmtime_instance_t
Extern = _c.wasmtime_extern_t
Func = _c.wasmtime_func_t
Memory = _c.wasmtime_memory_t
ByteVector = _c.wasm_byte_vec_t
FrameVector = _c.wasm_frame_vec_t
Value = _c.wasmtime_val_t


class LinearMemory(ctypes.Structure):
    """``wasmtime_linear_memory_t``: a host-created memory, as C is told of it."""

    _fields_ = (
        ("env", ctypes.c_void_p),
        ("get_memory", ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t, *[ctypes.POINTER(ctypes.c_size_t)] * 2)),
        ("grow_memory", ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)),
        ("finalizer", ctypes.CFUNCTYPE(None, ctypes.c_size_t)),
    )


class MemoryCreator(ctypes.Structure):
    """``wasmtime_memory_creator_t``. ``new_memory`` gets (env, type, minimum, maximum, reserve, guard, out)."""

    _fields_ = (
        ("env", ctypes.c_void_p),
        ("new_memory", ctypes.CFUNCTYPE(ctypes.c_void_p, *[ctypes.c_size_t] * 7)),
        ("finalizer", ctypes.c_void_p),
    )


EXTERN_FUNC, EXTERN_GLOBAL, EXTERN_TABLE, EXTERN_MEMORY, EXTERN_SHARED_MEMORY = range(5)
VALUE_I32, VALUE_I64, VALUE_F32, VALUE_F64, VALUE_V128, VALUE_FUNCREF = range(6)

#: ``wasmtime_func_unchecked_callback_t``: (env, caller, values, count) -> trap or null.
HostCallback = ctypes.CFUNCTYPE(Pointer, Pointer, Pointer, RawValuePointer, _Size)
#: ``wasmtime_store_epoch_deadline_callback``: (context, data, delta out, kind out) -> error or null.
EpochCallback = ctypes.CFUNCTYPE(
    Pointer, Pointer, Pointer, ctypes.POINTER(ctypes.c_uint64), ctypes.POINTER(ctypes.c_uint8)
)
#: ``wasi_config_set_std*_custom``: (data, bytes, count) -> bytes taken, or minus an errno.
OutputCallback = ctypes.CFUNCTYPE(ctypes.c_ssize_t, Pointer, Pointer, _Size)

_path = _ffi.dll._name
_holding = ctypes.PyDLL(_path)
_releasing = ctypes.CDLL(_path)


def _function(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Any:
    # A fresh function object for each use: ctypes caches attributes by name, and types set on it are shared.
    function = library[name]
    function.restype = result
    function.argtypes = arguments
    return function


def _short(name: str, result: Any, *arguments: Any) -> Any:
    return _function(_holding, name, result, *arguments)


def _long(name: str, result: Any, *arguments: Any) -> Any:
    return _function(_releasing, name, result, *arguments)


# --- stores ------------------------------------------------------------------------------------------------
store_new = _short("wasmtime_store_new", Pointer, Pointer, Pointer, Pointer)
store_context = _short("wasmtime_store_context", Pointer, Pointer)
store_delete = _short("wasmtime_store_delete", None, Pointer)
store_limiter = _short(
    "wasmtime_store_limiter",
    None,
    Pointer,
    ctypes.c_int64,
    ctypes.c_int64,
    ctypes.c_int64,
    ctypes.c_int64,
    ctypes.c_int64,
)
store_epoch_callback = _short("wasmtime_store_epoch_deadline_callback", None, Pointer, EpochCallback, Pointer, Pointer)
context_get_data = _short("wasmtime_context_get_data", Pointer, Pointer)
context_set_epoch_deadline = _short("wasmtime_context_set_epoch_deadline", None, Pointer, ctypes.c_uint64)
context_set_wasi = _short("wasmtime_context_set_wasi", Pointer, Pointer, Pointer)
caller_context = _short("wasmtime_caller_context", Pointer, Pointer)
config_host_memory_creator = _short(
    "wasmtime_config_host_memory_creator_set", None, Pointer, ctypes.POINTER(MemoryCreator)
)
engine_increment_epoch = _short("wasmtime_engine_increment_epoch", None, Pointer)

# --- WASI --------------------------------------------------------------------------------------------------
wasi_config_new = _short("wasi_config_new", Pointer)
wasi_config_set_stdout_custom = _short("wasi_config_set_stdout_custom", None, Pointer, OutputCallback, Pointer, Pointer)
wasi_config_set_stderr_custom = _short("wasi_config_set_stderr_custom", None, Pointer, OutputCallback, Pointer, Pointer)

# --- modules -----------------------------------------------------------------------------------------------
module_new = _long("wasmtime_module_new", Pointer, Pointer, ctypes.c_char_p, _Size, ctypes.POINTER(Pointer))
module_delete = _short("wasmtime_module_delete", None, Pointer)
module_serialize = _long("wasmtime_module_serialize", Pointer, Pointer, ctypes.POINTER(ByteVector))
module_deserialize = _long(
    "wasmtime_module_deserialize", Pointer, Pointer, ctypes.c_char_p, _Size, ctypes.POINTER(Pointer)
)

# --- linking -----------------------------------------------------------------------------------------------
linker_new = _short("wasmtime_linker_new", Pointer, Pointer)
linker_delete = _short("wasmtime_linker_delete", None, Pointer)
linker_allow_shadowing = _short("wasmtime_linker_allow_shadowing", None, Pointer, ctypes.c_bool)
linker_define_wasi = _short("wasmtime_linker_define_wasi", Pointer, Pointer)
linker_define_func = _short(
    "wasmtime_linker_define_func_unchecked",
    Pointer,
    Pointer,
    ctypes.c_char_p,
    _Size,
    ctypes.c_char_p,
    _Size,
    Pointer,
    HostCallback,
    Pointer,
    Pointer,
)
linker_instantiate_pre = _long("wasmtime_linker_instantiate_pre", Pointer, Pointer, Pointer, ctypes.POINTER(Pointer))
instance_pre_delete = _short("wasmtime_instance_pre_delete", None, Pointer)

# --- instances ---------------------------------------------------------------------------------------------
# Instantiation may run a `start` function, which is guest code: whoever calls chooses by the module (see Store).
_pre_types = (Pointer, Pointer, ctypes.POINTER(Instance), ctypes.POINTER(Pointer))
instance_pre_instantiate = _short("wasmtime_instance_pre_instantiate", Pointer, *_pre_types)
instance_pre_instantiate_releasing = _long("wasmtime_instance_pre_instantiate", Pointer, *_pre_types)
_new_types = (Pointer, Pointer, Pointer, _Size, ctypes.POINTER(Instance), ctypes.POINTER(Pointer))
instance_new = _short("wasmtime_instance_new", Pointer, *_new_types)
instance_new_releasing = _long("wasmtime_instance_new", Pointer, *_new_types)
instance_export_get = _short(
    "wasmtime_instance_export_get",
    ctypes.c_bool,
    Pointer,
    ctypes.POINTER(Instance),
    ctypes.c_char_p,
    _Size,
    ctypes.POINTER(Extern),
)
_call_types = (Pointer, ctypes.POINTER(Func), RawValuePointer, _Size, ctypes.POINTER(Pointer))
func_call = _long("wasmtime_func_call_unchecked", Pointer, *_call_types)
func_call_short = _short("wasmtime_func_call_unchecked", Pointer, *_call_types)

# --- memories, tables, globals -----------------------------------------------------------------------------
memory_data = _short("wasmtime_memory_data", Pointer, Pointer, ctypes.POINTER(Memory))
memory_data_size = _short("wasmtime_memory_data_size", _Size, Pointer, ctypes.POINTER(Memory))
memory_grow = _short(
    "wasmtime_memory_grow",
    Pointer,
    Pointer,
    ctypes.POINTER(Memory),
    ctypes.c_uint64,
    ctypes.POINTER(ctypes.c_uint64),
)
sharedmemory_new = _short("wasmtime_sharedmemory_new", Pointer, Pointer, Pointer, ctypes.POINTER(Pointer))
sharedmemory_delete = _short("wasmtime_sharedmemory_delete", None, Pointer)
sharedmemory_data = _short("wasmtime_sharedmemory_data", Pointer, Pointer)
table_size = _short("wasmtime_table_size", ctypes.c_uint64, Pointer, ctypes.POINTER(_c.wasmtime_table_t))
table_get = _short(
    "wasmtime_table_get",
    ctypes.c_bool,
    Pointer,
    ctypes.POINTER(_c.wasmtime_table_t),
    ctypes.c_uint64,
    ctypes.POINTER(Value),
)
table_grow = _short(
    "wasmtime_table_grow",
    Pointer,
    Pointer,
    ctypes.POINTER(_c.wasmtime_table_t),
    ctypes.c_uint64,
    ctypes.POINTER(Value),
    ctypes.POINTER(ctypes.c_uint64),
)
table_set = _short(
    "wasmtime_table_set", Pointer, Pointer, ctypes.POINTER(_c.wasmtime_table_t), ctypes.c_uint64, ctypes.POINTER(Value)
)
global_new = _short(
    "wasmtime_global_new",
    Pointer,
    Pointer,
    Pointer,
    ctypes.POINTER(Value),
    ctypes.POINTER(_c.wasmtime_global_t),
)
globaltype_new = _short("wasm_globaltype_new", Pointer, Pointer, ctypes.c_uint8)
global_set = _short(
    "wasmtime_global_set", Pointer, Pointer, ctypes.POINTER(_c.wasmtime_global_t), ctypes.POINTER(Value)
)
global_get = _short("wasmtime_global_get", None, Pointer, ctypes.POINTER(_c.wasmtime_global_t), ctypes.POINTER(Value))

# --- endings -----------------------------------------------------------------------------------------------
trap_new = _short("wasmtime_trap_new", Pointer, ctypes.c_char_p, _Size)
trap_code = _short("wasmtime_trap_code", ctypes.c_bool, Pointer, ctypes.POINTER(ctypes.c_uint8))
trap_message = _short("wasm_trap_message", None, Pointer, ctypes.POINTER(ByteVector))
trap_trace = _short("wasm_trap_trace", None, Pointer, ctypes.POINTER(FrameVector))
trap_delete = _short("wasm_trap_delete", None, Pointer)
error_new = _short("wasmtime_error_new", Pointer, ctypes.c_char_p)
error_message = _short("wasmtime_error_message", None, Pointer, ctypes.POINTER(ByteVector))
error_exit_status = _short("wasmtime_error_exit_status", ctypes.c_bool, Pointer, ctypes.POINTER(ctypes.c_int))
error_trace = _short("wasmtime_error_wasm_trace", None, Pointer, ctypes.POINTER(FrameVector))
error_delete = _short("wasmtime_error_delete", None, Pointer)
byte_vec_delete = _short("wasm_byte_vec_delete", None, ctypes.POINTER(ByteVector))
frame_vec_delete = _short("wasm_frame_vec_delete", None, ctypes.POINTER(FrameVector))
frame_func_index = _short("wasm_frame_func_index", ctypes.c_uint32, Pointer)
frame_module_offset = _short("wasm_frame_module_offset", _Size, Pointer)

# --- types -------------------------------------------------------------------------------------------------
functype_new = _short(
    "wasm_functype_new", Pointer, ctypes.POINTER(_c.wasm_valtype_vec_t), ctypes.POINTER(_c.wasm_valtype_vec_t)
)
functype_delete = _short("wasm_functype_delete", None, Pointer)
valtype_new = _short("wasm_valtype_new", Pointer, ctypes.c_uint8)
valtype_vec_new = _short(
    "wasm_valtype_vec_new", None, ctypes.POINTER(_c.wasm_valtype_vec_t), _Size, ctypes.POINTER(Pointer)
)
ValueTypeVector = _c.wasm_valtype_vec_t


def take_text(vector: Any) -> str:
    """The text in a C byte vector, which is freed; a NUL at the end is dropped."""
    text = ctypes.string_at(vector.data, vector.size) if vector.size else b""
    byte_vec_delete(ctypes.byref(vector))
    return text.rstrip(b"\0").decode("utf-8", "replace")


def take_error(error: int) -> str:
    """The message of a ``wasmtime_error_t``, which is freed."""
    vector = ByteVector()
    error_message(error, ctypes.byref(vector))
    error_delete(error)
    return take_text(vector)
