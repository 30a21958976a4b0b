"""One thread after another: the lowering that turns structured steps into the code of ``run``.

``run`` loops over the blocks of the grid and the threads of each block, and the kernel's code stands once in the
innermost loop. A lowering that works on warps replaces this file; what surrounds it (structure, allocation, region,
module) does not know how threads are run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from tensor_wasm.compiler import carry, memory, moves, printing, suspending, transfers, values
from tensor_wasm.compiler.faults import Fault
from tensor_wasm.compiler.frame import Frame
from tensor_wasm.compiler.region import WINDOW
from tensor_wasm.compiler.structure import (
    Close,
    CloseDispatcher,
    Fail,
    Finish,
    Goto,
    GotoCase,
    GotoCaseIf,
    GotoCaseTable,
    GotoIf,
    GotoTable,
    NextCase,
    OpenBlock,
    OpenDispatcher,
    OpenIf,
    OpenLoop,
    Run,
    Step,
)
from tensor_wasm.compiler.synchronisation import Suspend
from tensor_wasm.errors import PtxError
from tensor_wasm.ptx.program import Instruction, Operand, Register, ScalarType
from tensor_wasm.wasm import Global, Label, Local, ValType


@dataclass(frozen=True, slots=True)
class Places:
    """Exported globals that say which thread of which block runs.

    They are always up to date: a trap of WebAssembly's own leaves no time to set them then.
    """

    block: Sequence[Global]
    thread: Global


def lower(frame: Frame, steps: Sequence[Step], undefined: Sequence[Register], base: Global, places: Places) -> None:
    """Write ``run``'s body: what holds for the launch, the loops, and in them the steps for one thread.

    ``undefined`` are the registers that a thread may read before it writes them.
    """
    body = frame.body
    at = frame.coordinates
    skip_empty(frame)
    enter(frame, base)

    def thread() -> None:
        body.get(at.thread)
        body.global_set(places.thread)
        clear(frame, undefined)
        with body.block() as end:
            Walk(frame, end).run(steps)
        _increment(frame, at.thread)

    def block() -> None:
        for axis, variable in enumerate(places.block):
            body.get(at.block_index[axis])
            body.global_set(variable)
        body.i32_const(0)
        body.set(at.thread)
        nest(frame, at.thread_index, at.block, thread)

    nest(frame, at.block_index, at.grid, block)


def skip_empty(frame: Frame) -> None:
    """Do nothing at all for a launch with an empty axis."""
    body = frame.body
    for local in (*frame.coordinates.grid, *frame.coordinates.block):
        body.get(local)
        body.op("i32.eqz")
    body.op(*["i32.or"] * 5)
    with body.if_():
        body.op("return")


def enter(frame: Frame, base: Global) -> None:
    """What is the same for all threads of a launch."""
    body = frame.body
    body.global_get(base)
    body.set(frame.base)
    for low, window in ((frame.base, frame.window), (frame.parameters, frame.parameter_window)):
        body.get(low)
        body.op("i64.extend_i32_u")
        body.i64_const(WINDOW)
        body.op("i64.or")
        body.set(window)
    region = frame.region
    body.get(frame.base)
    body.i32_const(region.variable_bytes)
    body.op("i32.add")
    body.set(frame.shared_base)
    body.i64_const(region.shared_bytes)
    if region.has_dynamic:
        body.get(frame.coordinates.shared_bytes)
        body.op("i64.extend_i32_u", "i64.add")
    body.set(frame.shared_end)
    memory.read_parameters(frame, frame.kernel)


def nest(frame: Frame, indices: Sequence[Local], limits: Sequence[Local], inside: Callable[[], None]) -> None:
    """Loop over three axes, the first one fastest; each limit is at least 1."""
    body = frame.body
    if not indices:
        inside()
        return
    index = indices[-1]
    body.i32_const(0)
    body.set(index)
    with body.loop() as again:
        nest(frame, indices[:-1], limits, inside)
        _increment(frame, index)
        body.get(index)
        body.get(limits[len(indices) - 1])
        body.op("i32.lt_u")
        body.br_if(again)


def _increment(frame: Frame, local: Local) -> None:
    frame.body.get(local)
    frame.body.i32_const(1)
    frame.body.op("i32.add")
    frame.body.set(local)


def clear(frame: Frame, registers: Sequence[Register], *, with_carry: bool = True) -> None:
    """Zero what a thread may read before it writes it: no thread sees another's registers."""
    constants = {
        ValType.I32: frame.body.i32_const,
        ValType.I64: frame.body.i64_const,
        ValType.F32: frame.body.f32_bits,
        ValType.F64: frame.body.f64_bits,
    }
    locals_ = dict.fromkeys(frame.local(register) for register in registers)
    if with_carry:
        locals_[frame.carry] = None
    for local in locals_:
        constants[local.type](0)
        frame.body.set(local)


class Walk:
    """Writes the steps of one thread; ``end`` is where a thread goes that is done."""

    def __init__(self, frame: Frame, end: Label) -> None:
        self._frame = frame
        self._end = end
        self._open: list[Label] = []
        self._labels: dict[int, Label] = {}
        self._is_suspended = False
        self._case: Local | None = None
        self._dispatcher: Label | None = None

    def run(self, steps: Sequence[Step]) -> None:
        """Write all steps in order."""
        frame, body, labels = self._frame, self._frame.body, self._labels
        for step in steps:
            match step:
                case Run(block):
                    instructions = frame.kernel.blocks[block].instructions
                    for instruction in instructions:
                        lower_instruction(frame, instruction)
                    self._is_suspended = bool(instructions) and isinstance(instructions[-1], Suspend)
                case OpenBlock(target):
                    labels[target] = self._opened(body.block())
                case OpenLoop(header):
                    labels[header] = self._opened(body.loop())
                case OpenIf(guard):
                    frame.push_guard(guard)
                    self._opened(body.if_())
                case Close():
                    body.end(self._open.pop())
                case Goto(target):
                    body.br(labels[target])
                case GotoIf(guard, target):
                    frame.push_guard(guard)
                    body.br_if(labels[target])
                case GotoTable(selector, targets):
                    frame.push(selector, ScalarType.U32)
                    body.br_table([labels[target] for target in targets], labels[targets[-1]])
                case OpenDispatcher(count):
                    self._open_dispatcher(count)
                case NextCase() | CloseDispatcher():
                    body.end(self._open.pop())
                case GotoCase(number):
                    body.i32_const(number)
                    self._dispatch()
                case GotoCaseIf(guard, taken, otherwise):
                    body.i32_const(taken)
                    body.i32_const(otherwise)
                    frame.push_guard(guard)
                    body.op("select")
                    self._dispatch()
                case GotoCaseTable(selector, cases):
                    self._push_case(selector, cases)
                    self._dispatch()
                case Finish():
                    if frame.context is not None and not self._is_suspended:
                        frame.context.finish(body)
                    body.br(self._end)
                case Fail(line):
                    body.mark(line)
                    frame.faults.raise_(body, Fault.TRAP)

    def _open_dispatcher(self, count: int) -> None:
        """A loop that branches to the case whose number is in a local; the cases are what follows inner blocks."""
        body = self._frame.body
        self._case = body.local(ValType.I32)
        body.i32_const(0)
        body.set(self._case)
        self._dispatcher = self._opened(body.loop())
        cases = [self._opened(body.block()) for _ in range(count)]
        body.get(self._case)
        # The innermost block ends first: it is in front of case 0.
        body.br_table(list(reversed(cases)), cases[0])

    def _push_case(self, selector: Operand, cases: Sequence[int]) -> None:
        body = self._frame.body
        body.i32_const(cases[-1])
        for position, case in enumerate(cases[:-1]):
            body.i32_const(case)
            self._frame.push(selector, ScalarType.U32)
            body.i32_const(position)
            body.op("i32.ne", "select")

    def _dispatch(self) -> None:
        """Go to the case on the stack."""
        assert self._case is not None
        assert self._dispatcher is not None
        self._frame.body.set(self._case)
        self._frame.body.br(self._dispatcher)

    def _opened(self, label: Label) -> Label:
        self._open.append(label)
        return label


def lower_instruction(frame: Frame, instruction: Instruction) -> None:
    """Write one instruction. Raises :class:`PtxError` for one that this lowering does not have."""
    frame.body.mark(instruction.line)
    try:
        if isinstance(instruction, Suspend):
            suspending.suspend(frame, instruction)
        elif carry.handles(instruction):
            carry.lower(frame, instruction)
        elif instruction.root in _OWN:
            _OWN[instruction.root](frame, instruction)
        elif values.handles(instruction):
            _value(frame, instruction)
        else:
            raise PtxError(f"{instruction.text} is not supported")
    except PtxError as error:
        if error.line:
            raise
        raise PtxError(error.text, instruction.line, instruction.column) from None


def _value(frame: Frame, instruction: Instruction) -> None:
    """An instruction that computes registers from values.

    One result is computed in any case and kept where the guard holds: arithmetic does not trap here, and a select is
    cheaper than a branch that is taken now and then.
    """

    def push(position: int, kind: ScalarType) -> None:
        frame.push_source(instruction, position, kind)

    kinds = values.result_types(instruction)
    destinations = instruction.destinations
    if len(destinations) == 1 and destinations[0] is not None:
        values.emit(frame.body, instruction, push, frame.library)
        frame.store_where(instruction.guard, destinations[0], kinds[0])
        return
    with frame.guarded(instruction.guard):
        values.emit(frame.body, instruction, push, frame.library)
        for register, kind in reversed(list(zip(destinations, kinds, strict=True))):
            frame.store(register, kind)


def _nothing(_frame: Frame, _instruction: Instruction) -> None:
    """Orders memory between threads, or moves data nearer: threads run one after another, and caches are not ours."""


_OWN: Final[Mapping[str, Callable[[Frame, Instruction], None]]] = MappingProxyType(
    {
        "ld": memory.load,
        "ldu": memory.load,
        "st": memory.store,
        "atom": transfers.update,
        "red": transfers.update,
        "cp": transfers.copy,
        "emit": printing.emit,
        "mov": moves.move,
        "cvta": moves.convert_address,
        "isspacep": moves.is_in_space,
        "prefetch": _nothing,
        "prefetchu": _nothing,
        "discard": _nothing,
        "applypriority": _nothing,
        "fence": _nothing,
        "membar": _nothing,
        "nanosleep": _nothing,
        "pragma": _nothing,
    }
)
