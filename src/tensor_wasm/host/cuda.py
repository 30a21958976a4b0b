"""``wasi:cuda/host``: everything but the launch, which the gate answers, and device memory, see ``cuda_memory``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from tensor_wasm.abi import CUDA_MODULES, Code, signatures
from tensor_wasm.abi.limits import (
    ALLOCATION_MAX_BYTES,
    ALLOCATIONS_MAX,
    ARGV_MAX_BYTES,
    ARGV_MAX_RECORDS,
    BLOCK_AXIS_MAX,
    BLOCK_THREADS_MAX,
    BLOCK_Z_MAX,
    ENTRY_MAX_BYTES,
    GRID_X_MAX,
    GRID_YZ_MAX,
    KERNELS_MAX,
    PTX_MAX_BYTES,
    PTX_TOTAL_MAX_BYTES,
    SHARED_MAX_BYTES,
)
from tensor_wasm.dispatch.link_module import BIND_MODULE, BIND_NAME, HIRE_NAME, LAUNCH_ASYNC_NAME, LAUNCH_NAME
from tensor_wasm.errors import CapacityExhausted, PtxError, QuotaExceeded
from tensor_wasm.host import cuda_memory, named_kernels
from tensor_wasm.host.guest import Guest, GuestKernel
from tensor_wasm.host.results import copy_text, finish, last_error_copy, last_error_len, refuse_for_quota
from tensor_wasm.ptx.constants import WARP_SIZE
from tensor_wasm.runtime import HostFunction


def functions() -> Iterator[HostFunction]:
    """The host functions, under each version of the module, and those that the gate calls."""
    calls: dict[str, Callable[[Guest, Any], None]] = {
        "wasi_cuda_load_ptx": _load_ptx,
        "wasi_cuda_load_named": _load_named,
        "wasi_cuda_unload": _unload,
        "wasi_cuda_sync": _sync,
        "wasi_cuda_device_info": _device_info,
        "wasi_cuda_last_error_len": last_error_len,
        "wasi_cuda_last_error_copy": last_error_copy,
        "wasi_cuda_alloc": cuda_memory.alloc,
        "wasi_cuda_free": cuda_memory.free,
        "wasi_cuda_memcpy_h2d": cuda_memory.memcpy_h2d,
        "wasi_cuda_memcpy_d2h": cuda_memory.memcpy_d2h,
        "wasi_cuda_memcpy": cuda_memory.memcpy,
        "wasi_cuda_memset": cuda_memory.memset,
    }
    for module in CUDA_MODULES:
        for name, signature in signatures(module).items():
            if name not in (LAUNCH_NAME, LAUNCH_ASYNC_NAME):
                yield HostFunction(module, name, signature.parameters, signature.results, calls[name])
    yield HostFunction(BIND_MODULE, BIND_NAME, (), ("i32",), _bind_gate)
    yield HostFunction(BIND_MODULE, HIRE_NAME, ("i32",), ("i32",), _hire_crew)


# --- kernels -----------------------------------------------------------------------------------------------


def _bind_gate(guest: Guest, values: Any) -> None:
    guest.bind_gate()
    values[0].i32 = Code.OK


def _hire_crew(guest: Guest, values: Any) -> None:
    values[0].i32 = guest.hire_crew(values[0].i32)


def _load_ptx(guest: Guest, values: Any) -> None:
    values[0].i64 = _load(guest, *(values[position].i32 for position in range(4)))


def _load(guest: Guest, ptx_pointer: int, ptx_bytes: int, entry_pointer: int, entry_bytes: int) -> int:
    if not guest.is_capable:
        return finish(guest, Code.NOT_AVAILABLE)
    for length, limit, what in (
        (ptx_bytes, PTX_MAX_BYTES, "PTX text"),
        (entry_bytes, ENTRY_MAX_BYTES, "entry name"),
    ):
        if length < 0:
            return finish(guest, Code.INVALID_POINTER)
        if length > limit:
            return refuse_for_quota(guest, f"quota exceeded: a {what} may have {limit} bytes, not {length}")
    ptx, entry = guest.window(ptx_pointer, ptx_bytes), guest.window(entry_pointer, entry_bytes)
    if ptx is None or entry is None:
        return finish(guest, Code.INVALID_POINTER)
    try:
        name = bytes(entry).decode()
    except UnicodeDecodeError as error:
        return finish(guest, Code.INVALID_ARGUMENTS, f"invalid arguments: the entry name is not UTF-8: {error.reason}")
    return _add_kernel(guest, ptx, name)


def _load_named(guest: Guest, values: Any) -> None:
    pointers, lengths = [[values[position].i32 for position in range(start, 6, 2)] for start in (0, 1)]
    found = named_kernels.find(guest, pointers, lengths)
    values[0].i64 = found if isinstance(found, int) else _add_kernel(guest, *found)


def _add_kernel(guest: Guest, text: bytes | memoryview, entry: str) -> int:
    if guest.recording is None:
        return _add(guest, text, entry)
    span = guest.recording.open_load(len(text), entry)
    if span is None:
        return _add(guest, text, entry)
    if len(text) <= PTX_TOTAL_MAX_BYTES - guest.ptx_bytes:  # else it is not even looked for
        span.attributes["cached"] = guest.services.device.has(bytes(text), entry)
    code: int = Code.INTERNAL
    try:
        code = _add(guest, text, entry)
    finally:
        span.end(None if code >= 0 else Code(code).name.lower())
    return code


def _add(guest: Guest, text: bytes | memoryview, entry: str) -> int:
    if len(guest.kernels) >= KERNELS_MAX:
        return refuse_for_quota(guest, f"quota exceeded: an instance may hold {KERNELS_MAX} kernels")
    if guest.ptx_bytes + len(text) > PTX_TOTAL_MAX_BYTES:
        return refuse_for_quota(guest, f"quota exceeded: an instance may load {PTX_TOTAL_MAX_BYTES} bytes of PTX")
    if barred := guest.barred():
        return finish(guest, Code.NOT_AVAILABLE, f"not available: {barred}")
    ptx = bytes(text)
    try:
        gpu = guest.open_gpu()
        if gpu is None:
            kernel = guest.services.device.load(ptx, entry, guest.interrupt)
            identity, instance, base = guest.bind_gate().add(kernel.module, kernel.compiled.work_bytes, kernel.entry)
        else:
            kernel, identity, instance, base = gpu.add(ptx, entry, guest.interrupt)
    except PtxError as error:
        return finish(guest, Code.MALFORMED_PTX, f"malformed PTX: {error}")
    except QuotaExceeded as error:
        return refuse_for_quota(guest, f"quota exceeded: {error}")
    except CapacityExhausted as error:
        return finish(guest, Code.SATURATED, f"saturated: {error}")
    number = identity & (KERNELS_MAX - 1)
    guest.kernels[number] = GuestKernel(kernel, instance, len(ptx))
    if kernel.compiled.records is not None:
        guest.printers[number] = kernel, base
    guest.ptx_bytes += len(ptx)
    return finish(guest, identity)


def _unload(guest: Guest, values: Any) -> None:
    values[0].i32 = _remove_kernel(guest, values[0].i64)


def _remove_kernel(guest: Guest, identity: int) -> int:
    if not guest.is_capable:
        return finish(guest, Code.NOT_AVAILABLE)
    if guest.gpu is not None:
        guest.gpu.check()
    number = identity & (KERNELS_MAX - 1)
    if guest.gate is None or not guest.gate.has(identity):
        return finish(guest, Code.UNKNOWN_KERNEL)
    guest.take_printed()  # what it printed is in the memory that it gives back
    guest.note_cost(number)
    if guest.recording is not None:
        guest.recording.note_kernel(identity, guest.kernels[number].loaded.compiled.name)
    try:
        guest.gate.remove(identity)
    except QuotaExceeded as error:
        return refuse_for_quota(guest, f"quota exceeded: {error}")
    guest.ptx_bytes -= guest.kernels.pop(number).ptx_bytes
    guest.printers.pop(number, None)
    if guest.gpu is not None:
        guest.gpu.remove(number)
    return finish(guest, Code.OK)


def _sync(guest: Guest, values: Any) -> None:
    # A launch is complete when it returns: there is nothing to wait for.
    if guest.gpu is not None:
        guest.gpu.check()
    code = Code.OK if guest.is_capable else Code.NOT_AVAILABLE
    if guest.recording is None:
        values[0].i32 = finish(guest, code)
        return
    entered_ns = time.monotonic_ns()
    values[0].i32 = finish(guest, code)
    guest.recording.note_sync(code, entered_ns)


# --- the device --------------------------------------------------------------------------------------------


def _device_info(guest: Guest, values: Any) -> None:
    values[0].i32 = _copy_info(guest, values[0].i32, values[1].i32)


def _copy_info(guest: Guest, pointer: int, room_bytes: int) -> int:
    if not guest.is_capable:
        return finish(guest, Code.NOT_AVAILABLE)
    return finish(guest, copy_text(guest, device_info(guest), pointer, room_bytes))


def device_info(guest: Guest) -> bytes:
    """What a guest is told of the device it runs on: nothing of the machine, and of limits those of every instance."""
    assert guest.store is not None
    device, gpu = guest.services.device, guest.services.device.gpu
    info = {
        "name": device.name if gpu is None else gpu.facts.name,
        "kind": device.kind,
        "sm": device.sm,
        "memory_bytes": guest.store.budget.limit_bytes if gpu is None else gpu.partition_bytes,
        "warp_size": WARP_SIZE,
        "limits": {
            "block": [BLOCK_AXIS_MAX, BLOCK_AXIS_MAX, BLOCK_Z_MAX],
            "block_threads": BLOCK_THREADS_MAX,
            "grid": [GRID_X_MAX, GRID_YZ_MAX, GRID_YZ_MAX],
            "shared_bytes": SHARED_MAX_BYTES if gpu is None else min(SHARED_MAX_BYTES, gpu.facts.shared_bytes_max),
            "argv_bytes": ARGV_MAX_BYTES,
            "argv_records": ARGV_MAX_RECORDS,
            "ptx_bytes": PTX_MAX_BYTES,
            "kernels": KERNELS_MAX,
            "allocation_bytes": ALLOCATION_MAX_BYTES,
            "allocations": ALLOCATIONS_MAX,
        },
    }
    return json.dumps(info, separators=(",", ":")).encode()
