"""One invocation: a fresh sandbox, one call, its end. Runs on a worker thread."""

from __future__ import annotations

from tensor_wasm.errors import MissingExport
from tensor_wasm.node.arguments import convert
from tensor_wasm.node.catalog import ReadyModule
from tensor_wasm.node.instances import Instances
from tensor_wasm.node.model import Export, InvocationResult
from tensor_wasm.node.sandbox import Call, Image, Sandbox, Workshop
from tensor_wasm.store import FunctionRecord

#: How much of a name a message tells.
_NAME_SHOWN = 64
#: What is called when the caller names nothing.
_DEFAULT_EXPORTS = ("run", "_start")


class Invoker:
    """Runs calls, each in a sandbox of its own."""

    def __init__(self, workshop: Workshop, instances: Instances) -> None:
        self._workshop = workshop
        self._instances = instances

    def run(
        self, call: Call, function: FunctionRecord, module: ReadyModule, image: Image | None = None
    ) -> InvocationResult:
        """Make an instance, with the state of ``image`` if there is one, call it, end it.

        Raises :class:`MissingExport`, :class:`InvalidArguments`, :class:`CapacityExhausted`, :class:`QuotaExceeded`
        before there is an instance, an :class:`EndingError` after.
        """
        export = choose_export(module, call.export)
        values = convert(export, call.args)
        limits = self._workshop.limits
        live = self._instances.open(function, export.name, call.deadline_ns, limits.memory_bytes)
        try:
            sandbox = Sandbox(self._workshop, live, module, call)
            try:
                if image is not None:
                    sandbox.restore(image, is_kept=False)
                return sandbox.run(call, export, values)
            finally:
                sandbox.close()
        finally:
            self._instances.close(live)


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
