"""Whole rows of a block without a test for each strip.

Much code is straight: a guard against the end of the data, loads, arithmetic, a store. What a strip tests there, that
all threads pass the guard and that accesses are contiguous and inside of memory, can be tested for all strips of a row
at once, at its first and last thread. Then the strips run without tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tensor_wasm.compiler import memory
from tensor_wasm.compiler.allocation import defined
from tensor_wasm.compiler.shapes import Shape
from tensor_wasm.compiler.strips import memory as strip_memory
from tensor_wasm.compiler.strips import moves, values
from tensor_wasm.compiler.strips.control import End, Leave, Part
from tensor_wasm.compiler.strips.lowering import NOTHING, compute_uniform, lower
from tensor_wasm.compiler.strips.plan import RegionPlan
from tensor_wasm.compiler.strips.strip import Strip
from tensor_wasm.ptx.program import Instruction, Parameter, Register, Special
from tensor_wasm.wasm import Local, ValType

I32, I64 = ValType.I32, ValType.I64

#: A row has up to 1,024 threads: a step this small does not take a 32-bit value around more than once.
_STEP_MAX: Final = 1 << 20

#: Special registers that are another value at each read.
_CLOCKS: Final = frozenset({"clock", "clock_hi", "clock64", "globaltimer", "globaltimer_lo", "globaltimer_hi"})


@dataclass(frozen=True, slots=True)
class Guard:
    """A place where threads part: all must go on where ``comparison`` gives ``truth``."""

    comparison: Instruction
    truth: bool


#: What a thread does from its start to its end, one after another.
Path = Sequence[Instruction | Guard]


def find_path(strip: Strip, region: RegionPlan) -> Path | None:
    """The path of all threads but those that a guard ends, where the code is straight and has vector forms; or None."""
    path: list[Instruction | Guard] = []
    comparisons: dict[Register, Instruction] = {}
    seen: set[int] = set()
    head = region.layout.order[0]
    while head not in seen:
        seen.add(head)
        chunk = region.chunks[head]
        if len(chunk.kernel.blocks) != 1:
            return None
        onward: int | None = None
        for instruction in chunk.kernel.blocks[0].instructions:
            match instruction:
                case End():
                    return path
                case Leave():
                    onward = instruction.target
                case Part():
                    step = _guard(region, instruction, comparisons)
                    if step is None:
                        return None
                    guard, onward = step
                    path.append(guard)
                case _:
                    if not _is_straight(strip, instruction):
                        return None
                    for register in defined(instruction):
                        comparisons.pop(register, None)
                        if instruction.root == "setp" and values.is_decided_by_ends(strip, instruction):
                            comparisons[register] = instruction
                    path.append(instruction)
        if onward is None:
            return None
        if region.chunks[onward].is_empty:
            return path
        head = onward
    return None


def _guard(region: RegionPlan, part: Part, comparisons: dict[Register, Instruction]) -> tuple[Guard, int] | None:
    if part.by is None:
        return None
    comparison = comparisons.get(part.by.register)
    ends = [region.chunks[target].is_empty for target in part.targets]
    if comparison is None or sorted(ends) != [False, True]:
        return None
    position = ends.index(False)
    # The first target is where the guard holds.
    return Guard(comparison, (position == 0) != part.by.negated), part.targets[position]


def _is_straight(strip: Strip, instruction: Instruction) -> bool:
    """Whether an instruction needs no test and no lane of its own, once its access is known to be contiguous."""
    if instruction.root in NOTHING:
        return True
    if instruction.guard is not None:
        return False
    if instruction.root in ("ld", "ldu", "st"):
        count = len(instruction.destinations or instruction.sources)
        address = instruction.address
        if instruction.root != "st" and address is not None and isinstance(address.base, Parameter):
            return True
        return strip_memory.may_be_contiguous(strip, instruction, count)
    if instruction.root in ("atom", "red", "cp"):
        return False
    if any(isinstance(source, Special) and source.name in _CLOCKS for source in instruction.sources):
        return False
    shapes = {strip.shape(register) for register in defined(instruction)}
    if Shape.VARYING not in shapes:
        return True
    if instruction.root in ("mov", "cvta"):
        return moves.writer(strip, instruction) is not None
    return values.emitter(strip, instruction) is not None


def push_holds(strip: Strip, path: Path) -> None:
    """Push whether all tests hold for the whole row, the strip's place being its start; writes uniform registers."""
    body, at = strip.body, strip.first.coordinates
    holds, reach = body.local(I32), body.local(I32)
    body.get(at.block[0])
    body.i32_const(1)
    body.op("i32.sub")
    body.set(reach)
    body.get(at.block[0])
    body.i32_const(strip.width - 1)
    body.op("i32.and", "i32.eqz")
    body.set(holds)
    for step in path:
        if isinstance(step, Guard):
            values.push_ends_agree(strip, step.comparison, reach, truth=step.truth)
        elif step.root in ("ld", "ldu", "st") and not _is_parameter(step):
            _push_is_contiguous(strip, step, reach)
        else:
            if step.root not in NOTHING:
                compute_uniform(strip, step)
            continue
        body.get(holds)
        body.op("i32.and")
        body.set(holds)
    body.get(holds)
    body.release(holds, reach)


def _is_parameter(instruction: Instruction) -> bool:
    return instruction.address is not None and isinstance(instruction.address.base, Parameter)


def _push_is_contiguous(strip: Strip, instruction: Instruction, reach: Local) -> None:
    """Push whether an access is contiguous and inside of its memory for all of the row's ``reach`` + 1 threads."""
    body = strip.body
    size = instruction.type.size_bytes * len(instruction.destinations or instruction.sources)
    first = body.local(I64)
    memory.push_address(strip.first, instruction)
    body.set(first)
    end = body.local(I64)
    strip_memory.push_end(strip, instruction, size)
    body.set(end)
    body.get(first)
    body.get(end)
    body.op("i64.lt_u")
    body.get(first)
    body.get(reach)
    body.op("i64.extend_i32_u")
    body.i64_const(size)
    body.op("i64.mul", "i64.add")
    body.get(end)
    body.op("i64.lt_u", "i32.and")
    if size > 1:
        strip_memory.push_is_aligned(strip, first, size)
        body.op("i32.and")
    assert instruction.address is not None
    strip_memory.check_origin(strip, instruction.address.base, reach)
    body.release(first, end)


def is_short_of_wrapping(strip: Strip, path: Path) -> bool:
    """Whether all steps on the path are small enough for tests at a row's ends to say what is between."""
    operands = []
    for step in path:
        if isinstance(step, Guard):
            operands += [source for source in step.comparison.sources]
        elif step.address is not None and isinstance(step.address.base, Register):
            operands.append(step.address.base)
    lines = [strip.shapes.line(operand) for operand in operands]
    return all(line is None or max(abs(line.step), abs(line.origin_step)) <= _STEP_MAX for line in lines)


def write_strip(strip: Strip, path: Path) -> None:
    """Write the code of one strip of a row for which the tests hold."""
    strip.kept = frozenset()
    strip.assumes = True
    for step in path:
        if not isinstance(step, Guard):
            lower(strip, step)
    strip.assumes = False
