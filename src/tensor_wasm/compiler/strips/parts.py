"""What the functions of one kernel module share while they are written."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from tensor_wasm.compiler.compiled import Site
from tensor_wasm.compiler.faults import Faults
from tensor_wasm.compiler.frame import Frame, Ground, RegisterFile
from tensor_wasm.compiler.library import Library
from tensor_wasm.compiler.region import Region
from tensor_wasm.compiler.special import Coordinates
from tensor_wasm.ptx.program import Kernel
from tensor_wasm.wasm import Body, Function, Global, Module, ValType


@dataclass(frozen=True, slots=True)
class Parts:
    """``base`` is where this core's region starts, ``variables`` the one whose variables all cores use.

    ``lanes`` is where the buffer of lanes' registers is; ``lane_functions`` are those of :mod:`.lanes`, by
    what makes them alike; ``sites`` the accesses of whole rows, ``site_globals`` where their addresses are told.
    """

    module: Module
    base: Global
    variables: Global
    clock: Global
    block_globals: Sequence[Global]
    row_global: Global
    place_global: Global
    line_global: Global
    faults: Faults
    library: Library
    layout: Region
    lanes: int
    lane_functions: dict[Hashable, Function] = field(default_factory=dict)
    sites: list[Site] = field(default_factory=list)
    site_globals: list[Global] = field(default_factory=list)

    def frame(self, kernel: Kernel, body: Body, at: Coordinates, ground: Ground, registers: RegisterFile) -> Frame:
        """A frame of one of the module's functions."""
        has_local = self.layout.local_bytes > 0
        return Frame(
            kernel,
            body,
            ground=ground,
            registers=registers,
            region=self.layout,
            coordinates=at,
            library=self.library,
            faults=self.faults,
            local_base=body.local(ValType.I32) if has_local else ground.base,
            local_window=body.local(ValType.I64) if has_local else ground.window,
        )

    def site(self, line: int, size_bytes: int) -> Global:
        """The global for the address of an access of whole rows."""
        site = Site(line, size_bytes)
        if site not in self.sites:
            self.site_globals.append(self.module.global_(ValType.I64, 0, export=f"site_{len(self.sites)}"))
            self.sites.append(site)
        return self.site_globals[self.sites.index(site)]
