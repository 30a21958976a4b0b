"""Invocations: a fresh sandbox, one call, its end."""

from __future__ import annotations

from collections.abc import Sequence

from tensor_wasm.device.compilers import Compilers
from tensor_wasm.host import Stream
from tensor_wasm.node.arguments import convert
from tensor_wasm.node.exports import choose_export
from tensor_wasm.node.functions import Functions
from tensor_wasm.node.instances import Instances
from tensor_wasm.node.intake import Intake
from tensor_wasm.node.model import InvocationResult
from tensor_wasm.node.modules import Modules, ReadyModule
from tensor_wasm.node.sandbox import Call, Image, Sandbox, Workshop
from tensor_wasm.store import FunctionRecord


class Invocations:
    """Calls of functions, each in an instance of its own."""

    def __init__(
        self,
        workshop: Workshop,
        instances: Instances,
        functions: Functions,
        modules: Modules,
        compilers: Compilers,
        intake: Intake,
    ) -> None:
        self._workshop = workshop
        self._instances = instances
        self._functions = functions
        self._modules = modules
        self._compilers = compilers
        self._intake = intake

    def invoke(
        self,
        id: str,  # noqa: A002 - the field's word
        export: str | None = None,
        args: Sequence[object] = (),
        *,
        tenant: int = 0,
        input: bytes = b"",  # noqa: A002
        deadline_s: float | None = None,
    ) -> InvocationResult:
        """Call an export of a function in a fresh instance, on the caller's own thread.

        ``export`` defaults to ``run``, then ``_start``; ``args`` as in JSON; ``input`` is what the guest's
        ``read-input`` gives; ``deadline_s`` defaults to the node's and may not exceed it. Raises an
        :class:`~tensor_wasm.errors.EndingError` when the call does not return, a
        :class:`~tensor_wasm.errors.RequestError` when it cannot be made.
        """
        self._intake.check_open()
        return self.run(Call(id, tenant, export, args, input, self._intake.deadline_ns(deadline_s)))

    async def invoke_async(
        self,
        id: str,  # noqa: A002
        export: str | None = None,
        args: Sequence[object] = (),
        *,
        tenant: int = 0,
        input: bytes = b"",  # noqa: A002
        deadline_s: float | None = None,
        stream: Stream | None = None,
    ) -> InvocationResult:
        """As :meth:`invoke`, on a worker thread. Cancelling the task ends the guest.

        ``stream`` takes the chunks that the guest emits; it is closed when this ends. Raises
        :class:`~tensor_wasm.errors.CapacityExhausted` when too many invocations wait.
        """
        self._intake.check_open()
        self._functions.find(id, tenant)
        cancelled: list[bool] = []
        deadline_ns = self._intake.deadline_ns(deadline_s)
        call = Call(id, tenant, export, args, input, deadline_ns, lambda: bool(cancelled), stream)
        try:
            with self._workshop.statistics.streaming(stream):
                return await self._intake.on_worker(tenant, deadline_ns, lambda: self.run(call), cancelled)
        finally:
            if stream is not None:
                stream.close()

    def run(self, call: Call) -> InvocationResult:
        """Make a call on this thread, also while the node takes no more work. Raises as :meth:`invoke`."""
        record = self._functions.find(call.function_id, call.tenant)
        with self._compilers.acting_for(call.tenant):
            if record.prewarm is None:
                return self._run(call, record, self._modules.ready(record.digest))
            image = self._functions.image(record)
            return self._run(call, record, self._modules.observable(record.digest), image)

    def _run(
        self, call: Call, function: FunctionRecord, module: ReadyModule, image: Image | None = None
    ) -> InvocationResult:
        """Make an instance, with the state of ``image`` if there is one, call it, end it.

        Raises :class:`~tensor_wasm.errors.MissingExport`, :class:`~tensor_wasm.errors.InvalidArguments`,
        :class:`~tensor_wasm.errors.CapacityExhausted`, :class:`~tensor_wasm.errors.QuotaExceeded` before there is an
        instance, an :class:`~tensor_wasm.errors.EndingError` after.
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
