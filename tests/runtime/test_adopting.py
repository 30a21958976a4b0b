"""A file in memory, shown as a WebAssembly memory in any store: what both sides see, where it ends, what it costs."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tensor_wasm.errors import InternalError
from tensor_wasm.runtime import Budget, CallFailed, Engine, Store
from tensor_wasm.runtime import bindings as native
from tensor_wasm.wasm import Module, ValType

PAGE = 65_536
I32 = ValType.I32


def shared_file(size_bytes: int, seals: int = fcntl.F_SEAL_SHRINK) -> int:
    descriptor = os.memfd_create("shared", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size_bytes)
    if seals:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def accessor(pages: int) -> bytes:
    """Exports a memory, and to load, store and grow it."""
    module = Module()
    module.memory(pages, export="memory")
    load = module.function([I32], [I32], export="load")
    load.code.get(load.parameters[0])
    load.code.memory("i32.atomic.load")
    store = module.function([I32, I32], export="store")
    for parameter in store.parameters:
        store.code.get(parameter)
    store.code.memory("i32.atomic.store")
    grow = module.function([], [I32], export="grow")
    grow.code.i32_const(1)
    grow.code.memory_grow()
    return module.encode().wasm


class Shown:
    """A store that sees the file."""

    def __init__(self, engine: Engine, base: int, pages: int, budget: Budget | None = None) -> None:
        self.store = Store(engine, budget or Budget(0))
        try:
            with engine.pool.alias([base]):
                self.instance = self.store.instantiate(engine.compile(accessor(pages)), ())
        except BaseException:
            self.store.close()
            raise
        self.memory: Any = self.instance.memory()

    def load(self, address: int) -> int:
        (value,) = self.store.call(self.instance.function("load"), ["i32"], [_signed(address)], ["i32"])
        return int(value)

    def put(self, address: int, value: int) -> None:
        self.store.call(self.instance.function("store"), ["i32", "i32"], [_signed(address), value], [])


def _signed(address: int) -> int:
    return address - (1 << 32) if address >> 31 else address


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    engine.close()


def mappings() -> str:
    return Path("/proc/self/maps").read_text()


def test_stores_and_whoever_maps_the_file_see_the_same_bytes(engine: Engine) -> None:
    descriptor = shared_file(3 * PAGE)
    other = mmap.mmap(descriptor, 3 * PAGE)
    base = engine.pool.adopt(descriptor, 3 * PAGE)
    os.close(descriptor)
    first, second = Shown(engine, base, 3), Shown(engine, base, 3)
    first.put(3 * PAGE - 4, 11)
    other[8:12] = (22).to_bytes(4, "little")
    for shown in (first, second):
        assert shown.load(3 * PAGE - 4) == 11
        assert shown.load(8) == 22
        assert shown.store.budget.used_bytes == 0
    assert other[3 * PAGE - 4] == 11
    first.store.close()
    assert second.load(8) == 22  # one store's end is not the memory's
    second.store.close()
    third = Shown(engine, base, 3)
    assert third.load(8) == 22  # nobody has cleared it
    third.store.close()
    other.close()


def test_it_ends_where_it_ends_and_does_not_grow(engine: Engine) -> None:
    before = Store(engine, Budget())
    before.instantiate(engine.compile(accessor(9)), ())
    before.close()  # its reservation, in which more was open, is used again
    descriptor = shared_file(4 * PAGE)
    base = engine.pool.adopt(descriptor, 2 * PAGE)
    shown = Shown(engine, base, 2)
    for address in (2 * PAGE, 2 * PAGE - 4 + 4, 4 * PAGE, (1 << 32) - 4):
        with pytest.raises(CallFailed):
            shown.load(address)
    assert shown.store.call(shown.instance.function("grow"), [], [], ["i32"]) == [-1]
    shown.store.close()
    with pytest.raises(CallFailed, match="no such memory"):
        Shown(engine, base, 3)
    os.close(descriptor)


def test_a_gibibyte_and_more_costs_address_space_only(engine: Engine) -> None:
    size_bytes = (1 << 30) + 129 * PAGE
    descriptor = shared_file(size_bytes)
    base = engine.pool.adopt(descriptor, size_bytes)
    shown = Shown(engine, base, size_bytes // PAGE)
    shown.put(size_bytes - 4, 5)
    assert shown.load(size_bytes - 4) == 5
    assert os.fstat(descriptor).st_blocks * 512 < 1 << 20
    with pytest.raises(CallFailed):
        shown.load(size_bytes)
    shown.store.close()
    os.close(descriptor)


def test_it_is_gone_when_it_is_disowned_and_with_the_pool() -> None:
    engine = Engine()
    bases = []
    for _ in range(2):
        descriptor = shared_file(PAGE)
        bases.append(engine.pool.adopt(descriptor, PAGE))
        os.close(descriptor)
    assert mappings().count("/memfd:shared") == 2
    engine.pool.disown(bases[0])
    assert mappings().count("/memfd:shared") == 1
    with pytest.raises(CallFailed, match="no such memory"):
        Shown(engine, bases[0], 1)
    engine.close()
    assert "/memfd:shared" not in mappings()


def test_its_reservation_is_not_given_to_the_next_guest(engine: Engine) -> None:
    descriptor = shared_file(PAGE)
    base = engine.pool.adopt(descriptor, PAGE)
    ctypes.memset(base, 7, PAGE)
    engine.pool.disown(base)
    store = Store(engine, Budget(PAGE))
    memory: Any = store.instantiate(engine.compile(accessor(1)), ()).memory()
    with store.memory_view(memory) as view:
        assert bytes(view) == bytes(PAGE)
        view[0] = 9
    assert os.pread(descriptor, 1, 0) == b"\7"
    assert native.memory_data(store.context, ctypes.byref(memory)) is not None
    store.close()
    os.close(descriptor)


def test_a_file_that_could_become_shorter_is_refused(engine: Engine, tmp_path: Path) -> None:
    unsealed = shared_file(PAGE, seals=0)
    short = shared_file(PAGE)
    with (tmp_path / "file").open("w+b") as plain:
        plain.truncate(PAGE)
        for descriptor, size_bytes in ((unsealed, PAGE), (short, 2 * PAGE), (plain.fileno(), PAGE)):
            with pytest.raises(InternalError, match="too short"):
                engine.pool.adopt(descriptor, size_bytes)
    for size_bytes in (0, 1000, -PAGE, (1 << 32) + PAGE):
        with pytest.raises(InternalError, match="cannot have"):
            engine.pool.adopt(short, size_bytes)
    os.close(unsealed)
    os.close(short)


def test_an_alias_of_too_little_address_space_is_refused(engine: Engine) -> None:
    descriptor = shared_file(PAGE)
    base = engine.pool.adopt(descriptor, PAGE)
    adopted = engine.pool.find(base)
    assert adopted is not None
    adopted.span -= PAGE
    with pytest.raises(CallFailed, match="no such memory"):
        Shown(engine, base, 1)
    adopted.span += PAGE
    os.close(descriptor)
