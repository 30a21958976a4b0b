"""``wasi:cuda`` on a GPU, whose driver is emulated: the same calls, codes and bytes as on the CPU device.

And what only a GPU does: windows that pass through staging and the arena, memory of the tenant's partition, the end of
its worker.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from device.cuda.emulated_worker import worker_command
from device.ptx_texts import HEAD
from device.test_cores import kernel_text
from host.rig import HostRig
from tensor_wasm.abi import CUDA_3_MODULE, Code, Tag, pack
from tensor_wasm.device.cuda import board as device_board
from tensor_wasm.device.cuda import device as cuda_device
from tensor_wasm.device.cuda.device import CudaDevice
from tensor_wasm.device.cuda.gpu import Gpu
from tensor_wasm.device.cuda.supervisor import WorkerEnd
from tensor_wasm.dispatch.layout import COUNTERS
from tensor_wasm.errors import (
    DeadlineExceeded,
    DeviceRestarting,
    DeviceUnavailable,
    GuestTrap,
    KernelFault,
    QuotaExceeded,
)
from tensor_wasm.runtime import Budget, Engine, ModuleCache, SealedFiles

VECTOR_ADD = (Path(__file__).parents[1] / "corpus" / "vector_add.ptx").read_bytes()
ARGV_AT, DATA_AT = 55_000, 70_000
PARTITION_BYTES = 16 << 20
STAGING_BYTES = 32 << 20
PATIENCE_S = 60.0
#: Adds 1 to the word of each thread.
STEP = kernel_text("step", "ld.global.u32 %r6, [%rd2]; add.u32 %r6, %r6, 1; st.global.u32 [%rd2], %r6;").encode()
TRAP = kernel_text("breaks", "trap;").encode()
ENDLESS = HEAD.encode() + b".visible .entry endless()\n{\nagain:\n  bra again;\n}\n"

Open = Callable[..., CudaDevice]


@pytest.fixture(scope="module")
def open_gpu(tmp_path_factory: pytest.TempPathFactory, engine: Engine) -> Iterator[Open]:
    """Opens GPUs; what is to go wrong there is as the emulated worker takes it."""
    opened: list[CudaDevice] = []
    modules = ModuleCache(engine, SealedFiles(tmp_path_factory.mktemp("modules"), bytes(32)))

    def start(*emulate: str, partition_bytes: int = PARTITION_BYTES) -> CudaDevice:
        def make(on_end: Callable[[WorkerEnd], None]) -> Gpu:
            return Gpu(0, staging_bytes=STAGING_BYTES, command=worker_command(*emulate), on_end=on_end)

        opened.append(CudaDevice(make, modules, partition_bytes))
        return opened[-1]

    yield start
    for device in opened:
        device.close()


@pytest.fixture(scope="module")
def gpu(open_gpu: Open) -> CudaDevice:
    return open_gpu()


@pytest.fixture
def guest(engine: Engine, tmp_path: Path) -> Iterator[Callable[..., HostRig]]:
    """Makes guests; those that are not closed at the end are."""
    made: list[HostRig] = []

    def start(device: CudaDevice, **options: object) -> HostRig:
        options.setdefault("pages", 40)
        made.append(HostRig(engine, tmp_path, cuda_module=CUDA_3_MODULE, gpu=device, **options))  # type: ignore[arg-type]
        return made[-1]

    yield start
    for rig in made:
        if rig.store.pointer is not None:
            rig.close()
        assert rig.device_bytes == 0
        assert rig.guest.device_budget.used_bytes == 0


def load(rig: HostRig, text: bytes, entry: str) -> int:
    kernel = rig.load(text, entry.encode())
    assert kernel >= 0, rig.last_error()
    return kernel


def launch(rig: HostRig, kernel: int, *records: tuple, grid: int = 1, block: int = 1, shared: int = 0) -> int:
    argv = pack(records)
    rig.write(ARGV_AT, argv)
    return rig.call("wasi_cuda_launch", kernel, grid, 1, 1, block, 1, 1, shared, ARGV_AT, len(argv))


def alloc(rig: HostRig, size: int) -> int:
    handle = rig.call("wasi_cuda_alloc", size, 0)
    assert handle >= 1, rig.last_error()
    return handle


def add(rig: HostRig, kernel: int, count: int, at: tuple[int, int, int]) -> None:
    """Add two vectors in guest memory, and compare."""
    a, b = np.arange(count, dtype="<f4"), np.arange(count, dtype="<f4") * 10
    rig.write(at[0], a.tobytes())
    rig.write(at[1], b.tobytes())
    pointers = [(Tag.POINTER, place, 4 * count) for place in at]
    assert launch(rig, kernel, *pointers, (Tag.I32, count), grid=-(-count // 256), block=256) == Code.OK
    assert rig.read(at[2], 4 * count) == (a + b).tobytes()


def wait_until(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.01)


# --- launches -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 100, 5000, 100_000])
def test_windows_of_guest_memory_go_there_and_back(gpu: CudaDevice, guest: Callable[..., HostRig], count: int) -> None:
    rig = guest(gpu)
    kernel = load(rig, VECTOR_ADD, "vector_add")
    for _ in range(3):
        add(rig, kernel, count, (DATA_AT, DATA_AT + 500_004, DATA_AT + 1_000_000))
    assert rig.slot.dispatches == 3


def test_windows_that_lie_far_apart_and_one_that_overlaps(gpu: CudaDevice, guest: Callable[..., HostRig]) -> None:
    rig = guest(gpu)
    kernel = load(rig, VECTOR_ADD, "vector_add")
    add(rig, kernel, 64, (2_500_000, 60_000, 1_200_004))
    # In place: c is a.
    rig.write(DATA_AT, np.arange(64, dtype="<f4").tobytes())
    pointers = [(Tag.POINTER, DATA_AT, 256)] * 3
    assert launch(rig, kernel, *pointers, (Tag.I32, 64), block=64) == Code.OK
    assert rig.read(DATA_AT, 256) == (2 * np.arange(64, dtype="<f4")).tobytes()


def test_windows_that_the_staging_area_has_no_room_for_are_copied_in_pieces(
    gpu: CudaDevice, guest: Callable[..., HostRig]
) -> None:
    rig = guest(gpu)
    kernel = load(rig, VECTOR_ADD, "vector_add")
    held = gpu.memory.take_staging(STAGING_BYTES - (1 << 20)) or 0
    taken = []
    while (piece := gpu.memory.take_staging(1 << 16)) is not None:
        taken.append(piece)
    try:
        add(rig, kernel, 50_000, (DATA_AT, DATA_AT + 300_000, DATA_AT + 600_000))
    finally:
        for piece in taken:
            gpu.memory.give_staging(piece, 1 << 16)
        gpu.memory.give_staging(held, STAGING_BYTES - (1 << 20))
    add(rig, kernel, 50_000, (DATA_AT, DATA_AT + 300_000, DATA_AT + 600_000))


def test_guest_memory_with_windows_is_the_staging_area_s(gpu: CudaDevice, guest: Callable[..., HostRig]) -> None:
    rig = guest(gpu)
    kernel = load(rig, STEP, "step")
    memory = bytes(range(1, 251)) * 8000
    rig.write(DATA_AT, memory)
    before = rig.read(0, 40 * 65_536)
    copied = gpu.memory.fill_staging
    copies = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu.memory, "fill_staging", lambda place, data: (copies.append(len(data)), copied(place, data)))
        for start in (1_000_000, 1_000_004, 1_200_000, 990_000, 900_000):
            assert launch(rig, kernel, (Tag.POINTER, start, 4)) == Code.OK
            word = int.from_bytes(before[start : start + 4], "little") + 1
            before = before[:start] + word.to_bytes(4, "little") + before[start + 4 :]
            # Not a byte is lost on the way, before or behind what is shown.
            rig.write(ARGV_AT, before[ARGV_AT : ARGV_AT + 100])
            assert rig.read(0, 40 * 65_536) == before
    # It became longer at one end, then at the other; the others were there already.
    assert copies == [1 << 16, 1 << 18, 1 << 19]


def test_a_guest_s_part_of_the_staging_area_is_another_s_after_its_end(
    gpu: CudaDevice, guest: Callable[..., HostRig]
) -> None:
    def parts() -> int:
        taken = []
        while (piece := gpu.memory.take_staging(1 << 16)) is not None:
            taken.append(piece)
        for piece in taken:
            gpu.memory.give_staging(piece, 1 << 16)
        return len(taken)

    free = parts()
    for _ in range(3):
        rig = guest(gpu)
        kernel = load(rig, VECTOR_ADD, "vector_add")
        add(rig, kernel, 50_000, (DATA_AT, DATA_AT + 300_000, DATA_AT + 600_000))
        assert parts() == free - 16
        rig.close()
        assert parts() == free
        # Its memory, which was recycled, shows nothing of that part.
        fresh = guest(gpu)
        assert fresh.read(DATA_AT, 1_000_000) == bytes(1_000_000)
        fresh.close()


def test_a_memory_that_grew_and_is_used_to_its_end(gpu: CudaDevice, guest: Callable[..., HostRig]) -> None:
    rig = guest(gpu)
    kernel = load(rig, STEP, "step")
    end = 40 * 65_536
    assert launch(rig, kernel, (Tag.POINTER, end - 4, 4)) == Code.OK
    assert rig.read(end - 8, 8) == bytes(4) + b"\1\0\0\0"
    rig.store.grow_memory(rig.guest.memory.of.memory, 50 * 65_536)  # type: ignore[union-attr]
    for place in (end, 50 * 65_536 - 4, end - 4):
        assert launch(rig, kernel, (Tag.POINTER, place, 4)) == Code.OK
    assert rig.read(end - 4, 8) == b"\2\0\0\0\1\0\0\0"
    assert rig.read(50 * 65_536 - 4, 4) == b"\1\0\0\0"


def test_arenas_count_against_the_quota_and_are_refused_beyond_it(
    gpu: CudaDevice, guest: Callable[..., HostRig]
) -> None:
    rig = guest(gpu, device_budget=Budget(1 << 17))
    kernel = load(rig, VECTOR_ADD, "vector_add")
    add(rig, kernel, 64, (DATA_AT, DATA_AT + 256, DATA_AT + 512))
    assert rig.device_bytes == 1 << 16
    with pytest.raises(QuotaExceeded, match="more than the tenant may have on the GPU"):
        add(rig, kernel, 50_000, (DATA_AT, DATA_AT + 300_000, DATA_AT + 600_000))


def test_windows_larger_than_the_partition_are_refused(gpu: CudaDevice, guest: Callable[..., HostRig]) -> None:
    rig = guest(gpu, pages=400)
    kernel = load(rig, VECTOR_ADD, "vector_add")
    with pytest.raises(QuotaExceeded, match="no room"):
        add(rig, kernel, 8, (DATA_AT, DATA_AT + PARTITION_BYTES, DATA_AT + 64))


def test_a_trap_ends_the_invocation_with_kernel_and_line(gpu: CudaDevice, guest: Callable[..., HostRig]) -> None:
    rig = guest(gpu)
    kernel = load(rig, TRAP, "breaks")
    line = next(n for n, text in enumerate(TRAP.decode().splitlines(), 1) if "trap;" in text)
    with pytest.raises(KernelFault, match=rf"kernel breaks faulted: trap instruction; PTX line {line}$"):
        launch(rig, kernel, (Tag.POINTER, DATA_AT, 4))
    rig.close()
    assert rig.ledger.table().counts[:, COUNTERS.faults // 8].sum() == 1
    assert gpu.restarts == 0


def test_a_block_with_more_threads_than_the_text_allows_is_refused(
    gpu: CudaDevice, guest: Callable[..., HostRig]
) -> None:
    rig = guest(gpu)
    kernel = load(rig, STEP.replace(b"target)\n{", b"target)\n.maxntid 8, 8, 1\n{"), "step")
    words = (Tag.POINTER, DATA_AT, 4 * 64)
    assert launch(rig, kernel, words, block=65) == Code.INVALID_DIMENSIONS
    assert launch(rig, kernel, words, block=64) == Code.OK


def test_a_launch_with_more_shared_memory_than_the_gpu_has_ends_the_invocation(
    gpu: CudaDevice, guest: Callable[..., HostRig]
) -> None:
    rig = guest(gpu)
    kernel = load(rig, STEP, "step")
    with pytest.raises(GuestTrap, match="kernel step cannot be launched so on this GPU"):
        launch(rig, kernel, (Tag.POINTER, DATA_AT, 4), shared=233_472)


def test_a_text_that_is_none_is_refused_with_its_place(gpu: CudaDevice, guest: Callable[..., HostRig]) -> None:
    rig = guest(gpu)
    assert rig.load(HEAD.encode() + b".visible .entry k()\n{\n  frobnicate.u32 %r1;\n}\n", b"k") == Code.MALFORMED_PTX
    assert "malformed PTX" in rig.last_error()
    assert rig.load(VECTOR_ADD, b"other") == Code.MALFORMED_PTX


# --- device memory --------------------------------------------------------------------------------------------


def test_device_memory_is_kept_copied_set_and_freed(gpu: CudaDevice, guest: Callable[..., HostRig]) -> None:
    rig = guest(gpu)
    handle = alloc(rig, 1000)
    assert rig.device_bytes == 1000
    rig.write(DATA_AT, bytes(range(200)) * 5)
    assert rig.call("wasi_cuda_memcpy", handle, 0, DATA_AT, 1000, 0) == Code.OK
    assert rig.call("wasi_cuda_memset", handle, 10, 0x1FF, 20) == Code.OK
    assert rig.call("wasi_cuda_memcpy", handle, 5, DATA_AT, 30, 1) == Code.OK
    assert rig.read(DATA_AT, 30) == bytes(range(5, 10)) + b"\xff" * 20 + bytes(range(30, 35))
    assert rig.call("wasi_cuda_memcpy", handle, 990, DATA_AT, 30, 1) == Code.INVALID_ARGUMENTS
    assert rig.call("wasi_cuda_free", handle, 0) == Code.OK
    assert rig.call("wasi_cuda_free", handle, 0) == Code.INVALID_HANDLE
    assert rig.device_bytes == 0
    again = alloc(rig, 1000)
    assert rig.call("wasi_cuda_memcpy", again, 0, DATA_AT, 1000, 1) == Code.OK
    assert rig.read(DATA_AT, 1000) == bytes(1000)


def test_kernels_work_on_device_memory(gpu: CudaDevice, guest: Callable[..., HostRig]) -> None:
    rig = guest(gpu)
    kernel = load(rig, VECTOR_ADD, "vector_add")
    alloc(rig, 777)
    a, b = alloc(rig, 400), alloc(rig, 440)
    for handle, scale in ((a, 1), (b, 10)):
        rig.write(DATA_AT, (np.arange(100, dtype="<f4") * scale).tobytes())
        assert rig.call("wasi_cuda_memcpy", handle, 40 * (handle == b), DATA_AT, 400, 0) == Code.OK
    arguments = (Tag.DEVICE_POINTER, a, 0), (Tag.DEVICE_POINTER, b, 40), (Tag.POINTER, DATA_AT, 400), (Tag.I32, 100)
    assert launch(rig, kernel, *arguments, grid=4, block=32) == Code.OK
    assert rig.read(DATA_AT, 400) == (np.arange(100, dtype="<f4") * 11).tobytes()
    assert launch(rig, kernel, (Tag.DEVICE_POINTER, a + 77, 0), *arguments[1:]) == Code.INVALID_HANDLE


def test_an_allocation_that_does_not_fit_is_refused(gpu: CudaDevice, guest: Callable[..., HostRig]) -> None:
    rig = guest(gpu, device_budget=Budget(PARTITION_BYTES * 2))
    assert rig.call("wasi_cuda_alloc", PARTITION_BYTES, 0) == Code.QUOTA_EXCEEDED
    assert rig.call("wasi_cuda_alloc", 0, 0) == Code.INVALID_ARGUMENTS
    alloc(rig, PARTITION_BYTES // 2)
    small = guest(gpu, device_budget=Budget(4096))
    assert small.call("wasi_cuda_alloc", 4097, 0) == Code.QUOTA_EXCEEDED
    alloc(small, 4096)


def test_what_a_guest_leaves_is_zeros_for_the_next_of_its_tenant(
    gpu: CudaDevice, guest: Callable[..., HostRig]
) -> None:
    for _ in range(2):
        rig = guest(gpu, tenant=5)
        handle = alloc(rig, 1 << 20)
        assert rig.call("wasi_cuda_memcpy", handle, 0, DATA_AT, 1 << 20, 1) == Code.OK
        assert rig.read(DATA_AT, 1 << 20) == bytes(1 << 20)
        assert rig.call("wasi_cuda_memset", handle, 0, 0xAB, 1 << 20) == Code.OK
        rig.close()


def test_the_guest_is_told_of_the_gpu(gpu: CudaDevice, guest: Callable[..., HostRig]) -> None:
    rig = guest(gpu)
    size = rig.call("wasi_cuda_device_info", DATA_AT, 1024)
    info = json.loads(rig.read(DATA_AT, size))
    assert (info["kind"], info["sm"], info["memory_bytes"]) == ("cuda", gpu.facts.sm, PARTITION_BYTES)
    assert info["name"] == gpu.facts.name


# --- tenants --------------------------------------------------------------------------------------------------


def test_tenants_have_partitions_and_those_that_nobody_uses_make_room(
    open_gpu: Open, guest: Callable[..., HostRig]
) -> None:
    device = open_gpu(f"memory_bytes={4 * PARTITION_BYTES}")
    for tenant in range(10):
        rig = guest(device, tenant=tenant)
        alloc(rig, 1024)
        rig.close()
    kept = []
    while True:
        rig = guest(device, tenant=100 + len(kept))
        if rig.call("wasi_cuda_alloc", 1024, 0) == Code.SATURATED:
            break
        kept.append(rig)
    assert "saturated" in rig.last_error()
    assert 1 <= len(kept) <= 4
    kept[0].close()
    alloc(rig, 1024)


def test_a_tenant_has_so_many_guests_there_and_no_more(
    open_gpu: Open, guest: Callable[..., HostRig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_device, "GUESTS_OF_TENANT_MAX", 2)
    device = open_gpu()
    rigs = [guest(device, tenant=1) for _ in range(3)]
    for rig in rigs[:2]:
        alloc(rig, 64)
    assert rigs[2].call("wasi_cuda_alloc", 64, 0) == Code.SATURATED
    assert "2 instances of the tenant have something on the GPU" in rigs[2].last_error()
    alloc(guest(device, tenant=2), 64)
    rigs[0].close()
    alloc(rigs[2], 64)


def test_a_partition_larger_than_the_gpu_is_refused_at_the_start(open_gpu: Open) -> None:
    with pytest.raises(DeviceUnavailable, match="set TENSOR_WASM_CUDA_PARTITION_MIB lower"):
        open_gpu("memory_bytes=67108864", partition_bytes=128 << 20)


def test_a_tenant_s_kernels_are_assembled_once(gpu: CudaDevice, guest: Callable[..., HostRig]) -> None:
    text = STEP + b"// of one tenant\n"
    hits, misses = gpu.statistics.hits["memory"], gpu.statistics.misses["memory"]
    for tenant, found in ((7, (0, 1)), (7, (1, 1)), (8, (1, 2))):
        rig = guest(gpu, tenant=tenant)
        load(rig, text, "step")
        rig.close()
        assert (gpu.statistics.hits["memory"] - hits, gpu.statistics.misses["memory"] - misses) == found


# --- the worker's end -----------------------------------------------------------------------------------------


def test_what_a_guest_had_is_lost_with_the_worker_and_its_next_use_says_so(
    open_gpu: Open, guest: Callable[..., HostRig]
) -> None:
    device = open_gpu()
    rig = guest(device)
    kernel, handle = load(rig, STEP, "step"), alloc(rig, 64)
    ended: list[WorkerEnd] = []
    device.on_restart = ended.append
    rig.write(DATA_AT, b"seven")
    assert launch(rig, kernel, (Tag.POINTER, DATA_AT + 8, 4)) == Code.OK
    assert device.memory.pid is not None
    os.kill(device.memory.pid, signal.SIGKILL)
    wait_until(lambda: bool(ended) and device.is_ready)
    assert device.restarts == 1
    assert ended[0].offender is None
    for use in (
        lambda: launch(rig, kernel, (Tag.POINTER, DATA_AT, 4)),
        lambda: rig.call("wasi_cuda_alloc", 64, 0),
        lambda: rig.call("wasi_cuda_free", handle, 0),
        lambda: rig.call("wasi_cuda_memcpy", handle, 0, DATA_AT, 4, 0),
        lambda: rig.load(STEP, b"step"),
        lambda: rig.call("wasi_cuda_unload", kernel),
        lambda: rig.call("wasi_cuda_sync"),
    ):
        with pytest.raises(DeviceRestarting):
            use()
    assert isinstance(rig.guest.interrupt(), DeviceRestarting)
    assert rig.read(DATA_AT, 9) == b"seven\0\0\0\1"  # its own memory is not lost
    rig.close()
    add(fresh := guest(device), load(fresh, VECTOR_ADD, "vector_add"), 64, (DATA_AT, DATA_AT + 256, DATA_AT + 512))


@pytest.mark.slow
def test_a_kernel_without_end_costs_its_guest_the_deadline_and_all_the_worker(
    open_gpu: Open, guest: Callable[..., HostRig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_device, "_ENDLESS_S", 0.2)
    device = open_gpu()
    ended: list[WorkerEnd] = []
    device.on_restart = ended.append
    other = guest(device, tenant=2)
    alloc(other, 64)
    rig = guest(device, tenant=1, left_s=0.5)
    with pytest.raises(DeadlineExceeded):
        launch(rig, load(rig, ENDLESS, "endless"))
    rig.close()
    wait_until(lambda: bool(ended) and device.is_ready)
    offender = ended[0].offender
    assert offender is not None
    assert (offender.tenant, offender.kernel) == (1, "endless")
    assert ended[0].victims == (1, 2)
    with pytest.raises(DeviceRestarting):
        other.call("wasi_cuda_alloc", 64, 0)


@pytest.mark.slow
def test_of_two_kernels_that_do_not_end_the_one_that_began_first_is_to_blame(
    open_gpu: Open, guest: Callable[..., HostRig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_device, "_ENDLESS_S", 0.2)
    device = open_gpu()
    ended: list[WorkerEnd] = []
    device.on_restart = ended.append
    first, second = guest(device, tenant=1, left_s=4.0), guest(device, tenant=2, left_s=0.5)
    kernels = [load(rig, ENDLESS, "endless") for rig in (first, second)]

    def begin() -> None:
        with pytest.raises((DeadlineExceeded, DeviceRestarting)):
            launch(first, kernels[0])

    thread = threading.Thread(target=begin)
    thread.start()
    lane = first.guest.gpu._lane  # type: ignore[union-attr]
    wait_until(lambda: bool(lane.doorbell.is_busy and lane.doorbell.accepted_ns))
    with pytest.raises((DeadlineExceeded, DeviceRestarting)):
        launch(second, kernels[1])
    second.close()
    thread.join()
    first.close()
    wait_until(lambda: bool(ended))
    assert ended[0].offender is not None
    assert ended[0].offender.tenant == 1


@pytest.mark.slow
def test_a_guest_that_ends_while_its_kernel_runs_leaves_its_memory_until_that_has_ended(
    open_gpu: Open, guest: Callable[..., HostRig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_device, "_ENDLESS_S", PATIENCE_S)
    device = open_gpu("slow:4:step")
    rig = guest(device, tenant=1, left_s=1.5)  # time enough to load it on a busy machine
    with pytest.raises(DeadlineExceeded):
        launch(rig, load(rig, STEP, "step"), (Tag.POINTER, DATA_AT, 4))
    residence = rig.guest.gpu._residence  # type: ignore[union-attr]
    used_bytes = residence.tenant.used_bytes
    staged = rig.guest.gpu._staged  # type: ignore[union-attr]
    place, at = staged.place, device_board.BYTES + staged.place + DATA_AT - staged.start
    rig.close()
    assert residence.guests == 1
    # The GPU will write there: nobody else may have it. And what it writes is no other guest's memory.
    assert device.memory.take_staging(1) != place
    other = guest(device, tenant=2)
    assert other.read(0, 40 * 65_536) == bytes(40 * 65_536)
    wait_until(lambda: residence.guests == 0)
    assert residence.tenant.used_bytes < used_bytes
    assert device.memory.board[at] == 1
    assert other.read(0, 40 * 65_536) == bytes(40 * 65_536)
    assert device.memory.take_staging(1) == place
    assert device.restarts == 0


@pytest.mark.slow
def test_a_tenant_that_keeps_breaking_the_gpu_is_kept_from_it(
    open_gpu: Open, guest: Callable[..., HostRig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_device, "_ENDLESS_S", 0.05)
    device = open_gpu()
    for restarts in (1, 2, 3):
        rig = guest(device, tenant=1, left_s=0.3)
        with pytest.raises((DeadlineExceeded, DeviceRestarting)):
            launch(rig, load(rig, ENDLESS, "endless"))
        rig.close()
        wait_until(lambda restarts=restarts: device.restarts == restarts and device.is_ready)
    rig = guest(device, tenant=1)
    assert rig.load(STEP, b"step") == Code.NOT_AVAILABLE
    assert "kernels of this tenant ended the GPU's work 3 times within 10 minutes, endless last" in rig.last_error()
    assert rig.call("wasi_cuda_alloc", 64, 0) == Code.NOT_AVAILABLE
    load(guest(device, tenant=2), STEP, "step")
    monkeypatch.setattr(device, "_barred", {1: (time.monotonic(), "over")})
    load(rig, STEP, "step")
