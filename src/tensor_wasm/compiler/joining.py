"""Kernels to whose threads a row of neighbouring blocks is as good as one long block.

Most kernels that work on arrays ask where a thread is along x only to compute ``%ctaid.x * %ntid.x + %tid.x``, its
index in the grid, and their threads never wait for each other. Then neither strips nor whole rows need to end where a
block does: rows of several blocks are *joined*, and blocks of a few threads fill strips as large ones do.

:func:`join` finds such kernels and gives them that index as a special register of the compiler's own,
:data:`GRID_INDEX`, which is linear in a joined row as ``%tid.x`` is in a block's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from enum import Enum, auto
from typing import Final

from tensor_wasm.compiler.allocation import defined, writers_of
from tensor_wasm.compiler.ordering import is_ordered
from tensor_wasm.compiler.shapes import OWN_VALUES
from tensor_wasm.compiler.special import GRID_INDEX
from tensor_wasm.compiler.synchronisation import has_synchronisation
from tensor_wasm.compiler.watching import watching
from tensor_wasm.ptx.program import (
    Block,
    Emit,
    Instruction,
    Kernel,
    Operand,
    Register,
    ScalarType,
    Space,
    Special,
    Switch,
    Symbol,
    Variable,
)


class _Part(Enum):
    """What a value is of the index in the grid; the wide ones have 64 bits."""

    BLOCK = auto()  #: %ctaid.x
    SIZE = auto()  #: %ntid.x
    THREAD = auto()  #: %tid.x
    START = auto()  #: the block's first index
    INDEX = auto()
    WIDE_THREAD = auto()
    WIDE_START = auto()
    WIDE_INDEX = auto()


_SPECIALS: Final = {"ctaid": _Part.BLOCK, "clusterid": _Part.BLOCK, "ntid": _Part.SIZE, "tid": _Part.THREAD}
_INDICES: Final = {_Part.INDEX: ScalarType.U32, _Part.WIDE_INDEX: ScalarType.U64}
#: Sums and products, by the set of what they are of.
_PRODUCTS: Final = frozenset({_Part.BLOCK, _Part.SIZE})
_SUMS: Final = {
    frozenset({_Part.START, _Part.THREAD}): _Part.INDEX,
    frozenset({_Part.WIDE_START, _Part.WIDE_THREAD}): _Part.WIDE_INDEX,
}


def join(kernel: Kernel) -> Kernel | None:
    """The kernel with its threads' index in the grid as a special register; None where they need more than that.

    Threads of neighbouring blocks may run in any order then, also side by side: no thread watches for what another one
    does, and there is no shared memory.
    """
    instructions = [instruction for block in kernel.blocks for instruction in block.instructions]
    if has_synchronisation(kernel) or watching(kernel) or any(map(_is_of_a_block, instructions)):
        return None
    parts = _Parts(kernel)
    blocks = [parts.replace(block) for block in kernel.blocks]
    if not parts.has_index or any(part not in (None, _Part.SIZE) for part in parts.used(blocks)):
        return None
    return replace(kernel, blocks=tuple(blocks))


def _is_of_a_block(instruction: Instruction) -> bool:
    """Whether an instruction needs its block's threads in their order, or memory of the block's."""
    variables: list[object] = [source.target for source in instruction.sources if isinstance(source, Symbol)]
    if instruction.address is not None:
        variables.append(instruction.address.base)
    is_shared = instruction.space is Space.SHARED or any(
        isinstance(variable, Variable) and variable.space is Space.SHARED for variable in variables
    )
    return is_shared or isinstance(instruction, Emit) or is_ordered(instruction)


class _Parts:
    """Which registers are parts of the index: those written once, before anything else, from such parts."""

    def __init__(self, kernel: Kernel) -> None:
        self._known: dict[Register, _Part] = {}
        self._once = {register for register, writers in writers_of(kernel).items() if len(writers) == 1}
        self.has_index = False

    def replace(self, block: Block) -> Block:
        """The block with indices as such, and without what only they are computed from. The first block comes first."""
        kept: list[Instruction] = []
        for instruction in block.instructions:
            part = self._result(instruction)
            if part in _INDICES:
                self.has_index = True
                kept.append(_move(instruction, Special(GRID_INDEX, "x", _INDICES[part])))
            elif part is not None and block.index == 0 and self._once.issuperset(instruction.destinations):
                (register,) = defined(instruction)
                self._known[register] = part
                if part is _Part.SIZE:
                    kept.append(instruction)
            else:
                kept.append(instruction)  # a part that is found elsewhere is a use of what it was found from
        return replace(block, instructions=tuple(kept))

    def used(self, blocks: Sequence[Block]) -> Iterator[_Part | None]:
        """What blocks read, as parts; a special register that threads of joined blocks have not counts as one."""
        for block in blocks:
            for instruction in block.instructions:
                yield from map(self._part, instruction.sources)
                if instruction.address is not None and isinstance(instruction.address.base, Register):
                    yield self._part(instruction.address.base)
            if isinstance(block.terminator, Switch):
                yield self._part(block.terminator.selector)

    def _part(self, operand: Operand) -> _Part | None:
        match operand:
            case Register():
                return self._known.get(operand)
            case Special(name) if name in OWN_VALUES:
                return _Part.THREAD
            case Special(name, "x"):
                return _SPECIALS.get(name)
            case _:
                return None

    def _result(self, instruction: Instruction) -> _Part | None:
        """What part an instruction computes."""
        if instruction.guard is not None or len(instruction.destinations) != 1 or instruction.negated:
            return None
        (register,) = instruction.destinations
        if register is None or register.type.kind not in "bus":
            return None
        parts = [self._part(source) for source in instruction.sources]
        if None in parts or not all(_has_width(*each) for each in zip(instruction.sources, parts, strict=True)):
            return None
        found = _computed(instruction, [part for part in parts if part is not None])
        return found if found is not None and register.type.bits == _bits(found) else None


def _move(instruction: Instruction, source: Special) -> Instruction:
    return replace(instruction, root="mov", modifiers=(), types=(source.type,), sources=(source,))


def _bits(part: _Part) -> int:
    return 64 if part in (_Part.WIDE_THREAD, _Part.WIDE_START, _Part.WIDE_INDEX) else 32


def _has_width(operand: Operand, part: _Part | None) -> bool:
    return part is None or (isinstance(operand, Register | Special) and operand.type.bits == _bits(part))


def _computed(instruction: Instruction, parts: Sequence[_Part]) -> _Part | None:
    kind, modifiers = instruction.type, set(instruction.modifiers)
    if kind.kind not in "bus" or kind.bits not in (32, 64):
        return None
    match instruction.root:
        case "mov" if len(parts) == 1 and kind.bits == _bits(parts[0]):
            return parts[0]
        case "cvt" if parts == [_Part.THREAD] and not modifiers and kind.bits == 32:
            is_wide = instruction.types[0].bits == 64 and instruction.types[0].kind in "bus"
            return _Part.WIDE_THREAD if is_wide else None
        case "mul" | "mad" if kind.bits == 32 and modifiers in ({"lo"}, {"wide"}) and frozenset(parts[:2]) == _PRODUCTS:
            # Neither a grid's axis nor a block's has its highest bit set: signed products are the same.
            start = _Part.WIDE_START if modifiers == {"wide"} else _Part.START
            return start if instruction.root == "mul" else _SUMS.get(frozenset({start, parts[2]}))
        case "add" if not modifiers and kind.bits == _bits(parts[0]):
            return _SUMS.get(frozenset(parts))
        case _:
            return None
