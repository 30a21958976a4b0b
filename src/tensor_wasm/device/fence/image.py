"""Where the variables of a module lie in a partition, and their first bytes.

Both those of the global and of the constant space: the driver would put them where every tenant's kernels see them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tensor_wasm.device.partition import FAULT_BYTES
from tensor_wasm.errors import PtxError
from tensor_wasm.ptx.program import Program, Space, Variable

_ALIGNMENT: Final = 256


@dataclass(frozen=True, slots=True)
class Image:
    """``places`` are offsets of variables in the image, whose own address is a multiple of ``alignment``."""

    places: Mapping[Variable, int]
    size_bytes: int
    alignment: int

    def data(self, base: int) -> bytes:
        """The bytes that are to lie at ``base`` before the first launch. Raises :class:`PtxError`."""
        data = bytearray(self.size_bytes)
        for variable, start in self.places.items():
            if variable.initial is not None:
                data[start : start + len(variable.initial)] = variable.initial
            for offset, pointee, addend in variable.pointers:
                if pointee not in self.places:
                    raise PtxError(f"{variable.name[:64]} holds an address that no variable of the module has")
                address = (base + self.places[pointee] + addend) & (1 << 64) - 1
                data[start + offset : start + offset + 8] = address.to_bytes(8, "little")
        return bytes(data)


def lay_out(program: Program) -> Image:
    """The image of a program's variables."""
    places: dict[Variable, int] = {}
    end, alignment = FAULT_BYTES, _ALIGNMENT
    for variable in program.variables:
        if variable.space in (Space.GLOBAL, Space.CONST) and not variable.is_extern:
            end = -(-end // variable.alignment) * variable.alignment
            alignment = max(alignment, variable.alignment)
            places[variable] = end
            end += variable.size_bytes
    return Image(places, end, alignment)
