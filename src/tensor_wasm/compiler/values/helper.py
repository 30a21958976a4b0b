"""Helper functions of a kernel module: how one is declared and written.

A helper is data, ``Helper(parameters, result, formula)``: ``formula`` gets a :class:`Writer` and the parameters as
values, and gives the result as a value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tensor_wasm.compiler.values.formula import Scope, Value, read
from tensor_wasm.wasm import Body, Function, Module, ValType

if TYPE_CHECKING:
    from tensor_wasm.compiler.library import Builder, Library


class Writer(Scope):
    """The body of a helper while it is written."""

    __slots__ = ("_library",)

    def __init__(self, body: Body, library: Library) -> None:
        super().__init__(body)
        self._library = library

    def call(self, helper: str, *arguments: Value) -> Value:
        """The result of another helper."""
        function = self._library.function(helper)

        def push(body: Body) -> None:
            for argument in arguments:
                argument.push(body)
            body.call(function)

        return Value(function.type.results[0], push)

    def give(self, condition: Value, value: Value) -> None:
        """Return ``value`` from the helper here if ``condition`` holds."""
        condition.push(self.body)
        with self.body.if_():
            value.push(self.body)
            self.body.op("return")


Formula = Callable[..., Value]


@dataclass(frozen=True, slots=True)
class Helper:
    """A helper function: the types of its parameters and its result, and ``formula(writer, *parameters)``."""

    parameters: tuple[ValType, ...]
    result: ValType
    formula: Formula


def builders(helpers: Mapping[str, Helper]) -> dict[str, Builder]:
    """What :class:`~tensor_wasm.compiler.library.Library` takes, of declared helpers."""
    return {name: _builder(name, helper) for name, helper in helpers.items()}


def _builder(name: str, helper: Helper) -> Builder:
    def build(library: Library, module: Module) -> Function:
        function = module.function(helper.parameters, [helper.result], name=name)
        with Writer(function.code, library) as writer:
            result = helper.formula(writer, *(read(parameter) for parameter in function.parameters))
            result.push(function.code)
        return function

    return build
