"""What a guest's kernels print: when it comes to the guest's stderr, and how much of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from host.rig import HostRig
from tensor_wasm.abi import Code, Tag, pack
from tensor_wasm.errors import KernelFault
from tensor_wasm.runtime import CallFailed, Engine

KERNELS = Path(__file__).parents[1] / "kernels"
CALLS = (KERNELS / "calls.ptx").read_bytes()
ARGV_AT = 60_500


@pytest.fixture
def rig(engine: Engine, tmp_path: Path) -> Iterator[HostRig]:
    rig = HostRig(engine, tmp_path)
    yield rig
    rig.close()


def launch(rig: HostRig, kernel: int, argv: bytes, block: int = 1) -> int:
    rig.write(ARGV_AT, argv)
    return rig.call("wasi_cuda_launch", kernel, 1, 1, 1, block, 1, 1, 0, ARGV_AT, len(argv))


def rounds(count: int) -> bytes:
    return pack([(Tag.I32, count)])


def test_it_comes_with_the_next_call_of_the_host(rig: HostRig) -> None:
    kernel = rig.load(CALLS, b"tell_often")
    assert launch(rig, kernel, rounds(2)) == Code.OK
    assert rig.output.stderr == b""
    assert rig.call("wasi_cuda_sync") == Code.OK
    assert rig.output.stderr == b"round 0 of thread 0\nround 1 of thread 0\n"
    assert rig.call("wasi_cuda_sync") == Code.OK
    assert launch(rig, kernel, rounds(1), block=2) == Code.OK
    rig.guest.take_printed()
    assert rig.output.stderr.splitlines()[2:] == [b"round 0 of thread 0", b"round 0 of thread 1"]


def test_two_kernels_have_buffers_of_their_own(engine: Engine, tmp_path: Path) -> None:
    rig = HostRig(engine, tmp_path, output_bytes=1 << 21)
    try:
        first = rig.load(CALLS, b"tell_often")
        second = rig.load(CALLS.replace(b"tell_often", b"tell_again"), b"tell_again")
        assert launch(rig, first, rounds(30_000)) == Code.OK
        assert launch(rig, second, rounds(1)) == Code.OK
        assert rig.call("wasi_cuda_sync") == Code.OK
        *lines, dropped, last = rig.output.stderr.splitlines()
        assert len(lines) == (256 * 1024 - 16 - 128) // 12
        assert dropped.startswith(b"[kernel tell_often: ")
        assert last == b"round 0 of thread 0"
    finally:
        rig.close()


def test_no_more_is_made_than_the_guest_may_write(engine: Engine, tmp_path: Path) -> None:
    rig = HostRig(engine, tmp_path, output_bytes=1000)
    try:
        kernel = rig.load(CALLS, b"tell_often")
        for _ in range(3):
            assert launch(rig, kernel, rounds(1000)) == Code.OK
            assert rig.call("wasi_cuda_sync") == Code.OK
        assert len(rig.output.stderr) == 1000
        assert rig.output.stderr.startswith(b"round 0 of thread 0\nround 1 of thread 0\n")
        assert rig.output.dropped_bytes > 0
    finally:
        rig.close()


def test_a_failed_assertion_ends_the_guest_and_is_named(rig: HostRig) -> None:
    kernel = rig.load(CALLS, b"insist")
    rig.write(70_000, bytes(128))
    argv = pack([(Tag.POINTER, 70_000, 128), (Tag.I32, 0)])
    with pytest.raises(CallFailed) as caught:
        launch(rig, kernel, argv, block=32)
    ending = rig.guest.ending(caught.value.failure)
    assert isinstance(ending, KernelFault)
    assert "kernel insist faulted: assertion `values[i] < n` failed at calls.cu:" in str(ending)
    assert rig.output.stderr.endswith(b"insist: block: [0,0,0], thread: [0,0,0] Assertion `values[i] < n` failed.\n")
