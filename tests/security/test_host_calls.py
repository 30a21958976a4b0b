"""Storms of host calls: each is cheap, bounded, and lets go of the interpreter; the deadline ends the storm."""

from __future__ import annotations

import time
from collections.abc import Sequence

from security.attacked import MIB, Attacked
from security.guests import PROBE_BYTES, device_probe, entry

_DEADLINE_MS = 400
_LATE_S = 3.0
_AT_ONCE = 4


def _storm(node: Attacked, function: str, export: str, args: Sequence[int] = (), data: bytes = b"") -> None:
    node.invoke(function, "nothing", data=data)
    began = time.monotonic()
    answers = node.invoke_many(_AT_ONCE, function, export, args, data, _DEADLINE_MS)
    assert {answer.kind for answer in answers} == {"invoke_timeout"}
    assert time.monotonic() - began < _DEADLINE_MS / 1e3 + _LATE_S


def test_storms_of_small_calls(node: Attacked, function: str):
    """Bound: millions of clock_time_get and last_error_len: each is a step of the guest, ended like any other."""
    for export in ("storm_clock", "storm_length"):
        _storm(node, function, export)


def test_a_storm_of_polls(node: Attacked, function: str):
    """Bound: poll_oneoff takes 1,024 subscriptions at most, and a tight loop of such polls stops no other thread."""
    _storm(node, function, "storm_poll")


def test_a_storm_of_random_bytes(node: Attacked, function: str):
    """Bound: random_get of all of memory runs without the interpreter lock and ends within the deadline's margin."""
    _storm(node, function, "storm_random")


def test_a_storm_of_input(node: Attacked, function: str):
    """Bound: the input is copied in pieces of 1 MiB, between which other threads run."""
    _storm(node, function, "storm_input", data=bytes(MIB))


def test_storms_of_output(node: Attacked, function: str):
    """Bound: output beyond TENSOR_WASM_OUTPUT_BYTES costs no memory, in small writes or writes of all of memory."""
    for export in ("storm_write", "storm_big_write"):
        _storm(node, function, export)


def test_a_storm_of_loads(node: Attacked, function: str):
    """Bound: texts of 8 MiB that are none are refused again and again, and stop no other thread."""
    _storm(node, function, "storm_load")


def test_storms_of_allocations(node: Attacked, function: str):
    """Bound: device memory is pages that are made when they are touched: taking 40 MiB holds no lock for long."""
    for size in (8, 1 << 20, 40 * MIB):
        _storm(node, function, "storm_alloc", [size])


def test_storms_of_copies(node: Attacked, function: str):
    """Bound: large copies to and from device memory run without the interpreter lock."""
    for size in (64, PROBE_BYTES, 40 * MIB):
        _storm(node, function, "storm_copy", [size])


def test_a_storm_of_unloads(node: Attacked):
    """Bound: what a kernel leaves in its instance when it is unloaded counts as its memory, and ends with it."""
    before = node.resident_bytes
    text = entry("st.global.u64 [%rd0], 7;").encode()
    _storm(node, node.deploy(device_probe()), "storm_unload", [len(text)], text + b"k")
    assert node.resident_bytes < before + 128 * MIB
