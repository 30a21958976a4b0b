"""Functions put in the place of their calls: what leaves the front end are kernels without calls.

Each call gets its own copy of the function's blocks and registers. Local variables are there once in a kernel: without
recursion a thread is in a function once at a time. Variables for arguments and results become registers (see
:mod:`.arguments`). An indirect call becomes a choice between the functions it may be of, by their addresses.

What cannot be inlined stays as a :class:`Call` with the reason.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tensor_wasm.ptx import arguments, printing
from tensor_wasm.ptx.addresses import FunctionAddresses
from tensor_wasm.ptx.binding import bind, constant, load, misfit, move, store
from tensor_wasm.ptx.calls import Call, Function, Linkage
from tensor_wasm.ptx.copying import Copy
from tensor_wasm.ptx.costs import Costs
from tensor_wasm.ptx.drafts import Draft, finish
from tensor_wasm.ptx.program import (
    Block,
    Branch,
    Guard,
    Immediate,
    Instruction,
    Jump,
    Kernel,
    Operand,
    Parameter,
    Program,
    Register,
    ScalarType,
    Space,
    Trap,
    Variable,
)

#: Instructions of one kernel with all that is inlined into it. A function of WebAssembly has room for fewer.
INLINED_MAX = 150_000
#: Those of all kernels of a text that have calls.
INLINED_TOTAL_MAX = 300_000

_EXTERN = "is defined in another module, which is not supported in this release"
#: Why functions of the library that have no body in any text cannot be called.
_REASONS: Final = {
    name: f"{name}: memory that kernels allocate is not supported in this release" for name in ("malloc", "free")
}


def inline(program: Program, linkage: Linkage, entry: str | None = None) -> Program:
    """The program with every call replaced by what it calls; with ``entry``, in that kernel only."""
    if not linkage.symbols and not any(v.space is Space.PARAM for v in linkage.variables):
        return program
    addresses = FunctionAddresses(program, linkage)
    costs = Costs(linkage, addresses.taken, INLINED_MAX)
    left = INLINED_TOTAL_MAX
    kernels: list[Kernel] = []
    for kernel in program.kernels:
        if entry not in (None, kernel.name) or (not addresses.taken and not _has_calls(kernel)):
            kernels.append(kernel)
            continue
        total = costs.total(kernel.blocks)
        reason = None
        if total > INLINED_MAX:
            reason = f"with all that is called, the kernel has more than {INLINED_MAX:,} instructions"
        elif total > left:
            reason = f"with all that is called, the kernels have more than {INLINED_TOTAL_MAX:,} instructions"
        else:
            left -= total
        kernels.append(_Expansion(kernel, addresses, costs, reason).kernel())
    variables = tuple(addresses.replaced.get(variable, variable) for variable in program.variables)
    return Program(program.version, program.target, variables, tuple(kernels))


def _has_calls(kernel: Kernel) -> bool:
    """Whether there are calls in a kernel, or variables for their arguments."""
    return any(variable.space is Space.PARAM for variable in kernel.variables) or any(
        type(instruction) is Call for block in kernel.blocks for instruction in block.instructions
    )


class _Expansion:
    """One kernel while its calls are replaced. ``refusal`` is why they cannot be, or None."""

    def __init__(self, kernel: Kernel, addresses: FunctionAddresses, costs: Costs, refusal: str | None) -> None:
        self._kernel = kernel
        self._addresses = addresses
        self._costs = costs
        self._refusal = refusal
        self._drafts: list[Draft] = []
        self._registers = list(kernel.registers)
        self._variables: dict[Variable, None] = {}
        self._waiting: list[tuple[Function, Copy, int]] = []
        self._reasons: dict[int, str | None] = {}

    def kernel(self) -> Kernel:
        """The kernel without calls."""
        kernel = self._kernel
        start = self._reserve(kernel.blocks)
        self._copy(kernel.blocks, kernel.variables, Copy(self._registers, self._addresses, is_root=True), start)
        while self._waiting:
            function, copy, start = self._waiting.pop()
            self._copy(function.blocks, function.variables, copy, start)
        made = arguments.to_registers(self._drafts, self._registers)
        printing.to_records(self._drafts, self._registers)
        return replace(
            kernel,
            registers=tuple(self._registers),
            variables=(*self._variables, *made),
            blocks=finish(self._drafts),
        )

    # --- drafts -----------------------------------------------------------------------------------------

    def _reserve(self, blocks: tuple[Block, ...]) -> int:
        """Drafts for the blocks of a routine, still empty; the first one's index."""
        start = len(self._drafts)
        self._drafts += [Draft(block.line) for block in blocks]
        return start

    def _draft(self, line: int) -> int:
        self._drafts.append(Draft(line))
        return len(self._drafts) - 1

    def _copy(self, blocks: tuple[Block, ...], variables: tuple[Variable, ...], copy: Copy, start: int) -> None:
        kept = (copy.entity(variable) for variable in variables if variable.space is not Space.PARAM)
        self._variables.update(dict.fromkeys(variable for variable in kept if isinstance(variable, Variable)))
        for block in blocks:
            draft = self._drafts[start + block.index]
            for instruction in block.instructions:
                if type(instruction) is Call:
                    draft = self._call(draft, instruction, copy)
                else:
                    draft.instructions.append(copy.instruction(instruction))
            draft.terminator = copy.terminator(block.terminator, start)

    # --- calls ------------------------------------------------------------------------------------------

    def _call(self, draft: Draft, call: Call, caller: Copy) -> Draft:
        """Write a call at the end of a draft; the draft where its caller goes on."""
        reason = self._refusal
        if reason is None and id(call) in self._reasons:
            reason = self._reasons[id(call)]
        elif reason is None:
            reason = self._reasons[id(call)] = self._reason(call)
        if reason is not None:
            refused = replace(call, sources=(), guard=None, results=(), arguments=(), candidates=None, reason=reason)
            draft.instructions.append(refused)
            return draft
        after = self._draft(call.line)
        if call.guard is not None:
            inside = self._draft(call.line)
            draft.terminator = Branch(caller.guard(call.guard), inside, after)
            draft = self._drafts[inside]
        function = self._costs.find(call.callee) if call.callee else None
        if function is not None:
            self._enter(draft, call, function, caller, after)
        elif call.callee:
            draft.instructions += _library(call, caller)
            draft.terminator = Jump(after)
        else:
            self._choose(draft, call, caller, after)
        return self._drafts[after]

    def _reason(self, call: Call) -> str | None:
        """Why a call cannot be inlined, or None."""
        cycle = self._costs.cycle(call)
        if cycle is not None:
            return cycle
        if call.callee in printing.LIBRARY and self._costs.find(call.callee) is None:
            return printing.misfit(call)
        names = (call.callee,) if call.callee else self._costs.candidates(call)
        if not call.callee and call.candidates is None and call.prototype is None:
            return "an indirect call needs a .callprototype or .calltargets that says what it may be of"
        for name in names:
            function = self._costs.find(name)
            if function is None:
                return _REASONS.get(
                    name, f"{name[:64]} is defined in another module, which is not supported in this release"
                )
            reason = misfit(call, function)
            if reason is not None:
                return reason
        return None

    def _choose(self, draft: Draft, call: Call, caller: Copy, after: int) -> None:
        """Call whichever function the address is of; an address of none of them ends the launch."""
        target = caller.operand(call.sources[0])
        for name in dict.fromkeys(self._costs.candidates(call)):
            function = self._costs.find(name)
            assert function is not None
            is_it = caller.new("%is_callee", ScalarType.PRED)
            operands = (target, Immediate(self._addresses.of(name), ScalarType.U64))
            draft.instructions.append(
                Instruction("setp", ("eq",), (ScalarType.U64,), (is_it,), operands, None, call.line, call.column)
            )
            taken, following = self._draft(call.line), self._draft(call.line)
            draft.terminator = Branch(Guard(is_it, negated=False), taken, following)
            self._enter(self._drafts[taken], call, function, caller, after)
            draft = self._drafts[following]
        draft.terminator = Trap(call.line)

    def _enter(self, draft: Draft, call: Call, function: Function, caller: Copy, after: int) -> None:
        """Go from a draft through a copy of a function to the draft ``after``."""
        inner = caller.inner()
        before, back = bind(call, function, caller, inner)
        draft.instructions += before
        inner.after = after
        if back:
            inner.after = self._draft(call.line)
            self._drafts[inner.after].instructions = back
            self._drafts[inner.after].terminator = Jump(after)
        start = self._reserve(function.blocks)
        self._waiting.append((function, inner, start))
        draft.terminator = Jump(start)


def _library(call: Call, caller: Copy) -> list[Instruction]:
    """A call of what the library has, with its arguments and its result in registers."""
    made: list[Instruction] = []
    values: list[Operand] = []
    for kind, argument in zip(printing.LIBRARY[call.callee], call.arguments, strict=True):
        if isinstance(argument, Variable | Parameter):
            register = caller.new("%argument", kind)
            made.append(load(call, register, caller.entity(argument)))
            values.append(register)
        else:
            values.append(Immediate(0, kind) if argument is None else constant(argument, kind, caller))
    count = caller.new("%printed", ScalarType.B32)
    made.append(replace(call, destinations=(count,), sources=tuple(values), guard=None, results=(), arguments=()))
    for result in call.results:
        if isinstance(result, Register):
            made.append(move(call, caller.register(result), count, ScalarType.B32))
        elif result is not None:
            made.append(store(call, caller.entity(result), count))
    return made
