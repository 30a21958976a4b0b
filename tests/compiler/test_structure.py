"""Control-flow graphs become structured steps that go the same ways."""

from __future__ import annotations

import itertools
import random

import pytest

from compiler.build import graph_kernel
from tensor_wasm.compiler.structure import (
    LOOP_DEPTH_MAX,
    Close,
    Fail,
    Finish,
    Goto,
    GotoCaseIf,
    GotoIf,
    GotoTable,
    OpenBlock,
    OpenDispatcher,
    OpenIf,
    OpenLoop,
    Run,
    Step,
    structure,
)
from tensor_wasm.errors import PtxError
from tensor_wasm.ptx.graph import Graph
from tensor_wasm.ptx.program import Branch, Exit, Guard, Immediate, Jump, Kernel, ScalarType, Switch, Terminator, Trap

_SELECTOR = Immediate(0, ScalarType.U32)


def _steps(kernel: Kernel) -> tuple[Step, ...]:
    return structure(kernel, Graph(kernel))


def _ways(steps: tuple[Step, ...], choices: random.Random) -> list[int]:
    """The blocks that run when each decision is made by ``choices``: the meaning of the steps, word for word."""
    ends: dict[int, int] = {}
    open_: list[int] = []
    for place, step in enumerate(steps):
        if isinstance(step, OpenBlock | OpenLoop | OpenIf):
            open_.append(place)
        elif isinstance(step, Close):
            ends[open_.pop()] = place
    assert not open_
    blocks: list[int] = []
    around: list[int] = []
    place = 0
    while len(blocks) < 200:
        step = steps[place]
        match step:
            case Run(block):
                blocks.append(block)
            case OpenBlock() | OpenLoop():
                around.append(place)
            case OpenIf():
                if choices.random() < 0.5:
                    around.append(place)
                else:
                    place = ends[place]
            case Close():
                around.pop()
            case Goto(target) | GotoIf(_, target):
                if isinstance(step, Goto) or choices.random() < 0.5:
                    place = _leave(steps, ends, around, target)
                    continue
            case GotoTable(_, targets):
                place = _leave(steps, ends, around, choices.choice(targets))
                continue
            case Finish() | Fail():
                return blocks
        place += 1
    return blocks


def _leave(steps: tuple[Step, ...], ends: dict[int, int], around: list[int], target: int) -> int:
    """Leave constructs up to that of ``target``; where to go on."""
    while around:
        place = around[-1]
        step = steps[place]
        if isinstance(step, OpenLoop) and step.header == target:
            return place + 1
        around.pop()
        if isinstance(step, OpenBlock) and step.target == target:
            after = ends[place] + 1
            placed = steps[after]
            first = steps[after + 1] if isinstance(placed, OpenLoop) else placed
            assert isinstance(first, Run | OpenBlock), first
            return after
    raise AssertionError(f"no construct of block {target} is open")


def _follow(kernel: Kernel, blocks: list[int]) -> None:
    """A sequence of blocks is a way through the graph."""
    graph = Graph(kernel)
    assert blocks[0] == 0
    for block, successor in itertools.pairwise(blocks):
        assert successor in graph.successors[block], (block, successor, blocks)


_SHAPES: dict[str, tuple[object, ...]] = {
    "one block": (None,),
    "straight": ([1], [2], None),
    "if": ([1, 2], [2], None),
    "if not": ([2, 1], [2], None),
    "if-else": ([1, 2], [3], [3], None),
    "both sides end": ([1, 2], None, None),
    "same side twice": ([1, 1], None),
    "loop with its test at the end": ([1], [1, 2], None),
    "loop with its test at the start": ([1], [2, 3], [1], None),
    "loop on the entry": ([0, 1], None),
    "endless loop": ([1], [1]),
    "loop with break": ([1], [2, 4], [3, 4], [1], None),
    "loop with continue": ([1], [2, 4], [1, 3], [1], None),
    "nested loops": ([1], [2], [2, 3], [1, 4], None),
    "break out of two loops": ([1], [2], [3, 5], [2, 4], [1, 5], None),
    "loop with two ends": ([1], [2, 4], [1, 3], None, None),
    "if chain": ([1, 2], [5], [3, 4], [5], [5], None),
    "crossing jumps": ([1, 2], [3, 4], [3, 4], None, None),
    "switch": (Switch(_SELECTOR, (1, 2, 3, 1)), [4], [4], [3, 4], None),
    "switch in a loop": ([1], Switch(_SELECTOR, (1, 2, 3)), [1], None),
    "switch falling through": (Switch(_SELECTOR, (1, 2, 3)), [2], [3], None),
    "trap": ([1, 2], Trap(7), None),
}


@pytest.mark.parametrize("name", list(_SHAPES))
def test_steps_go_the_ways_of_the_graph(name: str) -> None:
    kernel, _, _ = graph_kernel(*_SHAPES[name])  # type: ignore[arg-type]
    steps = _steps(kernel)
    assert sorted(step.block for step in steps if isinstance(step, Run)) == list(range(len(kernel.blocks)))
    taken = set()
    for seed in range(50):
        blocks = _ways(steps, random.Random(seed))
        _follow(kernel, blocks)
        taken.update(itertools.pairwise(blocks))
    graph = Graph(kernel)
    edges = {(block, target) for block in range(len(kernel.blocks)) for target in graph.successors[block]}
    assert taken == edges


@pytest.mark.parametrize("seed", range(60))
def test_random_reducible_graphs_go_their_ways(seed: int) -> None:
    source = random.Random(seed)
    count = source.randint(2, 30)
    ends: list[Terminator] = []
    guard = Guard(graph_kernel(None)[2], False)
    for block in range(count - 1):
        # Forward edges only, and back edges to the own block: always reducible, and every block is reached.
        ways = [block + 1, *(source.randrange(block, count) for _ in range(2))]
        source.shuffle(ways)
        match source.randint(0, 2):
            case 0:
                ends.append(Jump(block + 1))
            case 1:
                ends.append(Branch(guard, block + 1, ways[0]))
            case _:
                ends.append(Switch(_SELECTOR, tuple(ways)))
    ends.append(Exit())
    kernel, _, _ = graph_kernel(*ends)
    steps = _steps(kernel)
    assert sorted(step.block for step in steps if isinstance(step, Run)) == list(range(count))
    for choice in range(20):
        _follow(kernel, _ways(steps, random.Random(choice)))


@pytest.mark.parametrize("ends", [([1, 2], [2], [1]), ([1, 2], [3], [4], [4], [3, 5], None)])
def test_a_loop_with_two_entries_becomes_a_dispatcher_of_all_blocks(ends: tuple[object, ...]) -> None:
    kernel, _, _ = graph_kernel(*ends)  # type: ignore[arg-type]
    steps = _steps(kernel)
    assert steps[0] == OpenDispatcher(len(kernel.blocks))
    cases = [step.block for step in steps if isinstance(step, Run)]
    assert cases[0] == 0
    assert sorted(cases) == list(range(len(kernel.blocks)))
    for place, step in enumerate(steps):
        if isinstance(step, GotoCaseIf):
            end = kernel.blocks[steps[place - 1].block].terminator  # type: ignore[union-attr]
            assert isinstance(end, Branch)
            assert (cases[step.taken], cases[step.otherwise]) == (end.taken, end.otherwise)


def test_deep_nesting_needs_no_deep_stack() -> None:
    count = 20_000
    ends: list[object] = [[block + 1, block + 2] for block in range(count)]
    kernel, _, _ = graph_kernel(*ends, [count + 1], None)  # type: ignore[arg-type]
    steps = _steps(kernel)
    assert sum(isinstance(step, Run) for step in steps) == count + 2


def test_a_long_chain_of_ifs_that_leave_does_not_nest() -> None:
    count = 1_000
    ends: list[object] = [[count + 1 + block, block + 1] for block in range(count)]
    ends += [None] * (count + 1)
    kernel, _, _ = graph_kernel(*ends)  # type: ignore[arg-type]
    depth = deepest = 0
    for step in _steps(kernel):
        if isinstance(step, OpenBlock | OpenLoop | OpenIf):
            depth += 1
        elif isinstance(step, Close):
            depth -= 1
        deepest = max(deepest, depth)
    assert deepest <= 2


def test_too_many_nested_loops_are_refused() -> None:
    count = LOOP_DEPTH_MAX + 1
    ends: list[object] = [[block + 1] for block in range(count)]
    ends += [[count - 1 - block, count + block + 1] for block in range(count)]
    kernel, _, _ = graph_kernel(*ends, None)  # type: ignore[arg-type]
    with pytest.raises(PtxError, match="nested loops"):
        _steps(kernel)
    kernel, _, _ = graph_kernel([1], [1, 2], [2, 3], None)
    assert sum(isinstance(step, OpenLoop) for step in _steps(kernel)) == 2
