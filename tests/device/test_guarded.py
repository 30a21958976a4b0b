"""Pieces of device memory: apart from each other, given back, never more than there is."""

from __future__ import annotations

import ctypes
import random
from itertools import pairwise

import pytest

from tensor_wasm.device import guarded
from tensor_wasm.device.machine import Machine
from tensor_wasm.device.session import _NoFiles
from tensor_wasm.errors import CapacityExhausted


@pytest.fixture
def memory():
    machine = Machine(_NoFiles())
    yield machine.memory
    machine.close()


def test_a_piece_is_aligned_and_ends_at_its_guard(memory):
    for size in (0, 1, 15, 16, 17, 4096, 4097, 1_000_003):
        piece = memory.take(size)
        assert piece.address % guarded.ALIGNMENT == 0
        slack = piece.start + piece.span_bytes - (piece.address + size)
        assert 0 <= slack < guarded.ALIGNMENT
        assert piece.address >= piece.start >= guarded.GUARD_BYTES
        assert piece.host_address == memory.base + piece.address


def test_pieces_never_touch_and_space_is_found_again(memory):
    seed = random.randrange(1 << 32)
    numbers = random.Random(seed)
    live = []
    for _ in range(1_500):
        if live and numbers.random() < 0.5:
            memory.give(live.pop(numbers.randrange(len(live))), keep=numbers.random() < 0.5)
        else:
            live.append(memory.take(numbers.choice((0, 1, 100, 4096, 70_000, 3_000_000))))
        spans = sorted((piece.start, piece.start + piece.span_bytes) for piece in live)
        for (_, end), (start, _) in pairwise(spans):
            assert start - end >= guarded.GUARD_BYTES, seed
    assert memory.used_bytes == sum(piece.span_bytes for piece in live)
    for piece in live:
        memory.give(piece)
    whole = memory.take(memory.capacity_bytes)  # all of it is one piece again
    memory.give(whole)
    assert memory.used_bytes == 0


def test_too_much_is_refused_and_nothing_is_lost(memory):
    before = memory.take(memory.capacity_bytes // 2)
    with pytest.raises(CapacityExhausted, match="close device arrays"):
        memory.take(memory.capacity_bytes // 2 + (1 << 20))
    memory.give(before)
    memory.give(memory.take(memory.capacity_bytes))


def test_new_pieces_are_zero(memory):
    first = memory.take(5_000)
    ctypes.memset(first.host_address, 0xAB, 5_000)
    memory.give(first)
    second = memory.take(5_000)
    assert second.start == first.start
    assert ctypes.string_at(second.host_address, 5_000) == bytes(5_000)


def test_clearing_a_piece_makes_it_zero(memory):
    for size in (100, 5_000, 9 << 20):
        piece = memory.take(size)
        ctypes.memset(piece.host_address, 0xAB, size)
        memory.clear(piece)
        assert not any(ctypes.string_at(piece.host_address, size))
