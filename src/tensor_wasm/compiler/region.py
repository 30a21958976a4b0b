"""A kernel's own region of scratch memory: the variables it uses, and where each lies.

The region starts at the imported global ``base``, a multiple of 16. Where several cores run a kernel each has one, and
all use the variables of the first core's. First come module variables in the global space,
then constants, then the local memory of each thread that may run at a time, then shared memory, then the buffer for
what the kernel prints (see :mod:`.records`), then what threads that wait for each other leave behind (see
:mod:`.contexts`).

An address of anything in it, as a value, is *windowed*: the high half is 1, the low half the address in scratch
memory. So is the address of a parameter. Guest memory has addresses whose high half is 0, so one address type serves
these spaces and ``cvta`` changes nothing. Shared memory is different, because compilers keep its addresses in 32 bits:
they are offsets in it, and ``cvta.shared`` adds a window of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from tensor_wasm.abi.limits import SHARED_MAX_BYTES
from tensor_wasm.compiler.records import Record, RecordBuffer, records_of
from tensor_wasm.errors import PtxError
from tensor_wasm.ptx.printing import BUFFER_BYTES
from tensor_wasm.ptx.program import Instruction, Kernel, Parameter, Space, Symbol, Variable

#: The high half of windowed addresses, in place.
WINDOW = 1 << 32

#: That of generic addresses of shared memory; the low half is the offset in it.
SHARED_WINDOW = 2 << 32

#: A kernel whose variables need more is refused; its launches would not fit the memory limit of an instance anyway.
REGION_BYTES_MAX = 256 << 20

_ALIGNMENT = 16
_ORDER = (Space.GLOBAL, Space.CONST, Space.LOCAL)
_PLACED = (*_ORDER, Space.SHARED)


@dataclass(frozen=True, slots=True)
class Region:
    """Places in a kernel's region.

    ``offsets`` are bytes from its start, those of shared variables from the start of shared memory; a local variable's
    is that of the first thread, and ``local_bytes`` further each next one has its own. ``bounds`` are a space's first
    byte and the one after its last. ``variable_bytes`` is where variables end and shared memory starts;
    ``shared_bytes`` is the size of its static part, ``has_dynamic`` whether the launch adds to it; ``size_bytes`` is
    the size of it all. ``has_addresses`` and ``has_parameter_addresses``: whether the address of a variable, or of a
    parameter, is ever a value; if not, no windowed address is valid. ``has_shared_addresses``: whether a generic
    address of shared memory ever is. ``records`` is the buffer for what the kernel prints, None where it does not;
    ``record_numbers`` are those of its kinds of records.
    """

    offsets: Mapping[Variable, int]
    bounds: Mapping[Space, tuple[int, int]]
    local_bytes: int
    variable_bytes: int
    shared_bytes: int
    has_dynamic: bool
    size_bytes: int
    has_addresses: bool
    has_parameter_addresses: bool
    has_shared_addresses: bool
    records: RecordBuffer | None = None
    record_numbers: Mapping[Record, int] = field(default_factory=dict)


def lay_out(kernel: Kernel, threads: int = 1) -> Region:
    """Place what ``kernel`` uses when ``threads`` of a block run side by side.

    Raises :class:`PtxError` when that is too large, or in a space not supported.
    """
    variables = tuple(_used(kernel))
    offsets: dict[Variable, int] = {}
    bounds: dict[Space, tuple[int, int]] = {}
    place = local_bytes = 0
    for space in _ORDER:
        start = place = aligned(place, _ALIGNMENT)
        place = _place(variables, space, place, offsets)
        if space is Space.LOCAL:
            local_bytes = aligned(place - start, _ALIGNMENT)
            place = start + local_bytes * threads
        bounds[space] = (start, place)
    variable_bytes = aligned(place, _ALIGNMENT)
    shared_bytes = _place(variables, Space.SHARED, 0, offsets)
    dynamic = [v for v in variables if v.space is Space.SHARED and v.is_extern]
    if dynamic:
        shared_bytes = aligned(shared_bytes, _ALIGNMENT)
        offsets.update(dict.fromkeys(dynamic, shared_bytes))
    if shared_bytes > SHARED_MAX_BYTES:
        raise PtxError(f"{kernel.name} has {shared_bytes} bytes of shared memory; {SHARED_MAX_BYTES} are the most")
    size_bytes = aligned(variable_bytes + (SHARED_MAX_BYTES if dynamic else shared_bytes), _ALIGNMENT)
    kinds = records_of(kernel)
    records = RecordBuffer(size_bytes, BUFFER_BYTES, bounds[Space.CONST][1], kinds) if kinds else None
    if records is not None:
        size_bytes += records.size_bytes
    if size_bytes > REGION_BYTES_MAX:
        raise PtxError(f"the variables of {kernel.name} need {size_bytes} bytes; {REGION_BYTES_MAX} are the most")
    symbols = [source for source in _sources(kernel) if isinstance(source, Symbol)]
    return Region(
        offsets,
        bounds,
        local_bytes,
        variable_bytes,
        shared_bytes,
        bool(dynamic),
        size_bytes,
        any(isinstance(symbol.target, Variable) and symbol.target.space in _ORDER for symbol in symbols),
        any(isinstance(symbol.target, Parameter) for symbol in symbols),
        any(_makes_shared_address(instruction) for block in kernel.blocks for instruction in block.instructions),
        records,
        {record: number for number, record in enumerate(kinds)},
    )


def _place(variables: Iterable[Variable], space: Space, start: int, offsets: dict[Variable, int]) -> int:
    """Place the variables of a space from ``start`` on; where they end."""
    place = start
    for variable in variables:
        if variable.space is space and not variable.is_extern:
            place = aligned(place, min(variable.alignment, _ALIGNMENT))
            offsets[variable] = place
            place += variable.size_bytes
    return place


def _makes_shared_address(instruction: Instruction) -> bool:
    return instruction.root == "cvta" and instruction.space is Space.SHARED and "to" not in instruction.modifiers


def _used(kernel: Kernel) -> Iterable[Variable]:
    """Variables the kernel names, and those whose addresses their initial values hold, in a stable order."""
    found: dict[Variable, None] = {}
    waiting: list[tuple[Variable, Instruction]] = []
    for block in kernel.blocks:
        for instruction in block.instructions:
            named = [operand.target for operand in instruction.sources if isinstance(operand, Symbol)]
            if instruction.address is not None and isinstance(instruction.address.base, Variable):
                named.append(instruction.address.base)
            waiting.extend((target, instruction) for target in named if isinstance(target, Variable))
    while waiting:
        variable, instruction = waiting.pop(0)
        if variable in found:
            continue
        if variable.space not in _PLACED:
            text = f"variable {variable.name} in the {variable.space.value} space is not supported"
            raise PtxError(text, instruction.line, instruction.column)
        found[variable] = None
        waiting.extend((target, instruction) for _, target, _ in variable.pointers)
    return found


def _sources(kernel: Kernel) -> Iterator[object]:
    for block in kernel.blocks:
        for instruction in block.instructions:
            yield from instruction.sources


def aligned(place: int, alignment: int) -> int:
    """The next multiple of ``alignment``."""
    return -(-place // alignment) * alignment
