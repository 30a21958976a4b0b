"""A kernel whose every access is confined.

- An access to global memory goes to the partition: the address loses its upper bits and gets the partition's instead.
  Small constant offsets are added afterwards and may lead into the guard zones.
- So does a generic access, but where it is to the block's shared memory or to the thread's own local variables.
- Local variables become one; what registers address in it is kept inside.
- Variables of the module, constants among them, have fixed addresses in the partition.
- A trap would end the whole context: it leaves its line in the partition instead, and the thread ends.
- A table of branches is entered inside.
- What is only advice to caches is left out.

With ``is_checked`` the line of an access outside is left as well, to find bugs by: it still goes nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, NoReturn

from tensor_wasm.device.fence.code import B32, PRED, U32, U64, Code
from tensor_wasm.device.fence.image import Image, lay_out
from tensor_wasm.device.fence.partition import GUARD_BYTES, WIDEST_BYTES, Partition
from tensor_wasm.device.fence.prologue import Own, prologue
from tensor_wasm.errors import PtxError
from tensor_wasm.ptx import Program, find_kernel, support
from tensor_wasm.ptx.graph import renumbered
from tensor_wasm.ptx.program import (
    Address,
    Block,
    Emit,
    Exit,
    Guard,
    Immediate,
    Instruction,
    Kernel,
    Operand,
    Parameter,
    Register,
    ScalarType,
    Space,
    Special,
    Switch,
    Symbol,
    Terminator,
    Trap,
    Variable,
)
from tensor_wasm.ptx.writer import named, write

_ADVICE: Final = frozenset({"prefetch", "prefetchu", "applypriority", "discard", "pmevent"})
#: Registers that tell of the driver or of what other kernels do.
_HIDDEN: Final = ("pm", "envreg", "current_graph_exec")
#: Versions of PTX: a driver refuses texts of a newer one than its own, whatever stands in them. All that the table of
#: opcodes has is in the latter (CUDA 12.4).
_VERSION_LEAST: Final = "8.0"
_VERSION_MOST: Final = "8.4"
#: The first version of newer targets. A driver for such a GPU reads it.
_VERSION_OF_TARGET: Final = {
    "sm_100": "8.6",
    "sm_101": "8.6",
    "sm_103": "8.8",
    "sm_110": "9.0",
    "sm_120": "8.7",
    "sm_121": "8.8",
}
_ALIGNMENT = 16
_LOW = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class FencedKernel:
    """PTX for the driver's assembler, and the bytes of its image."""

    ptx: str
    name: str
    image: bytes


def fence(
    program: Program,
    entry: str,
    partition: Partition,
    image_base: int,
    *,
    target: str | None = None,
    is_checked: bool = False,
) -> FencedKernel:
    """The kernel ``entry`` for the tenant that owns ``partition``; the program's image lies at ``image_base`` in it.

    ``target`` is the GPU's own, ``sm_90``; without it the text's. Raises :class:`PtxError` for what cannot be confined,
    and for an image that does not fit.
    """
    image = lay_out(program)
    kernel = _confined(program, entry, partition, image, image_base, is_checked=is_checked)
    target = target or program.target
    version = max(min(program.version, _VERSION_MOST, key=_version), _VERSION_LEAST, key=_version)
    version = _VERSION_OF_TARGET.get(target.rstrip("af"), version)
    return FencedKernel(write(kernel, version, target), kernel.name, image.data(image_base))


def confine(program: Program, entry: str, partition: Partition, image_base: int, *, is_checked: bool = False) -> Kernel:
    """As :func:`fence`, before the text is written."""
    return _confined(program, entry, partition, lay_out(program), image_base, is_checked=is_checked)


def _confined(
    program: Program, entry: str, partition: Partition, image: Image, image_base: int, *, is_checked: bool
) -> Kernel:
    if not partition.holds(image_base, image.size_bytes) or image_base % image.alignment:
        raise PtxError("the kernel's variables do not fit into the tenant's memory")
    kernel = find_kernel(program, entry)
    for place in support(kernel):
        raise PtxError(place.reason, place.line, place.column)
    return _Rewriting(kernel, partition, image, image_base, is_checked=is_checked).kernel()


class _Rewriting:
    """One kernel while it is confined."""

    def __init__(
        self, kernel: Kernel, partition: Partition, image: Image, image_base: int, *, is_checked: bool
    ) -> None:
        self._kernel = kernel
        self._partition = partition
        self._places: Mapping[Variable, int] = {v: image_base + place for v, place in image.places.items()}
        self._is_checked = is_checked
        self._code = Code(kernel.registers)
        #: Addresses that the block's code has already confined, by what they were.
        self._confined: dict[Register, Register] = {}
        self._shared: dict[Variable, Variable] = {}
        self._local_places, local_bytes = _united(kernel)
        self._own = Own(
            Variable("local", Space.LOCAL, ScalarType.B8, max(local_bytes, WIDEST_BYTES), _ALIGNMENT),
            self._code.register(U64),
            self._code.register(U64),
            image_base,
        )
        #: Whether generic addresses may be of local or shared memory.
        self._has_local = self._has_shared = False
        self._uses_local = False
        for variable in dict.fromkeys((*kernel.variables, *named(kernel))):
            self._has_local |= variable.space is Space.LOCAL
            if variable.space is Space.SHARED:
                self._has_shared = True
                self._shared[variable] = _padded(variable)

    def kernel(self) -> Kernel:
        """The confined kernel."""
        bodies: list[tuple[Block, tuple[Instruction, ...], Terminator]] = []
        for block in self._kernel.blocks:
            self._code.out, self._confined = [], {}
            for instruction in block.instructions:
                self._code.line = instruction.line
                self._instruction(instruction)
            self._code.line = block.line
            terminator = self._terminator(block.terminator)
            bodies.append((block, tuple(self._code.out), terminator))
        uses_local = self._uses_local or self._has_local
        first = prologue(self._kernel, self._code, self._own, tuple(self._shared.values()), uses_local=uses_local)
        order = {block.index: len(first) + block.index for block, _, _ in bodies}
        blocks = [
            Block(order[block.index], instructions, renumbered(terminator, order), block.line)
            for block, instructions, terminator in bodies
        ]
        variables = (*self._shared.values(), *((self._own.local,) if uses_local else ()))
        return replace(
            self._kernel, registers=tuple(self._code.registers), variables=variables, blocks=(*first, *blocks)
        )

    # --- instructions ---------------------------------------------------------------------------------------------

    def _instruction(self, instruction: Instruction) -> None:
        if instruction.root in _ADVICE:
            return
        if isinstance(instruction, Emit):
            _refuse(instruction, "what a kernel prints is not supported on a GPU in this release")
        if "mmio" in instruction.modifiers:
            _refuse(instruction, "registers of devices are not a tenant's")
        sources = tuple(self._operand(instruction, source) for source in instruction.sources)
        written = replace(instruction, sources=sources)
        if instruction.address is not None:
            written = self._access(written, instruction.address)
        elif instruction.space in (Space.CONST, Space.PARAM):
            written = self._classified(written)
        self._code.out.append(written)
        for register in instruction.destinations:
            if register is not None:
                self._confined.pop(register, None)

    def _operand(self, instruction: Instruction, operand: Operand) -> Operand:
        match operand:
            case Special(name):
                if name.startswith(_HIDDEN):
                    _refuse(instruction, f"%{name} is not a tenant's to read")
            case Symbol(Parameter()):
                _refuse(instruction, "the address of a kernel's parameter is not supported on a GPU in this release")
            case Symbol(Variable() as variable, offset):
                if variable in self._places:
                    if instruction.type.bits != 64:
                        _refuse(instruction, f"the address of {variable.name[:64]} needs 64 bits on a GPU")
                    return Immediate((self._places[variable] + offset) & _LOW, U64)
                if variable in self._local_places:
                    return Symbol(self._own.local, self._local_places[variable] + offset)
                return Symbol(self._shared.get(variable, variable), offset)
        return operand

    def _classified(self, instruction: Instruction) -> Instruction:
        """``cvta`` and ``isspacep`` of spaces that have become global memory."""
        if instruction.space is Space.PARAM:
            _refuse(instruction, "the address of a kernel's parameter is not supported on a GPU in this release")
        if instruction.root == "cvta":
            return replace(instruction, root="mov", modifiers=(), space=None)
        return replace(instruction, root="mov", types=(PRED,), sources=(Immediate(0, PRED),), space=None)

    # --- accesses -------------------------------------------------------------------------------------------------

    def _access(self, instruction: Instruction, address: Address) -> Instruction:
        if instruction.root == "cp":
            return self._copy(instruction, address)
        base, space, width = address.base, instruction.space, _width(instruction)
        if isinstance(base, Variable) and space is Space.GENERIC:
            space = base.space
        match space:
            case Space.SHARED:
                return replace(instruction, address=self._of_shared(address), space=space)
            case Space.PARAM:
                if not isinstance(base, Parameter) or not 0 <= address.offset <= base.size_bytes - width:
                    _refuse(instruction, "a parameter is read by its name, and inside")
                return instruction
            case Space.LOCAL:
                return replace(instruction, address=self._of_local(instruction, address, width), space=space)
            case Space.CONST:
                # Read-only, for who could write it has no way to say so.
                modifiers = instruction.modifiers or ("nc",)
                instruction = replace(instruction, modifiers=modifiers, space=Space.GLOBAL)
        confined = self._of_global(instruction, address, width, is_generic=space is Space.GENERIC)
        return replace(instruction, address=confined)

    def _copy(self, instruction: Instruction, address: Address) -> Instruction:
        """``cp.async``: to shared memory, from the address that its first two sources are."""
        base, offset, *others = instruction.sources
        assert isinstance(offset, Immediate)
        distance = offset.bits - (1 << 64) if offset.bits >> 63 else offset.bits
        source = self._of_global(instruction, _address_of(base, distance), WIDEST_BYTES, is_generic=False)
        assert isinstance(source.base, Register)
        more = Immediate(source.offset & _LOW, ScalarType.S64)
        return replace(instruction, address=self._of_shared(address), sources=(source.base, more, *others))

    def _of_shared(self, address: Address) -> Address:
        """Shared memory ends where the device says: outside there is nothing to reach."""
        if isinstance(address.base, Variable):
            return Address(self._shared.get(address.base, address.base), address.offset)
        return address

    def _of_local(self, instruction: Instruction, address: Address, width: int) -> Address:
        self._uses_local = True
        local, base, code = self._own.local, address.base, self._code
        if isinstance(base, Variable):
            place = self._local_places[base] + address.offset
            if not 0 <= place <= local.size_bytes - width:
                _refuse(instruction, f"the access is outside {base.name[:64]}")
            return Address(local, place)
        if not isinstance(base, Register):
            _refuse(instruction, "local memory has no addresses in advance")
        if base.type.bits != 64:
            _refuse(instruction, "the addresses of local variables need 64 bits on a GPU")
        distance = code.put("sub", U64, base, self._own.address)
        if address.offset:
            distance = code.put("add", U64, distance, address.offset & _LOW)
        distance = code.put("min", U64, distance, local.size_bytes - width)
        distance = code.put("and", ScalarType.B64, distance, -width & _LOW, to=U64)
        return Address(code.put("add", U64, self._own.address, distance), 0)

    def _of_global(self, instruction: Instruction, address: Address, width: int, *, is_generic: bool) -> Address:
        base, code, partition = address.base, self._code, self._partition
        if not isinstance(base, Register):
            place = address.offset + (self._place(instruction, base) if isinstance(base, Variable) else 0)
            return Address(code.put("mov", U64, partition.inside(place & _LOW)), 0)
        has_exempt = is_generic and (self._has_local or self._has_shared)
        if not has_exempt and not self._is_checked and -GUARD_BYTES <= address.offset <= GUARD_BYTES - width:
            found = self._confined.get(base)
            if found is None:
                found = self._confined[base] = self._inside(base)
            return Address(found, address.offset)
        whole = code.put("add", U64, base, address.offset & _LOW) if address.offset else base
        confined = self._inside(whole)
        if has_exempt:
            confined = self._unless_own(whole, confined, width)
        if self._is_checked:
            self._check(instruction, whole, confined)
        return Address(confined, 0)

    def _inside(self, address: Register) -> Register:
        code, partition = self._code, self._partition
        lower = code.put("and", ScalarType.B64, address, partition.mask, to=U64)
        return code.put("or", ScalarType.B64, lower, partition.base, to=U64)

    def _unless_own(self, address: Register, confined: Register, width: int) -> Register:
        """The address itself where it is of the block's shared memory or the thread's local variables."""
        code = self._code
        if self._has_shared:
            confined = code.put("selp", U64, address, confined, code.is_in(Space.SHARED, address))
        if self._has_local:
            distance = code.put("sub", U64, address, self._own.generic)
            is_local = code.put("setp.le", U64, distance, self._own.local.size_bytes - width, to=PRED)
            confined = code.put("selp", U64, address, confined, is_local)
        return confined

    def _check(self, instruction: Instruction, address: Register, confined: Register) -> None:
        """Leave the line of the first access that was not where it said."""
        code, guard = self._code, instruction.guard
        is_outside = code.register(PRED)
        if guard is None:
            code.put("setp.ne", U64, address, confined, to=is_outside)
        else:
            code.put("setp.ne.and", U64, address, confined, guard.register, to=is_outside)
            if guard.negated:
                code.out[-1] = replace(code.out[-1], negated=frozenset({2}))
        self._leave(instruction.line, Guard(is_outside, negated=False))

    def _leave(self, line: int, guard: Guard | None) -> None:
        """Write a line to the start of the image, unless one is there."""
        code = self._code
        place = Address(code.put("mov", U64, self._own.fault), 0)
        before = code.register(B32)
        values = (Immediate(0, B32), Immediate(max(line, 1), B32))
        code.out.append(
            Instruction("atom", ("cas",), (B32,), (before,), values, guard, line, 1, address=place, space=Space.GLOBAL)
        )

    def _place(self, instruction: Instruction, variable: Variable) -> int:
        place = self._places.get(variable)
        if place is None:
            _refuse(instruction, f"{variable.name[:64]} has no place in the tenant's memory")
        return place

    # --- ways out -------------------------------------------------------------------------------------------------

    def _terminator(self, terminator: Terminator) -> Terminator:
        match terminator:
            case Trap(line):
                self._leave(line, None)
                return Exit()
            case Switch(Register() as selector, targets):
                return Switch(self._code.put("min", U32, selector, len(targets) - 1), targets)
        return terminator


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def _refuse(instruction: Instruction, reason: str) -> NoReturn:
    raise PtxError(reason, instruction.line, instruction.column)


def _width(instruction: Instruction) -> int:
    """Bytes of an access."""
    count = 1
    if instruction.root in ("ld", "ldu"):
        count = len(instruction.destinations)
    elif instruction.root == "st":
        count = len(instruction.sources)
    return instruction.type.size_bytes * count


def _address_of(base: Operand, offset: int) -> Address:
    """An address of which the base stands among the sources."""
    match base:
        case Register():
            return Address(base, offset)
        case Symbol(target, more):
            return Address(target, offset + more)
        case Immediate(bits):
            return Address(None, offset + bits)
    return Address(None, offset)


def _padded(variable: Variable) -> Variable:
    """A shared variable that whole words of 8 bytes fill; an open array, whose size a launch gives, begins with one."""
    size = 0 if variable.is_extern else max(-(-variable.size_bytes // 8) * 8, 8)
    return replace(variable, type=ScalarType.B8, size_bytes=size, alignment=max(variable.alignment, 8))


def _united(kernel: Kernel) -> tuple[dict[Variable, int], int]:
    """Local variables as parts of one: their offsets, and its size."""
    places: dict[Variable, int] = {}
    end = 0
    for variable in kernel.variables:
        if variable.space is Space.LOCAL:
            alignment = max(variable.alignment, _ALIGNMENT)
            end = -(-end // alignment) * alignment
            places[variable] = end
            end += variable.size_bytes
    return places, -(-end // _ALIGNMENT) * _ALIGNMENT
