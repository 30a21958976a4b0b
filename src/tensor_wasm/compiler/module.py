"""Putting a kernel module together: imports, exports, variables with their initial values, and the stages in order.

The module's contract with its caller:

- imports, in this order: guest memory ``("guest", "memory")``, scratch memory ``("gate", "scratch")``, and the
  immutable i32 ``("gate", "base")``, where the kernel's region of scratch memory starts;
- exports: ``run(grid x y z, block x y z, shared bytes, address of the parameter block)``, all i32; and the mutable
  i32 globals ``block_x block_y block_z thread fault``, which say after a trap where and why (see :mod:`.faults`).
"""

from __future__ import annotations

from collections.abc import Mapping

from tensor_wasm.compiler import carry
from tensor_wasm.compiler.allocation import allocate
from tensor_wasm.compiler.blocks import Parts, write_blocks
from tensor_wasm.compiler.compiled import CompiledKernel, ParameterLayout
from tensor_wasm.compiler.contexts import block_threads, lay_out_contexts
from tensor_wasm.compiler.faults import Faults
from tensor_wasm.compiler.frame import Frame
from tensor_wasm.compiler.library import Library
from tensor_wasm.compiler.limits import FUNCTION_BYTES_MAX, check_locals, check_size
from tensor_wasm.compiler.lowering import Places, lower
from tensor_wasm.compiler.region import REGION_BYTES_MAX, WINDOW, Region, lay_out
from tensor_wasm.compiler.special import AXES, Coordinates
from tensor_wasm.compiler.structure import Run, structure
from tensor_wasm.compiler.synchronisation import cut, has_synchronisation
from tensor_wasm.errors import PtxError
from tensor_wasm.ptx import support
from tensor_wasm.ptx.graph import Graph
from tensor_wasm.ptx.program import Kernel, Parameter, Program
from tensor_wasm.wasm import Global, Memory, Module, ValType

_RUN_PARAMETERS = 8


def compile_kernel(kernel: Kernel, program: Program) -> CompiledKernel:
    """Compile one kernel of a program.

    Raises :class:`PtxError`, with line and column, for what :func:`tensor_wasm.ptx.support` lists, and for a kernel
    that is too large for one function.
    """
    if kernel not in program.kernels:
        raise ValueError(f"{kernel.name} is not a kernel of this program")
    for lack in support(kernel):
        raise PtxError(f"{lack.opcode}: {lack.reason}", lack.line, lack.column)
    module, base, scratch = _imports()
    if has_synchronisation(kernel):
        region, size_bytes = _write_blocks(module, base, scratch, kernel)
    else:
        region = lay_out(kernel)
        size_bytes = region.size_bytes
        _write_run(module, base, kernel, region)
    _write_variables(module, base, scratch, region)
    encoded = module.encode()
    return CompiledKernel(
        wasm=encoded.wasm,
        name=kernel.name,
        parameters=tuple(_parameter(parameter) for parameter in kernel.parameters),
        parameter_bytes=kernel.parameter_bytes,
        work_bytes=size_bytes,
        reqntid=kernel.reqntid,
        maxntid=kernel.maxntid,
        lines=encoded.lines,
        records=region.records,
    )


def _imports() -> tuple[Module, Global, Memory]:
    module = Module()
    module.import_memory("guest", "memory", 0)
    scratch = module.import_memory("gate", "scratch", 0)
    return module, module.import_global("gate", "base", ValType.I32), scratch


def _write_run(module: Module, base: Global, kernel: Kernel, region: Region) -> None:
    graph = Graph(kernel)
    steps = structure(kernel, graph)
    order = [step.block for step in steps if isinstance(step, Run)]
    allocation = allocate(kernel, graph.successors, order)
    check_locals(kernel, allocation)
    block_globals = [module.global_(ValType.I32, 0, export=f"block_{axis}") for axis in AXES]
    thread = module.global_(ValType.I32, 0, export="thread")
    clock = module.global_(ValType.I64, 0)
    faults = Faults(module)
    run = module.function((ValType.I32,) * _RUN_PARAMETERS, export="run")
    coordinates = Coordinates(run, clock)
    frame = Frame(
        kernel,
        run.code,
        allocation=allocation,
        region=region,
        coordinates=coordinates,
        library=Library(module),
        faults=faults,
    )
    lower(frame, steps, allocation.undefined, base, Places(block_globals, thread))
    check_size(kernel, run.code)


def _write_blocks(module: Module, base: Global, scratch: Memory, kernel: Kernel) -> tuple[Region, int]:
    """Write a kernel whose threads wait for each other; its variables' layout, and the size of its whole region."""
    regions = cut(kernel)
    threads = block_threads(kernel)
    region = lay_out(kernel, threads)
    has_carry = any(carry.handles(i) for block in kernel.blocks for i in block.instructions)
    contexts = lay_out_contexts(region.size_bytes, threads, regions, has_carry=has_carry)
    if contexts.size_bytes > REGION_BYTES_MAX:
        text = f"{kernel.name} needs {contexts.size_bytes} bytes for its blocks; {REGION_BYTES_MAX} are the most"
        raise PtxError(text, kernel.line, 1)
    parts = Parts(
        module=module,
        base=base,
        clock=module.global_(ValType.I64, 0),
        block_globals=[module.global_(ValType.I32, 0, export=f"block_{axis}") for axis in AXES],
        thread_global=module.global_(ValType.I32, 0, export="thread"),
        line_global=module.global_(ValType.I32, 0, export="line"),
        faults=Faults(module),
        library=Library(module),
        layout=region,
        contexts=contexts,
    )
    table = write_blocks(parts, kernel, regions)
    module.data(table, contexts.table, scratch.index, base=base)
    return region, contexts.size_bytes


def _write_variables(module: Module, base: Global, scratch: Memory, region: Region) -> None:
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


def _parameter(parameter: Parameter) -> ParameterLayout:
    name = parameter.type.ptx_name
    kind = f"{name}[{parameter.size_bytes}]" if parameter.is_array else name
    return ParameterLayout(parameter.name, kind, parameter.size_bytes, parameter.offset)
