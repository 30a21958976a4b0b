"""What of a program this release does not lower, and why.

The opcode table is the source; variables and state spaces add to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tensor_wasm.ptx.calls import Call
from tensor_wasm.ptx.opcodes import reason_not_lowered
from tensor_wasm.ptx.program import Emit, Instruction, Kernel, Program, Register, ScalarType, Space, Symbol, Variable

_PARAMETER = "this access to a parameter of a call is not supported"
_EXTERN = "is defined in another module, which is not supported in this release"
_WIDE = "128-bit values are not supported in this release"


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A place in a kernel that this release does not lower. ``line`` and ``column`` count from 1."""

    kernel: str
    line: int
    column: int
    opcode: str
    reason: str


def support(subject: Program | Kernel) -> tuple[Unsupported, ...]:
    """Everything in a program or kernel that is not lowered in this release, in the order of the text.

    Empty when the compiler takes it. Code that no thread can reach is not looked at.
    """
    kernels = subject.kernels if isinstance(subject, Program) else (subject,)
    return tuple(place for kernel in kernels for place in _kernel(kernel))


def _kernel(kernel: Kernel) -> list[Unsupported]:
    reasons: dict[tuple[str, tuple[str, ...], tuple[ScalarType, ...]], str | None] = {}
    found: list[Unsupported] = []
    for block in kernel.blocks:
        for instruction in block.instructions:
            key = (instruction.root, instruction.modifiers, instruction.types)
            if key not in reasons:
                is_made = isinstance(instruction, Emit)  # by the front end, and in no table
                reasons[key] = None if is_made else reason_not_lowered(*key)
            reason = reasons[key] or next(_operands(instruction), None)
            if reason is not None:
                at = instruction
                found.append(Unsupported(kernel.name, at.line, at.column, at.text, reason))
    found.sort(key=lambda place: (place.line, place.column))
    return found


def _operands(instruction: Instruction) -> Iterator[str]:
    """Reasons that lie in what an instruction works on."""
    if isinstance(instruction, Call):
        yield instruction.reason or "the calls of this kernel were not asked for"
    address = instruction.address
    if address is not None and isinstance(address.base, Variable):
        yield from _variable(address.base)
    for operand in (*instruction.sources, *instruction.destinations):
        if isinstance(operand, Symbol) and isinstance(operand.target, Variable):
            yield from _variable(operand.target)
        elif isinstance(operand, Register) and operand.type is ScalarType.B128:
            yield _WIDE


def _variable(variable: Variable) -> Iterator[str]:
    """Reasons that lie in a variable or in those whose addresses it holds."""
    seen = {variable}
    waiting = [variable]
    while waiting:
        current = waiting.pop()
        if current.space is Space.PARAM:
            yield _PARAMETER
        elif current.is_extern and current.space is not Space.SHARED:
            yield f"{current.name[:64]} {_EXTERN}"
        for _, pointee, _ in current.pointers:
            if pointee not in seen:
                seen.add(pointee)
                waiting.append(pointee)
