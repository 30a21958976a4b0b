"""What the functions of one kernel module share while they are written."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from tensor_wasm.compiler.faults import Faults
from tensor_wasm.compiler.library import Library
from tensor_wasm.compiler.region import Region
from tensor_wasm.wasm import Function, Global, Module


@dataclass(frozen=True, slots=True)
class Parts:
    """``lanes`` is where the buffer of lanes' registers is in the region; ``lane_functions`` are those of :mod:`.lanes`,
    by what makes them alike.
    """

    module: Module
    base: Global
    clock: Global
    block_globals: Sequence[Global]
    place_global: Global
    line_global: Global
    faults: Faults
    library: Library
    layout: Region
    lanes: int
    lane_functions: dict[Hashable, Function] = field(default_factory=dict)
