"""``wasi:tensor/host``: the invocation's input, and its stream of chunks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tensor_wasm.abi import TENSOR_MODULES, signatures
from tensor_wasm.abi.limits import CHUNK_MAX_BYTES, STREAM_MAX_BYTES
from tensor_wasm.device.guarded import copy_buffer
from tensor_wasm.host.guest import Guest
from tensor_wasm.runtime import HostFunction

_OK, _NO_STREAM, _BAD_POINTER, _CLIENT_GONE = 0, -1, -2, -3
_I32_MAX, _U32_MAX = 0x7FFFFFFF, 0xFFFFFFFF


def functions() -> Iterator[HostFunction]:
    """The host functions of the module."""
    calls = {
        "emit-chunk": _emit_chunk,
        "flush": _flush,
        "input-len": _input_len,
        "read-input": _read_input,
        "read-input-at": _read_input_at,
    }
    for module in TENSOR_MODULES:
        for name, signature in signatures(module).items():
            yield HostFunction(module, name, signature.parameters, signature.results, calls[name])


def _emit_chunk(guest: Guest, values: Any) -> None:
    values[0].i32 = _emit(guest, values[0].i32, values[1].i32)


def _emit(guest: Guest, pointer: int, length: int) -> int:
    stream = guest.stream
    if stream is None:
        return _NO_STREAM
    window = guest.window(pointer, length)
    if window is None or length > CHUNK_MAX_BYTES or stream.emitted_bytes + length > STREAM_MAX_BYTES:
        return _BAD_POINTER
    return _OK if stream.emit(bytes(window), guest.interrupt) else _CLIENT_GONE


def _flush(guest: Guest, values: Any) -> None:
    if guest.stream is None:
        values[0].i32 = _NO_STREAM
    else:
        values[0].i32 = _OK if guest.stream.flush(guest.interrupt) else _CLIENT_GONE


def _input_len(guest: Guest, values: Any) -> None:
    values[0].i32 = min(len(guest.input), _I32_MAX)


def _read_input(guest: Guest, values: Any) -> None:
    values[0].i32 = _read(guest, 0, values[0].i32, values[1].i32)


def _read_input_at(guest: Guest, values: Any) -> None:
    values[0].i32 = _read(guest, values[0].i32 & _U32_MAX, values[1].i32, values[2].i32)


def _read(guest: Guest, offset: int, pointer: int, room: int) -> int:
    target = guest.window(pointer, room)
    if target is None:
        return _BAD_POINTER
    part = memoryview(guest.input)[offset : offset + room]
    copy_buffer(target, part)
    return len(part)
