"""The gate for a device that does not see the guest's memory: guest pointers are listed, device pointers are long."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from dispatch.rig import GOOD_ARGV, Rig, RigGuest, kernel_module
from tensor_wasm.abi import Code, Tag, limits, pack
from tensor_wasm.abi.argv import LAST_TAG_3
from tensor_wasm.dispatch import KernelEntry, scratch
from tensor_wasm.dispatch.scratch import Placement, Window
from tensor_wasm.runtime import Engine
from tensor_wasm.wasm import Module, ValType

MEMORY_BYTES = 2 * 65_536
POINTER = 1 << Tag.POINTER | 1 << Tag.DEVICE_POINTER | 1 << Tag.U64
BASE = 0x7F12_3400_0000


@pytest.fixture(scope="module")
def rig(engine: Engine) -> Rig:
    return Rig(engine, has_windows=True)


def started(rig: Rig, entry: KernelEntry | None = None) -> RigGuest:
    guest = RigGuest(rig, kernel_module(rig.engine), entry=entry)
    assert guest.launch(b"") == Code.INVALID_ARGUMENTS  # binds the gate
    return guest


@pytest.fixture
def guest(rig: Rig) -> Iterator[RigGuest]:
    guest = started(rig)
    yield guest
    guest.close()


def windows(guest: RigGuest) -> list[Window]:
    assert guest.gate is not None
    return guest.gate.windows()


def test_a_guest_pointer_is_listed_and_everything_else_is_as_ever(guest: RigGuest) -> None:
    assert guest.launch(GOOD_ARGV) == Code.OK
    assert guest.read(0, 32) == struct.pack("<i4xQf4xd", -5, 64, 1.5, -2.5)
    assert windows(guest) == [Window(8, 64, 100)]


def test_each_launch_lists_its_own(guest: RigGuest) -> None:
    assert guest.launch(GOOD_ARGV) == Code.OK
    number = pack([(Tag.I32, -5), (Tag.U64, 7), (Tag.F32, 1.5), (Tag.F64, -2.5)])
    assert guest.launch(number) == Code.OK
    assert windows(guest) == []


def test_as_many_as_argv_has_records_of_any_size_and_place(rig: Rig) -> None:
    count = limits.ARGV_MAX_RECORDS
    guest = started(rig, KernelEntry([(POINTER, 8 * place, 8) for place in range(count)]))
    given = [(MEMORY_BYTES - place, place) for place in range(count)]
    assert guest.launch(pack([(Tag.POINTER, *window) for window in given])) == Code.OK
    assert windows(guest) == [Window(8 * place, *window) for place, window in enumerate(given)]
    assert guest.launch(pack([(Tag.POINTER, 0, 0)] * count)) == Code.OK  # the descriptor after the list is whole
    assert guest.launch(pack([(Tag.POINTER, 0, 0)] * (count + 1))) == Code.ARGV_TOO_LARGE
    assert guest.launch(pack([(Tag.POINTER, MEMORY_BYTES, 1)] * count)) == Code.INVALID_POINTER
    guest.close()


def test_refused_argv_does_not_write_past_the_list(rig: Rig) -> None:
    # Pointers that no parameter takes are not listed, however many there are.
    guest = started(rig, KernelEntry([(POINTER, 0, 8)]))
    assert guest.gate is not None
    argv = pack([(Tag.POINTER, 0, 1)] * limits.ARGV_MAX_RECORDS)
    assert guest.launch(argv) == Code.INVALID_ARGUMENTS
    assert windows(guest) == [Window(0, 0, 1)]
    guest.close()


def test_what_pointers_show_is_told_once(rig: Rig) -> None:
    guest = started(rig, KernelEntry([(POINTER, 8 * place, 8) for place in range(8)]))
    given = [(500, 10), (100, 50), (120, 10), (140, 30), (170, 5), (510, 0), (0, 0), (MEMORY_BYTES - 1, 1)]
    assert guest.launch(pack([(Tag.POINTER, *window) for window in given])) == Code.OK
    assert guest.gate is not None
    assert guest.gate.shown() == [(100, 75), (500, 10), (MEMORY_BYTES - 1, 1)]
    assert guest.launch(pack([(Tag.POINTER, 0, MEMORY_BYTES)] * 8)) == Code.OK
    assert guest.gate.shown() == [(0, MEMORY_BYTES)]
    assert guest.launch(pack([(Tag.POINTER, 7, 0)] * 8)) == Code.OK
    assert guest.gate.shown() == []
    guest.close()


def test_device_pointers_count_from_the_partition_in_64_bits(rig: Rig) -> None:
    guest = started(rig, KernelEntry([(POINTER, 0, 8), (POINTER, 8, 8)]))
    gate = guest.gate
    assert gate is not None
    gate.place(Placement(lane=5, base=BASE, empty=1))
    last = (1 << 32) - 1
    gate.set_device(1, 3, 1000)
    gate.set_device(2, last, 256)
    argv = pack([(Tag.DEVICE_POINTER, 1, 999), (Tag.DEVICE_POINTER, 2, 256)])
    code = gate_launch(guest, argv)
    assert code == Code.OK
    shift = scratch.DEVICE_ADDRESS_SHIFT
    assert struct.unpack("<QQ", guest.read(0, 16)) == (BASE + (3 << shift) + 999, BASE + (last << shift) + 256)
    assert windows(guest) == []
    assert gate_launch(guest, pack([(Tag.DEVICE_POINTER, 1, 1001), (Tag.DEVICE_POINTER, 2, 0)])) == Code.INVALID_POINTER
    assert gate_launch(guest, pack([(Tag.DEVICE_POINTER, 3, 0), (Tag.DEVICE_POINTER, 2, 0)])) == Code.INVALID_HANDLE
    guest.close()


def gate_launch(guest: RigGuest, argv: bytes) -> int:
    """Launch as guests of the newer interface do, whose argv has more tags."""
    guest.write(1024, argv)
    assert guest.gate is not None
    launch = guest.gate._instance.function("launch")
    values = [0, 1, 1, 1, 1, 1, 1, 0, 1024, len(argv), LAST_TAG_3]
    (code,) = guest.store.call(launch, ["i64", *["i32"] * 10], values, ["i32"])
    return int(code)


def test_a_placement_stands_in_its_words(guest: RigGuest) -> None:
    gate = guest.gate
    assert gate is not None
    gate.place(Placement(1, 2 << 40, 3 << 40, 4 << 40, 5 << 28, 6 << 28, 7 << 28, 9 << 28, -8))
    with gate.scratch() as view:
        for at, form, value in (
            (scratch.GPU_LANE, "<I", 1),
            (scratch.GPU_BASE, "<Q", 2 << 40),
            (scratch.GPU_EMPTY, "<Q", 3 << 40),
            (scratch.GPU_ARENA, "<Q", 4 << 40),
            (scratch.GPU_ARENA_BYTES, "<I", 5 << 28),
            (scratch.GPU_STAGING, "<I", 6 << 28),
            (scratch.GPU_SHOWN_BYTES, "<I", 7 << 28),
            (scratch.GPU_SHOWN, "<I", 9 << 28),
            (scratch.GPU_CLOCK_NS, "<q", -8),
        ):
            assert struct.unpack_from(form, view, at) == (value,)


def test_the_gate_of_the_cpu_device_lists_nothing(engine: Engine) -> None:
    rig = Rig(engine)
    guest = started(rig)
    assert guest.launch(GOOD_ARGV) == Code.OK
    assert windows(guest) == []
    guest.close()


def test_a_kernel_can_import_more(rig: Rig) -> None:
    module = Module()
    guest = started(rig)
    gate = guest.gate
    assert gate is not None
    memories = [module.import_memory("guest", "memory"), module.import_memory("gate", "scratch")]
    for name in ("base", "variables", "more"):
        imported = module.import_global("gate", name, ValType.I32)
    run = module.function([ValType.I32] * 8, export="run")
    module.function([ValType.I32] * 10, export="share")
    run.code.i32_const(0)
    run.code.global_get(imported)
    run.code.memory("i32.store", memory=memories[0].index)
    kernel = rig.engine.compile(module.encode().wasm)
    identity, _, _ = gate.add(kernel, 16, KernelEntry([]), [guest.store.i32_global(4711)])
    assert guest.launch(b"", kernel=identity) == Code.OK
    assert struct.unpack("<I", guest.read(0, 4)) == (4711,)
    guest.close()
