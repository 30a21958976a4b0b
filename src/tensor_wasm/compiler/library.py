"""Helper functions of a kernel module, written once each and only when the kernel needs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tensor_wasm.wasm import Function, Module

    #: Writes one helper into the module and returns it. It may ask the library for other helpers, not for itself.
    Builder = Callable[["Library", Module], Function]


class Library:
    """The helper functions of one module under construction, by name.

    ``builders`` says how each is written; without it they are those of :mod:`tensor_wasm.compiler.values`.
    """

    def __init__(self, module: Module, builders: Mapping[str, Builder] | None = None) -> None:
        if builders is None:
            # Not at the top: the values import this module.
            from tensor_wasm.compiler.values import BUILDERS

            builders = BUILDERS
        self._module = module
        self._builders = builders
        self._functions: dict[str, Function] = {}

    def function(self, name: str, build: Builder | None = None) -> Function:
        """The helper ``name``, written into the module at the first request, by ``build`` where that is given.

        KeyError for a name nobody builds.
        """
        found = self._functions.get(name)
        if found is None:
            found = self._functions[name] = (build or self._builders[name])(self, self._module)
        return found
