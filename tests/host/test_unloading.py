"""Kernels that are unloaded: ids that do not come again, and memory that does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from device.test_cores import SHARING, kernel_text
from host.rig import HostRig
from tensor_wasm.abi import CUDA_3_MODULE, Code, Tag, limits, pack
from tensor_wasm.dispatch import GateFactory, Ledger
from tensor_wasm.host import guest as guest_module
from tensor_wasm.runtime import Engine

CORPUS = Path(__file__).parents[1] / "corpus"
VECTOR_ADD = (CORPUS / "vector_add.ptx").read_bytes()
CALLS = (Path(__file__).parents[1] / "kernels" / "calls.ptx").read_bytes()
ARGV_AT, DATA_AT, TOTALS_AT = 45_000, 1 << 17, 1 << 16
GUEST_PAGES = 8

#: Counts its launches in a variable with an initial value, which only the first region holds.
COUNTING = kernel_text(
    "counting",
    "mov.u64 %rd3, total; atom.global.add.u32 %r6, [%rd3], 1; st.global.u32 [%rd2], %r6;",
    before=".global .align 4 .u32 total = 1000;\n",
)


@pytest.fixture
def rig(engine: Engine, tmp_path: Path) -> Iterator[HostRig]:
    rig = HostRig(engine, tmp_path, cuda_module=CUDA_3_MODULE, pages=GUEST_PAGES)
    yield rig
    rig.close()
    assert rig.store.budget.used_bytes == 0


def load(rig: HostRig, text: str | bytes, entry: str) -> int:
    kernel = rig.load(text.encode() if isinstance(text, str) else text, entry.encode())
    assert kernel >= 0, rig.last_error()
    return kernel


def launch(rig: HostRig, kernel: int, *records: tuple, grid: int = 1, block: int = 1) -> int:
    argv = pack(records)
    rig.write(ARGV_AT, argv)
    return rig.call("wasi_cuda_launch", kernel, grid, 1, 1, block, 1, 1, 0, ARGV_AT, len(argv))


def word(rig: HostRig, at: int = DATA_AT) -> int:
    return int.from_bytes(rig.read(at, 4), "little")


TARGET = (Tag.POINTER, DATA_AT, 4)


def test_an_unloaded_kernel_is_unknown_also_when_another_has_its_place(rig: HostRig) -> None:
    first, second = load(rig, COUNTING, "counting"), load(rig, VECTOR_ADD, "vector_add")
    assert (first, second) == (0, 1)
    assert launch(rig, first, TARGET) == Code.OK
    assert rig.call("wasi_cuda_unload", first) == Code.OK
    assert rig.call("wasi_cuda_unload", first) == Code.UNKNOWN_KERNEL
    assert "kernel id" in rig.last_error()
    assert launch(rig, first, TARGET) == Code.UNKNOWN_KERNEL
    again = load(rig, COUNTING, "counting")
    assert again not in (first, second)
    for stale in (first, first + 512, again + 256, again + (1 << 32), -1, -256, again - 512):
        assert launch(rig, stale, TARGET) == Code.UNKNOWN_KERNEL, stale
        assert rig.call("wasi_cuda_unload", stale) == Code.UNKNOWN_KERNEL, stale
    # Its variables are new.
    for count in (1000, 1001):
        assert launch(rig, again, TARGET) == Code.OK
        assert word(rig) == count
    assert launch(rig, second, *[(Tag.POINTER, 0, 0)] * 3, (Tag.I32, 0)) == Code.OK


def test_unloading_makes_room_for_kernels_and_their_texts(rig: HostRig) -> None:
    kernels = [load(rig, VECTOR_ADD, "vector_add") for _ in range(limits.KERNELS_MAX)]
    assert rig.load(VECTOR_ADD, b"vector_add") == Code.QUOTA_EXCEEDED
    assert rig.guest.ptx_bytes == limits.KERNELS_MAX * len(VECTOR_ADD)
    for kernel in kernels[100:103]:
        assert rig.call("wasi_cuda_unload", kernel) == Code.OK
    assert rig.guest.ptx_bytes == (limits.KERNELS_MAX - 3) * len(VECTOR_ADD)
    others = [load(rig, VECTOR_ADD, "vector_add") for _ in range(3)]
    assert [other & 255 for other in others] == [100, 101, 102]
    assert rig.load(VECTOR_ADD, b"vector_add") == Code.QUOTA_EXCEEDED
    for kernel in (*kernels[:100], *others, *kernels[103:]):
        assert rig.call("wasi_cuda_unload", kernel) == Code.OK
    assert (rig.guest.ptx_bytes, rig.guest.kernels) == (0, {})


def cycles(rig: HostRig, rounds: int) -> None:
    """Load as many kernels as there may be, of two kinds, and unload them all, ``rounds`` times."""
    kinds = ((VECTOR_ADD, b"vector_add"), (COUNTING.encode(), b"counting"))
    for number in range(rounds):
        kernels = [rig.load(*kinds[position % 2]) for position in range(limits.KERNELS_MAX)]
        assert min(kernels) >= 0, rig.last_error()
        assert launch(rig, kernels[1 + 2 * (number % 100)], TARGET) == Code.OK
        assert word(rig) == 1000, "a variable of the kernel before"
        # In another order than they were loaded.
        for kernel in kernels[::2] + kernels[1::2]:
            assert rig.call("wasi_cuda_unload", kernel) == Code.OK


def test_loading_and_unloading_needs_no_more_memory_each_time(rig: HostRig) -> None:
    cycles(rig, 1)
    scratch_bytes = len(rig.guest.gate.scratch())
    used_bytes = rig.store.budget.used_bytes
    cycles(rig, 3)
    assert len(rig.guest.gate.scratch()) == scratch_bytes
    # What an instance of the engine's leaves behind is counted.
    assert rig.store.budget.used_bytes == used_bytes + 3 * limits.KERNELS_MAX * 1024


@pytest.mark.slow
def test_a_hundred_rounds_of_all_kernels_do_not_exhaust_an_instance(rig: HostRig) -> None:
    cycles(rig, 100)


def test_when_there_is_no_room_for_what_it_leaves_a_kernel_stays(engine: Engine, tmp_path: Path) -> None:
    rig = HostRig(engine, tmp_path, cuda_module=CUDA_3_MODULE, memory_bytes=4 << 16)
    kernel = load(rig, VECTOR_ADD, "vector_add")
    left = rig.store.budget.limit_bytes - rig.store.budget.used_bytes
    assert rig.store.budget.take(left - 1024)
    assert rig.call("wasi_cuda_unload", kernel) == Code.OK
    kernel = load(rig, VECTOR_ADD, "vector_add")
    assert rig.call("wasi_cuda_unload", kernel) == Code.QUOTA_EXCEEDED
    assert "too many kernels" in rig.last_error()
    assert launch(rig, kernel, *[(Tag.POINTER, 0, 0)] * 3, (Tag.I32, 0)) == Code.OK
    rig.store.budget.give(left - 1024)
    rig.close()


def test_what_it_printed_comes_before_it_goes(rig: HostRig) -> None:
    kernel = load(rig, CALLS, "tell_often")
    assert launch(rig, kernel, (Tag.I32, 2)) == Code.OK
    assert rig.call("wasi_cuda_unload", kernel) == Code.OK
    assert len(rig.output.stderr.splitlines()) == 2
    assert rig.guest.printers == {}


def test_helpers_know_the_kernel_that_took_a_place(engine: Engine, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(guest_module, "_LESSONS_MAX", 4)
    gates = GateFactory(engine, Ledger(engine, 4), 1)
    rig = HostRig(engine, tmp_path, cuda_module=CUDA_3_MODULE, pages=GUEST_PAGES, gates=gates)
    other = load(rig, kernel_text("other", "st.global.u32 [%rd2], 5;"), "other")
    blocks, block = 96, 128
    array = (Tag.POINTER, DATA_AT, 4 * blocks * block)
    seen = set()
    for number in range(8):
        sharing = load(rig, SHARING + f"// {number % 3}\n", "sharing")
        for times in (1, 2):
            rig.take_for_large(sharing)
            assert launch(rig, sharing, array, (Tag.POINTER, TOTALS_AT, 8), grid=blocks, block=block) == Code.OK
            assert word(rig, TOTALS_AT) == 1000 + times * blocks * block, "one kernel's variables, on both cores"
        seen.add(id(rig.guest.crew))
        rig.take_for_large(other)
        assert launch(rig, other, array, grid=blocks, block=block) == Code.OK
        assert rig.guest.crew is not None
        assert rig.call("wasi_cuda_unload", sharing) == Code.OK
    assert rig.guest.crew.lessons <= 4
    rig.close()
    assert rig.store.budget.used_bytes == 0
    gates.close()
