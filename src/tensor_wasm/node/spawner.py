"""The making of instances that are kept: from a function, or with the state of a snapshot."""

from __future__ import annotations

from collections.abc import Callable

from tensor_wasm.device.compilers import Compilers
from tensor_wasm.node.functions import Functions
from tensor_wasm.node.intake import Intake
from tensor_wasm.node.kept import KeptInstances
from tensor_wasm.node.model import KeptInstance
from tensor_wasm.node.modules import Modules
from tensor_wasm.node.sandbox import Call
from tensor_wasm.node.snapshot_state import function_of
from tensor_wasm.node.snapshots import Snapshots
from tensor_wasm.node.statistics import Statistics


class Spawner:
    """Makes instances; what it has made is among the kept ones."""

    def __init__(
        self,
        functions: Functions,
        modules: Modules,
        snapshots: Snapshots,
        kept: KeptInstances,
        compilers: Compilers,
        statistics: Statistics,
        intake: Intake,
    ) -> None:
        self._functions = functions
        self._modules = modules
        self._snapshots = snapshots
        self._kept = kept
        self._compilers = compilers
        self._statistics = statistics
        self._intake = intake

    def spawn(
        self,
        id: str,  # noqa: A002 - the field's word
        *,
        tenant: int = 0,
        idle_timeout_s: float | None = None,
        deadline_s: float | None = None,
    ) -> KeptInstance:
        """Make an instance of a function and keep it between calls, until it was idle for ``idle_timeout_s``.

        Raises :class:`~tensor_wasm.errors.NotFound`, :class:`~tensor_wasm.errors.RequestError`,
        :class:`~tensor_wasm.errors.QuotaExceeded`, an :class:`~tensor_wasm.errors.EndingError` when its start function
        does not return.
        """
        self._intake.check_open()
        return self._spawn(self._call(id, tenant, deadline_s), idle_timeout_s)

    async def spawn_async(
        self,
        id: str,  # noqa: A002
        *,
        tenant: int = 0,
        idle_timeout_s: float | None = None,
        deadline_s: float | None = None,
    ) -> KeptInstance:
        """As :meth:`spawn`, on a worker thread."""
        self._intake.check_open()
        self._functions.find(id, tenant)
        return await self._make_async(id, tenant, deadline_s, lambda call: self._spawn(call, idle_timeout_s))

    def restore(
        self,
        id: str,  # noqa: A002
        *,
        tenant: int = 0,
        idle_timeout_s: float | None = None,
        deadline_s: float | None = None,
    ) -> KeptInstance:
        """Make an instance with the state of a snapshot and keep it, as :meth:`spawn` keeps a fresh one.

        Raises as that does, and :class:`~tensor_wasm.errors.StoreError` when the snapshot's file is gone.
        """
        self._intake.check_open()
        return self._restore(self._call(id, tenant, deadline_s), idle_timeout_s)

    async def restore_async(
        self,
        id: str,  # noqa: A002
        *,
        tenant: int = 0,
        idle_timeout_s: float | None = None,
        deadline_s: float | None = None,
    ) -> KeptInstance:
        """As :meth:`restore`, on a worker thread."""
        self._intake.check_open()
        self._snapshots.show(id, tenant)
        return await self._make_async(id, tenant, deadline_s, lambda call: self._restore(call, idle_timeout_s))

    async def _make_async(
        self, identity: str, tenant: int, deadline_s: float | None, make: Callable[[Call], KeptInstance]
    ) -> KeptInstance:
        """Have ``make`` keep an instance, on a worker; once nobody waits for it any more it ends."""
        cancelled: list[bool] = []
        call = self._call(identity, tenant, deadline_s, lambda: bool(cancelled))

        def work() -> KeptInstance:
            kept = make(call)
            if cancelled:  # nobody will ever know its id
                self._kept.delete(kept.id, tenant)
            return kept

        return await self._intake.on_worker(tenant, call.deadline_ns, work, cancelled)

    def _call(
        self, identity: str, tenant: int, deadline_s: float | None, is_cancelled: Callable[[], bool] | None = None
    ) -> Call:
        """A call of no export, of the function or snapshot that an instance is to be made from."""
        return Call(identity, tenant, None, (), b"", self._intake.deadline_ns(deadline_s), is_cancelled)

    def _spawn(self, call: Call, idle_timeout_s: float | None) -> KeptInstance:
        record = self._functions.find(call.function_id, call.tenant)
        with self._compilers.acting_for(call.tenant):
            module = self._modules.observable(record.digest)
            if record.prewarm is None:
                return self._kept.keep(call, record, module, idle_timeout_s)
            image = self._functions.image(record)
            return self._kept.keep(call, record, module, idle_timeout_s, lambda sandbox: sandbox.restore(image))

    def _restore(self, call: Call, idle_timeout_s: float | None) -> KeptInstance:
        record = self._snapshots.find(call.function_id, call.tenant)
        with self._compilers.acting_for(call.tenant), self._snapshots.opened(record) as image:
            module = self._modules.observable(record.module_digest)
            with self._statistics.restoring():
                return self._kept.keep(
                    call, function_of(record), module, idle_timeout_s, lambda sandbox: sandbox.restore(image)
                )
