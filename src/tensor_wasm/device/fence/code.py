"""Instructions as they are made: a list that grows, and the registers of a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tensor_wasm.ptx.program import Address, Guard, Immediate, Instruction, Operand, Register, ScalarType, Space

PRED, B32, U32, B64, U64 = ScalarType.PRED, ScalarType.B32, ScalarType.U32, ScalarType.B64, ScalarType.U64


class Code:
    """Adds instructions to ``out``, all with the line ``line``. ``registers`` are the kernel's."""

    def __init__(self, registers: Sequence[Register]) -> None:
        self.registers = list(registers)
        self.out: list[Instruction] = []
        self.line = 0

    def register(self, kind: ScalarType) -> Register:
        """A further register of the kernel."""
        register = Register("fence", kind, len(self.registers))
        self.registers.append(register)
        return register

    def put(
        self,
        opcode: str,
        kind: ScalarType,
        *sources: Operand | int,
        to: ScalarType | Register | None = None,
        guard: Guard | None = None,
    ) -> Register:
        """``root.modifier.kind`` of the sources, numbers being constants of ``kind``; the register it writes.

        ``to``: the register, or the type of a new one; ``kind`` unless it is given.
        """
        root, *modifiers = opcode.split(".")
        target = to if isinstance(to, Register) else self.register(to or kind)
        values = tuple(Immediate(each, kind) if isinstance(each, int) else each for each in sources)
        self.out.append(Instruction(root, tuple(modifiers), (kind,), (target,), values, guard, self.line, 1))
        return target

    def negate_last(self, source: int) -> None:
        """Have the last instruction take a predicate among its sources negated."""
        self.out[-1] = replace(self.out[-1], negated=frozenset({source}))

    def convert(self, to: Register, kind: ScalarType, source: Operand) -> Register:
        """``cvt`` between integers, from ``kind``."""
        self.out.append(Instruction("cvt", (), (to.type, kind), (to,), (source,), None, self.line, 1))
        return to

    def generic(self, space: Space, to: Register, address: Operand) -> None:
        """``cvta.space``."""
        self.out.append(Instruction("cvta", (), (U64,), (to,), (address,), None, self.line, 1, space=space))

    def store(
        self, space: Space, kind: ScalarType, address: Address, value: Operand, guard: Guard | None = None
    ) -> None:
        """``st.space.kind [address], value``."""
        self.out.append(Instruction("st", (), (kind,), (), (value,), guard, self.line, 1, address=address, space=space))
