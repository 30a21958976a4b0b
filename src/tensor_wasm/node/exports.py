"""Which of a module's exports a call means."""

from __future__ import annotations

from tensor_wasm.errors import MissingExport
from tensor_wasm.node.model import Export
from tensor_wasm.node.modules import ReadyModule

#: How much of a name a message tells.
_NAME_SHOWN = 64
#: What is called when the caller names nothing.
_DEFAULT_EXPORTS = ("run", "_start")


def choose_export(module: ReadyModule, name: str | None) -> Export:
    """The export of that name, or the one that is called when none is named. Raises :class:`MissingExport`."""
    for candidate in _DEFAULT_EXPORTS if name is None else (name,):
        export = module.exports.get(candidate)
        if export is not None:
            return export
    wanted = "run or _start" if name is None else repr(_cut(name))
    known = ", ".join(_cut(other) for other in list(module.exports)[:20]) or "none"
    raise MissingExport(f"the function has no export {wanted}; its exported functions are: {known}")


def _cut(name: str) -> str:
    """A name in a message: callers and modules may have ones of megabytes."""
    return name if len(name) <= _NAME_SHOWN else f"{name[:_NAME_SHOWN]}..."
