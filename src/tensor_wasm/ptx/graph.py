"""A kernel's control-flow graph: order, dominators, loops.

Dominators by Lengauer and Tarjan ("A fast algorithm for finding dominators in a flowgraph", TOPLAS 1979), in its
simple form with path compression, without recursion: near linear for graphs of any shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tensor_wasm.ptx.program import Branch, Exit, Jump, Kernel, Switch, Terminator, Trap


def targets(terminator: Terminator) -> tuple[int, ...]:
    """Blocks a terminator goes to, each once, in its order."""
    match terminator:
        case Jump(target):
            return (target,)
        case Branch(_, taken, otherwise):
            return (taken,) if taken == otherwise else (taken, otherwise)
        case Switch(_, several):
            return tuple(dict.fromkeys(several))
        case Exit() | Trap():
            return ()


def renumbered(terminator: Terminator, order: Mapping[int, int]) -> Terminator:
    """The same way on, by the blocks' new indices."""
    match terminator:
        case Jump(target):
            return Jump(order[target])
        case Branch(_, taken, otherwise):
            return replace(terminator, taken=order[taken], otherwise=order[otherwise])
        case Switch(selector, several):
            return Switch(selector, tuple(order[target] for target in several))
        case Exit() | Trap():
            return terminator


class Graph:
    """The graph of ``kernel``'s blocks, by their indices; block 0 is the entry, and every block can be reached.

    - ``successors``, ``predecessors``: of each block, each once.
    - ``reverse_postorder``: every block before those it leads to, but for the edges that close loops.
    - ``immediate_dominators``: of each block; None for block 0.
    - ``back_edges``: pairs (from, to) where ``to`` dominates ``from``; ``loop_headers`` are the blocks they go to.
    - ``is_reducible``: whether every loop has a single entry, which is then its header. ``irregular_edges`` are the
      edges that go back in the order and are no back edges: the reason when it is false.
    """

    __slots__ = (
        "_first",
        "_last",
        "back_edges",
        "immediate_dominators",
        "irregular_edges",
        "is_reducible",
        "loop_headers",
        "predecessors",
        "reverse_postorder",
        "successors",
    )

    def __init__(self, kernel: Kernel) -> None:
        self.successors = tuple(targets(block.terminator) for block in kernel.blocks)
        self.predecessors = _predecessors(self.successors)
        preorder, parents, self.reverse_postorder = _depth_first(self.successors)
        self.immediate_dominators = _dominators(preorder, parents, self.predecessors)
        self._first, self._last = _intervals(self.immediate_dominators, preorder)
        position = {block: place for place, block in enumerate(self.reverse_postorder)}
        retreating = [
            (block, target)
            for block in self.reverse_postorder
            for target in self.successors[block]
            if position[target] <= position[block]
        ]
        self.back_edges = tuple(edge for edge in retreating if self.dominates(edge[1], edge[0]))
        self.irregular_edges = tuple(edge for edge in retreating if not self.dominates(edge[1], edge[0]))
        self.loop_headers = frozenset(header for _, header in self.back_edges)
        self.is_reducible = not self.irregular_edges

    def dominates(self, first: int, second: int) -> bool:
        """Whether every way from the entry to ``second`` goes through ``first``; a block dominates itself."""
        return self._first[first] <= self._first[second] <= self._last[first]


def _predecessors(successors: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    found: list[list[int]] = [[] for _ in successors]
    for block, following in enumerate(successors):
        for target in following:
            found[target].append(block)
    return tuple(tuple(blocks) for blocks in found)


def _depth_first(successors: tuple[tuple[int, ...], ...]) -> tuple[list[int], list[int], tuple[int, ...]]:
    """Blocks in preorder, each block's parent in the tree of the search, and the reverse postorder."""
    parents = [-1] * len(successors)
    seen = [False] * len(successors)
    seen[0] = True
    preorder, postorder = [0], []
    # The last target is visited first, so that in the result the first one comes soonest after its block.
    stack = [(0, list(successors[0]))]
    while stack:
        block, waiting = stack[-1]
        if not waiting:
            postorder.append(block)
            stack.pop()
            continue
        target = waiting.pop()
        if not seen[target]:
            seen[target] = True
            parents[target] = block
            preorder.append(target)
            stack.append((target, list(successors[target])))
    return preorder, parents, tuple(reversed(postorder))


class _Forest:
    """The part of the search tree that is already processed; ``semi`` are the semidominators' preorder numbers."""

    __slots__ = ("_ancestor", "_label", "semi")

    def __init__(self, numbers: list[int]) -> None:
        self.semi = numbers[:]
        self._label = list(range(len(numbers)))
        self._ancestor = [-1] * len(numbers)

    def link(self, parent: int, block: int) -> None:
        """Hang ``block`` below its parent."""
        self._ancestor[block] = parent

    def evaluate(self, block: int) -> int:
        """The block of least semidominator on the way up from ``block``, its root left out; compresses the way."""
        ancestor, label, semi = self._ancestor, self._label, self.semi
        if ancestor[block] < 0:
            return block
        path = []
        place = block
        while ancestor[ancestor[place]] >= 0:
            path.append(place)
            place = ancestor[place]
        for below in reversed(path):
            above = ancestor[below]
            if semi[label[above]] < semi[label[below]]:
                label[below] = label[above]
            ancestor[below] = ancestor[above]
        return label[block]


def _dominators(
    preorder: list[int], parents: list[int], predecessors: tuple[tuple[int, ...], ...]
) -> tuple[int | None, ...]:
    numbers = [0] * len(parents)
    for place, block in enumerate(preorder):
        numbers[block] = place
    forest = _Forest(numbers)
    semi = forest.semi
    dominators = [0] * len(parents)
    buckets: list[list[int]] = [[] for _ in parents]
    for block in reversed(preorder[1:]):
        parent = parents[block]
        for predecessor in predecessors[block]:
            semi[block] = min(semi[block], semi[forest.evaluate(predecessor)])
        buckets[preorder[semi[block]]].append(block)
        forest.link(parent, block)
        for waiting in buckets[parent]:
            best = forest.evaluate(waiting)
            dominators[waiting] = best if semi[best] < semi[waiting] else parent
        buckets[parent].clear()
    for block in preorder[1:]:
        if dominators[block] != preorder[semi[block]]:
            dominators[block] = dominators[dominators[block]]
    return (None, *dominators[1:])


def _intervals(dominators: tuple[int | None, ...], preorder: list[int]) -> tuple[list[int], list[int]]:
    """For each block the range of numbers of what it dominates, in a preorder of the dominator tree."""
    children: list[list[int]] = [[] for _ in dominators]
    for block in preorder[1:]:
        parent = dominators[block]
        assert parent is not None
        children[parent].append(block)
    first, last = [0] * len(dominators), [0] * len(dominators)
    counter = 0
    stack = [(0, False)]
    while stack:
        block, is_done = stack.pop()
        if is_done:
            last[block] = counter - 1
            continue
        first[block] = counter
        counter += 1
        stack.append((block, True))
        stack.extend((child, False) for child in children[block])
    return first, last
