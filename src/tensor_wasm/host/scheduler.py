"""``wasi:scheduler/host``: how much time a guest has left, and whether it should stop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tensor_wasm.abi import SCHEDULER_MODULE, signatures
from tensor_wasm.abi.limits import LAUNCH_MARGIN_MS
from tensor_wasm.host.guest import Guest
from tensor_wasm.runtime import HostFunction

_GO_ON, _LITTLE_TIME, _STOP = range(3)
_UNBOUNDED = 0xFFFFFFFF
_NS_PER_MS = 1_000_000


def functions() -> Iterator[HostFunction]:
    """The host functions of the module."""
    calls = {"yield": _yield, "deadline-remaining-ms": _deadline_remaining_ms}
    for name, signature in signatures(SCHEDULER_MODULE).items():
        yield HostFunction(SCHEDULER_MODULE, name, signature.parameters, signature.results, calls[name])


def _yield(guest: Guest, values: Any) -> None:
    left = guest.left_ns()
    if guest.interrupt() is not None:
        values[0].i32 = _STOP
    elif left is not None and left < LAUNCH_MARGIN_MS * _NS_PER_MS:
        values[0].i32 = _LITTLE_TIME
    else:
        values[0].i32 = _GO_ON


def _deadline_remaining_ms(guest: Guest, values: Any) -> None:
    left = guest.left_ns()
    milliseconds = _UNBOUNDED if left is None else min(left // _NS_PER_MS, _UNBOUNDED - 1)
    values[0].i32 = milliseconds - (1 << 32) if milliseconds >> 31 else milliseconds
