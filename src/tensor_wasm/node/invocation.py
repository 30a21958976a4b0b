"""One invocation: a fresh sandbox, one call, its end. Runs on a worker thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from tensor_wasm.errors import (
    Ending,
    EndingError,
    InternalError,
    MissingExport,
    QuotaExceeded,
)
from tensor_wasm.host import Guest, HostServices
from tensor_wasm.node.arguments import convert
from tensor_wasm.node.catalog import ReadyModule
from tensor_wasm.node.instances import Instances, LiveInstance
from tensor_wasm.node.model import Export, InvocationResult
from tensor_wasm.node.statistics import Statistics
from tensor_wasm.runtime import CallFailed, Engine, Instance, Output, Store
from tensor_wasm.store import FunctionRecord

#: How much of a name a message tells.
_NAME_SHOWN = 64
#: What is called when the caller names nothing.
_DEFAULT_EXPORTS = ("run", "_start")
#: How much of stderr an error tells.
_STDERR_TAIL_BYTES = 1000


@dataclass(frozen=True, slots=True)
class Call:
    """What to call, for whom, until when (on :func:`time.monotonic_ns`'s clock)."""

    function_id: str
    tenant: int
    export: str | None
    args: Sequence[object]
    input: bytes
    deadline_ns: int
    is_cancelled: Callable[[], bool] | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of an instance."""

    memory_bytes: int
    output_bytes: int


class Invoker:
    """Runs calls on one engine."""

    def __init__(
        self, engine: Engine, services: HostServices, instances: Instances, statistics: Statistics, limits: Limits
    ) -> None:
        self._engine = engine
        self._services = services
        self._instances = instances
        self._statistics = statistics
        self._limits = limits

    def run(self, call: Call, function: FunctionRecord, module: ReadyModule) -> InvocationResult:
        """Make an instance, call it, end it.

        Raises :class:`MissingExport`, :class:`InvalidArguments`, :class:`CapacityExhausted`, :class:`QuotaExceeded`
        before there is an instance, an :class:`EndingError` after.
        """
        export = _choose(module, call.export)
        values = convert(export, call.args)
        live = self._instances.open(function, export.name, call.deadline_ns, self._limits.memory_bytes)
        try:
            return self._run(live, call, module, export, values)
        finally:
            self._instances.close(live)

    def _run(
        self, live: LiveInstance, call: Call, module: ReadyModule, export: Export, values: list[int | float]
    ) -> InvocationResult:
        slot, statistics = live.slot, self._statistics
        guest = Guest(
            self._services,
            slot,
            call.deadline_ns,
            guest_input=call.input,
            is_cancelled=call.is_cancelled,
            device_budget=live.device_budget,
            on_device_bytes=partial(statistics.device_bytes_changed, live.key),
        )
        output = Output(self._limits.output_bytes) if module.imports.uses_wasi else None
        store = Store(self._engine, live.budget, guest, guest.check, output)
        started_ns = time.perf_counter_ns()
        try:
            due = guest.interrupt()
            if due is not None:
                raise due
            results: list[int | float] = []
            try:
                instance = module.imports.instantiate(store, guest)
                spawned_ns = time.perf_counter_ns()
                statistics.spawned(live.key, (spawned_ns - started_ns) / 1e9, slot.index, live.budget)
                results = self._call(store, instance, export, values)
            except CallFailed as failed:
                cause = guest.ending(failed.failure)
                if cause is not None:
                    raise cause from None
            finally:
                guest.take_printed()
            live.ending = Ending.RETURNED
            duration_s = (time.perf_counter_ns() - started_ns) / 1e9
            launches = slot.dispatches
        except EndingError as error:
            live.ending = error.ending
            raise _with_stderr(error, output) from None
        except MemoryError:
            live.ending = Ending.QUOTA
            raise QuotaExceeded("the node has no memory left for this invocation") from None
        finally:
            guest.close()
            store.close()
            live.used_gate = guest.is_to_settle
        return InvocationResult(
            results=results,
            export=export.name,
            function_id=call.function_id,
            instance_id=live.id,
            duration_s=duration_s,
            launches=launches,
            stdout=b"" if output is None else bytes(output.stdout),
            stderr=b"" if output is None else bytes(output.stderr),
            dropped_output_bytes=0 if output is None else output.dropped_bytes,
        )

    @staticmethod
    def _call(store: Store, instance: Instance, export: Export, values: list[int | float]) -> list[int | float]:
        function = instance.function(export.name)
        if function is None:
            raise InternalError("an export of the module is not in its instance")
        return store.call(function, export.parameters, values, export.results)


def _choose(module: ReadyModule, name: str | None) -> Export:
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


def _with_stderr(error: EndingError, output: Output | None) -> EndingError:
    """The error with the end of what the guest wrote to stderr: there compilers' runtimes say why they trapped."""
    if output is None or not output.stderr:
        return error
    tail = bytes(output.stderr[-_STDERR_TAIL_BYTES:]).decode("utf-8", "replace").strip()
    return type(error)(f"{error}; stderr: {tail}")
