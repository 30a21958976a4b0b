"""A kernel's own region of scratch memory: the variables it uses, and where each lies.

The region starts at the imported global ``base``, a multiple of 16. First come module variables in the global space,
then constants, then the local memory of the one thread that runs.

An address of anything in it, as a value, is *windowed*: the high half is 1, the low half the address in scratch
memory. So is the address of a parameter. Guest memory has addresses whose high half is 0, so one address type serves
all spaces and ``cvta`` changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from tensor_wasm.errors import PtxError
from tensor_wasm.ptx.program import Instruction, Kernel, Parameter, Space, Symbol, Variable

#: The high half of windowed addresses, in place.
WINDOW = 1 << 32

#: A kernel whose variables need more is refused; its launches would not fit the memory limit of an instance anyway.
REGION_BYTES_MAX = 256 << 20

_ALIGNMENT = 16
_ORDER = (Space.GLOBAL, Space.CONST, Space.LOCAL)


@dataclass(frozen=True, slots=True)
class Region:
    """Places in a kernel's region.

    ``offsets`` are bytes from its start; ``bounds`` are a space's first byte and the one after its last.
    ``has_addresses`` and ``has_parameter_addresses``: whether the address of a variable, or of a parameter, is ever
    a value; if not, no windowed address is valid.
    """

    offsets: Mapping[Variable, int]
    bounds: Mapping[Space, tuple[int, int]]
    size_bytes: int
    has_addresses: bool
    has_parameter_addresses: bool


def lay_out(kernel: Kernel) -> Region:
    """Place what ``kernel`` uses. Raises :class:`PtxError` when that is too large, or in a space not supported."""
    variables = _used(kernel)
    offsets: dict[Variable, int] = {}
    bounds: dict[Space, tuple[int, int]] = {}
    place = 0
    for space in _ORDER:
        start = place = _aligned(place, _ALIGNMENT)
        for variable in variables:
            if variable.space is space:
                place = _aligned(place, min(variable.alignment, _ALIGNMENT))
                offsets[variable] = place
                place += variable.size_bytes
        bounds[space] = (start, place)
    if place > REGION_BYTES_MAX:
        raise PtxError(f"the variables of {kernel.name} need {place} bytes; at most {REGION_BYTES_MAX} are allowed")
    symbols = [source for source in _sources(kernel) if isinstance(source, Symbol)]
    return Region(
        offsets,
        bounds,
        _aligned(place, _ALIGNMENT),
        any(isinstance(symbol.target, Variable) for symbol in symbols),
        any(isinstance(symbol.target, Parameter) for symbol in symbols),
    )


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
        if variable.space not in _ORDER:
            text = f"variable {variable.name} in the {variable.space.value} space is not supported"
            raise PtxError(text, instruction.line, instruction.column)
        found[variable] = None
        waiting.extend((target, instruction) for _, target, _ in variable.pointers)
    return found


def _sources(kernel: Kernel) -> Iterator[object]:
    for block in kernel.blocks:
        for instruction in block.instructions:
            yield from instruction.sources


def _aligned(place: int, alignment: int) -> int:
    return -(-place // alignment) * alignment
