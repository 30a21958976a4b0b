"""``wasi:scheduler`` and the input half of ``wasi:tensor``."""

from __future__ import annotations

from pathlib import Path

from host.rig import HostRig
from tensor_wasm.abi import TENSOR_2_MODULE
from tensor_wasm.runtime import Engine


def test_a_guest_without_a_deadline_has_all_the_time(engine: Engine, tmp_path: Path) -> None:
    rig = HostRig(engine, tmp_path)
    assert rig.call("yield") == 0
    assert rig.call("deadline-remaining-ms") == -1
    rig.close()


def test_a_guest_hears_when_little_time_is_left_and_when_to_stop(engine: Engine, tmp_path: Path) -> None:
    rig = HostRig(engine, tmp_path, left_s=60)
    assert rig.call("yield") == 0
    assert 50_000 < rig.call("deadline-remaining-ms") <= 60_000
    rig.guest.deadline_ns = (rig.guest.deadline_ns or 0) - 59_960_000_000
    assert rig.call("yield") == 1
    rig.guest.deadline_ns = 1
    assert rig.call("yield") == 2
    assert rig.call("deadline-remaining-ms") == 0
    rig.close()


def test_an_order_to_end_is_stop_now(engine: Engine, tmp_path: Path) -> None:
    rig = HostRig(engine, tmp_path)
    rig.slot.ask_to_terminate()
    assert rig.call("yield") == 2
    rig.close()


def test_the_input_is_copied_as_far_as_it_fits(engine: Engine, tmp_path: Path) -> None:
    rig = HostRig(engine, tmp_path, guest_input=b"0123456789")
    assert rig.call("input-len") == 10
    assert rig.call("read-input", 100, 4) == 4
    assert rig.read(100, 5) == b"0123\0"
    assert rig.call("read-input", 100, 50) == 10
    assert rig.read(100, 11) == b"0123456789\0"
    assert rig.call("read-input", 2 * 65_536 - 4, 5) == -2
    assert rig.call("read-input", 0, -1) == -2
    rig.close()


def test_the_input_is_read_from_any_place(engine: Engine, tmp_path: Path) -> None:
    rig = HostRig(engine, tmp_path, guest_input=b"0123456789", tensor_module=TENSOR_2_MODULE)
    assert rig.call("input-len") == 10
    assert rig.call("read-input", 100, 4) == 4
    assert rig.call("read-input-at", 7, 100, 2) == 2
    assert rig.read(100, 5) == b"7823\0"
    assert rig.call("read-input-at", 7, 100, 50) == 3
    assert rig.read(100, 4) == b"7893"
    for offset in (10, 11, -1, -(1 << 31)):
        assert rig.call("read-input-at", offset, 100, 50) == 0
    assert rig.call("read-input-at", 0, 2 * 65_536 - 4, 5) == -2
    assert rig.call("read-input-at", 20, 0, -1) == -2
    rig.close()


def test_without_a_stream_emitting_says_so(engine: Engine, tmp_path: Path) -> None:
    rig = HostRig(engine, tmp_path)
    assert rig.call("emit-chunk", 0, 4) == -1
    assert rig.call("flush") == -1
    rig.close()
