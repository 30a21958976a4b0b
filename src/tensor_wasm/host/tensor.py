"""``wasi:tensor/host``: the invocation's input, and its stream of chunks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tensor_wasm.abi import TENSOR_MODULE, signatures
from tensor_wasm.device.guarded import copy_buffer
from tensor_wasm.host.guest import Guest
from tensor_wasm.runtime import HostFunction

_NO_STREAM, _BAD_POINTER = -1, -2
_I32_MAX = 0x7FFFFFFF


def functions() -> Iterator[HostFunction]:
    """The host functions of the module."""
    calls = {"emit-chunk": _no_stream, "flush": _no_stream, "input-len": _input_len, "read-input": _read_input}
    for name, signature in signatures(TENSOR_MODULE).items():
        yield HostFunction(TENSOR_MODULE, name, signature.parameters, signature.results, calls[name])


def _no_stream(_guest: Guest, values: Any) -> None:
    # A plain invocation has no stream: the contract's answer to both calls.
    values[0].i32 = _NO_STREAM


def _input_len(guest: Guest, values: Any) -> None:
    values[0].i32 = min(len(guest.input), _I32_MAX)


def _read_input(guest: Guest, values: Any) -> None:
    room = values[1].i32
    length = min(len(guest.input), max(room, 0))
    target = guest.window(values[0].i32, room)
    if target is None:
        values[0].i32 = _BAD_POINTER
        return
    copy_buffer(target, memoryview(guest.input)[:length])
    values[0].i32 = length
