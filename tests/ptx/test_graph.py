"""Order, dominators, loops, reducibility."""

from __future__ import annotations

import random
import time

import pytest

from tensor_wasm.ptx.graph import Graph
from tensor_wasm.ptx.program import (
    Block,
    Branch,
    Exit,
    Guard,
    Jump,
    Kernel,
    Register,
    ScalarType,
    Switch,
    Terminator,
    Trap,
)

REGISTER = Register("p", ScalarType.PRED, 0)


def graph(*edges: tuple[int, ...]) -> Graph:
    """The graph in which block ``i`` goes to ``edges[i]``."""
    blocks = tuple(Block(index, (), terminator(targets), index + 1) for index, targets in enumerate(edges))
    return Graph(Kernel("k", (), 0, (REGISTER,), (), blocks, 1))


def terminator(targets: tuple[int, ...]) -> Terminator:
    match len(targets):
        case 0:
            return Exit()
        case 1:
            return Jump(targets[0])
        case 2:
            return Branch(Guard(REGISTER, False), targets[0], targets[1])
    return Switch(REGISTER, targets)


def test_edges_are_listed_once_in_both_directions() -> None:
    found = graph((1, 1), (2, 3, 2, 3), (3,), ())
    assert found.successors == ((1,), (2, 3), (3,), ())
    assert found.predecessors == ((), (0,), (1,), (1, 2))


def test_traps_lead_nowhere() -> None:
    block = Block(0, (), Trap(1), 1)
    assert Graph(Kernel("k", (), 0, (), (), (block,), 1)).successors == ((),)


def test_a_diamond() -> None:
    found = graph((1, 2), (3,), (3,), ())
    assert found.immediate_dominators == (None, 0, 0, 0)
    assert found.reverse_postorder[0] == 0
    assert found.reverse_postorder[-1] == 3
    assert found.is_reducible
    assert found.back_edges == ()
    assert found.dominates(0, 3)
    assert not found.dominates(1, 3)
    assert found.dominates(3, 3)


def test_nested_loops() -> None:
    found = graph((1,), (2, 5), (3,), (2, 4), (1,), ())
    assert found.immediate_dominators == (None, 0, 1, 2, 3, 1)
    assert set(found.back_edges) == {(3, 2), (4, 1)}
    assert found.loop_headers == {1, 2}
    assert found.is_reducible


def test_a_loop_on_the_entry_and_one_on_itself() -> None:
    found = graph((1, 0), (1, 0))
    assert set(found.back_edges) == {(0, 0), (1, 1), (1, 0)}
    assert found.loop_headers == {0, 1}
    assert found.immediate_dominators == (None, 0)
    assert found.is_reducible


def test_a_loop_entered_at_two_places_is_irreducible() -> None:
    found = graph((1, 2), (2, 3), (1,), ())
    assert not found.is_reducible
    assert len(found.irregular_edges) == 1
    assert set(found.irregular_edges[0]) == {1, 2}
    assert found.immediate_dominators == (None, 0, 0, 1)


def test_an_irreducible_loop_inside_a_reducible_one() -> None:
    found = graph((1,), (2, 3), (3,), (2, 4), (1, 5), ())
    assert not found.is_reducible
    assert found.loop_headers == {1}


def reachable(successors: tuple[tuple[int, ...], ...], without: int | None) -> set[int]:
    seen: set[int] = set()
    waiting = [0]
    while waiting:
        block = waiting.pop()
        if block not in seen and block != without:
            seen.add(block)
            waiting.extend(successors[block])
    return seen


def random_edges(rng: random.Random, size: int) -> list[tuple[int, ...]]:
    """Random edges, and from each block one to the next, so that all are reached."""
    edges = []
    for block in range(size):
        targets = [rng.randrange(size) for _ in range(rng.choice((0, 0, 1, 1, 2)))]
        if block + 1 < size:
            targets.insert(rng.randrange(len(targets) + 1), rng.choice((block + 1, block + 1)))
        edges.append(tuple(targets))
    return edges


@pytest.mark.parametrize("seed", range(150))
def test_dominators_are_what_cuts_a_block_off(seed: int) -> None:
    rng = random.Random(seed)
    size = rng.randint(1, 12)
    found = graph(*random_edges(rng, size))
    position = {block: place for place, block in enumerate(found.reverse_postorder)}
    assert sorted(found.reverse_postorder) == list(range(size)), f"seed {seed}"
    for first in range(size):
        cut_off = set(range(size)) - reachable(found.successors, first)
        for second in range(size):
            assert found.dominates(first, second) == (second in cut_off), f"seed {seed}: {first} {second}"
    for block, parent in enumerate(found.immediate_dominators):
        strict = [each for each in range(size) if each != block and found.dominates(each, block)]
        assert parent == max(strict, key=position.__getitem__, default=None), f"seed {seed}: {block}"
    assert found.is_reducible == is_reducible(found.successors), f"seed {seed}"


def is_reducible(successors: tuple[tuple[int, ...], ...]) -> bool:
    """By the definition: removing self loops and merging blocks into their only predecessor leaves one block."""
    edges = {block: set(targets) - {block} for block, targets in enumerate(successors)}
    while True:
        for block in list(edges):
            sources = [each for each in edges if block in edges[each]]
            if block != 0 and len(sources) == 1:
                edges[sources[0]] = (edges[sources[0]] | edges.pop(block)) - {block, sources[0]}
                break
        else:
            return len(edges) == 1


def test_long_chains_and_ladders_take_linear_time() -> None:
    size = 30_000
    start = time.process_time()
    chain = graph(*((block + 1,) for block in range(size - 1)), ())
    ladder = graph(*((block + 1, block - 1) if block else (1,) for block in range(size - 1)), (0,))
    crossed = graph(
        *(((block + 1) % size, (block + 2) % size, max(block - 1, 0), size - 1 - block) for block in range(size))
    )
    assert time.process_time() - start < 5
    assert chain.immediate_dominators[-1] == size - 2
    assert ladder.is_reducible
    assert not crossed.is_reducible
