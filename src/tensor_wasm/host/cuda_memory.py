"""``wasi:cuda/host``: device memory, and copies between it and the guest's own.

Checks come in the same order everywhere: the capability, the handle, the range of guest memory, the range of the
allocation, everything else.
"""

from __future__ import annotations

from typing import Any

from tensor_wasm.abi import Code
from tensor_wasm.errors import CapacityExhausted, QuotaExceeded
from tensor_wasm.host.device_memory import DeviceMemory
from tensor_wasm.host.guest import Guest
from tensor_wasm.host.results import finish, refuse_for_quota

_LOW_HALF = 0xFFFFFFFF
_BYTE = 0xFF
_TO_DEVICE, _FROM_DEVICE = range(2)


def _join(low: int, high: int) -> int:
    """Two i32 halves as one signed 64-bit number."""
    value = (low & _LOW_HALF) | (high & _LOW_HALF) << 32
    return value - (1 << 64) if value >> 63 else value


def alloc(guest: Guest, values: Any) -> None:
    """``wasi_cuda_alloc``."""
    values[0].i64 = _allocate(guest, _join(values[0].i32, values[1].i32))


def _allocate(guest: Guest, size_bytes: int) -> int:
    if not guest.is_capable:
        return finish(guest, Code.NOT_AVAILABLE)
    if text := guest.barred():
        return finish(guest, Code.NOT_AVAILABLE, f"not available: {text}")
    try:
        memory = guest.open_memory()
    except QuotaExceeded as error:
        return refuse_for_quota(guest, f"quota exceeded: {error}")
    except CapacityExhausted as error:
        return finish(guest, Code.SATURATED, f"saturated: {error}")
    handle = memory.allocate(size_bytes)
    return refuse_for_quota(guest) if handle == Code.QUOTA_EXCEEDED else finish(guest, handle)


def free(guest: Guest, values: Any) -> None:
    """``wasi_cuda_free``."""
    values[0].i32 = _free(guest, _join(values[0].i32, values[1].i32))


def _free(guest: Guest, handle: int) -> int:
    if not guest.is_capable:
        return finish(guest, Code.NOT_AVAILABLE)
    memory = guest.device_memory
    return finish(guest, Code.INVALID_HANDLE if memory is None else memory.free(handle))


def memcpy_h2d(guest: Guest, values: Any) -> None:
    """``wasi_cuda_memcpy_h2d``: to an allocation's start."""
    handle, pointer, length = _join(values[0].i32, values[1].i32), values[2].i32, values[3].i32
    values[0].i32 = _copy(guest, handle, 0, pointer, length, _TO_DEVICE)


def memcpy_d2h(guest: Guest, values: Any) -> None:
    """``wasi_cuda_memcpy_d2h``: from an allocation's start."""
    pointer, handle, length = values[0].i32, _join(values[1].i32, values[2].i32), values[3].i32
    values[0].i32 = _copy(guest, handle, 0, pointer, length, _FROM_DEVICE)


def memcpy(guest: Guest, values: Any) -> None:
    """``wasi_cuda_memcpy``: either way, from or to any place in an allocation."""
    handle, offset, pointer, length, direction = (
        values[0].i64, values[1].i64, values[2].i32, values[3].i32, values[4].i32,
    )  # fmt: skip
    values[0].i32 = _copy(guest, handle, offset, pointer, length, direction)


def _copy(guest: Guest, handle: int, offset: int, pointer: int, length: int, direction: int) -> int:
    if not guest.is_capable:
        return finish(guest, Code.NOT_AVAILABLE)
    memory, size_bytes = _find(guest, handle)
    if memory is None:
        return finish(guest, Code.INVALID_HANDLE)
    window = guest.window(pointer, length)
    if window is None:
        return finish(guest, Code.INVALID_POINTER)
    if not _is_inside(offset, length, size_bytes):
        return _refuse_range(guest, "copy", offset, length, size_bytes)
    if direction not in (_TO_DEVICE, _FROM_DEVICE):
        return finish(
            guest, Code.INVALID_ARGUMENTS, f"invalid arguments: a copy has the direction 0 or 1, not {direction}"
        )
    (memory.write if direction == _TO_DEVICE else memory.read)(handle, offset, window)
    return finish(guest, Code.OK)


def memset(guest: Guest, values: Any) -> None:
    """``wasi_cuda_memset``: the low byte of a value into a range of an allocation."""
    handle, offset, value, length = values[0].i64, values[1].i64, values[2].i32, values[3].i64
    values[0].i32 = _set(guest, handle, offset, value, length)


def _set(guest: Guest, handle: int, offset: int, value: int, length: int) -> int:
    if not guest.is_capable:
        return finish(guest, Code.NOT_AVAILABLE)
    memory, size_bytes = _find(guest, handle)
    if memory is None:
        return finish(guest, Code.INVALID_HANDLE)
    if not _is_inside(offset, length, size_bytes):
        return _refuse_range(guest, "range", offset, length, size_bytes)
    memory.fill(handle, offset, value & _BYTE, length)
    return finish(guest, Code.OK)


def _find(guest: Guest, handle: int) -> tuple[DeviceMemory | None, int]:
    """The memory that has an allocation, and the allocation's bytes; None when there is none."""
    memory = guest.device_memory
    size_bytes = None if memory is None else memory.size_of(handle)
    return (None, 0) if size_bytes is None else (memory, size_bytes)


def _is_inside(offset: int, length: int, size_bytes: int) -> bool:
    return offset >= 0 and length >= 0 and offset + length <= size_bytes


def _refuse_range(guest: Guest, what: str, offset: int, length: int, size_bytes: int) -> int:
    where = f" at byte {offset}" if offset else ""
    text = f"invalid arguments: the {what} has {length} bytes{where}, the allocation {size_bytes}"
    return finish(guest, Code.INVALID_ARGUMENTS, text)
