"""The link: a small module between a guest and the host, made from the guest's list of imports.

It exports the guest's imports under their positions ("0", "1" …): the host's functions as they are, and for
``wasi_cuda_launch`` a function of its own that calls entry 0 of its table. The gate puts itself there when it is bound;
until then the entry is null and the launch asks the host to bind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tensor_wasm.abi import Signature
from tensor_wasm.abi.imports import CUDA_MODULES, WASI_MODULE, signatures
from tensor_wasm.wasm import Function, Module, Table, ValType

#: The host function that binds the gate: ``() -> i32``, a code.
BIND_MODULE, BIND_NAME = "tensor_wasm", "bind_gate"
#: The host function that finds helpers for a kernel: ``(kernel) -> i32``, a board plus how many, or 0.
HIRE_NAME = "hire_crew"
HIRE_EXPORT = "hire"
LAUNCH_TABLE = "launch_table"
CLOCK_EXPORT = "clock"
LAUNCH_NAME = "wasi_cuda_launch"

_TYPES = {"i32": ValType.I32, "i64": ValType.I64, "f32": ValType.F32, "f64": ValType.F64}
LAUNCH_PARAMETERS = [_TYPES[kind] for kind in signatures(CUDA_MODULES[0])[LAUNCH_NAME].parameters]
CLOCK_PARAMETERS = [ValType.I32, ValType.I64, ValType.I32]


@dataclass(frozen=True, slots=True)
class LinkedImport:
    """A function that a guest imports."""

    module: str
    name: str
    signature: Signature

    @property
    def is_launch(self) -> bool:
        """Whether the gate answers it."""
        return self.module in CUDA_MODULES and self.name == LAUNCH_NAME


def link_module(imports: Sequence[LinkedImport]) -> bytes:
    """The link for a guest with these imports, in the guest's order."""
    module = Module()
    handed_on: dict[int, Function] = {
        position: module.import_function(
            item.module, item.name, _kinds(item.signature.parameters), _kinds(item.signature.results)
        )
        for position, item in enumerate(imports)
        if not item.is_launch
    }
    bind = module.import_function(BIND_MODULE, BIND_NAME, [], [ValType.I32])
    hire = module.import_function(BIND_MODULE, HIRE_NAME, [ValType.I32], [ValType.I32])
    clock = module.import_function(WASI_MODULE, "clock_time_get", CLOCK_PARAMETERS, [ValType.I32])
    table = module.table(1, 1, export=LAUNCH_TABLE)
    module.export(CLOCK_EXPORT, clock)
    module.export(HIRE_EXPORT, hire)
    launch = _launch(module, table, bind)
    for position in range(len(imports)):
        module.export(str(position), handed_on.get(position, launch))
    return module.encode().wasm


def _launch(module: Module, table: Table, bind: Function) -> Function:
    launch = module.function(LAUNCH_PARAMETERS, [ValType.I32], name="launch")
    body = launch.code
    code = body.local(ValType.I32)
    body.i32_const(0)
    body.table_get(table.index)
    body.op("ref.is_null")
    with body.if_():
        body.call(bind)
        body.tee(code)
        with body.if_():
            body.get(code)
            body.op("return")
    for parameter in launch.parameters:
        body.get(parameter)
    body.i32_const(0)
    body.call_indirect(launch.type, table.index)
    return launch


def _kinds(names: Sequence[str]) -> list[ValType]:
    return [_TYPES[name] for name in names]
