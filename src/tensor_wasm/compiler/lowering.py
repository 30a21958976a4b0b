"""Instructions of one thread, and structured steps: :mod:`.strips` uses them for what threads do alone or all alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final

from tensor_wasm.compiler import carry, memory, moves, printing, transfers, values
from tensor_wasm.compiler.faults import Fault
from tensor_wasm.compiler.frame import Frame
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
from tensor_wasm.errors import PtxError
from tensor_wasm.ptx.program import Instruction, Operand, ScalarType
from tensor_wasm.wasm import Global, Label, Local, ValType


def enter(frame: Frame, base: Global, variables: Global) -> None:
    """What is the same for all threads of a launch."""
    body, ground = frame.body, frame.ground
    region = frame.region
    ground.enter(body, base, variables, region)
    body.i64_const(region.shared_bytes)
    if region.has_dynamic:
        assert frame.coordinates.shared_bytes is not None
        body.get(frame.coordinates.shared_bytes)
        body.op("i64.extend_i32_u", "i64.add")
    body.set(ground.shared_end)
    memory.read_parameters(frame, frame.kernel)


class Walk:
    """Writes structured steps, ``run_block`` the code of blocks; ``end`` is where a thread goes that is done."""

    def __init__(self, frame: Frame, end: Label) -> None:
        self._frame = frame
        self._end = end
        self._open: list[Label] = []
        self._labels: dict[int, Label] = {}
        self._case: Local | None = None
        self._dispatcher: Label | None = None

    def run(self, steps: Sequence[Step]) -> None:
        """Write all steps in order."""
        frame, body, labels = self._frame, self._frame.body, self._labels
        for step in steps:
            match step:
                case Run():
                    self.run_block(step)
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
                    body.br(self._end)
                case Fail(line):
                    body.mark(line)
                    self.fail()
                    frame.faults.raise_(body, Fault.TRAP)

    def run_block(self, step: Run) -> None:
        """Write the instructions of a block."""
        raise NotImplementedError

    def fail(self) -> None:
        """Write what has to be said before a fault."""

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
    with located(instruction):
        if carry.handles(instruction):
            carry.lower(frame, instruction)
        elif instruction.root in _OWN:
            _OWN[instruction.root](frame, instruction)
        elif values.handles(instruction):
            _value(frame, instruction)
        else:
            raise PtxError(f"{instruction.text} is not supported")


@contextmanager
def located(instruction: Instruction) -> Iterator[None]:
    """Give a :class:`PtxError` of what is inside the instruction's place, if it has none."""
    try:
        yield
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


_OWN: Final[Mapping[str, Callable[[Frame, Instruction], None]]] = MappingProxyType(
    {
        "atom": transfers.update,
        "red": transfers.update,
        "cp": transfers.copy,
        "emit": printing.emit,
        "mov": moves.move,
        "cvta": moves.convert_address,
        "isspacep": moves.is_in_space,
    }
)
