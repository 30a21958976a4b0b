"""The link: a small module between a guest and the host, made from the guest's list of imports.

It exports the guest's imports under their positions ("0", "1" …): the host's functions as they are, and for
``wasi_cuda_launch`` functions of its own that call entry 0 of its table. The gate puts itself there when it is bound;
until then the entry is null and the launch asks the host to bind it. The gate is told the last argv tag that the
version of the module has under which the guest imports the launch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tensor_wasm.abi import Signature
from tensor_wasm.abi.argv import LAST_TAG, LAST_TAG_3
from tensor_wasm.abi.imports import CUDA_3_MODULE, CUDA_MODULES, WASI_MODULE, signatures
from tensor_wasm.wasm import Function, Module, Table, ValType

#: The host function that binds the gate: ``() -> i32``, a code.
BIND_MODULE, BIND_NAME = "tensor_wasm", "bind_gate"
#: The host function that finds helpers for a kernel: ``(kernel) -> i32``, a board plus how many, or 0.
HIRE_NAME = "hire_crew"
HIRE_EXPORT = "hire"
LAUNCH_TABLE = "launch_table"
CLOCK_EXPORT = "clock"
LAUNCH_NAME = "wasi_cuda_launch"
#: The same, with a ticket for its result.
LAUNCH_ASYNC_NAME = "wasi_cuda_launch_async"

_TYPES = {"i32": ValType.I32, "i64": ValType.I64, "f32": ValType.F32, "f64": ValType.F64}
LAUNCH_PARAMETERS = [_TYPES[kind] for kind in signatures(CUDA_MODULES[0])[LAUNCH_NAME].parameters]
#: What the gate's launch takes: the guest's parameters, and the last tag.
GATE_PARAMETERS = [*LAUNCH_PARAMETERS, ValType.I32]
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
        return self.module in CUDA_MODULES and self.name in (LAUNCH_NAME, LAUNCH_ASYNC_NAME)


def link_module(imports: Sequence[LinkedImport], more: Sequence[LinkedImport] = ()) -> bytes:
    """The link for a guest with these imports, in the guest's order. ``more`` of the host's functions are handed on
    under their names.
    """
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
    launches = _Launches(module, module.table(1, 1, export=LAUNCH_TABLE), bind)
    module.export(CLOCK_EXPORT, clock)
    module.export(HIRE_EXPORT, hire)
    for item in more:
        signature = _kinds(item.signature.parameters), _kinds(item.signature.results)
        module.export(item.name, module.import_function(item.module, item.name, *signature))
    for position, item in enumerate(imports):
        module.export(str(position), handed_on[position] if position in handed_on else launches.function(item))
    return module.encode().wasm


class _Launches:
    """The link's own functions, by the last argv tag they take; each is written at its first use."""

    def __init__(self, module: Module, table: Table, bind: Function) -> None:
        self._module = module
        self._table = table
        self._bind = bind
        self._plain: dict[int, Function] = {}
        self._ticketed: dict[int, Function] = {}

    def function(self, item: LinkedImport) -> Function:
        """What answers an import of the launch."""
        last_tag = LAST_TAG_3 if item.module == CUDA_3_MODULE else LAST_TAG
        return self.ticketed(last_tag) if item.name == LAUNCH_ASYNC_NAME else self.plain(last_tag)

    def plain(self, last_tag: int) -> Function:
        """``wasi_cuda_launch``."""
        if last_tag in self._plain:
            return self._plain[last_tag]
        launch = self._plain[last_tag] = self._module.function(LAUNCH_PARAMETERS, [ValType.I32], name="launch")
        body = launch.code
        code = body.local(ValType.I32)
        body.i32_const(0)
        body.table_get(self._table.index)
        body.op("ref.is_null")
        with body.if_():
            body.call(self._bind)
            body.tee(code)
            with body.if_():
                body.get(code)
                body.op("return")
        for parameter in launch.parameters:
            body.get(parameter)
        body.i32_const(last_tag)
        body.i32_const(0)
        body.call_indirect(self._module.type(GATE_PARAMETERS, [ValType.I32]), self._table.index)
        return launch

    def ticketed(self, last_tag: int) -> Function:
        """``wasi_cuda_launch_async``: the launch, complete when it returns; tickets count what succeeded, from 0."""
        if last_tag in self._ticketed:
            return self._ticketed[last_tag]
        plain = self.plain(last_tag)
        tickets = self._module.global_(ValType.I64)
        launch = self._ticketed[last_tag] = self._module.function(LAUNCH_PARAMETERS, [ValType.I64], name="launch_async")
        body = launch.code
        code, ticket = body.local(ValType.I32), body.local(ValType.I64)
        for parameter in launch.parameters:
            body.get(parameter)
        body.call(plain)
        body.tee(code)
        with body.if_():
            body.get(code)
            body.op("i64.extend_i32_s", "return")
        body.global_get(tickets)
        body.tee(ticket)
        body.i64_const(1)
        body.op("i64.add")
        body.global_set(tickets)
        body.get(ticket)
        return launch


def _kinds(names: Sequence[str]) -> list[ValType]:
    return [_TYPES[name] for name in names]
