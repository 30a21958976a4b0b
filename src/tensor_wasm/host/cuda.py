"""``wasi:cuda/host``: everything but the launch, which the gate answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tensor_wasm.abi import CUDA_MODULES, Code, signatures
from tensor_wasm.abi.codes import CODE_TEXTS
from tensor_wasm.abi.limits import (
    ENTRY_MAX_BYTES,
    KERNELS_MAX,
    LAST_ERROR_MAX_BYTES,
    PTX_MAX_BYTES,
    PTX_TOTAL_MAX_BYTES,
)
from tensor_wasm.device.guarded import copy_buffer
from tensor_wasm.dispatch.link_module import BIND_MODULE, BIND_NAME, HIRE_NAME, LAUNCH_NAME
from tensor_wasm.errors import CapacityExhausted, PtxError, QuotaExceeded
from tensor_wasm.host.device_memory import DeviceMemory
from tensor_wasm.host.guest import Guest
from tensor_wasm.runtime import HostFunction

_LOW_HALF = 0xFFFFFFFF

#: What the host leaves in the gate's `last code` after a failure of its own: the text is then the guest's.
_TEXT_IS_HERE = 1
_REFUSALS = frozenset(int(code) for code in Code if code < 0)


def functions() -> Iterator[HostFunction]:
    """The host functions, under each version of the module, and those that the gate calls."""
    calls: dict[str, Callable[[Guest, Any], None]] = {
        "wasi_cuda_load_ptx": _load_ptx,
        "wasi_cuda_sync": _sync,
        "wasi_cuda_last_error_len": _last_error_len,
        "wasi_cuda_last_error_copy": _last_error_copy,
        "wasi_cuda_alloc": _alloc,
        "wasi_cuda_free": _free,
        "wasi_cuda_memcpy_h2d": _memcpy_h2d,
        "wasi_cuda_memcpy_d2h": _memcpy_d2h,
    }
    for module in CUDA_MODULES:
        for name, signature in signatures(module).items():
            if name != LAUNCH_NAME:
                yield HostFunction(module, name, signature.parameters, signature.results, calls[name])
    yield HostFunction(BIND_MODULE, BIND_NAME, (), ("i32",), _bind_gate)
    yield HostFunction(BIND_MODULE, HIRE_NAME, ("i32",), ("i32",), _hire_crew)


# --- results and the last error ----------------------------------------------------------------------------


def _finish(guest: Guest, code: int, text: str | None = None) -> int:
    """Note what a call came to, for ``last_error``; the code, to be returned."""
    guest.take_printed()
    guest.error_text = b"" if code >= 0 else _cut(text or CODE_TEXTS[Code(code)])
    if guest.gate is not None:
        guest.gate.set_last_code(_TEXT_IS_HERE if code < 0 else Code.OK)
    return code


def _cut(text: str) -> bytes:
    """At most ``LAST_ERROR_MAX_BYTES`` of UTF-8, ending on a character's boundary."""
    return text.encode("utf-8", "replace")[:LAST_ERROR_MAX_BYTES].decode("utf-8", "ignore").encode()


def _last_error(guest: Guest) -> bytes:
    code = _TEXT_IS_HERE if guest.gate is None else guest.gate.last_code
    if code == _TEXT_IS_HERE:
        return guest.error_text
    return _cut(CODE_TEXTS[Code(code)]) if code in _REFUSALS else b""


def _last_error_len(guest: Guest, values: Any) -> None:
    values[0].i32 = len(_last_error(guest))


def _last_error_copy(guest: Guest, values: Any) -> None:
    text = _last_error(guest)
    length = min(len(text), max(values[1].i32, 0))
    target = guest.window(values[0].i32, length) if values[1].i32 >= 0 else None
    if target is None:
        values[0].i32 = Code.INVALID_POINTER  # reading the text does not change it, nor does failing to
        return
    target[:] = text[:length]
    values[0].i32 = length


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
        return _finish(guest, Code.NOT_AVAILABLE)
    for length, limit, what in (
        (ptx_bytes, PTX_MAX_BYTES, "PTX text"),
        (entry_bytes, ENTRY_MAX_BYTES, "entry name"),
    ):
        if length < 0:
            return _finish(guest, Code.INVALID_POINTER)
        if length > limit:
            return _refuse_for_quota(guest, f"quota exceeded: a {what} may have {limit} bytes, not {length}")
    ptx, entry = guest.window(ptx_pointer, ptx_bytes), guest.window(entry_pointer, entry_bytes)
    if ptx is None or entry is None:
        return _finish(guest, Code.INVALID_POINTER)
    try:
        name = bytes(entry).decode()
    except UnicodeDecodeError as error:
        return _finish(guest, Code.INVALID_ARGUMENTS, f"invalid arguments: the entry name is not UTF-8: {error.reason}")
    if len(guest.kernels) >= KERNELS_MAX:
        return _refuse_for_quota(guest, f"quota exceeded: an instance may hold {KERNELS_MAX} kernels")
    if guest.ptx_bytes + ptx_bytes > PTX_TOTAL_MAX_BYTES:
        return _refuse_for_quota(guest, f"quota exceeded: an instance may load {PTX_TOTAL_MAX_BYTES} bytes of PTX")
    return _add_kernel(guest, bytes(ptx), name)


def _add_kernel(guest: Guest, ptx: bytes, entry: str) -> int:
    try:
        kernel = guest.services.device.load(ptx, entry, guest.interrupt)
        identity, instance, base = guest.bind_gate().add(kernel.module, kernel.compiled.work_bytes, kernel.entry)
    except PtxError as error:
        return _finish(guest, Code.MALFORMED_PTX, f"malformed PTX: {error}")
    except QuotaExceeded as error:
        return _refuse_for_quota(guest, f"quota exceeded: {error}")
    except CapacityExhausted as error:
        return _finish(guest, Code.SATURATED, f"saturated: {error}")
    guest.kernels.append((kernel, instance))
    if kernel.compiled.records is not None:
        guest.printers.append((kernel, base))
    guest.ptx_bytes += len(ptx)
    return _finish(guest, identity)


def _refuse_for_quota(guest: Guest, text: str) -> int:
    guest.count_quota()
    return _finish(guest, Code.QUOTA_EXCEEDED, text)


def _sync(guest: Guest, values: Any) -> None:
    # A launch is complete when it returns: there is nothing to wait for.
    values[0].i32 = _finish(guest, Code.OK if guest.is_capable else Code.NOT_AVAILABLE)


# --- device memory -----------------------------------------------------------------------------------------


def _device_memory(guest: Guest) -> DeviceMemory:
    if guest.device_memory is None:
        assert guest.store is not None
        guest.device_memory = DeviceMemory(guest.store.budget, guest.device_budget, guest.on_device_bytes)
    return guest.device_memory


def _join(low: int, high: int) -> int:
    """Two i32 halves as one signed 64-bit number."""
    value = (low & _LOW_HALF) | (high & _LOW_HALF) << 32
    return value - (1 << 64) if value >> 63 else value


def _alloc(guest: Guest, values: Any) -> None:
    if not guest.is_capable:
        values[0].i64 = _finish(guest, Code.NOT_AVAILABLE)
        return
    handle = _device_memory(guest).allocate(_join(values[0].i32, values[1].i32))
    if handle == Code.QUOTA_EXCEEDED:
        guest.count_quota()
    values[0].i64 = _finish(guest, handle)


def _free(guest: Guest, values: Any) -> None:
    handle = _join(values[0].i32, values[1].i32)
    values[0].i32 = _finish(guest, _device_memory(guest).free(handle) if guest.is_capable else Code.NOT_AVAILABLE)


def _memcpy_h2d(guest: Guest, values: Any) -> None:
    handle, pointer, length = _join(values[0].i32, values[1].i32), values[2].i32, values[3].i32
    values[0].i32 = _copy(guest, handle, pointer, length, to_device=True)


def _memcpy_d2h(guest: Guest, values: Any) -> None:
    pointer, handle, length = values[0].i32, _join(values[1].i32, values[2].i32), values[3].i32
    values[0].i32 = _copy(guest, handle, pointer, length, to_device=False)


def _copy(guest: Guest, handle: int, pointer: int, length: int, *, to_device: bool) -> int:
    if not guest.is_capable:
        return _finish(guest, Code.NOT_AVAILABLE)
    buffer = _device_memory(guest).get(handle)
    if buffer is None:
        return _finish(guest, Code.INVALID_HANDLE)
    window = guest.window(pointer, length)
    if window is None:
        return _finish(guest, Code.INVALID_POINTER)
    if length > len(buffer):
        text = f"invalid arguments: the copy has {length} bytes, the allocation {len(buffer)}"
        return _finish(guest, Code.INVALID_ARGUMENTS, text)
    if to_device:
        copy_buffer(buffer, window)
    else:
        copy_buffer(window, memoryview(buffer)[:length])
    return _finish(guest, Code.OK)
