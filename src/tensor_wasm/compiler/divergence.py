"""Where threads of a strip go different ways: the control-flow graph cut into chunks, and the order they run in.

A *chunk* is a part of the graph with one entry, its *head*, inside which the threads that came in together stay
together. Each chunk has a mask of the threads that wait to run it. Chunks run in a fixed order, *the layout*: a chunk
with nobody waiting is skipped, one that runs sends its threads on to the masks of others. Loops of chunks are contiguous
in the layout and repeat while somebody waits at their head, so that every other edge leads forward (the hierarchical
order of Bourdoncle, "Efficient chaotic iteration strategies with widenings", 1993). This takes graphs of any form, also
loops with several entries.

While a chunk runs, threads may wait at others. What those still need of a register must survive a write to it:
:attr:`Layout.kept` says which registers that are, at each chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tensor_wasm.errors import PtxError
from tensor_wasm.ptx.program import Kernel

#: Rounds of label propagation before every block becomes a chunk of its own.
_ROUNDS_MAX = 100

#: Nested loops of chunks: real code has a dozen at most.
_DEPTH_MAX = 200

#: Chunks up to which it is looked at which of them can be reached from which.
_REACH_MAX = 1_000

#: Positions times edges that are looked at for what waits where; beyond, everything is kept everywhere.
_WORK_MAX = 20_000_000


@dataclass(frozen=True, slots=True)
class Loop:
    """Chunks that repeat while threads wait at ``head``; ``parts`` are its chunks and inner loops in their order."""

    head: int
    parts: tuple[Part, ...]


#: A chunk, by its head's block, or a loop of them.
Part = int | Loop


@dataclass(frozen=True, slots=True)
class Layout:
    """The chunks of a kernel.

    - ``chunk_of``: for each block the head of its chunk.
    - ``members``: for each head its blocks, the head first.
    - ``parts``: the order in which chunks run.
    - ``order``: the heads in that order.
    - ``kept``: for each head the registers, as a bit set of indices, that threads waiting elsewhere meanwhile need.
    """

    chunk_of: tuple[int, ...]
    members: dict[int, tuple[int, ...]]
    parts: tuple[Part, ...]
    order: tuple[int, ...]
    kept: dict[int, int]


def lay_out_chunks(
    kernel: Kernel,
    successors: Sequence[Sequence[int]],
    order: Sequence[int],
    live: Sequence[int] | None,
    parts_ways: Callable[[int], bool],
) -> Layout:
    """The chunks of ``kernel`` when threads part at the ends of the blocks for which ``parts_ways`` holds.

    ``order`` is a reverse postorder of the blocks, ``live`` the registers live at their starts, None for all.
    Raises :class:`PtxError` for loops nested too deeply.
    """
    chunk_of = _label(successors, order, parts_ways)
    members: dict[int, list[int]] = {}
    for block in order:
        members.setdefault(chunk_of[block], []).append(block)
    heads = [block for block in order if chunk_of[block] == block]
    exits: dict[int, list[tuple[int, ...]]] = {head: [] for head in heads}
    for block in order:
        head = chunk_of[block]
        # Threads that stay together may start their chunk again without waiting for anybody.
        outside = [
            target for target in successors[block] if chunk_of[target] != head or (target == head and parts_ways(block))
        ]
        # Of a uniform branch one way or the other is taken, of one where threads part both.
        exits[head] += [tuple(outside)] if parts_ways(block) else [(target,) for target in outside]
    edges = {head: list(dict.fromkeys(t for targets in ways for t in targets)) for head, ways in exits.items()}
    parts = _arrange(heads, edges, kernel, 0)
    positions: dict[int, int] = {}
    loops: dict[int, tuple[tuple[int, int, int], ...]] = {}
    _number(parts, (), positions, loops)
    everything = (1 << len(kernel.registers)) - 1
    kept = _kept(exits, edges, positions, loops, live, everything)
    return Layout(
        tuple(chunk_of),
        {head: tuple(blocks) for head, blocks in members.items()},
        parts,
        tuple(sorted(positions, key=positions.__getitem__)),
        kept,
    )


def _label(successors: Sequence[Sequence[int]], order: Sequence[int], parts_ways: Callable[[int], bool]) -> list[int]:
    """For each block the head of its chunk: a block all whose predecessors are in one chunk is in it too."""
    heads = {order[0]}
    for block in order:
        if parts_ways(block):
            heads.update(successors[block])
    predecessors: list[list[int]] = [[] for _ in successors]
    for block in order:
        for target in successors[block]:
            predecessors[target].append(block)
    labels = [-1] * len(successors)
    for _ in range(_ROUNDS_MAX):
        changed = False
        for block in order:
            if block in heads:
                label = block
            else:
                found = {labels[before] for before in predecessors[block]} - {-1}
                label = found.pop() if len(found) == 1 else block
                if label == block:
                    heads.add(block)
            if labels[block] != label:
                labels[block] = label
                changed = True
        if not changed:
            return labels
    return list(range(len(successors)))


def _arrange(nodes: Sequence[int], edges: dict[int, list[int]], kernel: Kernel, depth: int) -> tuple[Part, ...]:
    """Nodes and loops in an order in which edges lead forward, but for those to the heads of loops around them."""
    if depth > _DEPTH_MAX:
        raise PtxError(f"more than {_DEPTH_MAX} nested loops are not supported", kernel.line, 1)
    parts: list[Part] = []
    for component in _components(nodes, edges):
        if len(component) == 1 and component[0] not in edges[component[0]]:
            parts.append(component[0])
            continue
        inside = set(component)
        head = component[0]
        # Without the edges to the head the rest comes in an order of its own.
        inner = {node: [target for target in edges[node] if target in inside and target != head] for node in component}
        parts.append(Loop(head, _arrange(component, inner, kernel, depth + 1)))
    return tuple(parts)


def _components(nodes: Sequence[int], edges: dict[int, list[int]]) -> list[list[int]]:
    """Strongly connected components, each before those it leads to, its nodes in the order of ``nodes``.

    Tarjan's algorithm (SIAM J. Comput. 1972), without recursion.
    """
    inside = set(nodes)
    place = {node: number for number, node in enumerate(nodes)}
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    on_stack: set[int] = set()
    stack: list[int] = []
    found: list[list[int]] = []
    for root in nodes:
        if root in index:
            continue
        work = [(root, iter(edges[root]))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, targets = work[-1]
            for target in targets:
                if target not in inside:
                    continue
                if target not in index:
                    index[target] = low[target] = len(index)
                    stack.append(target)
                    on_stack.add(target)
                    work.append((target, iter(edges[target])))
                    break
                if target in on_stack:
                    low[node] = min(low[node], index[target])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    component = []
                    while True:
                        member = stack.pop()
                        on_stack.discard(member)
                        component.append(member)
                        if member == node:
                            break
                    found.append(sorted(component, key=place.__getitem__))
    found.reverse()
    return found


def _number(
    parts: Sequence[Part],
    around: tuple[tuple[int, int, int], ...],
    positions: dict[int, int],
    loops: dict[int, tuple[tuple[int, int, int], ...]],
) -> None:
    """Positions of the heads in the layout; for each the loops around it, outermost first, as (head, first, last)."""
    for part in parts:
        if isinstance(part, Loop):
            first = len(positions)
            size = _size(part)
            _number(part.parts, (*around, (part.head, first, first + size - 1)), positions, loops)
        else:
            positions[part] = len(positions)
            loops[part] = around


def _size(part: Part) -> int:
    return sum(_size(inner) for inner in part.parts) if isinstance(part, Loop) else 1


def _kept(
    exits: dict[int, list[tuple[int, ...]]],
    edges: dict[int, list[int]],
    positions: dict[int, int],
    loops: dict[int, tuple[tuple[int, int, int], ...]],
    live: Sequence[int] | None,
    everything: int,
) -> dict[int, int]:
    """For each chunk what is live at those where threads may wait while it runs.

    Threads that took the edge from Y to X wait at X until that is next. Between run the chunks in between in the
    layout, and all of a loop that Y is in and X is not, since it repeats for others. Where Y is in no loop it runs once
    and is left by one of its exits: then only chunks run that can be reached from there, or from where others waited.
    """
    count = sum(map(len, edges.values()))
    if live is None or count * len(positions) > _WORK_MAX:
        return dict.fromkeys(positions, everything)
    order = sorted(positions, key=positions.__getitem__)
    reach = _reach(order, edges, positions) if len(order) <= _REACH_MAX else None
    masks = [0] * len(positions)
    waiting: list[set[int]] = [set() for _ in positions]
    for source in order:
        for targets in exits[source]:
            allowed: int | None = None
            if reach is not None and not loops[source]:
                allowed = 0
                for start in (*targets, *waiting[positions[source]]):
                    allowed |= reach[start]
            for target in targets:
                first, last = _interval(source, target, positions, loops)
                for place in range(first, last + 1):
                    if order[place] != target and (allowed is None or allowed >> place & 1):
                        waiting[place].add(target)
                        masks[place] |= live[target]
    return {head: masks[place] for head, place in positions.items()}


def _interval(
    source: int, target: int, positions: dict[int, int], loops: dict[int, tuple[tuple[int, int, int], ...]]
) -> tuple[int, int]:
    """The first and the last position that may run while threads wait that took an edge."""
    inside = {head for head, _, _ in loops[target]}
    left = next((loop for loop in loops[source] if loop[0] not in inside), None)
    first = positions[source] + 1 if left is None else left[1]
    if positions[target] > positions[source]:
        return first, positions[target] - 1
    # Back to the head of a loop: until that ends.
    return first, next(end for head, _, end in loops[source] if head == target)


def _reach(order: Sequence[int], edges: dict[int, list[int]], positions: dict[int, int]) -> dict[int, int]:
    """For each chunk those that can be reached from it, itself among them, as a bit set of positions."""
    reach = {head: 1 << positions[head] for head in order}
    changed = True
    while changed:
        changed = False
        for head in reversed(order):
            found = reach[head]
            for target in edges[head]:
                found |= reach[target]
            if found != reach[head]:
                reach[head] = found
                changed = True
    return reach
