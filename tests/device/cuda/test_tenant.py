"""A tenant on a GPU: memory that never overlaps and is clear, kernels that are shared, apart, or used again."""

from __future__ import annotations

import random
import threading
import weakref
from collections.abc import Iterator

import numpy as np
import pytest

from device.cuda.emulated_worker import worker_command
from device.ptx_texts import COUNTER, INCREMENT, SHAPED
from tensor_wasm.device.cuda.gpu import Gpu
from tensor_wasm.device.cuda.tenant import ALIGNMENT, GpuTenant
from tensor_wasm.device.fence import GUARD_BYTES
from tensor_wasm.errors import CapacityExhausted, DeviceRestarting, KernelError, PtxError, Terminated

PARTITION_BYTES = 16 << 20


@pytest.fixture(scope="module")
def gpu() -> Iterator[Gpu]:
    opened = Gpu(0, command=worker_command(), staging_bytes=16 << 20)
    yield opened
    opened.close()


@pytest.fixture
def tenant(gpu: Gpu) -> Iterator[GpuTenant]:
    opened = GpuTenant(gpu, 7, PARTITION_BYTES)
    yield opened
    opened.close()


@pytest.fixture
def loads(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the kernels that the GPU had to assemble."""
    names: list[str] = []
    load = gpu.load

    def counted(tenant, fenced, *rest, **options):
        names.append(fenced.name)
        return load(tenant, fenced, *rest, **options)

    monkeypatch.setattr(gpu, "load", counted)
    return names


def content(tenant: GpuTenant, address: int, size_bytes: int) -> bytes:
    data = bytearray(size_bytes)
    tenant.copy_out(address, memoryview(data))
    return bytes(data)


def named(text: str, name: str, of: str = "increment") -> bytes:
    """A kernel's text under another name: another text."""
    return text.replace(f".entry {of}", f".entry {name}").encode()


# --- memory ---------------------------------------------------------------------------------------------------


def test_memory_is_clear_whatever_was_there(tenant):
    address = tenant.take(1000)
    assert content(tenant, address, 1024) == bytes(1024)
    tenant.copy_in(address, memoryview(b"\xaa" * 1024))
    tenant.give(address)
    again = tenant.take(1000)
    assert again == address
    assert content(tenant, again, 1024) == bytes(1024)


def test_pieces_never_overlap_and_stay_clear_of_the_ends(tenant):
    seed = random.randrange(1 << 32)
    numbers = random.Random(seed)
    live: dict[int, int] = {}
    base, end = tenant.partition.base, tenant.partition.base + PARTITION_BYTES
    for _ in range(2000):
        if live and numbers.random() < 0.45:
            address = numbers.choice(list(live))
            del live[address]
            tenant.give(address)
            continue
        size, alignment = numbers.randrange(1 << numbers.randrange(1, 19)), ALIGNMENT << numbers.randrange(6)
        try:
            is_high = numbers.random() < 0.5
            address = tenant.take(size, is_cleared=False, alignment=alignment, is_high=is_high)
        except CapacityExhausted:
            continue
        assert address % alignment == 0, seed
        assert base + GUARD_BYTES <= address <= address + size <= end - GUARD_BYTES, seed
        assert all(address + size <= other or other + live[other] <= address for other in live), seed
        live[address] = max(size, 1)
    for address in live:
        tenant.give(address)
    assert tenant.used_bytes == 0, seed
    tenant.give(tenant.take(tenant.capacity_bytes, is_cleared=False))


def test_memory_that_is_not_there_is_refused(tenant):
    address = tenant.take(tenant.capacity_bytes - ALIGNMENT, is_cleared=False)
    with pytest.raises(CapacityExhausted, match="no room for 512 more bytes"):
        tenant.take(ALIGNMENT + 1)
    tenant.take(ALIGNMENT)
    tenant.give(address)


def test_the_address_of_nothing_is_nobody_s(tenant):
    assert not tenant.partition.holds(tenant.empty_address, 1)
    inside = tenant.partition.inside(tenant.empty_address)
    assert inside < tenant.partition.base + GUARD_BYTES


# --- kernels --------------------------------------------------------------------------------------------------


def test_a_kernel_without_variables_is_shared(tenant, loads):
    first = tenant.kernel(INCREMENT.encode(), "increment")
    second = tenant.kernel(INCREMENT.encode(), "increment")
    assert first.number == second.number
    assert loads == ["increment"]
    assert [(p.name, p.kind, p.offset) for p in first.parameters] == [("source", "u64", 0), ("target", "u64", 8)]
    assert (first.name, first.parameter_bytes, first.leaves_faults) == ("increment", 16, False)
    assert tenant.partition.holds(first.fault_address, 16)
    checked = tenant.kernel(INCREMENT.encode(), "increment", is_checked=True)
    assert checked.number != first.number
    assert checked.leaves_faults


def test_what_the_text_says_of_blocks_is_kept(tenant):
    assert tenant.kernel(SHAPED.encode(), "exactly").reqntid == (8, 4, 1)
    assert tenant.kernel(SHAPED.encode(), "at_most").maxntid == (64, 1, 1)


def test_kernels_with_variables_are_apart_and_used_again_from_the_start(tenant, loads):
    first, second = (tenant.kernel(COUNTER.encode(), "counter") for _ in range(2))
    assert first.number != second.number
    assert first.fault_address != second.fault_address
    assert first.leaves_faults  # it has a trap
    assert len(first.trap_lines) == 1
    before = content(tenant, second.fault_address, 32)
    assert before[16:20] == (100).to_bytes(4, "little")
    tenant.copy_in(second.fault_address, memoryview(b"\xff" * 20))
    number = second.number
    del second
    again = tenant.kernel(COUNTER.encode(), "counter")
    assert again.number == number
    assert content(tenant, again.fault_address, 32) == before
    tenant.copy_in(first.fault_address, memoryview(b"\xff" * 20))
    tenant.reset(first)
    assert content(tenant, first.fault_address, 20)[16:] == (100).to_bytes(4, "little")
    assert loads == ["counter"] * 2


def test_callers_at_the_same_time_have_one_kernel_assembled(gpu, tenant, loads, monkeypatch):
    load, count = gpu.load, 6
    others_wait = threading.Event()

    def slow(*arguments, **options):
        assert others_wait.wait(60)
        return load(*arguments, **options)

    monkeypatch.setattr(gpu, "load", slow)
    found = []
    waiting = threading.Semaphore(0)

    def asked() -> None:
        waiting.release()

    threads = [
        threading.Thread(target=lambda: found.append(tenant.kernel(INCREMENT.encode(), "increment", interrupt=asked)))
        for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    for _ in range(count - 1):
        assert waiting.acquire(timeout=60)
    others_wait.set()
    for thread in threads:
        thread.join(60)
    assert len({kernel.number for kernel in found}) == 1
    assert len(found) == count
    assert loads == ["increment"]


def test_a_caller_who_waits_can_be_interrupted_and_one_s_failure_is_all_s(gpu, tenant, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def refuse(*_, **__):
        begun.set()
        assert go_on.wait(60)
        raise PtxError("the assembler refuses it")

    monkeypatch.setattr(gpu, "load", refuse)
    errors = []

    def ask() -> None:
        try:
            tenant.kernel(INCREMENT.encode(), "increment")
        except PtxError as error:
            errors.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    assert begun.wait(60)
    with pytest.raises(Terminated, match="enough"):
        tenant.kernel(INCREMENT.encode(), "increment", interrupt=lambda: Terminated("enough"))
    go_on.set()
    thread.join(60)
    assert errors == ["the assembler refuses it"]
    monkeypatch.undo()
    assert tenant.kernel(INCREMENT.encode(), "increment").number >= 1


def test_what_cannot_be_loaded_takes_nothing(tenant):
    kept = tenant.kernel(INCREMENT.encode(), "increment")
    before = tenant.used_bytes
    for text, entry in (
        (INCREMENT.replace("add.u32", "frobnicate.u32"), "increment"),
        (INCREMENT, "nothing"),
        (INCREMENT, ""),
        (INCREMENT.replace(".visible", ".global .b8 big[20000000];\n.visible"), "increment"),
    ):
        with pytest.raises((PtxError, CapacityExhausted)):
            tenant.kernel(text.encode(), entry)
    assert tenant.used_bytes == before
    assert kept.number


def test_idle_kernels_are_forgotten_when_they_are_many_or_memory_is_short(tenant, monkeypatch, loads):
    monkeypatch.setattr("tensor_wasm.device.cuda.tenant._IDLE_KERNELS_MAX", 3)
    for number in range(8):
        tenant.kernel(named(INCREMENT, f"kernel{number}"), f"kernel{number}")
    kept = tenant.kernel(named(INCREMENT, "kernel7"), "kernel7")
    assert len(loads) == 8
    assert tenant.used_bytes <= 5 * ALIGNMENT
    tenant.kernel(named(INCREMENT, "kernel6"), "kernel6")
    assert len(loads) == 8
    with pytest.raises(CapacityExhausted):
        tenant.take(tenant.capacity_bytes)
    tenant.kernel(named(INCREMENT, "kernel7"), "kernel7")
    assert len(loads) == 8
    tenant.kernel(named(INCREMENT, "kernel6"), "kernel6")
    assert loads[8:] == ["kernel6"]
    assert kept.number


def test_a_kernel_s_handle_is_not_kept(tenant):
    handle = weakref.ref(tenant.kernel(INCREMENT.encode(), "increment"))
    assert handle() is None


# --- the end --------------------------------------------------------------------------------------------------


def test_a_closed_tenant_gives_its_partition_back(gpu, tenant):
    tenant.close()
    tenant.close()
    with pytest.raises(KernelError):
        tenant.kernel(INCREMENT.encode(), "increment")
    for _ in range(40):  # more than the GPU has memory for at once
        GpuTenant(gpu, 8, PARTITION_BYTES).close()


def test_after_the_worker_s_end_all_is_void():
    gpu = Gpu(0, command=worker_command(), staging_bytes=4 << 20)
    try:
        tenant = GpuTenant(gpu, 1, PARTITION_BYTES)
        address = tenant.take(100)
        assert not tenant.is_void
        gpu.restart(None)
        assert tenant.is_void
        for call in (
            lambda: tenant.take(100),
            lambda: tenant.copy_in(address, memoryview(b"x")),
            lambda: tenant.kernel(INCREMENT.encode(), "increment"),
        ):
            with pytest.raises(DeviceRestarting):
                call()
        tenant.give(address)
        tenant.close()
    finally:
        gpu.close()


def test_numpy_bytes_go_in_and_out(tenant):
    data = np.random.default_rng(1).integers(0, 256, 3_000_001, np.uint8)
    address = tenant.take(data.nbytes, is_cleared=False)
    tenant.copy_in(address, memoryview(data))
    assert content(tenant, address, data.nbytes) == data.tobytes()
