"""WASI preview 1 where Wasmtime's own is not enough: ``poll_oneoff``.

Wasmtime's would sleep in C for as long as a guest asks, deaf to deadlines and orders to end. Ours sleeps in slices.
Source: the WASI preview 1 document, "poll_oneoff", "subscription", "event".
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tensor_wasm.abi import WASI_MODULE
from tensor_wasm.host.guest import Guest
from tensor_wasm.runtime import HostFunction, asleep

_SUCCESS, _BAD_DESCRIPTOR, _FAULT, _INVALID = 0, 8, 21, 28
_CLOCK, _READ, _WRITE = range(3)
_REALTIME, _MONOTONIC = range(2)
_ABSOLUTE = 1
_HANGUP = 1
_SUBSCRIPTION_BYTES, _EVENT_BYTES = 48, 32
_MAX_SUBSCRIPTIONS = 1024
_SLICE_S = 0.02


def functions() -> Iterator[HostFunction]:
    """What replaces Wasmtime's functions of the same names."""
    yield HostFunction(WASI_MODULE, "poll_oneoff", ("i32", "i32", "i32", "i32"), ("i32",), _poll_oneoff)


@dataclass(frozen=True, slots=True)
class _Event:
    """A subscription's answer. ``due_ns`` is on the monotonic clock; what is not a timer is due at once."""

    userdata: int
    kind: int
    due_ns: int
    error: int = _SUCCESS
    flags: int = 0

    def encode(self) -> bytes:
        return struct.pack("<QHB5xQH6x", self.userdata, self.error, self.kind, 0, self.flags)


def _poll_oneoff(guest: Guest, values: Any) -> None:
    subscriptions, events, count, stored = (values[position].i32 for position in range(4))
    values[0].i32 = _poll(guest, subscriptions, events, count & 0xFFFFFFFF, stored)


def _poll(guest: Guest, subscriptions: int, events: int, count: int, stored: int) -> int:
    if not 0 < count <= _MAX_SUBSCRIPTIONS:
        return _INVALID
    source = guest.window(subscriptions, count * _SUBSCRIPTION_BYTES)
    if source is None or guest.window(events, count * _EVENT_BYTES) is None or guest.window(stored, 4) is None:
        return _FAULT
    wanted = [_subscription(guest, bytes(source[at : at + _SUBSCRIPTION_BYTES])) for at in range(0, len(source), 48)]
    _sleep_until(guest, min(event.due_ns for event in wanted))
    now = time.monotonic_ns()
    answer = b"".join(event.encode() for event in wanted if event.due_ns <= now)
    target, length = guest.window(events, len(answer)), guest.window(stored, 4)
    assert target is not None
    assert length is not None
    target[:] = answer
    length[:] = (len(answer) // _EVENT_BYTES).to_bytes(4, "little")
    return _SUCCESS


def _subscription(guest: Guest, record: bytes) -> _Event:
    userdata, kind = struct.unpack_from("<QB", record)
    if kind == _CLOCK:
        clock, timeout, _precision, flags = struct.unpack_from("<I4xQQH", record, 16)
        if clock not in (_REALTIME, _MONOTONIC):
            return _Event(userdata, kind, 0, _INVALID)
        now = time.monotonic_ns()
        if not flags & _ABSOLUTE:
            return _Event(userdata, kind, now + timeout)
        clock_now = time.time_ns() if clock == _REALTIME else now - guest.clock_started_ns
        return _Event(userdata, kind, now + timeout - clock_now)
    (descriptor,) = struct.unpack_from("<I", record, 16)
    if kind == _WRITE and descriptor in (1, 2):
        return _Event(userdata, kind, 0)
    if kind == _READ and descriptor == 0:
        return _Event(userdata, kind, 0, flags=_HANGUP)  # stdin is empty and at its end
    return _Event(userdata, kind, 0, _BAD_DESCRIPTOR if kind in (_READ, _WRITE) else _INVALID)


def _sleep_until(guest: Guest, due_ns: int) -> None:
    """Sleep, raising the ending that comes meanwhile."""
    if due_ns <= time.monotonic_ns():
        return
    with asleep():
        while (left := due_ns - time.monotonic_ns()) > 0:
            ending = guest.interrupt()
            if ending is not None:
                raise ending
            time.sleep(min(left / 1e9, _SLICE_S))
