"""``wasi:cuda``: each call's codes, the last error, device memory, and a kernel that runs."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from host.rig import HostRig
from tensor_wasm.abi import CUDA_MODULES, Code, Tag, pack
from tensor_wasm.errors import CapacityExhausted, DeadlineExceeded, KernelFault
from tensor_wasm.runtime import CallFailed, Engine

CORPUS = Path(__file__).parents[1] / "corpus"
VECTOR_ADD = (CORPUS / "vector_add.ptx").read_bytes()
MEMORY_BYTES = 2 * 65_536
ARGV_AT = 55_000


@pytest.fixture(params=CUDA_MODULES)
def rig(request: pytest.FixtureRequest, engine: Engine, tmp_path: Path) -> Iterator[HostRig]:
    rig = HostRig(engine, tmp_path, cuda_module=request.param)
    yield rig
    rig.close()


def launch(rig: HostRig, kernel: int, argv: bytes, grid: int = 1, block: int = 32) -> int:
    rig.write(ARGV_AT, argv)
    return rig.call("wasi_cuda_launch", kernel, grid, 1, 1, block, 1, 1, 0, ARGV_AT, len(argv))


def vector_argv(a: int, b: int, c: int, count: int) -> bytes:
    size = 4 * count
    return pack([(Tag.POINTER, a, size), (Tag.POINTER, b, size), (Tag.POINTER, c, size), (Tag.I32, count)])


def test_a_loaded_kernel_adds_vectors_in_guest_memory(rig: HostRig) -> None:
    kernel = rig.load(VECTOR_ADD, b"vector_add")
    assert kernel == 0
    count = 100
    rig.write(70_000, struct.pack("<100f", *range(100)))
    rig.write(71_000, struct.pack("<100f", *range(0, 1000, 10)))
    assert launch(rig, kernel, vector_argv(70_000, 71_000, 72_000, count), grid=4) == Code.OK
    assert struct.unpack("<100f", rig.read(72_000, 400)) == tuple(11.0 * n for n in range(100))
    assert rig.call("wasi_cuda_sync") == Code.OK
    assert rig.slot.dispatches == 1


def test_a_text_with_a_nul_at_its_end_is_taken(rig: HostRig) -> None:
    assert rig.load(VECTOR_ADD + b"\0", b"vector_add") == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((0, -1, 0, 1), Code.INVALID_POINTER),
        ((0, (8 << 20) + 1, 0, 1), Code.QUOTA_EXCEEDED),
        ((0, 1, 0, -1), Code.INVALID_POINTER),
        ((0, 1, 0, 257), Code.QUOTA_EXCEEDED),
        ((MEMORY_BYTES, 1, 0, 1), Code.INVALID_POINTER),
        ((-4, 8, 0, 1), Code.INVALID_POINTER),
        ((0, 1, MEMORY_BYTES - 1, 2), Code.INVALID_POINTER),
    ],
)
def test_load_checks_its_ranges(rig: HostRig, arguments: tuple[int, ...], code: Code) -> None:
    assert rig.call("wasi_cuda_load_ptx", *arguments) == code
    assert rig.last_error() != ""
    assert rig.load(VECTOR_ADD, b"vector_add") == 0
    assert rig.last_error() == ""


def test_a_bad_text_gets_line_column_and_the_offending_text(rig: HostRig) -> None:
    broken = VECTOR_ADD.replace(b"add.f32", b"frobnicate.f32")
    assert rig.load(broken, b"vector_add") == Code.MALFORMED_PTX
    line = broken[: broken.index(b"frobnicate")].count(b"\n") + 1
    assert f"{line}:" in rig.last_error()
    assert "frobnicate" in rig.last_error()
    assert rig.load(VECTOR_ADD, b"no_such") == Code.MALFORMED_PTX
    assert "vector_add" in rig.last_error(), "the message should name the entries there are"
    assert rig.load(VECTOR_ADD, b"\xff\xfe") == Code.INVALID_ARGUMENTS
    assert rig.load(bytes(range(256)) * 4, b"x") == Code.MALFORMED_PTX
    assert rig.load(b"", b"x") == Code.MALFORMED_PTX
    assert rig.load(VECTOR_ADD, b"vector_add") == 0


def test_an_instance_holds_256_kernels(rig: HostRig) -> None:
    assert [rig.load(VECTOR_ADD, b"vector_add") for _ in range(256)] == list(range(256))
    assert rig.load(VECTOR_ADD, b"vector_add") == Code.QUOTA_EXCEEDED
    assert launch(rig, 255, vector_argv(0, 0, 0, 0)) == Code.OK


def test_the_last_error_of_a_refused_launch_is_the_codes_text_and_success_clears_it(rig: HostRig) -> None:
    kernel = rig.load(VECTOR_ADD, b"vector_add")
    assert launch(rig, 9, b"") == Code.UNKNOWN_KERNEL
    assert "kernel id" in rig.last_error()
    assert "kernel id" in rig.last_error()
    assert launch(rig, kernel, vector_argv(0, 0, 0, 0)) == Code.OK
    assert rig.last_error() == ""
    assert rig.call("wasi_cuda_free", 5, 0) == Code.INVALID_HANDLE
    assert "handle" in rig.last_error()
    assert launch(rig, kernel, vector_argv(0, 0, 0, 0)) == Code.OK
    assert rig.call("wasi_cuda_last_error_len") == 0


def test_the_last_error_is_cut_on_a_character_at_512_bytes(rig: HostRig) -> None:
    entry = "é".encode() * 128
    assert rig.load(VECTOR_ADD, entry) == Code.MALFORMED_PTX
    assert rig.call("wasi_cuda_last_error_len") <= 512
    rig.last_error()


def test_copying_the_last_error_needs_a_range_inside_memory(rig: HostRig) -> None:
    rig.call("wasi_cuda_free", 5, 0)
    assert rig.call("wasi_cuda_last_error_copy", MEMORY_BYTES - 1, 100) == Code.INVALID_POINTER
    assert rig.call("wasi_cuda_last_error_copy", 0, -1) == Code.INVALID_POINTER
    assert rig.call("wasi_cuda_last_error_copy", 0, 4) == 4


def test_device_memory_keeps_what_is_copied_to_it(rig: HostRig) -> None:
    handle = rig.call("wasi_cuda_alloc", 1000, 0)
    assert handle >= 1
    rig.write(0, bytes(range(200)))
    assert rig.call("wasi_cuda_memcpy_h2d", handle, 0, 0, 200) == Code.OK
    assert rig.call("wasi_cuda_memcpy_d2h", 300, handle, 0, 201) == Code.OK
    assert rig.read(300, 201) == bytes(range(200)) + b"\0"
    assert rig.device_bytes == 1000
    assert rig.call("wasi_cuda_free", handle, 0) == Code.OK
    assert rig.call("wasi_cuda_free", handle, 0) == Code.INVALID_HANDLE
    assert rig.device_bytes == 0


def test_device_memory_is_bounded(rig: HostRig) -> None:
    assert rig.call("wasi_cuda_alloc", 0, 0) == Code.INVALID_ARGUMENTS
    assert rig.call("wasi_cuda_alloc", -1, -1) == Code.INVALID_ARGUMENTS
    assert rig.call("wasi_cuda_alloc", (256 << 20) + 1, 0) == Code.QUOTA_EXCEEDED
    assert rig.call("wasi_cuda_alloc", 0, 1) == Code.QUOTA_EXCEEDED
    assert rig.call("wasi_cuda_alloc", 60 << 20, 0) >= 1
    assert rig.call("wasi_cuda_alloc", 60 << 20, 0) == Code.QUOTA_EXCEEDED, "the instance's own limit is 64 MiB"
    handle = rig.call("wasi_cuda_alloc", 16, 0)
    assert rig.call("wasi_cuda_memcpy_h2d", handle, 0, 0, 17) == Code.INVALID_ARGUMENTS
    assert rig.call("wasi_cuda_memcpy_h2d", handle, 0, 0, -1) == Code.INVALID_POINTER
    assert rig.call("wasi_cuda_memcpy_d2h", MEMORY_BYTES - 4, handle, 0, 16) == Code.INVALID_POINTER
    assert rig.call("wasi_cuda_memcpy_h2d", handle, 1, 0, 1) == Code.INVALID_HANDLE
    handles = [rig.call("wasi_cuda_alloc", 1, 0) for _ in range(4096)]
    assert handles[-1] == Code.QUOTA_EXCEEDED
    assert sum(handle > 0 for handle in handles) == 4096 - 2
    rig.guest.close()
    assert rig.device_bytes == 0


def test_a_tenant_without_the_device_gets_minus_one_everywhere(engine: Engine, tmp_path: Path) -> None:
    rig = HostRig(engine, tmp_path, capable=False)
    assert rig.load(VECTOR_ADD, b"vector_add") == Code.NOT_AVAILABLE
    assert rig.call("wasi_cuda_alloc", 1, 0) == Code.NOT_AVAILABLE
    assert rig.call("wasi_cuda_free", 1, 0) == Code.NOT_AVAILABLE
    assert rig.call("wasi_cuda_memcpy_h2d", 1, 0, 0, 0) == Code.NOT_AVAILABLE
    assert rig.call("wasi_cuda_sync") == Code.NOT_AVAILABLE
    assert launch(rig, 0, b"") == Code.NOT_AVAILABLE
    assert "may not use the device" in rig.last_error()
    rig.close()


def test_a_kernel_that_leaves_memory_is_a_fault_that_says_where(engine: Engine, tmp_path: Path) -> None:
    rig = HostRig(engine, tmp_path)
    kernel = rig.load(VECTOR_ADD, b"vector_add")
    # The windows are inside memory; the count is not: threads past the end leave it.
    argv = pack([(Tag.POINTER, 0, 4), (Tag.POINTER, 0, 4), (Tag.POINTER, 0, 4), (Tag.I32, 1 << 30)])
    with pytest.raises(CallFailed) as caught:
        launch(rig, kernel, argv, grid=2_000, block=64)
    fault = rig.guest.ending(caught.value.failure)
    assert isinstance(fault, KernelFault)
    first_bad = MEMORY_BYTES // 4
    load_line = next(n for n, text in enumerate(VECTOR_ADD.decode().splitlines(), 1) if "ld.global" in text)
    assert "kernel vector_add faulted" in str(fault)
    assert f"block ({first_bad // 64},0,0), thread ({first_bad % 64},0,0)" in str(fault)
    assert f"PTX line {load_line}" in str(fault)
    rig.close()
    assert rig.ledger.read().used == 0
    assert rig.ledger.read().tenants[0].faults == 1


def test_a_second_guest_takes_the_kernel_from_the_cache(engine: Engine, tmp_path: Path) -> None:
    first = HostRig(engine, tmp_path)
    first.load(VECTOR_ADD, b"vector_add")
    first.load(VECTOR_ADD, b"vector_add")
    assert first.device.statistics.hits == {"memory": 1, "disk": 0}
    assert first.device.statistics.misses == {"memory": 1, "disk": 1}
    first.close()
    second = HostRig(engine, tmp_path)
    second.load(VECTOR_ADD, b"vector_add")
    assert second.device.statistics.hits == {"memory": 0, "disk": 1}
    assert sum(second.device.statistics.compile_counts) == 0
    second.close()


def test_when_too_many_kernels_wait_for_a_compiler_the_guest_may_try_again(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = HostRig(engine, tmp_path)

    def refuse(*_arguments: object) -> None:
        raise CapacityExhausted("64 compilations already wait: try again later")

    with monkeypatch.context() as patch:
        patch.setattr(rig.device, "load", refuse)
        assert rig.load(VECTOR_ADD, b"vector_add") == Code.SATURATED
        assert rig.last_error() == "saturated: 64 compilations already wait: try again later"
    assert rig.load(VECTOR_ADD, b"vector_add") == 0
    rig.close()


def test_a_guest_whose_time_is_up_waits_for_no_compiler(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = HostRig(engine, tmp_path, left_s=0.2)

    def never(_ptx: bytes, _entry: str, interrupt: Callable[[], Exception | None]) -> None:
        while (error := interrupt()) is None:
            time.sleep(0.01)
        raise error

    monkeypatch.setattr(rig.device, "load", never)
    with pytest.raises(DeadlineExceeded):
        rig.load(VECTOR_ADD, b"vector_add")
    rig.close()


STUCK = b"""
.version 8.0
.target sm_80
.address_size 64
.visible .entry stuck()
{
    .reg .pred %p<2>;
    .reg .b32 %r<2>;
    mov.u32 %r1, %tid.x;
    setp.eq.u32 %p1, %r1, 3;
    @%p1 bra OTHER;
    bar.sync 0, 64;
OTHER:
    bar.sync 1;
    ret;
}
"""


def test_a_barrier_that_never_fills_is_a_fault_and_gives_its_permit_back(engine: Engine, tmp_path: Path) -> None:
    rig = HostRig(engine, tmp_path)
    kernel = rig.load(STUCK, b"stuck")
    with pytest.raises(CallFailed) as caught:
        launch(rig, kernel, b"", grid=2, block=48)
    fault = rig.guest.ending(caught.value.failure)
    line = STUCK.splitlines().index(b"    bar.sync 0, 64;") + 1
    assert str(fault) == (
        f"kernel stuck faulted: a barrier that can never fill; block (0,0,0), thread (0,0,0), PTX line {line}"
    )
    rig.close()
    assert rig.ledger.read().used == 0


def test_a_kernel_of_a_whole_block_runs_in_guest_memory_with_the_shared_memory_of_its_launch(
    engine: Engine, tmp_path: Path
) -> None:
    rig = HostRig(engine, tmp_path)
    kernel = rig.load((CORPUS / "softmax.ptx").read_bytes(), b"softmax_rows")
    assert kernel == 0
    rig.write(70_000, struct.pack("<8f", *range(8)))
    argv = pack([(Tag.POINTER, 70_000, 32), (Tag.POINTER, 71_000, 32), (Tag.I32, 8)])
    rig.write(ARGV_AT, argv)
    assert rig.call("wasi_cuda_launch", kernel, 1, 1, 1, 4, 1, 1, 16, ARGV_AT, len(argv)) == Code.OK
    powers = np.exp(np.arange(8.0))
    np.testing.assert_allclose(np.frombuffer(rig.read(71_000, 32), "<f4"), powers / powers.sum(), rtol=1e-5)
    rig.close()
