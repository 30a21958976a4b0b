"""The code of one kernel function: its strip, with all locals, and the loop over the strips of a row."""

from __future__ import annotations

from collections.abc import Sequence

from tensor_wasm.compiler.allocation import Allocation, defined, used
from tensor_wasm.compiler.carriers import carrier
from tensor_wasm.compiler.contexts import Contexts
from tensor_wasm.compiler.frame import Ground, Locals
from tensor_wasm.compiler.limits import LOCALS_MAX, LOCALS_RESERVED, TooLarge
from tensor_wasm.compiler.shapes import Shape
from tensor_wasm.compiler.special import Coordinates
from tensor_wasm.compiler.strips.contexts import StripContext
from tensor_wasm.compiler.strips.lowering import Course
from tensor_wasm.compiler.strips.parts import Parts
from tensor_wasm.compiler.strips.plan import KernelPlan, RegionPlan
from tensor_wasm.compiler.strips.strip import LANE_BYTES, Strip, VectorRegisters, is_double, vectors
from tensor_wasm.ptx.program import Kernel, Register, ScalarType
from tensor_wasm.wasm import Body, Local, ValType

I32, I64, V128 = ValType.I32, ValType.I64, ValType.V128


def lane_bytes(kernel: Kernel, width: int) -> int:
    """The size of the buffer in which the registers of an instruction are kept that runs lane by lane."""
    most = max(
        (
            len({*used(instruction), *defined(instruction)})
            for block in kernel.blocks
            for instruction in block.instructions
        ),
        default=0,
    )
    return most * width * LANE_BYTES


def make_strip(
    parts: Parts, plan: KernelPlan, region: RegionPlan, body: Body, at: Coordinates, contexts: Contexts | None
) -> Strip:
    """A strip for a region's code, with a local for everything."""
    kernel = region.region.kernel
    width, shapes = plan.width, plan.shapes
    _check_locals(kernel, region.allocation, width)
    assert at.parameters is not None
    ground = Ground(body, at.parameters)
    firsts: dict[Register, Local] = {}
    quads: dict[Register, tuple[Local, ...]] = {}
    predicates: dict[Register, Local] = {}
    origins: dict[Register, Local] = {}
    made: dict[object, tuple[tuple[Local, ...], Local | None, Local | None]] = {}
    for register, slot in region.allocation.slots.items():
        shape = shapes.of(register)
        if slot not in made:
            count = vectors(register, width) if shape is Shape.VARYING else 0
            first = None if shape is Shape.VARYING else body.local(carrier(register.type))
            other = None
            if (shape is Shape.LINEAR and is_double(register.type)) or (
                shape is Shape.VARYING and register.type is ScalarType.PRED
            ):
                other = body.local(I32)
            made[slot] = (tuple(body.local(V128) for _ in range(count)), first, other)
        lanes, first, other = made[slot]
        if lanes:
            quads[register] = lanes
        if first is not None:
            firsts[register] = first
        if other is not None:
            (origins if shape is Shape.LINEAR else predicates)[register] = other
    context = None if contexts is None else StripContext(body, contexts, ground.base, is_in_step=plan.is_in_step)
    first_frame = parts.frame(kernel, body, at, ground, Locals(firsts))
    registers = VectorRegisters(firsts, origins, quads, predicates)
    return Strip(body, width, shapes, ground, first_frame, registers, parts, context)


def _check_locals(kernel: Kernel, allocation: Allocation, width: int) -> None:
    count = len(set(allocation.slots.values())) * (width // 2 + 2)
    if count > LOCALS_MAX - LOCALS_RESERVED:
        text = f"kernel {kernel.name} is too large: it keeps {len(set(allocation.slots.values()))} registers at a time"
        raise TooLarge(text, kernel.line, 1)


def clear(strip: Strip, registers: Sequence[Register]) -> None:
    """Zero what a thread may read before it writes it: no thread sees another's registers."""
    body = strip.body
    for register in registers:
        shape = strip.shape(register)
        if shape is not Shape.VARYING:
            strip.push_zero(register)
            strip.pop_scalars(register)
        else:
            for local in strip.vectors(register):
                body.v128_const(bytes(16))
                body.set(local)
            strip.find_bits(register)


def run_strip(
    strip: Strip, region: RegionPlan, undefined: Sequence[Register], entry: tuple[Local, Sequence[int]] | None = None
) -> None:
    """The code of a region for the lanes of the strip's mask, the strip's place and registers being set.

    ``entry`` is a local with the place, in a list of heads of chunks, of that where they start; without it they start
    at the first one.
    """
    clear(strip, undefined)
    Course(strip, region.region.kernel, region.layout, region.chunks).run(entry)


def push_bits_below(body: Body, count: Local) -> None:
    """Push a bit for each lane below ``count``, at most 32."""
    body.i64_const(-1)
    body.get(count)
    body.op("i64.extend_i32_u", "i64.shl", "i32.wrap_i64")
    body.i32_const(-1)
    body.op("i32.xor")
