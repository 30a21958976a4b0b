"""Kept instances: sandboxes that live between calls, one call at a time, until they are idle for too long."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

from tensor_wasm.device.compilers import Compilers
from tensor_wasm.errors import Busy, Cancelled, CapacityExhausted, Ending, NotFound, RequestError
from tensor_wasm.host import Stream
from tensor_wasm.node.arguments import convert
from tensor_wasm.node.exports import choose_export
from tensor_wasm.node.instances import Instances, LiveInstance
from tensor_wasm.node.intake import Intake
from tensor_wasm.node.model import InvocationResult, KeptInstance
from tensor_wasm.node.modules import ReadyModule
from tensor_wasm.node.sandbox import Call, Sandbox, Workshop
from tensor_wasm.store import FunctionRecord

#: Most kept instances, of one tenant and of all: calls need instances too, of which there are 4096 at once.
KEPT_OF_TENANT_MAX = 1024
KEPT_MAX = 2048
#: What an instance is said to run before its first call, and between two.
_NO_EXPORT = ""
_NO_INSTANCE = "no such instance for this tenant: it may have ended"

Spawned = Callable[[Sandbox], None]


class _Kept:
    """A kept instance. ``lock`` is held while a call runs, and for good once it ended."""

    __slots__ = ("calls", "created_at", "idle_timeout_s", "live", "lock", "module", "sandbox", "used_ns")

    def __init__(self, live: LiveInstance, module: ReadyModule, sandbox: Sandbox, idle_timeout_s: float) -> None:
        self.live = live
        self.module = module
        self.sandbox = sandbox
        self.idle_timeout_s = idle_timeout_s
        self.lock = threading.Lock()
        self.created_at = time.time()
        self.used_ns = time.monotonic_ns()
        self.calls = 0

    def view(self, now_ns: int) -> KeptInstance:
        """What it is at the moment."""
        is_busy = self.lock.locked()
        left_s = None if is_busy else max(self.idle_timeout_s - (now_ns - self.used_ns) / 1e9, 0.0)
        return KeptInstance(
            id=self.live.id,
            tenant=self.live.function.tenant,
            function_id=self.live.function.id,
            function_name=self.live.function.name,
            state="busy" if is_busy else "idle",
            created_at=self.created_at,
            calls=self.calls,
            idle_timeout_s=self.idle_timeout_s,
            idle_left_s=left_s,
            memory_bytes=self.live.budget.used_bytes,
            gpu_memory_bytes=self.live.device_budget.used_bytes,
        )


class KeptInstances:
    """The kept instances of a node. Safe for threads.

    ``idle_max_s`` is how long one may be idle at most, and what one gets whose maker asks for nothing.
    """

    def __init__(
        self,
        workshop: Workshop,
        instances: Instances,
        compilers: Compilers,
        intake: Intake,
        idle_max_s: float,
    ) -> None:
        self._workshop = workshop
        self._instances = instances
        self._compilers = compilers
        self._intake = intake
        self._idle_max_s = idle_max_s
        self._kept: dict[str, _Kept] = {}
        self._counts: Counter[int] = Counter()  # with those that are being made
        self._counts_lock = threading.Lock()

    # --- use cases --------------------------------------------------------------------------------------

    def call(
        self,
        id: str,  # noqa: A002 - the field's word
        export: str | None = None,
        args: Sequence[object] = (),
        *,
        tenant: int = 0,
        input: bytes = b"",  # noqa: A002
        deadline_s: float | None = None,
    ) -> InvocationResult:
        """Call a kept instance, as :meth:`Invocations.invoke` calls a fresh one; its state stays.

        Raises :class:`Busy` while it answers another call. After an :class:`~tensor_wasm.errors.EndingError` it is
        gone.
        """
        self._intake.check_open()
        deadline_ns = self._intake.deadline_ns(deadline_s)
        claim = self.claim(id, tenant)
        try:
            return claim.run(Call(claim.function_id, tenant, export, args, input, deadline_ns))
        finally:
            claim.release()

    async def call_async(
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
        """As :meth:`call`, on a worker thread. Cancelling the task ends the guest, and so the instance."""
        self._intake.check_open()
        deadline_ns = self._intake.deadline_ns(deadline_s)
        claim = self.claim(id, tenant)
        cancelled: list[bool] = []
        call = Call(claim.function_id, tenant, export, args, input, deadline_ns, lambda: bool(cancelled), stream)
        # Who has it gives the instance back: the thread that began the call, or else this task.
        begun = threading.Lock()

        def work() -> InvocationResult:
            if not begun.acquire(blocking=False):
                raise Cancelled("the call was cancelled before it began")
            try:
                return claim.run(call)
            finally:
                claim.release()

        try:
            with self._workshop.statistics.streaming(stream):
                return await self._intake.on_worker(tenant, deadline_ns, work, cancelled)
        except BaseException:
            if begun.acquire(blocking=False):
                claim.release()
            raise
        finally:
            if stream is not None:
                stream.close()

    def list(self, tenant: int = 0) -> list[KeptInstance]:
        """A tenant's kept instances, oldest first."""
        now_ns = time.monotonic_ns()
        kept = self._kept.copy().values()
        return [one.view(now_ns) for one in kept if one.live.function.tenant == tenant]

    def show(self, id: str, tenant: int = 0) -> KeptInstance:  # noqa: A002
        """One of a tenant's. Raises :class:`NotFound`."""
        return self._find(id, tenant).view(time.monotonic_ns())

    def delete(self, id: str, tenant: int = 0) -> None:  # noqa: A002
        """End a tenant's instance: one that answers a call is ended in it. Raises :class:`NotFound`."""
        kept = self._find(id, tenant)
        if kept.lock.acquire(blocking=False):
            self._end(kept)
        else:
            self._instances.terminate(id)

    # --- the node's side --------------------------------------------------------------------------------

    def keep(
        self,
        call: Call,
        function: FunctionRecord,
        module: ReadyModule,
        idle_timeout_s: float | None = None,
        prepare: Spawned | None = None,
    ) -> KeptInstance:
        """Make an instance and keep it. ``call`` says for whom, and until when its start function may run.

        ``prepare`` is called with the sandbox instead of its start, to bring it into some state. Raises
        :class:`RequestError` for a timeout out of range, :class:`~tensor_wasm.errors.QuotaExceeded` and
        :class:`~tensor_wasm.errors.CapacityExhausted` when there is no room, an :class:`EndingError` when the start
        function does not return.
        """
        timeout_s = self._idle_max_s if idle_timeout_s is None else idle_timeout_s
        if not 0 < timeout_s <= self._idle_max_s:
            raise RequestError(f"idle_timeout_s must be above 0 and at most {self._idle_max_s:g}")
        self._count(function.tenant)
        try:
            kept = self._make(call, function, module, timeout_s, prepare)
        except BaseException:
            self._count_less(function.tenant)
            raise
        live = kept.live
        self._kept[live.id] = kept
        live.on_order = lambda: self._end_if_idle(kept)
        if live.slot.terminate_asked:  # between the look at the end of its start and now
            self._end_if_idle(kept)
        return kept.view(time.monotonic_ns())

    def _make(
        self, call: Call, function: FunctionRecord, module: ReadyModule, timeout_s: float, prepare: Spawned | None
    ) -> _Kept:
        limit_bytes = self._workshop.limits.memory_bytes
        live = self._instances.open(function, _NO_EXPORT, call.deadline_ns, limit_bytes)
        try:
            sandbox = Sandbox(self._workshop, live, module, call)
            try:
                (Sandbox.start if prepare is None else prepare)(sandbox)
                sandbox.end_call()
            except BaseException:
                sandbox.close()
                raise
        except BaseException:
            self._instances.close(live)
            raise
        live.deadline_ns = None
        return _Kept(live, module, sandbox, timeout_s)

    def claim(self, identity: str, tenant: int) -> Claim:
        """Take a tenant's instance for one call, which is then the only one.

        Raises :class:`NotFound`, for another tenant's as well, and :class:`Busy` while another call runs.
        """
        kept = self._find(identity, tenant)
        if not kept.lock.acquire(blocking=False):
            if identity not in self._kept:
                raise NotFound(_NO_INSTANCE)
            raise Busy("the instance answers another call: one at a time")
        return Claim(self, kept)

    def owner_of(self, identity: str) -> int | None:
        """The tenant whose instance this is; None when there is none."""
        kept = self._kept.get(identity)
        return None if kept is None else kept.live.function.tenant

    def sweep(self) -> None:
        """End those that have been idle for too long; to be called every second or so."""
        now_ns = time.monotonic_ns()
        for kept in self._kept.copy().values():
            if now_ns - kept.used_ns > kept.idle_timeout_s * 1e9:
                self._end_if_idle(kept)

    def end_idle(self) -> None:
        """End all that answer no call: nothing of theirs is lost that a draining node could keep."""
        for kept in self._kept.copy().values():
            self._end_if_idle(kept)

    def _find(self, identity: str, tenant: int) -> _Kept:
        kept = self._kept.get(identity)
        if kept is None or kept.live.function.tenant != tenant:
            raise NotFound(_NO_INSTANCE)
        return kept

    def _end_if_idle(self, kept: _Kept) -> None:
        if kept.lock.acquire(blocking=False):
            self._end(kept)

    def _end(self, kept: _Kept) -> None:
        """End an instance whose lock the caller holds; it stays held, so nobody comes after."""
        if self._kept.pop(kept.live.id, None) is None:
            return
        self._count_less(kept.live.function.tenant)
        kept.live.on_order = None
        if kept.live.slot.terminate_asked and kept.live.ending is Ending.RETURNED:
            kept.live.ending = Ending.TERMINATED
        try:
            kept.sandbox.close()
        finally:
            self._instances.close(kept.live)

    def _count(self, tenant: int) -> None:
        """Count one more. Raises :class:`CapacityExhausted` when there are as many as may be."""
        with self._counts_lock:
            if self._counts[tenant] >= KEPT_OF_TENANT_MAX or self._counts.total() >= KEPT_MAX:
                most = f"{KEPT_OF_TENANT_MAX} of a tenant, {KEPT_MAX} of all"
                raise CapacityExhausted(f"as many instances are kept as may be, {most}: delete one, or try again later")
            self._counts[tenant] += 1

    def _count_less(self, tenant: int) -> None:
        with self._counts_lock:
            self._counts[tenant] -= 1
            if not self._counts[tenant]:
                del self._counts[tenant]

    # --- of a claim -------------------------------------------------------------------------------------

    def run(self, kept: _Kept, call: Call) -> InvocationResult:
        """Call a claimed instance; one whose guest did not return has ended."""
        export = choose_export(kept.module, call.export)
        values = convert(export, call.args)
        live = kept.live
        live.export, live.deadline_ns = export.name, call.deadline_ns
        kept.sandbox.begin_call(call)
        kept.calls += 1
        try:
            with self._compilers.acting_for(call.tenant):
                result = kept.sandbox.run(call, export, values)
        except BaseException:
            self._end(kept)
            raise
        kept.sandbox.end_call()
        live.export, live.deadline_ns = _NO_EXPORT, None
        return result

    def release(self, kept: _Kept) -> None:
        """Give a claimed instance back; it ends now if that was ordered meanwhile."""
        kept.used_ns = time.monotonic_ns()
        if kept.live.id not in self._kept:
            return  # its lock stays held: nobody comes after
        kept.lock.release()
        if kept.live.slot.terminate_asked:
            self._end_if_idle(kept)


class Claim:
    """A kept instance taken for one call; to be released whatever happens."""

    __slots__ = ("_kept", "_owner")

    def __init__(self, owner: KeptInstances, kept: _Kept) -> None:
        self._owner = owner
        self._kept = kept

    @property
    def function_id(self) -> str:
        """The function it is an instance of."""
        return self._kept.live.function.id

    @property
    def sandbox(self) -> Sandbox:
        """The instance itself, for what is no call."""
        return self._kept.sandbox

    @property
    def live(self) -> LiveInstance:
        """The instance as the node counts it."""
        return self._kept.live

    @property
    def module(self) -> ReadyModule:
        """Its module."""
        return self._kept.module

    def run(self, call: Call) -> InvocationResult:
        """Call it, on a worker. Raises as an invocation does; after an :class:`EndingError` it is gone."""
        return self._owner.run(self._kept, call)

    def release(self) -> None:
        """Give it back."""
        self._owner.release(self._kept)
