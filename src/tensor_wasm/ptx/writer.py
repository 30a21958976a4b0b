"""A typed kernel as PTX text again, in names of our own.

What another assembler reads is then only what the front end understood: no directive, name, attribute or debugging data
of the text it came from gets through, and every call is already replaced. Reading the text gives the same kernel.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import groupby

from tensor_wasm.errors import InternalError, PtxError
from tensor_wasm.ptx.calls import Call
from tensor_wasm.ptx.forms import VECTORS, Category, Form, RoleKind, Slot
from tensor_wasm.ptx.opcodes import FORMS
from tensor_wasm.ptx.plans import Expected, Plan, plan
from tensor_wasm.ptx.program import (
    Address,
    Block,
    Branch,
    Emit,
    Exit,
    Guard,
    Immediate,
    Instruction,
    Jump,
    Kernel,
    Operand,
    Parameter,
    Register,
    ScalarType,
    Space,
    Special,
    Switch,
    Symbol,
    Trap,
    Variable,
)

#: A policy is a number that only its maker can make; the front end made it 0, so nothing may use it.
_DROPPED = frozenset({"L2::cache_hint"})
_SMALL_BITS = {"s4": 4, "u4": 4, "b1": 1}
_SHAPE = re.compile(r"m(\d+)n(\d+)k(\d+)", re.ASCII)
_LANES = 32
_REGISTERS_A_LINE = 16
_BYTES_A_LINE = 32

Key = tuple[str, tuple[str, ...], tuple[ScalarType, ...], Space | None, int]


def write(kernel: Kernel, version: str, target: str, variables: Sequence[Variable] = ()) -> str:
    """PTX text of a module that has ``kernel`` alone, and the variables it uses.

    ``variables`` are the module's; those that hold addresses of others want them in this order too. Raises
    :class:`PtxError` for calls and for what prints, which PTX has no instructions for.
    """
    return "".join(_Writer(kernel, variables).text(version, target))


class _Writer:
    def __init__(self, kernel: Kernel, variables: Sequence[Variable]) -> None:
        self._kernel = kernel
        self._own = frozenset(kernel.variables)
        used = _used(kernel)
        self._module = [variable for variable in variables if variable in used]
        #: What our names begin with, and the kernel's does not.
        self._stem = stem = "w" if kernel.name.startswith("v") else "v"
        names: dict[Variable | Parameter, str] = {}
        for number, variable in enumerate(self._module):
            names[variable] = f"{stem}m{number}"
        for number, variable in enumerate(kernel.variables):
            names[variable] = f"{stem}k{number}"
        for number, parameter in enumerate(kernel.parameters):
            names[parameter] = f"{stem}a{number}"
        self._names = names

    def text(self, version: str, target: str) -> Iterator[str]:
        kernel = self._kernel
        yield f".version {version}\n.target {target}\n.address_size 64\n\n"
        for variable in self._module:
            yield self._variable(variable)
        # An open array belongs to the module wherever it was declared.
        for variable in kernel.variables:
            if variable.is_extern:
                yield self._variable(variable)
        formals = ",\n".join(f"    {self._formal(parameter)}" for parameter in kernel.parameters)
        yield f"\n.visible .entry {kernel.name}(\n{formals}\n)\n"
        for directive, axes in ((".reqntid", kernel.reqntid), (".maxntid", kernel.maxntid)):
            if axes is not None:
                yield f"{directive} {axes[0]}, {axes[1]}, {axes[2]}\n"
        yield "{\n"
        yield from self._registers()
        for variable in kernel.variables:
            if not variable.is_extern:
                yield "    " + self._variable(variable)
        for block in kernel.blocks:
            yield from self._block(block)
        yield "}\n"

    # --- declarations ---------------------------------------------------------------------------------------------

    def _registers(self) -> Iterator[str]:
        # In their order, so that whoever reads them numbers them alike.
        for kind, registers in groupby(self._kernel.registers, lambda register: register.type):
            names = list(map(_register, registers))
            for start in range(0, len(names), _REGISTERS_A_LINE):
                yield f"    .reg .{kind.ptx_name} {', '.join(names[start : start + _REGISTERS_A_LINE])};\n"

    def _variable(self, variable: Variable) -> str:
        linkage = ".extern " if variable.is_extern else ""
        head = f"{linkage}.{variable.space.value} .align {variable.alignment}"
        name = self._names[variable]
        if variable.is_extern:
            return f"{head} .b8 {name}[];\n"
        if variable.pointers:
            return f"{head} .b64 {name}[{-(-variable.size_bytes // 8)}] = {{{self._addresses(variable)}}};\n"
        values = ""
        if variable.initial is not None and any(variable.initial):
            data = variable.initial.rstrip(b"\0")
            lines = (data[at : at + _BYTES_A_LINE] for at in range(0, len(data), _BYTES_A_LINE))
            values = " = {" + ",\n".join(",".join(map(str, line)) for line in lines) + "}"
        return f"{head} .b8 {name}[{variable.size_bytes}]{values};\n"

    def _addresses(self, variable: Variable) -> str:
        """The initial values of a variable that holds addresses, 8 bytes each."""
        data = (variable.initial or b"").ljust(-(-variable.size_bytes // 8) * 8, b"\0")
        pointers = {place: (pointee, addend) for place, pointee, addend in variable.pointers}
        parts = []
        for place in range(0, len(data), 8):
            if place in pointers:
                pointee, addend = pointers[place]
                parts.append(f"generic({self._names[pointee]})+{addend}")
            else:
                parts.append(str(int.from_bytes(data[place : place + 8], "little", signed=True)))
        if any(place % 8 for place in pointers):
            raise PtxError(f"{variable.name[:64]}: an address at an odd place as an initial value is not supported")
        return ", ".join(parts)

    def _formal(self, parameter: Parameter) -> str:
        name = self._names[parameter]
        if parameter.is_array:
            return f".param .align {parameter.alignment} .b8 {name}[{parameter.size_bytes}]"
        return f".param .{parameter.type.ptx_name} {name}"

    # --- code -----------------------------------------------------------------------------------------------------

    def _block(self, block: Block) -> Iterator[str]:
        yield f"{self._label(block.index)}:\n"
        for instruction in block.instructions:
            yield f"    {self._instruction(instruction)}\n"
        following = block.index + 1
        match block.terminator:
            case Jump(target):
                if target != following:
                    yield f"    bra {self._label(target)};\n"
            case Branch(guard, taken, otherwise, is_uniform):
                opcode = "bra.uni" if is_uniform else "bra"
                yield f"    {_guard(guard)}{opcode} {self._label(taken)};\n"
                if otherwise != following:
                    yield f"    bra {self._label(otherwise)};\n"
            case Switch(selector, targets):
                table = f"{self._stem}T{block.index}"
                yield f"{table}: .branchtargets {', '.join(map(self._label, targets))};\n"
                yield f"    brx.idx {self.value(selector)}, {table};\n"
            case Exit():
                yield "    ret;\n"
            case Trap():
                yield "    trap;\n"

    def _label(self, block: int) -> str:
        return f"{self._stem}B{block}"

    def _instruction(self, instruction: Instruction) -> str:
        if isinstance(instruction, Call):
            reason = instruction.reason or "the calls of this kernel were not asked for"
            raise PtxError(reason, instruction.line, instruction.column)
        if isinstance(instruction, Emit):
            raise PtxError("what a kernel prints has no instruction", instruction.line, instruction.column)
        chosen = _plan(_key(instruction))
        guard = instruction.guard
        head = "" if guard is None else _guard(guard)
        operands = ", ".join(self._operands(instruction, chosen))
        return f"{head}{chosen.text}{' ' if operands else ''}{operands};"

    def _operands(self, instruction: Instruction, chosen: Plan) -> list[str]:
        for count in sorted(chosen.by_count, reverse=True):
            written = _Operands(self, instruction, chosen.by_count[count]).texts()
            if written is not None:
                return written
        raise InternalError(f"the operands of {instruction.text} fit no form of it")

    def value(self, operand: Operand, kind: ScalarType | None = None) -> str:
        """A source; ``kind`` is what the instruction takes it for."""
        match operand:
            case Register():
                return _register(operand)
            case Immediate(bits, own):
                # The front end's own moves hold a float's bits as bits.
                return _immediate(Immediate(bits, kind if kind is not None and kind.is_float else own))
            case Special(name, axis):
                return f"%{name}.{axis}" if axis else f"%{name}"
            case Symbol(target, offset):
                return self._names[target] + (f"+{offset}" if offset else "")

    def address(self, address: Address) -> str:
        """An address in brackets."""
        if address.base is None:
            return f"[{address.offset}]"
        base = _register(address.base) if isinstance(address.base, Register) else self._names[address.base]
        return f"[{base}+{address.offset}]" if address.offset else f"[{base}]"


class _Operands:
    """The operands of one instruction, taken from what it reads and writes as one number of them asks."""

    def __init__(self, writer: _Writer, instruction: Instruction, expected: Sequence[Expected]) -> None:
        self._writer = writer
        self._instruction = instruction
        self._expected = expected
        self._destinations = list(instruction.destinations)
        self._sources = list(enumerate(instruction.sources))
        self._has_address = instruction.address is not None

    def texts(self) -> list[str] | None:
        """The operands' texts; None when this is not the number of operands that the instruction has."""
        texts: list[str] = []
        for number, wanted in enumerate(self._expected):
            try:
                texts.append(self._text(wanted, self._expected[number + 1 :]))
            except IndexError:
                return None
        return None if self._destinations or self._sources or self._has_address else texts

    def _text(self, wanted: Expected, after: Sequence[Expected]) -> str:
        match wanted.role.kind:
            case RoleKind.DESTINATION:
                return self._destination(wanted)
            case RoleKind.SOURCE | RoleKind.ANY:
                return self._source(wanted, after)
            case RoleKind.IMMEDIATE:
                return self._take(None)
            case RoleKind.ADDRESS:
                return self._address()
        raise IndexError  # a policy, which is dropped

    def _destination(self, wanted: Expected) -> str:
        if not wanted.role.many:
            first = _target(self._destinations.pop(0))
            # A second register belongs to it unless more destinations are wanted, which no form has.
            return f"{first}|{_target(self._destinations.pop(0))}" if self._destinations else first
        count = len(self._destinations)
        names = [_target(self._destinations.pop(0)) for _ in range(count)]
        return names[0] if count == 1 and wanted.role.many in "vp" else f"{{{', '.join(names)}}}"

    def _source(self, wanted: Expected, after: Sequence[Expected]) -> str:
        if not wanted.role.many:
            return self._take(wanted.type)
        count = wanted.count
        if count is None or (count == 0 and not any(other.role.many for other in after)):
            count = len(self._sources)
        elif count == 0:
            count = self._fragment(sum(bool(other.role.many) for other in after))
        texts = [self._take(wanted.type) for _ in range(count)]
        return texts[0] if count == 1 and wanted.role.many in "vp" else f"{{{', '.join(texts)}}}"

    def _fragment(self, after: int) -> int:
        """Registers of a matrix of narrow elements: of the first when two more come, else of the second."""
        shape = next(filter(None, map(_SHAPE.fullmatch, self._instruction.modifiers)))
        m, n, k = map(int, shape.groups())
        bits = next(_SMALL_BITS[part] for part in self._instruction.modifiers if part in _SMALL_BITS)
        return max((m if after == 2 else n) * k * bits // _LANES // 32, 1)

    def _take(self, kind: ScalarType | None) -> str:
        number, operand = self._sources.pop(0)
        return ("!" if number in self._instruction.negated else "") + self._writer.value(operand, kind)

    def _address(self) -> str:
        if self._has_address:
            self._has_address = False
            assert self._instruction.address is not None
            return self._writer.address(self._instruction.address)
        (_, base), (_, offset) = self._sources.pop(0), self._sources.pop(0)
        assert isinstance(offset, Immediate)
        signed = _signed(offset)
        match base:
            case Register():
                return self._writer.address(Address(base, signed))
            case Symbol(target, more):
                return self._writer.address(Address(target, signed + more))
        return self._writer.address(Address(None, signed))


def named(kernel: Kernel) -> list[Variable]:
    """The variables that a kernel's instructions name, each once."""
    found: dict[Variable, None] = {}
    for block in kernel.blocks:
        for instruction in block.instructions:
            if instruction.address is not None and isinstance(instruction.address.base, Variable):
                found[instruction.address.base] = None
            for source in instruction.sources:
                if isinstance(source, Symbol) and isinstance(source.target, Variable):
                    found[source.target] = None
    return list(found)


def _used(kernel: Kernel) -> frozenset[Variable]:
    """The variables that a kernel names, and those whose addresses these hold."""
    waiting = named(kernel)
    found: set[Variable] = set()
    while waiting:
        variable = waiting.pop()
        if variable not in found:
            found.add(variable)
            waiting += (pointee for _, pointee, _ in variable.pointers)
    return frozenset(found)


def _register(register: Register) -> str:
    return f"%v{register.index}"


def _guard(guard: Guard) -> str:
    return f"@{'!' if guard.negated else ''}{_register(guard.register)} "


def _target(register: Register | None) -> str:
    return "_" if register is None else _register(register)


def _signed(immediate: Immediate) -> int:
    bits = immediate.type.bits
    return immediate.bits - (1 << bits) if immediate.bits >> (bits - 1) else immediate.bits


def _immediate(immediate: Immediate) -> str:
    kind, bits = immediate.type, immediate.bits
    if kind is ScalarType.F32:
        return f"0f{bits:08X}"
    if kind is ScalarType.F64:
        return f"0d{bits:016X}"
    if kind is ScalarType.PRED:
        return str(bits)
    if kind.kind == "u":
        return f"{bits}U" if bits >> 63 else str(bits)
    return str(_signed(immediate))


# --- opcodes ------------------------------------------------------------------------------------------------------


def _key(instruction: Instruction) -> Key:
    modifiers = tuple(part for part in instruction.modifiers if part not in _DROPPED)
    vector = 1
    if instruction.root in ("ld", "ldu"):
        vector = len(instruction.destinations)
    elif instruction.root == "st":
        vector = len(instruction.sources)
    return instruction.root, modifiers, instruction.types, instruction.space, vector


@cache
def _plan(key: Key) -> Plan:
    """The opcode of an instruction as it is written, with what its operands are."""
    root, modifiers, types, space, vector = key
    for row in FORMS.get(root, ()):
        parts = _parts(row, modifiers, types, space, vector)
        if parts is None:
            continue
        found = plan(".".join((root, *parts)))
        opcode = found.opcode
        if (opcode.modifiers, opcode.types, opcode.space, opcode.vector) == (modifiers, types, space, vector):
            return found
    raise InternalError(f"no form of {root} is {'.'.join(modifiers)}")


def _parts(
    row: Form, modifiers: Iterable[str], types: Iterable[ScalarType], space: Space | None, vector: int
) -> list[str] | None:
    """The parts of an opcode in the order of a row, None when they do not fit it."""
    waiting = [list(modifiers), [kind.ptx_name for kind in types]]
    if space not in (None, Space.GENERIC):
        waiting.append([space.value])
    if vector > 1 and row.category is Category.MEMORY:
        waiting.append([name for name, width in VECTORS.items() if width == vector])
    parts: list[str] = []
    for slot in row.parts:
        found = next((queue for queue in waiting if queue and queue[0] in slot.names), None)
        if found is not None:
            parts.append(found.pop(0))
        elif not slot.is_optional:
            implied = _implied(slot)
            if implied is None:
                return None
            parts.append(implied)
    return None if any(waiting) else parts


def _implied(slot: Slot) -> str | None:
    """The second state space of a copy, which the typed program does not repeat."""
    return "global" if slot.names == {"global"} else None
