"""Pages of a guest's memory that are a shared file's too: what both sides see, what is left, who has them next."""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterator
from typing import Any

import pytest

from tensor_wasm.runtime import PAGE_BYTES, Budget, Engine, Pages, Store
from tensor_wasm.wasm import Module, ValType

I32 = ValType.I32
WASM_PAGE = 65_536
FILE_BYTES = 64 << 20


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    engine.close()


class File:
    """A file in memory, and this process's view of it."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("shared", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.descriptor, FILE_BYTES)
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        self.content = mmap.mmap(self.descriptor, FILE_BYTES)

    def close(self) -> None:
        self.content.close()
        os.close(self.descriptor)


@pytest.fixture
def file() -> Iterator[File]:
    file = File()
    yield file
    file.close()


class Guest:
    """A store with a memory of so many pages, that WebAssembly reads, writes and grows."""

    def __init__(self, engine: Engine, pages: int = 4) -> None:
        module = Module()
        module.memory(pages, export="memory")
        load = module.function([I32], [I32], export="load")
        load.code.get(load.parameters[0])
        load.code.memory("i32.load")
        store = module.function([I32, I32], export="store")
        for parameter in store.parameters:
            store.code.get(parameter)
        store.code.memory("i32.store")
        grow = module.function([I32], [I32], export="grow")
        grow.code.get(grow.parameters[0])
        grow.code.memory_grow()
        self.budget = Budget(256 << 20)
        self.store = Store(engine, self.budget)
        self.instance = self.store.instantiate(engine.compile(module.encode().wasm), ())
        memory: Any = self.instance.memory()
        self.pages = Pages(self.store, memory)

    def load(self, address: int) -> int:
        (value,) = self.store.call(self.instance.function("load"), ["i32"], [address], ["i32"])
        return int(value)

    def put(self, address: int, value: int) -> None:
        self.store.call(self.instance.function("store"), ["i32", "i32"], [address, value], [])

    def grow(self, pages: int) -> int:
        (before,) = self.store.call(self.instance.function("grow"), ["i32"], [pages], ["i32"])
        return int(before)


def test_both_sides_see_what_either_writes(engine: Engine, file: File) -> None:
    guest = Guest(engine)
    place = 5 * PAGE_BYTES
    file.content[place : place + 4] = (77).to_bytes(4, "little")
    guest.pages.show(PAGE_BYTES, 2 * PAGE_BYTES, file.descriptor, place)
    assert guest.load(PAGE_BYTES) == 77
    guest.put(2 * PAGE_BYTES, 88)
    assert file.content[place + PAGE_BYTES] == 88
    # Around it the memory is the guest's alone.
    guest.put(PAGE_BYTES - 4, 1)
    guest.put(3 * PAGE_BYTES, 1)
    assert file.content[place - 4 : place] == bytes(4)
    assert file.content[place + 2 * PAGE_BYTES] == 0
    assert bytes(guest.pages.view(PAGE_BYTES - 4, 8)) == b"\1\0\0\0\x4d\0\0\0"
    guest.store.close()


def test_what_is_hidden_is_zeros_and_the_file_keeps_its_bytes(engine: Engine, file: File) -> None:
    guest = Guest(engine)
    guest.pages.show(0, WASM_PAGE, file.descriptor, 0)
    guest.put(8, 99)
    guest.pages.hide(0, WASM_PAGE)
    assert guest.load(8) == 0
    guest.put(8, 1)
    assert file.content[8] == 99
    guest.store.close()


def test_a_memory_grows_with_pages_shown(engine: Engine, file: File) -> None:
    guest = Guest(engine, 1)
    guest.pages.show(0, WASM_PAGE, file.descriptor, 0)
    guest.put(0, 5)
    assert guest.grow(2) == 1
    assert guest.pages.size_bytes == 3 * WASM_PAGE
    assert guest.load(0) == 5
    assert guest.load(2 * WASM_PAGE) == 0
    guest.pages.show(0, 3 * WASM_PAGE, file.descriptor, 1 << 20)
    guest.put(2 * WASM_PAGE, 6)
    assert file.content[(1 << 20) + 2 * WASM_PAGE] == 6
    guest.store.close()


@pytest.mark.parametrize("pages", [1, 200])
def test_the_next_guest_has_the_file_s_pages_no_more(engine: Engine, file: File, pages: int) -> None:
    bases = set()
    for turn in range(3):
        guest = Guest(engine, pages)
        assert guest.load(0) == guest.load(pages * WASM_PAGE - 4) == 0, "another's bytes are to be seen"
        guest.put(0, 1 + turn)
        assert file.content[:4] == (b"\xee" * 4 if turn else bytes(4)), "another's pages are still the file's"
        guest.pages.show(0, pages * WASM_PAGE, file.descriptor, 0)
        guest.put(pages * WASM_PAGE - 4, 7)
        bases.add(guest.pages._base)
        guest.store.close()
        file.content[:4] = b"\xee" * 4
    assert len(bases) < 3, "no address space was used again, so this shows nothing"
    assert guest.budget.used_bytes == 0


def test_large_ranges_are_shown_whole(engine: Engine, file: File) -> None:
    guest = Guest(engine, 512)
    guest.pages.show(0, 512 * WASM_PAGE, file.descriptor, 16 << 20)
    for page in range(0, 512, 17):
        guest.put(page * WASM_PAGE + 12, page + 1)
    assert [file.content[(16 << 20) + page * WASM_PAGE + 12] for page in range(0, 255, 17)] == list(range(1, 256, 17))
    guest.store.close()
