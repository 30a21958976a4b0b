"""WASI for guests: output captured and bounded, sleeping that hears deadlines, nothing of the machine to be seen."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import pytest

from host.rig import HostRig
from tensor_wasm.errors import DeadlineExceeded, GuestTrap
from tensor_wasm.runtime import CallFailed, Engine


def write(rig: HostRig, descriptor: int, text: bytes) -> int:
    rig.write(1000, text)
    rig.write(900, struct.pack("<II", 1000, len(text)))
    return rig.call("fd_write", descriptor, 900, 1, 916)


def clock(timeout_ns: int, *, userdata: int = 7, clock_id: int = 1, flags: int = 0) -> bytes:
    return struct.pack("<QB7xI4xQQH6x", userdata, 0, clock_id, timeout_ns, 0, flags)


def poll(rig: HostRig, *subscriptions: bytes) -> list[tuple[int, int, int]]:
    rig.write(2000, b"".join(subscriptions))
    assert rig.call("poll_oneoff", 2000, 4000, len(subscriptions), 1996) == 0
    (count,) = struct.unpack("<I", rig.read(1996, 4))
    return [struct.unpack_from("<QHB", rig.read(4000 + 32 * n, 32)) for n in range(count)]


def test_output_is_captured_and_bounded(engine: Engine, tmp_path: Path) -> None:
    rig = HostRig(engine, tmp_path, output_bytes=10)
    assert write(rig, 1, b"hello ") == 0
    assert write(rig, 2, b"oops\n and much more") == 0
    assert bytes(rig.output.stdout) == b"hello "
    assert bytes(rig.output.stderr) == b"oops"
    assert rig.output.dropped_bytes == 15
    rig.close()


def test_a_sleep_lasts_as_long_as_asked(engine: Engine, tmp_path: Path) -> None:
    rig = HostRig(engine, tmp_path)
    began = time.monotonic()
    assert poll(rig, clock(30_000_000), clock(10_000_000_000, userdata=8)) == [(7, 0, 0)]
    assert 0.03 <= time.monotonic() - began < 5
    rig.close()


def test_a_sleep_until_a_time_that_is_past_returns_at_once(engine: Engine, tmp_path: Path) -> None:
    rig = HostRig(engine, tmp_path)
    assert poll(rig, clock(1, flags=1)) == [(7, 0, 0)]
    assert poll(rig, clock(1, clock_id=0, flags=1)) == [(7, 0, 0)]
    rig.close()


def test_a_long_sleep_ends_at_the_deadline(engine: Engine, tmp_path: Path) -> None:
    rig = HostRig(engine, tmp_path, left_s=0.1)
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        poll(rig, clock(3_600_000_000_000))
    assert time.monotonic() - began < 2
    rig.close()


def test_polls_of_files_answer_at_once(engine: Engine, tmp_path: Path) -> None:
    rig = HostRig(engine, tmp_path)
    read_stdin = struct.pack("<QB7xI28x", 1, 1, 0)
    write_stdout = struct.pack("<QB7xI28x", 2, 2, 1)
    read_other = struct.pack("<QB7xI28x", 3, 1, 9)
    assert poll(rig, read_stdin, write_stdout, read_other) == [(1, 0, 1), (2, 0, 2), (3, 8, 1)]
    rig.close()


@pytest.mark.parametrize(("count", "errno"), [(0, 28), (1025, 28), (-1, 28), (1024, 21)])
def test_a_poll_of_too_many_or_outside_memory_is_refused(
    engine: Engine, tmp_path: Path, count: int, errno: int
) -> None:
    rig = HostRig(engine, tmp_path)
    assert rig.call("poll_oneoff", 2 * 65_536 - 100, 0, count, 0) == errno
    rig.close()


def test_a_guest_sees_no_environment_and_no_directories(engine: Engine, tmp_path: Path) -> None:
    rig = HostRig(engine, tmp_path)
    assert rig.call("environ_sizes_get", 0, 4) == 0
    assert rig.read(0, 8) == bytes(8)
    assert rig.call("fd_prestat_get", 3, 0) != 0
    assert rig.call("random_get", 0, 16) == 0
    assert rig.read(0, 16) != bytes(16)
    rig.close()


@pytest.mark.parametrize(("status", "returned"), [(0, True), (3, False)])
def test_proc_exit_returns_or_traps_by_its_status(engine: Engine, tmp_path: Path, status: int, returned: bool) -> None:
    rig = HostRig(engine, tmp_path)
    with pytest.raises(CallFailed) as caught:
        rig.call("proc_exit", status)
    ending = rig.guest.ending(caught.value.failure)
    if returned:
        assert ending is None
    else:
        assert isinstance(ending, GuestTrap)
        assert "status 3" in str(ending)
    rig.close()
