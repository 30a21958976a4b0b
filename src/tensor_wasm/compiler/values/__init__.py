"""Instructions that compute values from values: arithmetic, bits, comparisons, conversions, as WebAssembly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensor_wasm.compiler.values.conversions import INTEGRAL
from tensor_wasm.compiler.values.integers import WIDER
from tensor_wasm.compiler.values.operation import Operation, Push, Result, Row
from tensor_wasm.compiler.values.table import BUILDERS, BY_ROOT, ROWS
from tensor_wasm.errors import PtxError
from tensor_wasm.ptx.program import Instruction, ScalarType

if TYPE_CHECKING:
    from tensor_wasm.compiler.library import Library
    from tensor_wasm.wasm import Body

__all__ = ["BUILDERS", "INTEGRAL", "ROWS", "emit", "handles", "result_types", "row"]


def handles(instruction: Instruction) -> bool:
    """Whether :func:`emit` can write ``instruction``."""
    return _find(instruction) is not None


def emit(body: Body, instruction: Instruction, push: Push, library: Library) -> None:
    """Write an instruction: afterwards one value for each destination is on the stack, the first deepest.

    ``push(position, kind)`` pushes a source as a canonical value of a type, and may be called many times. Results are
    in the carriers of :func:`result_types`; above the bits of an 8- or 16-bit result there may be anything. Raises
    :class:`PtxError` for an instruction that :func:`handles` does not accept.
    """
    chosen = row(instruction)
    with Operation(body, instruction, push, library) as operation:
        chosen.emit(operation)


def result_types(instruction: Instruction) -> tuple[ScalarType, ...]:
    """The type of each destination's value. Raises :class:`PtxError` as :func:`emit` does."""
    match row(instruction).result:
        case Result.FIRST:
            return (instruction.types[0],)
        case Result.WIDE:
            return (WIDER[instruction.type],)
        case Result.COUNT:
            return (ScalarType.U32,)
        case Result.DOT:
            is_signed = ScalarType.S32 in instruction.types
            return (ScalarType.S32 if is_signed else ScalarType.U32,)
        case Result.TRUTH:
            return (ScalarType.PRED,) * len(instruction.destinations)
        case Result.TYPE_AND_TRUTH:
            return (instruction.type, ScalarType.PRED)
        case _:
            return (instruction.type,)


def _find(instruction: Instruction) -> Row | None:
    rows = BY_ROOT.get(instruction.root, ())
    return next((row for row in rows if row.accepts(instruction)), None)


def row(instruction: Instruction) -> Row:
    """The table's row for an instruction. Raises :class:`PtxError` as :func:`emit` does."""
    found = _find(instruction)
    if found is None:
        text = f"{instruction.text} with {len(instruction.sources)} sources is not supported"
        raise PtxError(text, instruction.line, instruction.column)
    return found
