"""The node: opens the home, engine, ledger and device, and offers every use case of the runtime."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self, TypeVar

from tensor_wasm.config import Config, cores, split_public_keys
from tensor_wasm.device import Compilers, open_device
from tensor_wasm.dispatch import GateFactory, Ledger
from tensor_wasm.errors import Cancelled, CapacityExhausted, InvalidDeadline, NotFound, NotReady, StoreError
from tensor_wasm.host import HostLinker, HostServices, Stream
from tensor_wasm.node.accounts import Accounts
from tensor_wasm.node.administration import Administration, share_of
from tensor_wasm.node.catalog import Catalog, Deployment
from tensor_wasm.node.housekeeping import Chore, Housekeeping
from tensor_wasm.node.instances import Instances
from tensor_wasm.node.invocation import Invoker
from tensor_wasm.node.job_model import JobLimits
from tensor_wasm.node.jobs import Jobs
from tensor_wasm.node.kept import Claim, KeptInstances
from tensor_wasm.node.kernels import Kernels
from tensor_wasm.node.model import DeviceRestart, Function, InvocationResult, KeptInstance, Page, Snapshot
from tensor_wasm.node.models import Models
from tensor_wasm.node.origin import carried
from tensor_wasm.node.sandbox import Call, Image, Limits, Workshop
from tensor_wasm.node.snapshots import Snapshots, function_of
from tensor_wasm.node.statistics import Statistics
from tensor_wasm.node.storage import Storage
from tensor_wasm.node.warm import WarmStarts
from tensor_wasm.node.workers import Workers
from tensor_wasm.runtime import (
    FIRST_NICENESS,
    FURTHER_NICENESS,
    Engine,
    ModuleCache,
    SealedFiles,
    give_back_large_blocks,
)
from tensor_wasm.store import (
    ArtifactStore,
    Database,
    FunctionRecord,
    HomeLock,
    IdempotencyKey,
    IdempotencyStore,
    JobStore,
    KernelRecord,
    KernelStore,
    ModelStore,
    Registry,
    SharedArtifacts,
    SnapshotStore,
    TenantStore,
    TokenStore,
    check_database,
    concerns,
    node_key,
)
from tensor_wasm.store.signing import node_signing_key
from tensor_wasm.tenancy import Tenants, TokenBook

if TYPE_CHECKING:
    from tensor_wasm.device.cuda.gpu import WorkerEnd

_Result = TypeVar("_Result")
_log = logging.getLogger("tensor_wasm.node")

#: Threads for deploys and other work that must not stop the event loop.
_BACKGROUND_THREADS = 4
#: Longest such work waits for its turn.
_BACKGROUND_WAIT_NS = 60_000_000_000
#: How often launches per second are measured, and the last use of tokens is written.
_SAMPLE_S = 1.0
_FLUSH_S = 60.0
#: How often threads that were needed for a while are ended.
_TRIM_S = 10.0
#: When the first compiler process is started: a node that lives no longer, for one call, needs none.
_WARM_UP_DELAY_S = 1.0
_POLL_S = 0.01
_TERMINATION_S = 1.0


class Node:
    """One node of the runtime. A context manager; :meth:`close` gives everything back.

    Raises :class:`~tensor_wasm.errors.StoreError` when the home cannot be used and
    :class:`~tensor_wasm.errors.ConfigurationError` when the device cannot.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._draining = False
        give_back_large_blocks()
        self._closing = ExitStack()
        with ExitStack() as opened:
            opened.callback(HomeLock(config.home).close)
            check_database(config.home)
            key = node_key(config.home)
            database = Database(config.home / "node.db")
            opened.callback(database.close)
            self._keys = IdempotencyStore(database)
            registry = Registry(database, self._keys)
            self.tenants = Tenants(TenantStore(database))
            self.tokens = TokenBook(config.api_tokens, TokenStore(database))
            opened.callback(self.tokens.close)
            engine = self._engine = Engine()
            opened.callback(engine.close)
            engine.start()
            compilers = self._compilers = Compilers(config.compilers, config.compile_timeout_s)
            module_files = SealedFiles(config.home / "cache" / "modules", key)
            modules = ModuleCache(engine, module_files, compile_elsewhere=compilers.machine_code)
            kernel_directory = config.kernel_cache_dir or config.home / "cache" / "kernels"
            self.device = open_device(
                config.device,
                modules,
                SealedFiles(kernel_directory, key),
                compilers,
                partition_bytes=config.cuda_partition_mib << 20,
                staging_bytes=config.cuda_staging_mib << 20,
            )
            gpu = self.device.gpu
            #: Is told when the device lost everything that was on it, on a thread of the device's.
            self.on_device_restart: Callable[[DeviceRestart], None] | None = None
            if gpu is not None:
                opened.callback(gpu.close)
                gpu.on_restart = self._device_restarted
            self.ledger = Ledger(
                engine,
                config.dispatch_permits,
                config.dispatch_max_wait_ms,
                lambda tenant: share_of(self.tenants.quotas(tenant)),
            )
            helpers = 0 if gpu is not None else config.kernel_threads - 1
            gates = GateFactory(engine, self.ledger, helpers, has_windows=gpu is not None)
            opened.callback(gates.close)
            self.statistics = Statistics(self.device.statistics)
            artifacts = SharedArtifacts(ArtifactStore(config.home / "artifacts"))
            storage = Storage(self.tenants, self.statistics.refused)
            self.kernels = Kernels(
                KernelStore(database),
                artifacts,
                storage,
                self.device,
                compilers,
                publishers=frozenset(split_public_keys(config.kernel_publishers) if config.kernel_publishers else ()),
                is_open=lambda: self.tokens.is_empty,
                compile_limit_s=config.compile_timeout_s,
            )
            linker = HostLinker(engine, has_gpu=gpu is not None)
            board = None if gpu is None else gpu.board(engine)
            services = HostServices(self.device, gates, self.ledger, self.kernels.published, board)
            limits = Limits(config.instance_memory_bytes, config.output_bytes)
            accounts = Accounts(self.statistics.refused)
            self._instances = Instances(engine, self.ledger, accounts, self.tenants, self.statistics)
            workshop = Workshop(engine, services, self.statistics, limits)
            self._invoker = Invoker(workshop, self._instances)
            self._kept = KeptInstances(workshop, self._instances, config.instance_idle_s)
            self._catalog = Catalog(
                registry,
                artifacts,
                storage,
                modules,
                linker,
                config.instance_memory_bytes,
                self.tenants,
                self.statistics.refused,
            )
            snapshot_store = SnapshotStore(database, config.snapshot_dir or config.home / "snapshots")
            self._snapshots = Snapshots(
                snapshot_store,
                artifacts,
                storage,
                config.snapshot_concurrency,
                node_signing_key(config.home),
                frozenset(split_public_keys(config.snapshot_keys) if config.snapshot_keys else ()),
                self._catalog.check_module,
                config.max_body_bytes,
                config.instance_memory_bytes,
                self.statistics,
            )
            self._warm = WarmStarts(
                workshop,
                self._instances,
                self._catalog,
                snapshot_store,
                storage,
                int(config.invoke_deadline_s * 1e9),
            )
            artifacts.sweep()
            self.statistics.functions = self._catalog.count
            self.models = Models(ModelStore(database), self._catalog)
            self._background = Workers(_BACKGROUND_THREADS, config.queue_depth, self._weight, "background")
            opened.callback(self._background.close)
            niceness = FIRST_NICENESS, FURTHER_NICENESS
            self._workers = Workers(config.workers, config.queue_depth, self._weight, "worker", niceness, cores())
            self.jobs = Jobs(
                JobStore(database, self._keys),
                self._keys,
                self._catalog,
                self._workers,
                JobLimits(
                    config.job_queue_depth,
                    config.job_stored_bytes,
                    config.job_retention_s,
                    max(config.workers // 2, 1),
                    config.invoke_deadline_s,
                ),
                run=self._run,
                in_background=self.in_background,
                look_soon=engine.look_soon,
                refused=self.statistics.refused,
            )
            opened.callback(self.jobs.close)  # after the threads that run jobs
            opened.callback(self._workers.close)
            self.administration = Administration(
                self.tenants, self._instances, accounts, self.ledger, self._catalog, self._workers, storage
            )
            housekeeping = Housekeeping(
                Chore("sampling launches", _SAMPLE_S, self._instances.sample),
                Chore("ending idle threads", _TRIM_S, self._trim),
                Chore("ending idle instances", _SAMPLE_S, self._kept.sweep),
                Chore("writing when tokens were used", _FLUSH_S, self.tokens.flush),
                Chore("beginning jobs that had no place", _SAMPLE_S, self.jobs.resume),
                Chore("forgetting jobs and keys", _FLUSH_S, self.jobs.sweep),
            )
            opened.callback(housekeeping.close)
            opened.callback(compilers.close)  # before the threads that may wait for it
            opened.callback(self.drain, 0.0)
            compilers.warm_up(_WARM_UP_DELAY_S)
            self._closing = opened.pop_all()

    # --- functions --------------------------------------------------------------------------------------

    def deploy(self, name: str, wasm: bytes, tenant: int = 0, prewarm: str | None = None) -> Function:
        """Keep a module as a new function. It survives ``kill -9`` once this has returned.

        ``prewarm`` names an export that is run once, now; every instance starts from the state at its end. Raises
        :class:`~tensor_wasm.errors.InvalidName`, :class:`~tensor_wasm.errors.InvalidWasm`,
        :class:`~tensor_wasm.errors.QuotaExceeded`; with ``prewarm`` what an invocation of that may come to.
        """
        return self.deploy_once(name, wasm, tenant, None, prewarm).function

    def deploy_once(
        self, name: str, wasm: bytes, tenant: int, key: IdempotencyKey | None, prewarm: str | None = None
    ) -> Deployment:
        """As :meth:`deploy`, unless the same request with the same key has deployed it: then that function.

        Raises :class:`~tensor_wasm.errors.IdempotencyConflict` when the key came with another request.
        """
        self._check_open()
        with self._compilers.acting_for(tenant):
            deployment = self._catalog.deploy(name, wasm, tenant, key, prewarm, self._warm)
        self.statistics.functions = self._catalog.count
        return deployment

    def made_before(self, key: IdempotencyKey) -> str | None:
        """The id of what a request with this key made, None for a new key.

        Raises :class:`~tensor_wasm.errors.IdempotencyConflict`, :class:`~tensor_wasm.errors.CapacityExhausted`.
        """
        return self._keys.find(key)

    def functions(self, tenant: int = 0, limit: int = 100, after: str | None = None) -> Page:
        """A page of a tenant's functions, oldest first."""
        return self._catalog.list(tenant, limit, after)

    def function(self, id: str, tenant: int = 0) -> Function:  # noqa: A002 - the field's word
        """Describe a function. Raises :class:`~tensor_wasm.errors.NotFound`."""
        return self._catalog.describe(id, tenant)

    def owner_of(self, id: str) -> int | None:  # noqa: A002
        """The tenant whose function, kept instance or snapshot this is; None when there is none."""
        for found in (self._catalog.owner_of(id), self._kept.owner_of(id), self._snapshots.owner_of(id)):
            if found is not None:
                return found
        return None

    def delete(self, id: str, tenant: int = 0) -> None:  # noqa: A002
        """Delete a function. Raises :class:`~tensor_wasm.errors.NotFound`."""
        self._catalog.delete(id, tenant)
        self._warm.drop(id)
        self.statistics.functions = self._catalog.count

    # --- kernels ----------------------------------------------------------------------------------------

    def publish(self, manifest: bytes, signature: bytes, ptx: bytes, tenant: int = 0) -> KernelRecord:
        """Keep a signed kernel; see :meth:`Kernels.publish`. :attr:`kernels` has what else there is to do with them."""
        self._check_open()
        return self.kernels.publish(tenant, manifest, signature, ptx)

    # --- invocations ------------------------------------------------------------------------------------

    def invoke(
        self,
        id: str,  # noqa: A002
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
        self._check_open()
        call = Call(id, tenant, export, args, input, self._deadline_ns(deadline_s))
        return self._run(call)

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
        self._check_open()
        self._catalog.find(id, tenant)
        cancelled: list[bool] = []
        call = Call(id, tenant, export, args, input, self._deadline_ns(deadline_s), lambda: bool(cancelled), stream)
        try:
            with self.statistics.streaming(stream):
                return await self._on_worker(call, lambda: self._run(call), cancelled)
        finally:
            if stream is not None:
                stream.close()

    async def _on_worker(self, call: Call, work: Callable[[], _Result], cancelled: list[bool]) -> _Result:
        """Run what calls a guest on a worker; the call sees its cancellation in ``cancelled``."""
        try:
            return await self._workers.run(call.tenant, carried(work), call.deadline_ns)
        except asyncio.CancelledError:
            cancelled.append(True)
            self._engine.look_soon()
            raise
        except CapacityExhausted:
            self.statistics.refused(call.tenant, "queue")
            raise

    def _run(self, call: Call) -> InvocationResult:
        record = self._catalog.find(call.function_id, call.tenant)
        with self._compilers.acting_for(call.tenant):
            if record.prewarm is None:
                return self._invoker.run(call, record, self._catalog.ready(record))
            image = self._image(record)
            return self._invoker.run(call, record, self._catalog.observable(record.digest), image)

    def _image(self, record: FunctionRecord) -> Image:
        """The state that a function's instances start from. Raises :class:`~tensor_wasm.errors.NotFound`."""
        image = self._warm.image(record)
        try:
            self._catalog.find(record.id, record.tenant)
        except NotFound:  # deleted while its state was made, which nobody would ever drop
            self._warm.drop(record.id)
            raise
        return image

    def _trim(self) -> None:
        for workers in (self._workers, self._background):
            workers.trim()

    def _weight(self, tenant: int) -> int:
        return self.tenants.quotas(tenant).weight

    def _deadline_ns(self, deadline_s: float | None) -> int:
        longest = self.config.invoke_deadline_s
        if deadline_s is None:
            deadline_s = longest
        if not 0 < deadline_s <= longest:
            raise InvalidDeadline(f"the deadline must be above 0 and at most {longest:g} seconds")
        return time.monotonic_ns() + int(deadline_s * 1e9)

    # --- kept instances ---------------------------------------------------------------------------------

    def spawn(
        self,
        id: str,  # noqa: A002
        *,
        tenant: int = 0,
        idle_timeout_s: float | None = None,
        deadline_s: float | None = None,
    ) -> KeptInstance:
        """Make an instance of a function and keep it between calls, until it was idle for ``idle_timeout_s``.

        Raises :class:`~tensor_wasm.errors.NotFound`, :class:`~tensor_wasm.errors.RequestError`,
        :class:`~tensor_wasm.errors.QuotaExceeded`, an :class:`EndingError` when its start function does not return.
        """
        self._check_open()
        return self._spawn(self._spawning(id, tenant, deadline_s), idle_timeout_s)

    async def spawn_async(
        self,
        id: str,  # noqa: A002
        *,
        tenant: int = 0,
        idle_timeout_s: float | None = None,
        deadline_s: float | None = None,
    ) -> KeptInstance:
        """As :meth:`spawn`, on a worker thread."""
        self._check_open()
        self._catalog.find(id, tenant)
        cancelled: list[bool] = []
        call = self._spawning(id, tenant, deadline_s, cancelled)
        return await self._keep(call, lambda: self._spawn(call, idle_timeout_s), cancelled)

    async def _keep(self, call: Call, make: Callable[[], KeptInstance], cancelled: list[bool]) -> KeptInstance:
        """Make an instance to be kept, on a worker."""

        def work() -> KeptInstance:
            kept = make()
            if cancelled:  # nobody will ever know its id
                self.delete_instance(kept.id, call.tenant)
            return kept

        return await self._on_worker(call, work, cancelled)

    def call(
        self,
        id: str,  # noqa: A002
        export: str | None = None,
        args: Sequence[object] = (),
        *,
        tenant: int = 0,
        input: bytes = b"",  # noqa: A002
        deadline_s: float | None = None,
    ) -> InvocationResult:
        """Call a kept instance, as :meth:`invoke` calls a fresh one; its state stays.

        Raises :class:`~tensor_wasm.errors.Busy` while it answers another call. After an
        :class:`~tensor_wasm.errors.EndingError` it is gone.
        """
        self._check_open()
        deadline_ns = self._deadline_ns(deadline_s)
        claim = self._kept.claim(id, tenant)
        try:
            return self._call(claim, Call(claim.function_id, tenant, export, args, input, deadline_ns))
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
        self._check_open()
        deadline_ns = self._deadline_ns(deadline_s)
        claim = self._kept.claim(id, tenant)
        cancelled: list[bool] = []
        call = Call(claim.function_id, tenant, export, args, input, deadline_ns, lambda: bool(cancelled), stream)
        # Who has it gives the instance back: the thread that began the call, or else this task.
        begun = threading.Lock()

        def work() -> InvocationResult:
            if not begun.acquire(blocking=False):
                raise Cancelled("the call was cancelled before it began")
            try:
                return self._call(claim, call)
            finally:
                claim.release()

        try:
            with self.statistics.streaming(stream):
                return await self._on_worker(call, work, cancelled)
        except BaseException:
            if begun.acquire(blocking=False):
                claim.release()
            raise
        finally:
            if stream is not None:
                stream.close()

    # --- snapshots --------------------------------------------------------------------------------------

    def snapshot(self, instance_id: str, tenant: int = 0) -> Snapshot:
        """Keep the whole state of a kept instance, between its calls.

        Raises :class:`~tensor_wasm.errors.NotFound`, :class:`~tensor_wasm.errors.Busy` while it answers a call,
        :class:`~tensor_wasm.errors.InvalidSnapshot` when its state cannot be told, and
        :class:`~tensor_wasm.errors.QuotaExceeded` when the tenant may not store so much.
        """
        self._check_open()
        claim = self._kept.claim(instance_id, tenant)
        try:
            return self._snapshots.capture(claim.sandbox, claim.live.function)
        finally:
            claim.release()

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
        self._check_open()
        return self._restore(self._spawning(id, tenant, deadline_s), idle_timeout_s)

    async def restore_async(
        self,
        id: str,  # noqa: A002
        *,
        tenant: int = 0,
        idle_timeout_s: float | None = None,
        deadline_s: float | None = None,
    ) -> KeptInstance:
        """As :meth:`restore`, on a worker thread."""
        self._check_open()
        self._snapshots.show(id, tenant)
        cancelled: list[bool] = []
        call = self._spawning(id, tenant, deadline_s, cancelled)
        return await self._keep(call, lambda: self._restore(call, idle_timeout_s), cancelled)

    def snapshots(self, tenant: int = 0) -> list[Snapshot]:
        """A tenant's snapshots, oldest first."""
        return self._snapshots.list(tenant)

    def export_snapshot(self, id: str, tenant: int = 0) -> Iterator[bytes]:  # noqa: A002
        """A snapshot as one file, piece by piece: signed by this node, compressed, with its module.

        Each piece takes some milliseconds. Raises :class:`~tensor_wasm.errors.NotFound`.
        """
        return self._snapshots.export(id, tenant)

    def import_snapshot(self, id: str, file: BinaryIO, tenant: int = 0) -> Snapshot:  # noqa: A002
        """Keep a snapshot file, of this node or one whose key it trusts, under a new id.

        Raises :class:`~tensor_wasm.errors.InvalidSnapshot` for a file that cannot be used,
        :class:`~tensor_wasm.errors.Conflict` for an id that is taken, :class:`~tensor_wasm.errors.QuotaExceeded`.
        """
        self._check_open()
        with self._compilers.acting_for(tenant):
            return self._snapshots.import_(id, file, tenant)

    def snapshot_upload(self, id: str, tenant: int = 0) -> BinaryIO:  # noqa: A002
        """An empty file on the volume of the snapshots, for :meth:`import_snapshot`; it is gone when it is closed.

        Raises what that would raise whatever comes: for an id that is none or taken, for too many snapshots.
        """
        self._check_open()
        self._snapshots.check_new(id, tenant)
        return self._snapshots.upload()

    @property
    def snapshot_key(self) -> str:
        """The public key of what this node signs its snapshot files with."""
        return self._snapshots.public_key

    def show_snapshot(self, id: str, tenant: int = 0) -> Snapshot:  # noqa: A002
        """A snapshot. Raises :class:`~tensor_wasm.errors.NotFound`."""
        return self._snapshots.show(id, tenant)

    def delete_snapshot(self, id: str, tenant: int = 0) -> None:  # noqa: A002
        """Forget a snapshot; instances made from it go on. Raises :class:`~tensor_wasm.errors.NotFound`."""
        self._snapshots.delete(id, tenant)

    def _restore(self, call: Call, idle_timeout_s: float | None) -> KeptInstance:
        record = self._snapshots.find(call.function_id, call.tenant)
        with self._compilers.acting_for(call.tenant), self._snapshots.opened(record) as image:
            module = self._catalog.observable(record.module_digest)
            with self.statistics.restoring():
                return self._kept.spawn(
                    call, function_of(record), module, idle_timeout_s, lambda sandbox: sandbox.restore(image)
                )

    # --- kept instances, seen from outside --------------------------------------------------------------

    def instances(self, tenant: int = 0) -> list[KeptInstance]:
        """A tenant's kept instances, oldest first."""
        return self._kept.list(tenant)

    def instance(self, id: str, tenant: int = 0) -> KeptInstance:  # noqa: A002
        """A kept instance. Raises :class:`~tensor_wasm.errors.NotFound`."""
        return self._kept.show(id, tenant)

    def delete_instance(self, id: str, tenant: int = 0) -> None:  # noqa: A002
        """End a kept instance, also while it answers a call. Raises :class:`~tensor_wasm.errors.NotFound`."""
        self._kept.delete(id, tenant)

    def _spawning(
        self, identity: str, tenant: int, deadline_s: float | None, cancelled: list[bool] | None = None
    ) -> Call:
        is_cancelled = None if cancelled is None else lambda: bool(cancelled)
        return Call(identity, tenant, None, (), b"", self._deadline_ns(deadline_s), is_cancelled)

    def _spawn(self, call: Call, idle_timeout_s: float | None) -> KeptInstance:
        record = self._catalog.find(call.function_id, call.tenant)
        with self._compilers.acting_for(call.tenant):
            module = self._catalog.observable(record.digest)
            if record.prewarm is None:
                return self._kept.spawn(call, record, module, idle_timeout_s)
            image = self._image(record)
            return self._kept.spawn(call, record, module, idle_timeout_s, lambda sandbox: sandbox.restore(image))

    def _call(self, claim: Claim, call: Call) -> InvocationResult:
        with self._compilers.acting_for(call.tenant):
            return claim.run(call)

    # --- the node itself --------------------------------------------------------------------------------

    async def in_background(self, tenant: int, function: Callable[..., _Result], *args: object) -> _Result:
        """Run a blocking use case (a deploy, a list) of a tenant off the event loop; tenants take turns.

        Raises :class:`~tensor_wasm.errors.CapacityExhausted` when too many of the tenant's wait, and
        :class:`~tensor_wasm.errors.DeadlineExceeded` when its turn does not come.
        """
        deadline_ns = time.monotonic_ns() + _BACKGROUND_WAIT_NS
        try:
            return await self._background.run(tenant, carried(lambda: function(*args)), deadline_ns)
        except CapacityExhausted:
            self.statistics.refused(tenant, "queue")
            raise

    @property
    def running(self) -> int:
        """Invocations that run on workers. Asks no lock, as :attr:`waiting` does not."""
        return self._workers.running

    @property
    def waiting(self) -> int:
        """Invocations that wait for a worker."""
        return self._workers.queued

    @property
    def is_draining(self) -> bool:
        """Whether it takes no more work."""
        return self._draining

    def queued(self) -> dict[int, int]:
        """How many invocations of each tenant wait for a worker; without those that have none."""
        return self._workers.waiting()

    def readiness(self) -> list[str]:
        """Why the node should get no work now; empty when it is ready. Asks the disk."""
        reasons = ["draining"] if self._draining else []
        gpu = self.device.gpu
        if gpu is not None and not gpu.is_ready:
            reasons.append("the device starts anew")
        try:
            self._catalog.check()
        except StoreError:
            reasons.append("the store cannot be read")  # the path and the cause are for the log, not for callers
            _log.exception("the store cannot be read")
        return reasons

    def concerns(self) -> list[str]:
        """Why changes fail while invocations go on; empty when they do not. Asks the disk."""
        return concerns(self.config.home)

    def _device_restarted(self, end: WorkerEnd) -> None:
        """Have guests that lost what they had on the device end soon, and tell who wants to know."""
        self._engine.look_soon()
        if self.on_device_restart is None:
            return
        offender = end.offender
        tenant = None if offender is None else offender.tenant
        self.on_device_restart(
            DeviceRestart(
                device=self.device.name,
                reason=end.reason,
                offender=tenant,
                kernel=None if offender is None else offender.kernel,
                victims=tuple(victim for victim in end.victims if victim != tenant),
            )
        )

    def drain(self, timeout_s: float) -> bool:
        """Take no more work; wait for what runs, then end it. Whether all of it ended by itself."""
        return self.end_all(timeout_s) == 0

    def end_all(self, timeout_s: float) -> int:
        """As :meth:`drain`; how many instances had to be ended."""
        self.begin_drain()
        if self._wait_until_idle(timeout_s):
            return 0
        count = self._instances.terminate_all()
        self._wait_until_idle(_TERMINATION_S)
        return count

    def begin_drain(self) -> None:
        """Take no more work; do not wait. Jobs that wait stay for the next start."""
        self._draining = True
        self.jobs.pause()

    def close(self) -> None:
        """End what still runs and give everything back. Safe to call twice."""
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._draining:
            raise NotReady("the node is draining and takes no more work")

    def _wait_until_idle(self, timeout_s: float) -> bool:
        until = time.monotonic() + timeout_s
        idle = threading.Event()
        while self.statistics.active_count or self._workers.queued:
            self._kept.end_idle()
            if time.monotonic() >= until:
                return False
            idle.wait(_POLL_S)
        return True
