"""Putting a kernel module together: imports, exports, variables with their initial values, and the stages in order.

The module's contract with its caller:

- imports, in this order: guest memory ``("guest", "memory")``, scratch memory ``("gate", "scratch")``, and two
  immutable i32: ``("gate", "base")``, where the region of scratch memory starts that this instance works in, and
  ``("gate", "variables")``, the region whose variables it uses: its own, or, where several cores run a kernel, that of
  the first core's instance. Initial values of variables are written to the own region alone;
- exports: ``run(grid x y z, block x y z, shared bytes, address of the parameter block)``, all i32; ``share``, the same
  for a part of the blocks (see :mod:`.grid`); and the mutable globals ``block_x block_y block_z row place line fault``,
  which say after a trap where and why (see :mod:`.faults`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tensor_wasm.compiler import carry
from tensor_wasm.compiler.blocks import write_blocks
from tensor_wasm.compiler.compiled import CompiledKernel, ParameterLayout
from tensor_wasm.compiler.contexts import block_threads, lay_out_contexts
from tensor_wasm.compiler.faults import Faults
from tensor_wasm.compiler.independent import write_run
from tensor_wasm.compiler.joining import join
from tensor_wasm.compiler.library import Library
from tensor_wasm.compiler.limits import FUNCTION_BYTES_MAX, TooLarge
from tensor_wasm.compiler.region import REGION_BYTES_MAX, WINDOW, aligned, lay_out
from tensor_wasm.compiler.region import Region as MemoryRegion
from tensor_wasm.compiler.special import AXES
from tensor_wasm.compiler.strips.code import lane_bytes
from tensor_wasm.compiler.strips.parts import Parts
from tensor_wasm.compiler.strips.plan import WIDTHS, KernelPlan, plan
from tensor_wasm.compiler.synchronisation import Region, cut, has_synchronisation
from tensor_wasm.errors import PtxError
from tensor_wasm.ptx import support
from tensor_wasm.ptx.program import Kernel, Program
from tensor_wasm.wasm import Global, Memory, Module, ValType


def compile_kernel(kernel: Kernel, program: Program, *, width: int | None = None) -> CompiledKernel:
    """Compile one kernel of a program.

    ``width`` is how many threads run side by side, one of :data:`tensor_wasm.compiler.WIDTHS`; by default one that
    suits the kernel.
    Raises :class:`PtxError`, with line and column, for what :func:`tensor_wasm.ptx.support` lists, and for a kernel
    that is too large for one function.
    """
    if kernel not in program.kernels:
        raise ValueError(f"{kernel.name} is not a kernel of this program")
    for lack in support(kernel):
        raise PtxError(f"{lack.opcode}: {lack.reason}", lack.line, lack.column)
    kernel = carry.expose(kernel)
    joined = join(kernel)
    is_joined = joined is not None
    kernel = joined or kernel
    waits = has_synchronisation(kernel)
    regions = cut(kernel) if waits else (Region(kernel, None),)
    local_bytes = lay_out(kernel).local_bytes
    strips = plan(regions, local_bytes, width, is_joined=is_joined)
    while True:
        try:
            return _compile(kernel, regions, strips, waits=waits, is_joined=is_joined)
        except TooLarge:
            narrower = [other for other in WIDTHS if other < strips.width]
            if width is not None or not narrower:
                raise
            strips = plan(regions, local_bytes, narrower[0], is_joined=is_joined)


def _compile(
    kernel: Kernel, regions: Sequence[Region], strips: KernelPlan, *, waits: bool, is_joined: bool
) -> CompiledKernel:
    """Compile a kernel as planned. Raises :class:`TooLarge`."""
    module, base, variables, scratch = _imports()
    threads = block_threads(kernel) if waits else strips.width
    region = lay_out(kernel, threads)
    contexts = lay_out_contexts(region.size_bytes, threads, regions, strips.width) if waits else None
    lanes = aligned(region.size_bytes if contexts is None else contexts.size_bytes, 16)
    size_bytes = aligned(lanes + max(lane_bytes(code.kernel, strips.width) for code in regions), 16)
    if size_bytes > REGION_BYTES_MAX:
        text = f"{kernel.name} needs {size_bytes} bytes for its blocks; {REGION_BYTES_MAX} are the most"
        raise PtxError(text, kernel.line, 1)
    parts = Parts(
        module=module,
        base=base,
        variables=variables,
        clock=module.global_(ValType.I64, 0),
        block_globals=[module.global_(ValType.I32, 0, export=f"block_{axis}") for axis in AXES],
        row_global=module.global_(ValType.I32, 0, export="row"),
        place_global=module.global_(ValType.I64, 0, export="place"),
        line_global=module.global_(ValType.I32, 0, export="line"),
        faults=Faults(module),
        library=Library(module),
        layout=region,
        lanes=lanes,
    )
    if contexts is None:
        write_run(parts, kernel, strips, is_joined=is_joined)
    else:
        module.data(write_blocks(parts, kernel, strips, contexts), contexts.table, scratch.index, base=base)
    _write_variables(module, base, scratch, region)
    encoded = module.encode()
    return CompiledKernel(
        wasm=encoded.wasm,
        name=kernel.name,
        parameters=tuple(map(ParameterLayout.of, kernel.parameters)),
        parameter_bytes=kernel.parameter_bytes,
        work_bytes=size_bytes,
        reqntid=kernel.reqntid,
        maxntid=kernel.maxntid,
        lines=encoded.lines,
        sites=tuple(parts.sites),
        records=region.records,
    )


def _imports() -> tuple[Module, Global, Global, Memory]:
    module = Module()
    module.import_memory("guest", "memory", 0)
    scratch = module.import_memory("gate", "scratch", 0)
    base, variables = (module.import_global("gate", name, ValType.I32) for name in ("base", "variables"))
    return module, base, variables, scratch


def _write_variables(module: Module, base: Global, scratch: Memory, region: MemoryRegion) -> None:
    """Initial values: bytes as data segments; addresses, which depend on ``base``, by a start function."""
    pointers: dict[int, int] = {}
    for variable, offset in region.offsets.items():
        if variable.initial and any(variable.initial):
            module.data(variable.initial, offset, scratch.index, base=base)
        for place, target, addend in variable.pointers:
            pointers[offset + place] = region.offsets[target] + addend
    if pointers:
        _write_pointers(module, base, scratch, pointers)


def _write_pointers(module: Module, base: Global, scratch: Memory, pointers: Mapping[int, int]) -> None:
    start = module.function((), name="set_pointers")
    body = start.code
    for place, target in pointers.items():
        body.global_get(base)
        body.global_get(base)
        body.op("i64.extend_i32_u")
        body.i64_const(WINDOW + target)
        body.op("i64.add")
        body.memory("i64.store", place, align=0, memory=scratch.index)
    if body.size > FUNCTION_BYTES_MAX:
        raise PtxError(f"variables with {len(pointers)} addresses in their initial values are not supported")
    module.start(start)
