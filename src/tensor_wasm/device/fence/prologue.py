"""What a confined kernel does first: nothing that the tenant before left behind is there to be read.

Registers that may be read before they are written, local variables and shared memory become zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tensor_wasm.compiler.allocation import live_at_start
from tensor_wasm.device.fence.code import B64, PRED, U32, U64, Code
from tensor_wasm.device.fence.shared import BlockMemory
from tensor_wasm.ptx.graph import Graph
from tensor_wasm.ptx.program import (
    Address,
    Block,
    Branch,
    Guard,
    Immediate,
    Instruction,
    Jump,
    Kernel,
    Register,
    ScalarType,
    Space,
    Special,
    Symbol,
    Variable,
)

_WORD_BYTES: Final = 8
#: Local variables up to this size are cleared without a loop.
_UNROLLED_BYTES: Final = 256
_ZERO = Immediate(0, B64)
_DYNAMIC_BYTES: Final = Special("dynamic_smem_size", "", U32)


@dataclass(frozen=True, slots=True)
class Own:
    """What is a thread's own: its local variables as one, their address as a local and as a generic one.

    ``fault`` is where a line is left.
    """

    local: Variable
    address: Register
    generic: Register
    fault: int


def prologue(
    kernel: Kernel, code: Code, own: Own, memory: BlockMemory, *, uses_local: bool, uses_shared: bool
) -> tuple[Block, ...]:
    """The blocks that run before block 0 of ``kernel``, which goes on after the last of them."""
    return _Prologue(kernel.line, code).blocks(
        _unwritten(kernel), own if uses_local else None, memory if uses_shared else None
    )


def _unwritten(kernel: Kernel) -> list[Register]:
    """The registers that may be read before they are written; all of them where that takes long to tell."""
    graph = Graph(kernel)
    live = live_at_start(kernel, graph.successors, graph.reverse_postorder)
    return [register for register in kernel.registers if live is None or live[0] >> register.index & 1]


class _Prologue:
    def __init__(self, line: int, code: Code) -> None:
        self._line = line
        self._code = code
        self._blocks: list[Block] = []
        code.out, code.line = [], line

    def blocks(self, unwritten: Sequence[Register], own: Own | None, memory: BlockMemory | None) -> tuple[Block, ...]:
        """All of it."""
        for register in unwritten:
            self._clear(register)
        if own is not None:
            self._code.put("mov", U64, Symbol(own.local), to=own.address)
            self._code.generic(Space.LOCAL, own.generic, own.address)
            self._clear_local(own)
        if memory is not None:
            self._place(memory)
            self._clear_shared(memory.variables)
        self._end(Jump(len(self._blocks) + 1))
        return tuple(self._blocks)

    def _clear(self, register: Register) -> None:
        kind = register.type
        if kind is PRED:
            self._code.put("mov", PRED, 0, to=register)
        elif kind.bits == 8:
            self._code.convert(register, U32, Immediate(0, U32))
        else:
            plain = {16: ScalarType.B16, 32: ScalarType.B32, 64: B64}[kind.bits]
            self._code.put("mov", plain, 0, to=register)

    def _place(self, memory: BlockMemory) -> None:
        """Where shared memory starts, and how much there is."""
        code, first = self._code, Symbol(memory.variables[0])
        code.put("mov", U32, first, to=memory.start)
        code.generic(Space.SHARED, memory.generic, code.put("mov", U64, first))
        if memory.open:
            start = code.put("mov", U32, Symbol(next(iter(memory.open.values()))))
            end = code.put("add", U32, start, code.put("mov", U32, _DYNAMIC_BYTES))
            code.put("sub", U32, end, memory.start, to=memory.size)
            code.convert(memory.wide_size, U32, memory.size)

    def _clear_local(self, own: Own) -> None:
        size = own.local.size_bytes
        if size <= _UNROLLED_BYTES:
            for place in range(0, size, _WORD_BYTES):
                self._code.store(Space.LOCAL, B64, Address(own.local, place), _ZERO)
            return
        at = self._code.put("mov", U64, own.address)
        self._loop(at, self._code.put("add", U64, own.address, size), _WORD_BYTES, Space.LOCAL, B64)

    def _clear_shared(self, variables: Sequence[Variable]) -> None:
        """Each thread clears every so many words; none goes on before all have."""
        code = self._code
        first, stride = self._share()
        for variable in variables:
            start = code.put("mov", U32, Symbol(variable))
            size = code.put("mov", U32, _DYNAMIC_BYTES if variable.is_extern else variable.size_bytes)
            whole = code.put("and", ScalarType.B32, size, -_WORD_BYTES & 0xFFFF_FFFF, to=U32)
            at, end = code.put("add", U32, start, first), code.put("add", U32, start, whole)
            self._loop(at, end, stride, Space.SHARED, B64)
            if variable.is_extern:  # a launch may ask for any number of bytes
                at, end = code.put("mov", U32, end), code.put("add", U32, start, size)
                self._loop(at, end, 1, Space.SHARED, ScalarType.B8)
        code.out.append(Instruction("bar", ("sync",), (), (), (Immediate(0, U32),), None, self._line, 1))

    def _share(self) -> tuple[Register, Register]:
        """The first byte that a thread clears, and how far the next is from it."""
        code = self._code
        (x, y, z), (width, height, depth) = (
            [code.put("mov", U32, Special(name, axis, U32)) for axis in "xyz"] for name in ("tid", "ntid")
        )
        row = code.put("mad.lo", U32, z, height, y)
        thread = code.put("mad.lo", U32, row, width, x)
        count = code.put("mul.lo", U32, code.put("mul.lo", U32, width, height), depth)
        return code.put("shl", ScalarType.B32, thread, Immediate(3, U32), to=U32), code.put(
            "shl", ScalarType.B32, count, Immediate(3, U32), to=U32
        )

    def _loop(self, at: Register, end: Register, step: Register | int, space: Space, kind: ScalarType) -> None:
        """Zeros of type ``kind`` from ``at`` to ``end``, each ``step`` bytes after the one before."""
        self._end(Jump(len(self._blocks) + 1))
        head = len(self._blocks)
        is_over = self._code.put("setp.ge", at.type, at, end, to=PRED)
        self._end(Branch(Guard(is_over, negated=False), head + 2, head + 1))
        self._code.store(space, kind, Address(at, 0), Immediate(0, kind))
        self._code.put("add", at.type, at, step, to=at)
        self._end(Jump(head))

    def _end(self, terminator: Jump | Branch) -> None:
        self._blocks.append(Block(len(self._blocks), tuple(self._code.out), terminator, self._line))
        self._code.out = []
