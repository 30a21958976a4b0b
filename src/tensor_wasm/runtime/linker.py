"""Host functions for guests, and templates: modules with their imports resolved."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tensor_wasm.errors import InternalError, InvalidWasm
from tensor_wasm.runtime import bindings as native
from tensor_wasm.runtime.engine import Engine, Module

_VALUE_KINDS = {
    "i32": native.VALUE_I32,
    "i64": native.VALUE_I64,
    "f32": native.VALUE_F32,
    "f64": native.VALUE_F64,
}


@dataclass(frozen=True, slots=True)
class HostFunction:
    """A function of the host that guests import.

    ``call(owner, values)`` gets the store's owner and the raw values: parameters are read from it, results are
    written to it from slot 0. It may raise: the guest's call then ends with that exception.
    """

    module: str
    name: str
    parameters: tuple[str, ...]
    results: tuple[str, ...]
    call: Callable[[Any, Any], None]


class Template:
    """A module whose imports are resolved once; instantiating it looks nothing up."""

    __slots__ = ("module", "pointer", "runs_code", "_linker")

    def __init__(self, module: Module, pointer: int, runs_code: bool, linker: Linker) -> None:
        self.module = module
        self.pointer = pointer
        self.runs_code = runs_code
        self._linker = linker  # owns the callbacks that the resolved imports call

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, TypeError):  # at interpreter exit the bindings may be gone
            native.instance_pre_delete(self.pointer)


class Linker:
    """Names to host functions, for one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._callbacks: list[Any] = []  # C keeps bare pointers to these
        self.pointer = native.linker_new(engine.pointer)
        native.linker_allow_shadowing(self.pointer, True)

    def define_wasi(self) -> None:
        """Define WASI preview 1 as Wasmtime implements it."""
        error = native.linker_define_wasi(self.pointer)
        if error:
            raise InternalError(native.take_error(error))

    def define(self, functions: Iterable[HostFunction]) -> None:
        """Define host functions; a later one of the same name replaces an earlier one."""
        for function in functions:
            callback = _callback(self._engine, function.call)
            self._callbacks.append(callback)
            kind = native.functype_new(_types(function.parameters), _types(function.results))
            module, name = function.module.encode(), function.name.encode()
            error = native.linker_define_func(
                self.pointer, module, len(module), name, len(name), kind, callback, None, None
            )
            native.functype_delete(kind)
            if error:
                raise InternalError(native.take_error(error))

    def template(self, module: Module, runs_code: bool) -> Template:
        """Resolve a module's imports. Raises :class:`InvalidWasm` naming an import nobody provides."""
        out = ctypes.c_void_p()
        error = native.linker_instantiate_pre(self.pointer, module.pointer, ctypes.byref(out))
        if error:
            raise InvalidWasm(native.take_error(error))
        assert out.value is not None
        return Template(module, out.value, runs_code, self)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, TypeError):  # at interpreter exit the bindings may be gone
            native.linker_delete(self.pointer)


def _types(kinds: tuple[str, ...]) -> Any:
    vector = native.ValueTypeVector()
    pointers = (ctypes.c_void_p * max(len(kinds), 1))(*(native.valtype_new(_VALUE_KINDS[k]) for k in kinds))
    native.valtype_vec_new(ctypes.byref(vector), len(kinds), pointers)
    return ctypes.byref(vector)


def _callback(engine: Engine, call: Callable[[Any, Any], None]) -> Any:
    stores = engine.stores
    context_of, data_of = native.caller_context, native.context_get_data

    def enter(_env: int, caller: int, values: Any, _count: int) -> int | None:
        store = None
        try:
            store = stores[data_of(context_of(caller))]
            call(store.owner, values)
        except BaseException as error:  # nothing may be raised through C: it waits in the store
            if store is not None:
                store.failure = error
            pointer: int = native.trap_new(b"host function failed", 20)
            return pointer
        return None

    return native.HostCallback(enter)
