"""From a routine's flat sequence of instructions, labels and ways out to basic blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tensor_wasm.ptx.calls import Return
from tensor_wasm.ptx.graph import renumbered, targets
from tensor_wasm.ptx.lexer import Lexer, quote
from tensor_wasm.ptx.program import (
    Block,
    Branch,
    Exit,
    Guard,
    Instruction,
    Jump,
    Operand,
    Switch,
    Terminator,
)
from tensor_wasm.ptx.scopes import Scope


@dataclass(slots=True)
class Target:
    """A label as it is named at a place in the text."""

    name: str
    scope: Scope
    offset: int


@dataclass(slots=True)
class _Mark:
    """A label: the number it has in its scope."""

    number: int
    line: int


@dataclass(slots=True)
class _Leave:
    """A way out of a block: to ``targets``, or else ``end``; ``selector`` chooses one of several."""

    guard: Guard | None
    targets: tuple[Target, ...]
    selector: Operand | None
    is_uniform: bool
    line: int
    end: Terminator | None = None


@dataclass(slots=True)
class _Draft:
    """A block whose targets are still indices of drafts."""

    line: int
    instructions: list[Instruction] = field(default_factory=list)
    terminator: Terminator | None = None


class Flow:
    """Collects what a routine consists of, in the order of the text; then :meth:`blocks`."""

    __slots__ = ("_end", "_labels", "_lexer", "_sequence")

    def __init__(self, lexer: Lexer, *, is_function: bool = False) -> None:
        self._lexer = lexer
        self._end: Terminator = Return() if is_function else Exit()
        self._sequence: list[Instruction | _Mark | _Leave] = []
        self._labels = 0

    @property
    def add(self) -> Callable[[Instruction], None]:
        """Append an instruction that goes on to the next."""
        return self._sequence.append

    def label(self, line: int) -> int:
        """A label here; its number."""
        self._labels += 1
        self._sequence.append(_Mark(self._labels, line))
        return self._labels

    def jump(self, guard: Guard | None, target: Target, line: int, *, is_uniform: bool) -> None:
        """``bra``."""
        self._sequence.append(_Leave(guard, (target,), None, is_uniform, line))

    def switch(self, guard: Guard | None, selector: Operand, targets: tuple[Target, ...], line: int) -> None:
        """``brx.idx``."""
        self._sequence.append(_Leave(guard, targets, selector, is_uniform=False, line=line))

    def end(self, guard: Guard | None, line: int, how: Terminator | None = None) -> None:
        """``ret``, or what else ends the routine: an :class:`Exit` or a :class:`Trap`."""
        self._sequence.append(_Leave(guard, (), None, is_uniform=False, line=line, end=how or self._end))

    def blocks(self, line: int) -> tuple[Block, ...]:
        """The blocks that can be reached, in the order of the text; ``line`` is that of an empty routine.

        Raises :class:`PtxError` for a label that is not declared.
        """
        numbers = self._used_labels()
        drafts, places = self._drafts(frozenset(number for several in numbers.values() for number in several), line)
        self._close(drafts, numbers, places)
        return _reachable(drafts)

    def _used_labels(self) -> dict[int, tuple[int, ...]]:
        """For each way out, by its place in the sequence, the numbers of its labels."""
        return {
            place: tuple(self._number(target) for target in item.targets)
            for place, item in enumerate(self._sequence)
            if type(item) is _Leave
        }

    def _number(self, target: Target) -> int:
        scope: Scope | None = target.scope
        while scope is not None:
            number = scope.labels.get(target.name)
            if number is not None:
                return number
            scope = scope.parent
        raise self._lexer.error(f"there is no label {quote(target.name)} here", target.offset)

    def _drafts(self, used: frozenset[int], line: int) -> tuple[list[_Draft], dict[int, int]]:
        """Cut the sequence into drafts. ``places`` are drafts by the number of a label, and by minus the place in the
        sequence of a way out, the draft that it ends.
        """
        drafts = [_Draft(line)]
        places: dict[int, int] = {}
        current: _Draft | None = drafts[0]
        for place, item in enumerate(self._sequence):
            if type(item) is _Mark:
                if item.number not in used:
                    continue
            elif current is None:
                continue  # no thread gets here
            if current is None or (type(item) is _Mark and current.instructions):
                if current is not None:
                    current.terminator = Jump(len(drafts))
                current = _Draft(item.line)
                drafts.append(current)
            if type(item) is _Mark:
                places[item.number] = len(drafts) - 1
            elif type(item) is _Leave:
                places[-place - 1] = len(drafts) - 1
                current.line = item.line
                current = None
                if item.guard is not None:
                    current = _Draft(item.line)
                    drafts.append(current)
            else:
                assert isinstance(item, Instruction)
                current.instructions.append(item)
        return drafts, places

    def _close(self, drafts: list[_Draft], numbers: dict[int, tuple[int, ...]], places: dict[int, int]) -> None:
        """Give every draft its terminator."""
        for place, labels in numbers.items():
            item = self._sequence[place]
            assert isinstance(item, _Leave)
            index = places.get(-place - 1)
            if index is None:
                continue
            targets = tuple(places[number] for number in labels)
            out: Terminator
            if item.selector is not None:
                out = Switch(item.selector, targets)
            elif targets:
                out = Jump(targets[0])
            else:
                assert item.end is not None
                out = item.end
            if item.guard is not None:
                if isinstance(out, Jump):
                    out = Branch(item.guard, out.target, index + 1, item.is_uniform)
                else:
                    drafts.append(_Draft(item.line, terminator=out))
                    out = Branch(item.guard, len(drafts) - 1, index + 1)
            drafts[index].terminator = out
        for draft in drafts:
            if draft.terminator is None:
                draft.terminator = self._end


def _reachable(drafts: list[_Draft]) -> tuple[Block, ...]:
    reached = {0}
    waiting = [0]
    while waiting:
        terminator = drafts[waiting.pop()].terminator
        assert terminator is not None
        for target in targets(terminator):
            if target not in reached:
                reached.add(target)
                waiting.append(target)
    kept = sorted(reached)
    index_of = {draft: index for index, draft in enumerate(kept)}
    blocks = []
    for index, place in enumerate(kept):
        draft = drafts[place]
        terminator = draft.terminator
        assert terminator is not None
        line = draft.instructions[0].line if draft.instructions else draft.line
        blocks.append(Block(index, tuple(draft.instructions), renumbered(terminator, index_of), line))
    return tuple(blocks)
