"""The node: opens what is in its home and on its machine, and makes the parts that are its use cases."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from tensor_wasm.config import Config, cores, split_public_keys
from tensor_wasm.device.compilers import Compilers
from tensor_wasm.device.protocol import Device
from tensor_wasm.device.selection import open_device
from tensor_wasm.dispatch import GateFactory, Ledger
from tensor_wasm.host import HostLinker, HostServices
from tensor_wasm.node.accounts import Accounts
from tensor_wasm.node.administration import Administration, share_of
from tensor_wasm.node.drain import Drain
from tensor_wasm.node.functions import Functions
from tensor_wasm.node.health import Health
from tensor_wasm.node.housekeeping import Chore, Housekeeping
from tensor_wasm.node.instances import Instances
from tensor_wasm.node.intake import Intake
from tensor_wasm.node.invocations import Invocations
from tensor_wasm.node.job_model import JobLimits
from tensor_wasm.node.job_queue import JobQueue
from tensor_wasm.node.job_runner import JobRunner
from tensor_wasm.node.jobs import Jobs
from tensor_wasm.node.kept import KeptInstances
from tensor_wasm.node.kernels import Kernels
from tensor_wasm.node.models import Models
from tensor_wasm.node.modules import Modules
from tensor_wasm.node.restarts import Restarts
from tensor_wasm.node.sandbox import Limits, Workshop
from tensor_wasm.node.snapshot_files import SnapshotFiles
from tensor_wasm.node.snapshots import Snapshots
from tensor_wasm.node.spawner import Spawner
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
    HomeLock,
    IdempotencyStore,
    JobStore,
    KernelStore,
    ModelStore,
    Registry,
    SharedArtifacts,
    SnapshotStore,
    TenantStore,
    TokenStore,
    check_database,
    node_key,
)
from tensor_wasm.store.signing import node_signing_key
from tensor_wasm.tenancy import Tenants, TokenBook

#: Threads for deploys and other work that must not stop the event loop.
_BACKGROUND_THREADS = 4
#: How often launches per second are measured, and the last use of tokens is written.
_SAMPLE_S = 1.0
_FLUSH_S = 60.0
#: How often threads that were needed for a while are ended.
_TRIM_S = 10.0
#: When the first compiler process is started: a node that lives no longer, for one call, needs none.
_WARM_UP_DELAY_S = 1.0


class Node:
    """One node of the runtime. A context manager; :meth:`close` gives everything back.

    What can be done with it its parts do, one for each kind of thing that tenants have: ``functions``, ``invocations``,
    ``spawner`` (makes instances that are kept), ``kept`` (those), ``snapshots``, ``snapshot_files``, ``kernels``,
    ``models`` and ``jobs``. Operators have ``tenants``, ``tokens``, ``administration``, ``health``, ``drain`` and
    ``restarts``, and what they look at: ``intake``, ``job_queue``, ``ledger``, ``device``, ``statistics``.

    Raises :class:`~tensor_wasm.errors.StoreError` when the home cannot be used and
    :class:`~tensor_wasm.errors.ConfigurationError` when the device cannot.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        give_back_large_blocks()
        self._closing = ExitStack()
        with ExitStack() as opened:
            # The home.
            opened.callback(HomeLock(config.home).close)
            check_database(config.home)
            key = node_key(config.home)
            database = Database(config.home / "node.db")
            opened.callback(database.close)
            keys = IdempotencyStore(database)
            self.tenants = Tenants(TenantStore(database))
            self.tokens = TokenBook(config.api_tokens, TokenStore(database))
            opened.callback(self.tokens.close)

            # What guests run on.
            engine = Engine()
            opened.callback(engine.close)
            engine.start()
            compilers = Compilers(config.compilers, config.compile_timeout_s)
            module_files = SealedFiles(config.home / "cache" / "modules", key)
            cache = ModuleCache(engine, module_files, compile_elsewhere=compilers.machine_code)
            self.device = _open_device(config, key, cache, compilers)
            gpu = self.device.gpu
            self.restarts = Restarts(self.device.name, engine.look_soon)
            if gpu is not None:
                opened.callback(gpu.close)
                gpu.on_restart = self.restarts.note
            self.ledger = Ledger(
                engine,
                config.dispatch_permits,
                config.dispatch_max_wait_ms,
                lambda tenant: share_of(self.tenants.quotas(tenant)),
            )
            helpers = 0 if gpu is not None else config.kernel_threads - 1
            gates = GateFactory(engine, self.ledger, helpers, has_windows=gpu is not None)
            opened.callback(gates.close)

            # How work comes in, what is counted of it, and where it is kept.
            self.statistics = Statistics(self.device.statistics)
            refused = self.statistics.refused
            artifacts = SharedArtifacts(ArtifactStore(config.home / "artifacts"))
            snapshot_store = SnapshotStore(database, config.snapshot_dir or config.home / "snapshots")
            job_store = JobStore(database, keys)
            storage = Storage(self.tenants, refused)
            accounts = Accounts(refused)
            background = Workers(_BACKGROUND_THREADS, config.queue_depth, self._weight, "background")
            niceness = FIRST_NICENESS, FURTHER_NICENESS
            workers = Workers(config.workers, config.queue_depth, self._weight, "worker", niceness, cores())
            self.intake = Intake(workers, background, config.invoke_deadline_s, engine.look_soon, refused)

            # The use cases.
            self.kernels = Kernels(
                KernelStore(database),
                artifacts,
                storage,
                self.device,
                compilers,
                self.intake,
                publishers=_public_keys(config.kernel_publishers),
                is_open=lambda: self.tokens.is_empty,
                compile_limit_s=config.compile_timeout_s,
            )
            board = None if gpu is None else gpu.board(engine)
            services = HostServices(self.device, gates, self.ledger, self.kernels.published, board)
            limits = Limits(config.instance_memory_bytes, config.output_bytes)
            workshop = Workshop(engine, services, self.statistics, limits)
            instances = Instances(engine, self.ledger, accounts, self.tenants, self.statistics)
            linker = HostLinker(engine, has_gpu=gpu is not None)
            modules = Modules(artifacts, cache, linker, config.instance_memory_bytes)
            warm = WarmStarts(
                workshop, instances, modules, snapshot_store, storage, int(config.invoke_deadline_s * 1e9)
            )
            self.functions = Functions(
                Registry(database, keys),
                keys,
                artifacts,
                storage,
                modules,
                warm,
                compilers,
                self.tenants,
                self.statistics,
                self.intake,
            )
            self.models = Models(ModelStore(database), self.functions, modules)
            self.invocations = Invocations(workshop, instances, self.functions, modules, compilers, self.intake)
            self.kept = KeptInstances(workshop, instances, compilers, self.intake, config.instance_idle_s)
            self.snapshots = Snapshots(
                snapshot_store,
                artifacts,
                storage,
                self.kept,
                self.statistics,
                self.intake,
                config.snapshot_concurrency,
            )
            self.snapshot_files = SnapshotFiles(
                self.snapshots,
                snapshot_store,
                artifacts,
                storage,
                modules,
                compilers,
                self.intake,
                key=node_signing_key(config.home),
                trusted=_public_keys(config.snapshot_keys),
                module_max_bytes=config.max_body_bytes,
                memory_max_bytes=config.instance_memory_bytes,
            )
            self.spawner = Spawner(
                self.functions, modules, self.snapshots, self.kept, compilers, self.statistics, self.intake
            )
            artifacts.sweep()  # once everything has said what it holds
            self.job_queue = JobQueue(
                job_store,
                workers,
                JobLimits(config.job_queue_depth, config.job_stored_bytes, max(config.workers // 2, 1)),
                JobRunner(job_store, self.invocations.run, config.invoke_deadline_s),
                refused,
            )
            opened.callback(background.close)
            opened.callback(self.job_queue.close)  # after the threads that run jobs
            opened.callback(workers.close)
            self.jobs = Jobs(
                job_store,
                keys,
                self.job_queue,
                self.functions,
                modules,
                self.intake,
                config.job_retention_s,
                engine.look_soon,
            )

            # What operators do, and what is done by itself.
            self.drain = Drain(self.intake, self.job_queue, instances, self.kept, self.statistics)
            self.health = Health(config.home, self.device, self.functions, self.intake)
            self.administration = Administration(
                self.tenants, instances, accounts, self.ledger, self.functions, self.intake, storage
            )
            housekeeping = Housekeeping(
                Chore("sampling launches", _SAMPLE_S, instances.sample),
                Chore("ending idle threads", _TRIM_S, workers.trim),
                Chore("ending idle threads in the background", _TRIM_S, background.trim),
                Chore("ending idle instances", _SAMPLE_S, self.kept.sweep),
                Chore("writing when tokens were used", _FLUSH_S, self.tokens.flush),
                Chore("beginning jobs that had no place", _SAMPLE_S, self.job_queue.resume),
                Chore("forgetting jobs and keys", _FLUSH_S, self.jobs.sweep),
            )
            opened.callback(housekeeping.close)
            opened.callback(compilers.close)  # before the threads that may wait for it
            opened.callback(self.drain.finish, 0.0)
            compilers.warm_up(_WARM_UP_DELAY_S)
            self._closing = opened.pop_all()

    def close(self) -> None:
        """End what still runs and give everything back. Safe to call twice."""
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _weight(self, tenant: int) -> int:
        return self.tenants.quotas(tenant).weight


def _open_device(config: Config, key: bytes, cache: ModuleCache, compilers: Compilers) -> Device:
    """The device that was asked for, with the node's caches."""
    return open_device(
        config.device,
        cache,
        SealedFiles(config.kernel_cache_dir or config.home / "cache" / "kernels", key),
        compilers,
        partition_bytes=config.cuda_partition_mib << 20,
        staging_bytes=config.cuda_staging_mib << 20,
    )


def _public_keys(setting: str | None) -> frozenset[str]:
    return frozenset(split_public_keys(setting) if setting else ())
