"""Room behind a memory's end: pieces, what is closed around them, what they cost, and that nothing stays open."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tensor_wasm.runtime import Annex, Budget, CallFailed, Engine, Piece, SharedBudget, Spans, Store
from tensor_wasm.runtime import bindings as native
from tensor_wasm.runtime.annex import GUARDED_PIECES
from tensor_wasm.wasm import Module, ValType

PAGE = 65_536


class Behind:
    """A store with one memory of a page, an annex of it, and a guest that reads and writes bytes by address."""

    def __init__(self, engine: Engine, limit_bytes: int = 1 << 30) -> None:
        module = Module()
        module.memory(1, export="memory")
        load = module.function([ValType.I32], [ValType.I32], export="load")
        load.code.get(load.parameters[0])
        load.code.memory("i32.load8_u")
        store = module.function([ValType.I32] * 2, [], export="store")
        store.code.get(store.parameters[0])
        store.code.get(store.parameters[1])
        store.code.memory("i32.store8")
        grow = module.function([ValType.I32], [ValType.I32], export="grow")
        grow.code.get(grow.parameters[0])
        grow.code.memory_grow()
        self.budget = Budget(limit_bytes)
        self.store = Store(engine, self.budget)
        self.instance = self.store.instantiate(engine.compile(module.encode().wasm), ())
        memory: Any = self.instance.memory()
        self.base = native.memory_data(self.store.context, memory) or 0
        reservation = engine.pool.find(self.base)
        assert reservation is not None
        self.annex = Annex(engine.pool, reservation, self.budget)

    def take(self, size_bytes: int) -> Piece:
        piece = self.annex.take(size_bytes)
        assert piece is not None
        assert piece.address % 16 == 0
        return piece

    def call(self, name: str, *values: int) -> int:
        signed = [value - (1 << 32) if value >> 31 else value for value in values]
        results = [] if name == "store" else ["i32"]
        found = self.store.call(self.instance.function(name), ["i32"] * len(values), signed, results)
        return int(found[0]) if found else 0

    def is_open(self, address: int) -> bool:
        try:
            self.call("load", address)
        except CallFailed:
            return False
        return True


@pytest.fixture
def behind(engine: Engine) -> Iterator[Behind]:
    made = Behind(engine)
    yield made
    made.store.close()
    assert made.budget.used_bytes == 0


def seeded() -> random.Random:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    return random.Random(seed)


def mappings(base: int) -> int:
    """How many mappings the process has among the 4 GiB from an address on."""
    lines = Path("/proc/self/maps").read_text("ascii").splitlines()
    starts = [int(line.partition("-")[0], 16) for line in lines]
    return sum(base <= start < base + (1 << 32) for start in starts)


def test_spans_are_apart_and_come_back() -> None:
    chance = seeded()
    spans = Spans(100, 100 + 64 * 1000)
    held: list[tuple[int, int]] = []
    for _ in range(3000):
        size = 64 * chance.randrange(1, 60)
        start = chance.choice((spans.take, spans.take_high))(size)
        if start is not None:
            assert start >= 100
            assert start + size <= 100 + 64 * 1000
            assert all(start + size <= other or other + many <= start for other, many in held)
            held.append((start, size))
        if held and (start is None or chance.random() < 0.5):
            spans.give(*held.pop(chance.randrange(len(held))))
    for span in held:
        spans.give(*span)
    assert spans.take(64 * 1000) == 100
    assert spans.take(1) is None


def test_a_piece_is_zeros_with_closed_space_around_it(behind: Behind) -> None:
    pieces = [behind.take(size) for size in (1, 16, 4095, 4096, 100_000, 1 << 22)]
    for piece in pieces:
        end = piece.address + piece.size_bytes
        assert behind.call("load", piece.address) == behind.call("load", end - 1) == 0
        behind.call("store", end - 1, 7)
        assert not behind.is_open(-(-end // 16) * 16)
        assert not behind.is_open(piece.address // 4096 * 4096 - 1)
    assert behind.budget.used_bytes == PAGE + 3 * 4096 + 4096 + 102_400 + (1 << 22)
    for piece in pieces:
        behind.annex.give(piece)
        assert not behind.is_open(piece.address)
    again = behind.take(100_000)
    assert behind.call("load", again.address + 99_999) == 0
    behind.annex.give(again)
    assert behind.budget.used_bytes == PAGE
    assert mappings(behind.base) <= 2


def test_many_pieces_cost_few_mappings_and_give_all_of_it_back(behind: Behind) -> None:
    chance = seeded()
    before = mappings(behind.base)
    pieces = [behind.take(chance.choice((1, 100, 5000, 70_000))) for _ in range(4096)]
    assert mappings(behind.base) - before < 2 * GUARDED_PIECES + 60
    spans = sorted((piece.address, piece.address + piece.size_bytes) for piece in pieces)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    for number, piece in enumerate(pieces):
        behind.call("store", piece.address, 1 + number % 255)
        behind.call("store", piece.address + piece.size_bytes - 1, 1 + number % 255)
    for number, piece in enumerate(pieces):
        assert behind.call("load", piece.address) == 1 + number % 255
    chance.shuffle(pieces)
    for piece in pieces[:2000]:
        behind.annex.give(piece)
    for size in (1, 100, 5000, 70_000) * 100:
        piece = behind.take(size)
        assert behind.call("load", piece.address) == behind.call("load", piece.address + size - 1) == 0
        pieces.append(piece)
    for piece in pieces[2000:]:
        behind.annex.give(piece)
    assert behind.budget.used_bytes == PAGE
    assert mappings(behind.base) <= before


def test_places_that_wander_leave_no_mappings_behind(behind: Behind) -> None:
    before = mappings(behind.base)
    for size in range(1, 40):
        above = behind.take(size << 20)
        pieces = [behind.take(1) for _ in range(30)]
        for piece in pieces:
            behind.call("store", piece.address, 7)
        for piece in (above, *pieces):
            behind.annex.give(piece)
        assert mappings(behind.base) <= before


def test_pieces_lie_side_by_side_where_the_process_has_no_closed_space_left(behind: Behind, engine: Engine) -> None:
    before, engine.pool.guarded_pieces = engine.pool.guarded_pieces, SharedBudget(1)
    first, second, third = (behind.take(100) for _ in range(3))
    assert third.address == second.address + 128
    assert first.opened is not second.opened is third.opened
    for piece in (second, first, third):
        behind.annex.give(piece)
    assert engine.pool.guarded_pieces.used_bytes == 0
    engine.pool.guarded_pieces = before


def test_what_does_not_fit_the_budget_is_refused(engine: Engine) -> None:
    behind = Behind(engine, PAGE + 3 * 4096)
    assert behind.annex.take(3 * 4096 + 1) is None
    piece = behind.take(2 * 4096)
    assert behind.annex.take(4097) is None
    assert behind.call("grow", 1) == -1
    behind.annex.give(piece)
    behind.annex.give(behind.take(3 * 4096))
    behind.store.close()
    assert behind.budget.used_bytes == 0


def test_the_memory_does_not_grow_into_pieces_nor_they_into_it(engine: Engine) -> None:
    behind = Behind(engine, 1 << 40)
    piece = behind.take(1 << 20)
    pages = piece.address // PAGE
    assert behind.call("grow", pages) == -1
    assert behind.call("grow", pages - 3) == 1
    assert behind.annex.take(1 << 20) is None
    assert behind.is_open((pages - 2) * PAGE - 1)
    assert not behind.is_open((pages - 2) * PAGE)
    behind.annex.give(piece)
    assert behind.call("grow", PAGE - pages + 2) == pages - 2
    behind.store.close()
    assert behind.budget.used_bytes == 0


def test_a_memory_that_ends_with_pieces_open_is_not_given_to_others(engine: Engine) -> None:
    behind = Behind(engine)
    piece = behind.take(100)
    behind.call("store", piece.address, 7)
    behind.store.close()
    engine.pool.guarded_pieces.give(1)
    for _ in range(3):
        other = Behind(engine)
        assert not other.is_open(piece.address)
        other.store.close()
