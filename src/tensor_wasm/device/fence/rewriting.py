"""A kernel whose every access is confined.

- An access to global memory goes to the partition: the address loses its upper bits and gets the partition's instead.
  Small constant offsets are added afterwards and may lead into the guard zones.
- So does a generic access, but where it is to the block's shared memory or to the thread's own local variables.
- Local variables become one; what registers address in it is kept inside. So do shared ones, see :mod:`.shared`.
- Every address is a multiple of the access's width: the bits that would make it another are lost as well.
- Variables of the module, constants among them, have fixed addresses in the partition.
- Barriers have numbers that there are, and masks the thread that waits.
- A trap would end the whole context: it leaves its line in the partition instead, and the thread ends.
- A table of branches is entered inside.
- What is only advice to caches is left out.

With ``is_checked`` the line of an access outside, or misaligned, is left as well, to find bugs by: it still goes
nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NoReturn

from tensor_wasm.device.fence.code import B32, PRED, U32, U64, Code
from tensor_wasm.device.fence.image import Image, lay_out
from tensor_wasm.device.fence.prologue import Own, prologue
from tensor_wasm.device.fence.shared import BlockMemory, Group, block_groups
from tensor_wasm.device.partition import GUARD_BYTES, WIDEST_BYTES, Partition
from tensor_wasm.errors import PtxError
from tensor_wasm.ptx import Program, find_kernel, support
from tensor_wasm.ptx.graph import renumbered
from tensor_wasm.ptx.program import (
    Address,
    Block,
    Branch,
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
_BARRIERS: Final = ("bar", "barrier")
#: What has a mask of the threads that take part as its last source, and barriers.
_TOGETHER: Final = frozenset({*_BARRIERS, "shfl", "vote", "match", "redux", "elect"})
_BARRIERS_MAX: Final = 16
_WARP: Final = 32
_THREADS_MAX: Final = 1024
#: Bytes that ``cp.async`` may copy.
_COPIES: Final = (4, 8, 16)
#: What a thread's address names for ``ldmatrix``.
_ROW_BYTES: Final = 16
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
        #: Addresses that the block's code has already confined, by what they were and by the width.
        self._confined: dict[Register, dict[int, Register]] = {}
        #: What the block's accesses to shared memory have in common, by their instructions' numbers; the one at hand's.
        self._groups: dict[int, Group] = {}
        self._group: Group | None = None
        #: Shared memory without which the block of code is not entered.
        self._needed = 0
        self._local_places, local_bytes = _united(kernel)
        self._own = Own(
            Variable("local", Space.LOCAL, ScalarType.B8, max(local_bytes, WIDEST_BYTES), _ALIGNMENT),
            self._code.register(U64),
            self._code.register(U64),
            image_base,
        )
        #: Whether generic addresses may be of local or shared memory.
        self._uses_local = False
        variables = dict.fromkeys((*kernel.variables, *named(kernel)))
        shared = [variable for variable in variables if variable.space is Space.SHARED]
        self._has_local = any(variable.space is Space.LOCAL for variable in variables)
        self._has_shared = self._uses_shared = bool(shared)
        self._shared = BlockMemory(shared, self._code)

    def kernel(self) -> Kernel:
        """The confined kernel."""
        bodies: list[tuple[Block, tuple[Instruction, ...], Terminator, int]] = []
        for block in self._kernel.blocks:
            self._code.out, self._confined, self._needed = [], {}, 0
            self._groups = {} if self._is_checked else self._grouped(block.instructions)
            for number, instruction in enumerate(block.instructions):
                self._code.line, self._group = instruction.line, self._groups.get(number)
                self._instruction(instruction)
            self._code.line = block.line
            terminator = self._terminator(block.terminator)
            bodies.append((block, tuple(self._code.out), terminator, self._needed))
        uses_local, uses_shared = self._uses_local or self._has_local, self._uses_shared
        first = prologue(
            self._kernel, self._code, self._own, self._shared, uses_local=uses_local, uses_shared=uses_shared
        )
        blocks = [*first, *self._joined(bodies, len(first))]
        variables = (
            *(self._shared.variables if uses_shared else ()),
            *((self._own.local,) if uses_local else ()),
        )
        return replace(self._kernel, registers=tuple(self._code.registers), variables=variables, blocks=tuple(blocks))

    def _grouped(self, instructions: Sequence[Instruction]) -> dict[int, Group]:
        widths = [_width(each) if each.space is Space.SHARED and each.address else 0 for each in instructions]
        return block_groups(self._shared, instructions, widths)

    def _joined(
        self, bodies: Sequence[tuple[Block, tuple[Instruction, ...], Terminator, int]], start: int
    ) -> Iterator[Block]:
        """The blocks of code from ``start`` on; before some of them a look at how much shared memory there is."""
        order: dict[int, int] = {}
        end = start
        for block, _, _, needed in bodies:
            order[block.index] = end
            end += 1 + bool(needed)
        ways_out: list[Block] = []
        for block, instructions, terminator, needed in bodies:
            index = order[block.index]
            code, code.out, code.line = self._code, [], block.line
            if needed:
                way_out = end + len(ways_out)
                look = Branch(self._shared.is_missing(needed), way_out, index + 1, is_uniform=True)
                yield Block(index, tuple(code.out), look, block.line)
                code.out = []
                self._leave(block.line, None)
                ways_out.append(Block(way_out, tuple(code.out), Exit(), block.line))
                index += 1
            yield Block(index, instructions, renumbered(terminator, order), block.line)
        yield from ways_out

    # --- instructions ---------------------------------------------------------------------------------------------

    def _instruction(self, instruction: Instruction) -> None:
        if instruction.root in _ADVICE:
            return
        if isinstance(instruction, Emit):
            _refuse(instruction, "what a kernel prints is not supported on a GPU in this release")
        if "mmio" in instruction.modifiers:
            _refuse(instruction, "registers of devices are not a tenant's")
        sources = tuple(self._operand(instruction, source) for source in instruction.sources)
        if instruction.root in _TOGETHER:
            sources = self._together(instruction, sources)
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
                return self._shared.symbol(variable, offset)
        return operand

    def _together(self, instruction: Instruction, sources: tuple[Operand, ...]) -> tuple[Operand, ...]:
        """What threads do together, with numbers that the hardware takes: it ends the context for others.

        The assembler looks after constants.
        """
        code, modifiers = self._code, instruction.modifiers
        if instruction.root in _BARRIERS and "warp" not in modifiers:
            number, *others = sources
            if isinstance(number, Register):
                number = code.put("and", B32, number, _BARRIERS_MAX - 1, to=U32)
            if len(others) > ("red" in modifiers) and isinstance(count := others[0], Register):
                warps = code.put("and", B32, count, -_WARP & 0xFFFF_FFFF, to=U32)
                others[0] = code.put("max", U32, code.put("min", U32, warps, _THREADS_MAX), _WARP)
            return (number, *others)
        if "sync" in modifiers and not isinstance(sources[-1], Immediate):
            # Who takes part without being in the mask does what is not defined.
            own = code.put("mov", U32, Special("lanemask_eq", "", U32))
            return (*sources[:-1], code.put("or", B32, sources[-1], own, to=B32))
        return sources

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
                return self._of_shared(replace(instruction, space=space), address, width)
            case Space.PARAM:
                if not isinstance(base, Parameter) or not 0 <= address.offset <= base.size_bytes - width:
                    _refuse(instruction, "a parameter is read by its name, and inside")
                if (base.offset + address.offset) % width:
                    _refuse(instruction, "a parameter is read at a multiple of the bytes that are read")
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
        base, offset, size, *others = instruction.sources
        assert isinstance(offset, Immediate)
        distance, width = offset.bits - (1 << 64) if offset.bits >> 63 else offset.bits, _width(instruction)
        source = self._of_global(instruction, _address_of(base, distance), width, is_generic=False)
        assert isinstance(source.base, Register)
        more = Immediate(source.offset & _LOW, ScalarType.S64)
        # How many bytes come from there: more than all is not defined.
        others = [self._at_most(each, width) for each in others]
        return self._of_shared(replace(instruction, sources=(source.base, more, size, *others)), address, width)

    def _at_most(self, count: Operand, most: int) -> Operand:
        if isinstance(count, Immediate):
            return Immediate(min(count.bits, most), count.type)
        if isinstance(count, Register) and count.type.bits == 32:
            return self._code.put("min", U32, count, most)
        return count

    def _of_shared(self, instruction: Instruction, address: Address, width: int) -> Instruction:
        shared, base, offset = self._shared, address.base, address.offset
        self._uses_shared = True
        if isinstance(base, Variable) and base in shared.places:
            fixed, is_inside = shared.fixed_address(base, offset, width)
            if self._is_checked and not is_inside:
                self._leave(instruction.line, instruction.guard)
            return replace(instruction, address=fixed)
        group = self._group or Group(offset, width, width)
        guard = instruction.guard
        if not shared.is_sure(group):
            if guard is None:
                self._needed = max(self._needed, group.span)
            else:
                guard = shared.is_there(group, guard)
        if group.anchor is None:
            whole: Operand
            if isinstance(base, Register):
                whole = base
            else:
                variable = base if isinstance(base, Variable) else None
                whole = self._code.put("mov", U32, shared.symbol(variable, 0) if variable else 0)
            before, after, group.anchor = shared.confine(whole, group)
            # Of a matrix, not all threads give an address that is used.
            if self._is_checked and instruction.root != "ldmatrix":
                self._check(instruction, before, after)
        return replace(instruction, address=Address(group.anchor, offset - group.lowest), guard=guard)

    def _of_local(self, instruction: Instruction, address: Address, width: int) -> Address:
        self._uses_local = True
        local, base, code = self._own.local, address.base, self._code
        if isinstance(base, Variable):
            place = self._local_places[base] + address.offset
            if not 0 <= place <= local.size_bytes - width:
                _refuse(instruction, f"the access is outside {base.name[:64]}")
            return Address(local, place & -width)
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
            return Address(code.put("mov", U64, partition.inside(place & -width & _LOW)), 0)
        has_exempt = is_generic and (self._has_local or self._has_shared)
        is_near = -GUARD_BYTES <= address.offset <= GUARD_BYTES - width and address.offset % width == 0
        if not has_exempt and not self._is_checked and is_near:
            found = self._confined.setdefault(base, {})
            if width not in found:
                found[width] = self._inside(base, width)
            return Address(found[width], address.offset)
        whole = code.put("add", U64, base, address.offset & _LOW) if address.offset else base
        confined = self._inside(whole, width)
        if has_exempt:
            aligned = code.put("and", ScalarType.B64, whole, -width & _LOW, to=U64) if width > 1 else whole
            confined = self._unless_own(aligned, confined, width)
        if self._is_checked:
            self._check(instruction, whole, confined)
        return Address(confined, 0)

    def _inside(self, address: Register, width: int) -> Register:
        """The address of the partition, and a multiple of ``width``, that takes an address's place."""
        code, partition = self._code, self._partition
        lower = code.put("and", ScalarType.B64, address, partition.mask & -width, to=U64)
        return code.put("or", ScalarType.B64, lower, partition.base, to=U64)

    def _unless_own(self, address: Register, confined: Register, width: int) -> Register:
        """The address itself where it is of the block's shared memory or the thread's local variables."""
        code = self._code
        if self._has_shared:
            confined = code.put("selp", U64, address, confined, self._shared.is_of_block(address, width))
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
            code.put("setp.ne", address.type, address, confined, to=is_outside)
        else:
            code.put("setp.ne.and", address.type, address, confined, guard.register, to=is_outside)
            if guard.negated:
                code.negate_last(2)
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
    """Bytes of an access, of which its address is a multiple."""
    if instruction.root == "cp":
        size = instruction.sources[2]
        if not isinstance(size, Immediate) or size.bits not in _COPIES:
            _refuse(instruction, "4, 8 or 16 bytes are copied")
        return size.bits
    if instruction.root == "ldmatrix":
        return _ROW_BYTES
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
