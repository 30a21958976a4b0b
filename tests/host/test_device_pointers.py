"""``wasi:cuda`` 0.3.0: device memory in kernels, copies and fills at any place, launches with tickets."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from device.ptx_texts import HEAD
from device.test_cores import kernel_text
from host.rig import HostRig
from tensor_wasm.abi import CUDA_3_MODULE, Code, Tag, limits, pack
from tensor_wasm.dispatch import GateFactory, Ledger
from tensor_wasm.errors import EndingError, KernelFault
from tensor_wasm.host.device_memory import CpuMemory
from tensor_wasm.runtime import CallFailed, Engine, Piece

CORPUS = Path(__file__).parents[1] / "corpus"
VECTOR_ADD = (CORPUS / "vector_add.ptx").read_bytes()
PAGE = 65_536
ARGV_AT, DATA_AT = 55_000, 70_000
TO_DEVICE, FROM_DEVICE = 0, 1

#: Adds 1 to the word of each thread.
STEP = kernel_text("step", "ld.global.u32 %r6, [%rd2]; add.u32 %r6, %r6, 1; st.global.u32 [%rd2], %r6;").encode()
#: Writes 7 at a place counted from the target.
POKE = f"""{HEAD}
.visible .entry poke(.param .u64 target, .param .s64 offset)
{{
    .reg .b64 %rd<4>;
    ld.param.u64 %rd1, [target];
    ld.param.s64 %rd2, [offset];
    add.s64 %rd1, %rd1, %rd2;
    st.global.u8 [%rd1], 7;
    ret;
}}
""".encode()
#: Gives back what it is given: two bytes, one byte, and a structure of 12.
ECHO = f"""{HEAD}
.visible .entry echo(.param .u64 target, .param .b16 half, .param .u8 byte, .param .align 4 .b8 whole[12])
{{
    .reg .b64 %rd<4>;
    .reg .b32 %r<8>;
    .reg .b16 %h<4>;
    ld.param.u64 %rd1, [target];
    ld.param.u16 %h1, [half];
    st.global.u16 [%rd1], %h1;
    ld.param.u8 %h2, [byte];
    st.global.u8 [%rd1+2], %h2;
    ld.param.u32 %r1, [whole];
    ld.param.u32 %r2, [whole+4];
    ld.param.u32 %r3, [whole+8];
    st.global.u32 [%rd1+4], %r1;
    st.global.u32 [%rd1+8], %r2;
    st.global.u32 [%rd1+12], %r3;
    ret;
}}
""".encode()


@pytest.fixture
def rig(engine: Engine, tmp_path: Path) -> Iterator[HostRig]:
    rig = HostRig(engine, tmp_path, cuda_module=CUDA_3_MODULE)
    yield rig
    rig.close()
    assert rig.device_bytes == 0
    assert rig.store.budget.used_bytes == 0
    assert engine.pool.guarded_pieces.used_bytes == 0


def load(rig: HostRig, text: bytes, entry: str) -> int:
    kernel = rig.load(text, entry.encode())
    assert kernel >= 0, rig.last_error()
    return kernel


def launch(rig: HostRig, kernel: int, *records: tuple, grid: int = 1, block: int = 1, call: str = "launch") -> int:
    argv = pack(records)
    rig.write(ARGV_AT, argv)
    return rig.call(f"wasi_cuda_{call}", kernel, grid, 1, 1, block, 1, 1, 0, ARGV_AT, len(argv))


def fault(rig: HostRig, kernel: int, *records: tuple, **shape: int) -> str:
    """How a launch ends that does not return."""
    with pytest.raises((CallFailed, EndingError)) as caught:
        launch(rig, kernel, *records, **shape)
    error = caught.value if isinstance(caught.value, EndingError) else rig.guest.ending(caught.value.failure)
    assert isinstance(error, KernelFault)
    return str(error)


def alloc(rig: HostRig, size: int) -> int:
    handle = rig.call("wasi_cuda_alloc", size, 0)
    assert handle >= 1, rig.last_error()
    return handle


def put(rig: HostRig, handle: int, data: bytes, offset: int = 0) -> None:
    rig.write(DATA_AT, data)
    assert rig.call("wasi_cuda_memcpy", handle, offset, DATA_AT, len(data), TO_DEVICE) == Code.OK


def get(rig: HostRig, handle: int, size: int, offset: int = 0) -> bytes:
    assert rig.call("wasi_cuda_memcpy", handle, offset, DATA_AT, size, FROM_DEVICE) == Code.OK
    return rig.read(DATA_AT, size)


def content(rig: HostRig, handle: int) -> bytearray:
    """The bytes of an allocation; none when there is no such."""
    memory = rig.guest.device_memory
    assert memory is not None
    found = bytearray(memory.size_of(handle) or 0)
    memory.read(handle, 0, memoryview(found))
    return found


def pieces(rig: HostRig) -> dict[int, Piece]:
    memory = rig.guest.device_memory
    assert isinstance(memory, CpuMemory)
    return memory._pieces


def device(handle: int, offset: int = 0) -> tuple[Tag, int, int]:
    return (Tag.DEVICE_POINTER, handle, offset)


# --- kernels --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 37, 3000])
def test_a_kernel_adds_two_device_arrays_into_guest_memory(rig: HostRig, count: int) -> None:
    kernel = load(rig, VECTOR_ADD, "vector_add")
    first, second = np.arange(count, dtype="<f4"), np.arange(count, dtype="<f4") * 10
    a, b = alloc(rig, 4 * count), alloc(rig, 4 * count + 40)
    put(rig, a, first.tobytes())
    put(rig, b, second.tobytes(), 40)
    window = (Tag.POINTER, 100_000, 4 * count)
    code = launch(rig, kernel, device(a), device(b, 40), window, (Tag.I32, count), grid=-(-count // 64), block=64)
    assert code == Code.OK
    assert (np.frombuffer(rig.read(100_000, 4 * count), "<f4") == first + second).all()
    # And the other way round: from guest memory into device memory, in place.
    code = launch(rig, kernel, window, device(a), device(a), (Tag.I32, count), grid=-(-count // 64), block=64)
    assert code == Code.OK
    assert (np.frombuffer(get(rig, a, 4 * count), "<f4") == 2 * first + second).all()


def test_what_is_no_place_in_device_memory_is_refused_with_the_contracts_codes(rig: HostRig) -> None:
    kernel = load(rig, POKE, "poke")
    zero = (Tag.I64, 0)
    assert launch(rig, kernel, device(1), zero) == Code.INVALID_HANDLE  # before there is any
    handle, other = alloc(rig, 100), alloc(rig, 100)
    assert launch(rig, kernel, device(handle, 99), zero) == Code.OK
    assert get(rig, handle, 100) == bytes(99) + b"\7"
    for wrong in (0, other + 1, handle + 4096, handle + (1 << 32), handle + (1 << 63), (1 << 64) - 1, 4096, 1 << 63):
        assert launch(rig, kernel, device(wrong), zero) == Code.INVALID_HANDLE, wrong
        assert rig.last_error() == "invalid device handle"
    for wrong in (101, 1 << 32, (1 << 64) - 1, 1 << 63):
        assert launch(rig, kernel, device(handle, wrong), zero) == Code.INVALID_POINTER, wrong
    # An offset right behind it is a place, for a kernel that does not use it.
    assert launch(rig, load(rig, VECTOR_ADD, "vector_add"), *[device(handle, 100)] * 3, (Tag.I32, 0)) == Code.OK
    # The form comes first, then the handle, then the fit.
    argv = pack([device(handle)])
    rig.write(ARGV_AT, argv)
    assert rig.call("wasi_cuda_launch", kernel, 1, 1, 1, 1, 1, 1, 0, ARGV_AT, len(argv) - 1) == Code.INVALID_ARGUMENTS
    assert launch(rig, kernel, (Tag.F32, 0.0), device(77)) == Code.INVALID_HANDLE
    assert launch(rig, kernel, device(handle), device(handle)) == Code.INVALID_ARGUMENTS
    assert launch(rig, kernel, device(handle, 50), (Tag.I64, 1)) == Code.OK
    assert get(rig, handle, 2, 50) == b"\0\7"
    assert get(rig, other, 100) == bytes(100)


def test_a_kernel_that_leaves_an_allocation_faults(engine: Engine, tmp_path: Path) -> None:
    for size, offset in (
        (16, 16),
        (4096, 4096),
        (100, 112),
        (100_000, 100_000),
        (4096, -1),
        (4096, 1 << 20),
        (64, -4096),
    ):
        rig = HostRig(engine, tmp_path, cuda_module=CUDA_3_MODULE)
        kernel = load(rig, POKE, "poke")
        before, handle, after = (alloc(rig, size) for _ in range(3))
        assert launch(rig, kernel, device(handle, size - 1), (Tag.I64, 0)) == Code.OK
        text = fault(rig, kernel, device(handle), (Tag.I64, offset))
        reason = "address outside guest memory" if offset == 1 << 20 else "out-of-bounds memory access"
        line = POKE.decode().splitlines().index("    st.global.u8 [%rd1], 7;") + 1
        assert text == f"kernel poke faulted: {reason}; block (0,0,0), thread (0,0,0), PTX line {line}"
        for neighbour in (before, after):
            assert not any(content(rig, neighbour) or b"x")
        rig.close()
        assert rig.ledger.read().used == 0


def test_the_first_thread_that_leaves_an_allocation_is_named(engine: Engine, tmp_path: Path) -> None:
    rig = HostRig(engine, tmp_path, cuda_module=CUDA_3_MODULE)
    kernel = load(rig, STEP, "step")
    handle = alloc(rig, 4 * 1000)
    assert launch(rig, kernel, device(handle), grid=10, block=100) == Code.OK
    assert "block (10,0,0), thread (0,0,0)" in fault(rig, kernel, device(handle), grid=11, block=100)
    rig.close()


def test_freed_memory_is_out_of_reach_and_zeros_for_who_comes_next(engine: Engine, tmp_path: Path) -> None:
    rig = HostRig(engine, tmp_path, cuda_module=CUDA_3_MODULE)
    kernel = load(rig, POKE, "poke")
    handle = alloc(rig, 5000)
    put(rig, handle, b"\xff" * 5000)
    piece = pieces(rig)[handle]
    assert rig.call("wasi_cuda_free", handle, 0) == Code.OK
    assert launch(rig, kernel, device(handle), (Tag.I64, 0)) == Code.INVALID_HANDLE
    assert rig.call("wasi_cuda_memset", handle, 0, 0, 1) == Code.INVALID_HANDLE
    again = alloc(rig, 5000)
    assert again != handle
    assert pieces(rig)[again].address == piece.address
    assert get(rig, again, 5000) == bytes(5000)
    assert launch(rig, kernel, device(handle), (Tag.I64, 0)) == Code.INVALID_HANDLE
    assert rig.call("wasi_cuda_free", again, 0) == Code.OK
    # A kernel that kept the address.
    assert "faulted" in fault(rig, kernel, (Tag.U64, piece.address), (Tag.I64, 0))
    rig.close()


def test_handles_do_not_come_again(rig: HostRig) -> None:
    kernel = load(rig, POKE, "poke")
    kept = alloc(rig, 16)
    seen = set()
    for _ in range(limits.ALLOCATIONS_MAX + 100):
        handle = rig.call("wasi_cuda_alloc", 16, 0)
        assert handle not in seen
        seen.add(handle)
        assert rig.call("wasi_cuda_free", handle & 0xFFFFFFFF, handle >> 32) == Code.OK
    handle = alloc(rig, 16)
    assert launch(rig, kernel, device(handle), (Tag.I64, 3)) == Code.OK
    assert get(rig, handle, 16)[3] == 7
    assert launch(rig, kernel, device(handle - limits.ALLOCATIONS_MAX), (Tag.I64, 3)) == Code.INVALID_HANDLE
    assert get(rig, kept, 16) == bytes(16)


def test_many_pieces_are_apart_from_each_other(rig: HostRig) -> None:
    kernel = load(rig, STEP, "step")
    sizes = [4 * (1 + 37 * number % 300) for number in range(400)]
    handles = [alloc(rig, size) for size in sizes]
    for handle, size in zip(handles, sizes, strict=True):
        assert launch(rig, kernel, device(handle), grid=size // 4) == Code.OK
    for handle in handles[::3]:
        assert rig.call("wasi_cuda_free", handle, 0) == Code.OK
    handles[::3] = [alloc(rig, size) for size in sizes[::3]]
    for number, (handle, size) in enumerate(zip(handles, sizes, strict=True)):
        assert get(rig, handle, size) == struct.pack("<I", 0 if number % 3 == 0 else 1) * (size // 4), number


def test_memory_grows_up_to_device_memory(engine: Engine, tmp_path: Path) -> None:
    rig = HostRig(engine, tmp_path, cuda_module=CUDA_3_MODULE, memory_bytes=1 << 40)
    handle = alloc(rig, 64)
    lowest = pieces(rig)[handle].address
    with pytest.raises(Exception, match="limit"):
        rig.store.grow_memory(rig.instance.memory(), lowest)
    rig.store.grow_memory(rig.instance.memory(), lowest // PAGE * PAGE - 4 * PAGE)
    assert rig.call("wasi_cuda_alloc", 200 << 20, 0) == Code.QUOTA_EXCEEDED
    assert rig.call("wasi_cuda_free", handle, 0) == Code.OK
    rig.store.grow_memory(rig.instance.memory(), lowest)
    rig.close()


@pytest.mark.parametrize("helpers", [1, 2])
def test_several_cores_use_the_same_device_memory(engine: Engine, tmp_path: Path, helpers: int) -> None:
    gates = GateFactory(engine, Ledger(engine, 4), helpers)
    rig = HostRig(engine, tmp_path, cuda_module=CUDA_3_MODULE, gates=gates)
    count = 1 << 17
    first = alloc(rig, 4 * count)
    kernel = load(rig, STEP, "step")
    assert launch(rig, kernel, device(first), grid=count // 128, block=128) == Code.OK
    assert rig.guest.crew is not None
    # Taken while helpers serve, and as the guest's memory has grown.
    second = alloc(rig, 4 * count)
    rig.store.grow_memory(rig.instance.memory(), 8 * PAGE)
    for times in (1, 2, 3):
        rig.take_for_large(kernel)
        assert launch(rig, kernel, device(second), grid=count // 128, block=128) == Code.OK
        words = np.frombuffer(content(rig, second), "<u4")
        assert (words == times).all()
    assert (np.frombuffer(content(rig, first), "<u4") == 1).all()
    assert rig.guest.crew.lessons == 1
    rig.take_for_large(kernel)
    text = fault(rig, kernel, device(second), grid=count // 128 + 64, block=128)
    found = re.search(r"out-of-bounds memory access; block \((\d+),0,0\), thread \(0,0,0\)", text)
    assert found is not None, text
    assert int(found[1]) >= count // 128
    rig.close()
    assert gates.ledger.read().used == 0
    gates.close()


def test_other_values_reach_the_kernel_bit_for_bit(rig: HostRig) -> None:
    kernel = load(rig, ECHO, "echo")
    whole = bytes(range(200, 212))
    good = [(Tag.POINTER, DATA_AT, 16), (Tag.F16, 0xBC01), (Tag.STRUCT, b"\xfe"), (Tag.STRUCT, whole)]
    assert launch(rig, kernel, *good) == Code.OK
    assert rig.read(DATA_AT, 16) == b"\x01\xbc\xfe\0" + whole
    for position, wrong in (
        (1, (Tag.I32, 1)), (1, (Tag.STRUCT, b"ab")), (2, (Tag.F16, 1)), (2, (Tag.STRUCT, b"")),
        (2, (Tag.STRUCT, b"ab")),
        (3, (Tag.STRUCT, whole[:11])), (3, (Tag.STRUCT, whole + b"x")), (3, (Tag.U64, 1)), (0, (Tag.STRUCT, bytes(8))),
    ):  # fmt: skip
        records = [*good]
        records[position] = wrong
        assert launch(rig, kernel, *records) == Code.INVALID_ARGUMENTS, (position, wrong)
    argv = pack(good)
    rig.write(ARGV_AT, argv)
    for cut in (1, 11, 12, 13, 14, 15, len(whole) + 5):
        code = rig.call("wasi_cuda_launch", kernel, 1, 1, 1, 1, 1, 1, 0, ARGV_AT, len(argv) - cut)
        assert code == Code.INVALID_ARGUMENTS, cut
    assert launch(rig, kernel, *good[:3], (Tag.STRUCT, bytes(4064))) == Code.INVALID_ARGUMENTS
    assert launch(rig, kernel, *good[:3], (Tag.STRUCT, bytes(4096))) == Code.ARGV_TOO_LARGE


def test_under_the_older_versions_newer_tags_are_of_a_wrong_form(engine: Engine, tmp_path: Path) -> None:
    rig = HostRig(engine, tmp_path)
    kernel = load(rig, POKE, "poke")
    handle = alloc(rig, 100)
    assert launch(rig, kernel, device(handle), (Tag.I64, 0)) == Code.INVALID_ARGUMENTS
    assert launch(rig, kernel, device(77, 1 << 40), (Tag.I64, 0)) == Code.INVALID_ARGUMENTS
    assert launch(rig, kernel, (Tag.POINTER, 0, 8), (Tag.F16, 0)) == Code.INVALID_ARGUMENTS
    assert launch(rig, kernel, (Tag.STRUCT, bytes(8)), (Tag.I64, 0)) == Code.INVALID_ARGUMENTS
    assert launch(rig, kernel, (Tag.POINTER, 0, 8), (Tag.I64, 0)) == Code.OK
    rig.close()


# --- copies and fills -----------------------------------------------------------------------------------------


def test_copies_and_fills_reach_any_place(rig: HostRig) -> None:
    handle = alloc(rig, 300_000)
    put(rig, handle, bytes(range(100)), 299_900)
    assert rig.call("wasi_cuda_memset", handle, 100_000, 0x1FF, 150_000) == Code.OK
    assert rig.call("wasi_cuda_memset", handle, 299_950, -2, 1) == Code.OK
    assert get(rig, handle, 3, 99_999) == b"\0\xff\xff"
    assert get(rig, handle, 3, 249_998) == b"\xff\xff\0"
    assert get(rig, handle, 100, 299_900) == bytes([*range(50), 254, *range(51, 100)])
    for nothing in (0, 300_000):
        assert rig.call("wasi_cuda_memset", handle, nothing, 1, 0) == Code.OK
        assert rig.call("wasi_cuda_memcpy", handle, nothing, 0, 0, FROM_DEVICE) == Code.OK


def test_copies_check_in_the_contracts_order(rig: HostRig) -> None:
    handle = alloc(rig, 100)
    for arguments, code in (
        ((handle + 1, -1, -1, -1, 9), Code.INVALID_HANDLE),
        ((handle | 1 << 32, 0, 0, 1, 0), Code.INVALID_HANDLE),
        ((handle, -1, 0, -1, 9), Code.INVALID_POINTER),
        ((handle, -1, 2 * PAGE, 1, 9), Code.INVALID_POINTER),
        ((handle, -1, 0, 1, 9), Code.INVALID_ARGUMENTS),
        ((handle, 100, 0, 1, 9), Code.INVALID_ARGUMENTS),
        ((handle, (1 << 63) - 1, 0, 1, 0), Code.INVALID_ARGUMENTS),
        ((handle, -(1 << 63), 0, 1, 0), Code.INVALID_ARGUMENTS),
        ((handle, 99, 0, 1, 2), Code.INVALID_ARGUMENTS),
        ((handle, 99, 0, 1, -1), Code.INVALID_ARGUMENTS),
        ((handle, 99, 2 * PAGE - 1, 1, 1), Code.OK),
    ):
        assert rig.call("wasi_cuda_memcpy", *arguments) == code, arguments
        assert (rig.last_error() == "") is (code == Code.OK)
    for arguments, code in (
        ((handle + 1, -1, 0, -1), Code.INVALID_HANDLE),
        ((handle, -1, 0, 1), Code.INVALID_ARGUMENTS),
        ((handle, 0, 0, -1), Code.INVALID_ARGUMENTS),
        ((handle, 1, 0, 100), Code.INVALID_ARGUMENTS),
        ((handle, (1 << 63) - 1, 0, (1 << 63) - 1), Code.INVALID_ARGUMENTS),
        ((handle, 1, 0, 99), Code.OK),
    ):
        assert rig.call("wasi_cuda_memset", *arguments) == code, arguments
    assert rig.call("wasi_cuda_memcpy", handle, 90, 0, 20, 0) == Code.INVALID_ARGUMENTS
    assert rig.last_error() == "invalid arguments: the copy has 20 bytes at byte 90, the allocation 100"


def test_a_tenant_without_the_device_gets_minus_one(engine: Engine, tmp_path: Path) -> None:
    rig = HostRig(engine, tmp_path, cuda_module=CUDA_3_MODULE, capable=False)
    assert rig.call("wasi_cuda_unload", 0) == Code.NOT_AVAILABLE
    assert rig.call("wasi_cuda_device_info", -1, -1) == Code.NOT_AVAILABLE
    assert rig.call("wasi_cuda_memset", 1, 0, 0, 0) == Code.NOT_AVAILABLE
    assert rig.call("wasi_cuda_memcpy", 1, 0, 0, 0, 0) == Code.NOT_AVAILABLE
    assert launch(rig, 0, call="launch_async") == Code.NOT_AVAILABLE
    rig.close()


def test_pages_count_against_the_instance_and_bytes_against_the_tenant(engine: Engine, tmp_path: Path) -> None:
    rig = HostRig(engine, tmp_path, cuda_module=CUDA_3_MODULE, memory_bytes=1 << 20)
    first = alloc(rig, 1)
    before = rig.store.budget.used_bytes
    assert rig.device_bytes == rig.guest.device_budget.used_bytes == 1
    handle = alloc(rig, 5000)
    assert rig.store.budget.used_bytes == before + 8192
    assert rig.device_bytes == rig.guest.device_budget.used_bytes == 5001
    assert rig.call("wasi_cuda_alloc", 1 << 20, 0) == Code.QUOTA_EXCEEDED
    assert rig.call("wasi_cuda_free", handle, 0) == rig.call("wasi_cuda_free", first, 0) == Code.OK
    assert rig.store.budget.used_bytes == before - 4096
    assert rig.device_bytes == rig.guest.device_budget.used_bytes == 0
    rig.close()


# --- launches with tickets, what the device is ------------------------------------------------------------------


def test_launches_with_tickets_are_complete_and_counted(rig: HostRig) -> None:
    kernel = load(rig, STEP, "step")
    handle = alloc(rig, 400)
    for ticket in range(3):
        assert launch(rig, kernel, device(handle), block=100, call="launch_async") == ticket
    assert launch(rig, kernel, device(99), block=100, call="launch_async") == Code.INVALID_HANDLE
    assert rig.last_error() == "invalid device handle"
    assert launch(rig, 5, call="launch_async") == Code.UNKNOWN_KERNEL
    assert rig.call("wasi_cuda_sync") == Code.OK
    assert launch(rig, kernel, device(handle), block=100) == Code.OK
    assert launch(rig, kernel, device(handle), block=100, call="launch_async") == 3
    assert get(rig, handle, 400) == struct.pack("<I", 5) * 100
    assert rig.slot.dispatches == 5


def test_the_first_call_of_all_may_be_a_launch_with_a_ticket(rig: HostRig) -> None:
    assert rig.guest.gate is None
    assert launch(rig, 0, call="launch_async") == Code.UNKNOWN_KERNEL


def test_the_device_says_what_it_is(rig: HostRig) -> None:
    size = rig.call("wasi_cuda_device_info", DATA_AT, 1024)
    assert 0 < size <= 1024
    text = rig.read(DATA_AT, size)
    info = json.loads(text)
    assert (info["name"], info["kind"], info["sm"], info["warp_size"]) == ("cpu", "cpu", "sm_80", 32)
    assert info["memory_bytes"] == rig.store.budget.limit_bytes
    assert info["limits"]["grid"] == [2**31 - 1, 65_535, 65_535]
    assert info["limits"]["allocations"] == 4096
    rig.write(DATA_AT, bytes(1024))
    assert rig.call("wasi_cuda_device_info", DATA_AT, 10) == 10
    assert rig.read(DATA_AT, 11) == text[:10] + b"\0"
    assert rig.call("wasi_cuda_device_info", DATA_AT, 0) == 0
    for pointer, room in ((0, -1), (2 * PAGE, 1), (2 * PAGE - 10, 1024), (-1, 1)):
        assert rig.call("wasi_cuda_device_info", pointer, room) == Code.INVALID_POINTER
