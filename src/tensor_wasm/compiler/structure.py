"""Control-flow graph to structured control.

The method is Ramsey's ("Beyond Relooper: recursive translation of unstructured control flow to structured control
flow", ICFP 2022): the dominator tree gives the nesting, a block with several forward predecessors is placed after a
WebAssembly block that they leave, a loop header opens a loop. It is written here without recursion, and its result is
a flat list of steps instead of a tree: PTX of any depth passes, and whoever lowers it walks it once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tensor_wasm.errors import PtxError
from tensor_wasm.ptx.graph import Graph
from tensor_wasm.ptx.program import Branch, Exit, Guard, Jump, Kernel, Operand, Switch, Trap

#: Engines take time that grows with the square of the nesting; real code nests a dozen loops at most.
LOOP_DEPTH_MAX = 500


@dataclass(frozen=True, slots=True)
class OpenBlock:
    """Open a block; ``Goto(target)`` inside leaves it, and the code of ``target`` comes right after its end."""

    target: int


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """Open a loop; ``Goto(header)`` inside starts it again."""

    header: int


@dataclass(frozen=True, slots=True)
class OpenIf:
    """Open a region that runs only where ``guard`` holds. Control never reaches its end: it has left by then."""

    guard: Guard


@dataclass(frozen=True, slots=True)
class Close:
    """Close the innermost open block, loop or if."""


@dataclass(frozen=True, slots=True)
class Run:
    """The instructions of a basic block."""

    block: int


@dataclass(frozen=True, slots=True)
class Goto:
    """Go to the open block or loop of ``target``."""

    target: int


@dataclass(frozen=True, slots=True)
class GotoIf:
    """Go to the open block or loop of ``target`` where ``guard`` holds, else on."""

    guard: Guard
    target: int


@dataclass(frozen=True, slots=True)
class GotoTable:
    """Go to the open block or loop of ``targets[selector]``; past the last one is as the last one."""

    selector: Operand
    targets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Finish:
    """The thread ends."""


@dataclass(frozen=True, slots=True)
class Fail:
    """The launch fails at a PTX ``trap``."""

    line: int


@dataclass(frozen=True, slots=True)
class OpenDispatcher:
    """Open a loop around ``count`` cases, and start with case 0; each case begins at a :class:`NextCase`."""

    count: int


@dataclass(frozen=True, slots=True)
class NextCase:
    """The code of the next case of a dispatcher begins."""


@dataclass(frozen=True, slots=True)
class GotoCase:
    """Go to a case of the dispatcher."""

    case: int


@dataclass(frozen=True, slots=True)
class GotoCaseIf:
    """Go to case ``taken`` where ``guard`` holds, else to ``otherwise``."""

    guard: Guard
    taken: int
    otherwise: int


@dataclass(frozen=True, slots=True)
class GotoCaseTable:
    """Go to the case ``cases[selector]``; past the last one is as the last one."""

    selector: Operand
    cases: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CloseDispatcher:
    """The last case ends; control never comes here."""


Step = (
    OpenBlock
    | OpenLoop
    | OpenIf
    | Close
    | Run
    | Goto
    | GotoIf
    | GotoTable
    | Finish
    | Fail
    | OpenDispatcher
    | NextCase
    | GotoCase
    | GotoCaseIf
    | GotoCaseTable
    | CloseDispatcher
)

_CLOSE = Close()


def structure(kernel: Kernel, graph: Graph) -> tuple[Step, ...]:
    """The kernel's control flow as structured steps, each basic block in them exactly once.

    A graph with a loop that can be entered at more than one place becomes a dispatcher: a loop around all blocks, and
    a number that says which is next. Raises :class:`PtxError` for loops nested too deeply.
    """
    if not graph.is_reducible:
        return _dispatcher(kernel, graph)
    steps = _Structurer(kernel, graph).steps()
    open_: list[Step] = []
    depth = 0
    for step in steps:
        if isinstance(step, OpenBlock | OpenLoop | OpenIf):
            open_.append(step)
            depth += isinstance(step, OpenLoop)
            if depth > LOOP_DEPTH_MAX:
                raise PtxError(f"more than {LOOP_DEPTH_MAX} nested loops are not supported", kernel.line, 1)
        elif isinstance(step, Close):
            depth -= isinstance(open_.pop(), OpenLoop)
    return steps


def _dispatcher(kernel: Kernel, graph: Graph) -> tuple[Step, ...]:
    cases = {block: case for case, block in enumerate(graph.reverse_postorder)}
    steps: list[Step] = [OpenDispatcher(len(cases))]
    for block in cases:
        steps += [NextCase(), Run(block)]
        match kernel.blocks[block].terminator:
            case Jump(target):
                steps.append(GotoCase(cases[target]))
            case Branch(guard, taken, otherwise):
                steps.append(GotoCaseIf(guard, cases[taken], cases[otherwise]))
            case Switch(selector, targets):
                steps.append(GotoCaseTable(selector, tuple(cases[target] for target in targets)))
            case Exit():
                steps.append(Finish())
            case Trap(line):
                steps.append(Fail(line))
    return (*steps, CloseDispatcher())


class _Structurer:
    def __init__(self, kernel: Kernel, graph: Graph) -> None:
        self._kernel = kernel
        self._order = {block: place for place, block in enumerate(graph.reverse_postorder)}
        self._headers: set[int] = set()
        self._merges = self._find_merges(graph)
        self._children, self._weights = self._dominator_tree(graph)
        self._steps: list[Step] = []
        self._stack: list[Step | int] = []

    def steps(self) -> tuple[Step, ...]:
        """Place the tree of the entry; the stack holds what is still to come, a block's index for its whole tree."""
        stack = self._stack
        stack.append(0)
        while stack:
            item = stack.pop()
            if isinstance(item, int):
                self._place(item)
            else:
                self._steps.append(item)
        return tuple(self._steps)

    def _find_merges(self, graph: Graph) -> set[int]:
        """Blocks that need a label to be reached: several ways forward lead to them, or a branch table does."""
        merges: set[int] = set()
        reached: set[int] = set()
        order = self._order
        for block in graph.reverse_postorder:
            for target in sorted(set(graph.successors[block])):
                if order[target] > order[block]:
                    if target in reached:
                        merges.add(target)
                    reached.add(target)
                else:
                    self._headers.add(target)
            terminator = self._kernel.blocks[block].terminator
            if isinstance(terminator, Switch):
                merges.update(target for target in terminator.targets if order[target] > order[block])
        return merges

    def _dominator_tree(self, graph: Graph) -> tuple[dict[int, list[int]], dict[int, int]]:
        """For each block the merge blocks it dominates at once, latest first; and the size of its dominator tree."""
        children: dict[int, list[int]] = {block: [] for block in self._order}
        weights = dict.fromkeys(self._order, 1)
        for block in reversed(graph.reverse_postorder):
            if block == 0:
                break
            parent = graph.immediate_dominators[block]
            assert parent is not None
            weights[parent] += weights[block]
            if block in self._merges:
                children[parent].append(block)
        return children, weights

    def _place(self, block: int) -> None:
        stack, steps = self._stack, self._steps
        if block in self._headers:
            steps.append(OpenLoop(block))
            stack.append(_CLOSE)
        for merge in self._children[block]:
            steps.append(OpenBlock(merge))
            stack.append(merge)
            stack.append(_CLOSE)
        steps.append(Run(block))
        for item in reversed(self._ways_on(block)):
            stack.append(item)

    def _ways_on(self, block: int) -> Sequence[Step | int]:
        match self._kernel.blocks[block].terminator:
            case Jump(target):
                return (self._way(block, target),)
            case Branch(guard, taken, otherwise):
                return self._branch(block, guard, taken, otherwise)
            case Switch(selector, targets):
                return (GotoTable(selector, targets),)
            case Exit():
                return (Finish(),)
            case Trap(line):
                return (Fail(line),)

    def _way(self, block: int, target: int) -> Step | int:
        """A jump where the target has a label, else the target's code itself."""
        return Goto(target) if self._has_label(block, target) else target

    def _has_label(self, block: int, target: int) -> bool:
        return target in self._merges or self._order[target] <= self._order[block]

    def _branch(self, block: int, guard: Guard, taken: int, otherwise: int) -> Sequence[Step | int]:
        if taken == otherwise:
            return (self._way(block, taken),)
        if self._has_label(block, taken):
            return (GotoIf(guard, taken), self._way(block, otherwise))
        opposite = Guard(guard.register, not guard.negated)
        if self._has_label(block, otherwise):
            return (GotoIf(opposite, otherwise), taken)
        # The smaller side is the one that nests, so nesting is at most the logarithm of the blocks.
        if self._weights[taken] <= self._weights[otherwise]:
            return (OpenIf(guard), taken, _CLOSE, otherwise)
        return (OpenIf(opposite), otherwise, _CLOSE, taken)
