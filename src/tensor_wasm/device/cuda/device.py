"""A GPU as a node's device: one worker, a partition for each tenant that has guests there, and who may not use it.

What depends on the tenant, a kernel fenced for a partition or memory in it, is asked of a :class:`Residence`. When the
worker ends, everything on the GPU is lost: residences are *lost* then, and with them whoever holds one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property

from blake3 import blake3

from tensor_wasm.compiler import CompiledKernel
from tensor_wasm.device.compilers import Compilers
from tensor_wasm.device.cpu import tags
from tensor_wasm.device.cuda.board import BYTES, LANES
from tensor_wasm.device.cuda.fencing import Draft, reader_of
from tensor_wasm.device.cuda.gpu import Gpu
from tensor_wasm.device.cuda.lane import Lane, Offender
from tensor_wasm.device.cuda.supervisor import WorkerEnd
from tensor_wasm.device.cuda.tenant import GpuKernel, GpuTenant
from tensor_wasm.device.cuda.trampoline import REGION_BYTES, trampoline
from tensor_wasm.device.fence import Partition
from tensor_wasm.device.protocol import Interrupt, KernelStatistics, LoadedKernel
from tensor_wasm.dispatch import KernelEntry
from tensor_wasm.errors import (
    CapacityExhausted,
    DeviceRestarting,
    DeviceUnavailable,
    InternalError,
    TensorWasmError,
)
from tensor_wasm.runtime import Engine, FileMemory, Module, ModuleCache, asleep

_log = logging.getLogger("tensor_wasm.device")

#: A tenant whose kernels end the worker so often within so long may not use the GPU for as long again.
OFFENCES_MAX = 3
OFFENCE_WINDOW_S = 600.0
#: Guests that one tenant may have there at once: each has a lane, of which there are a thousand for all.
GUESTS_OF_TENANT_MAX = LANES // 4
#: How long a partition is kept after its tenant's last guest: the next one finds its kernels assembled.
_KEPT_S = 60.0
#: A kernel that runs on for so long after its guest's end is taken to be endless.
_ENDLESS_S = 1.0
#: How often the lanes of guests that have ended are looked at, and everything else.
_LEAVING_S = 0.01
_SWEEP_S = 1.0
#: Partitions need not be anywhere for a text to be checked.
_CHECKED = Partition(0, 1 << 40)
_RESTARTING = "the GPU starts anew: what was on it is lost; try again"

OnRestart = Callable[[WorkerEnd], None]


@dataclass(slots=True, eq=False)
class Residence:
    """A tenant on the GPU. ``guests`` have it at this moment; it ends some time after the last has left.

    ``newest`` is the highest number of a kernel of its.
    """

    tenant: GpuTenant
    guests: int = 0
    idle_since_s: float = 0.0
    newest: int = 0

    @property
    def number(self) -> int:
        """The tenant's number."""
        return self.tenant.number

    @property
    def generation(self) -> int:
        """The worker that it is of."""
        return self.tenant.generation

    @property
    def is_lost(self) -> bool:
        """Whether all that the tenant had there is gone."""
        return self.tenant.is_void

    def check(self) -> None:
        """Raise :class:`DeviceRestarting` when all that the tenant had there is gone."""
        if self.tenant.is_void:
            raise DeviceRestarting(_RESTARTING)


@dataclass(slots=True, eq=False)
class _Leaving:
    """A guest that has ended while its kernel ran: ``release`` gives back what it had, once the lane is idle."""

    residence: Residence
    lane: Lane
    kernel: str
    release: Callable[[], None]
    since_s: float = field(default_factory=time.monotonic)


class CudaDevice:
    """Runs kernels on a GPU, in a process of its own. Safe for threads.

    ``open_gpu`` starts the worker and is given what is to be told of its end; ``modules`` has the machine code of the
    module that launches. ``compilers`` read and fence texts, where there are any. Raises
    :class:`~tensor_wasm.errors.DeviceUnavailable` when the GPU cannot be used.
    """

    kind = "cuda"

    def __init__(
        self,
        open_gpu: Callable[[Callable[[WorkerEnd], None]], Gpu],
        modules: ModuleCache,
        partition_bytes: int,
        compilers: Compilers | None = None,
    ) -> None:
        self._reader = reader_of(compilers)
        self.statistics = KernelStatistics()
        #: Is told of each end of a worker, on a thread that may wait.
        self.on_restart: OnRestart | None = None
        self._modules = modules
        self._partition_bytes = partition_bytes
        self._residences: dict[int, Residence] = {}
        self._leaving: list[_Leaving] = []
        self._offences: dict[int, deque[float]] = {}
        self._barred: dict[int, tuple[float, str]] = {}
        self._restarts = 0
        self._is_closing = False
        self._changed = threading.Condition()
        self._opening = threading.Lock()
        self._gpu = open_gpu(self._ended)
        self.facts = self._gpu.facts
        if partition_bytes > self.facts.memory_bytes:
            self._gpu.close()
            raise DeviceUnavailable(
                f"cuda:{self.facts.index}: the GPU has {self.facts.memory_bytes >> 20} MiB, no room for a partition of"
                f" {partition_bytes >> 20}: set TENSOR_WASM_CUDA_PARTITION_MIB lower"
            )
        self.name = f"cuda:{self.facts.index}"
        if not self.facts.assembler or compilers is None or not compilers.has_processes:
            lack = "there are no compiler processes" if self.facts.assembler else "NVIDIA's nvJitLink is not installed"
            _log.warning("%s: the driver assembles kernels, and launches wait meanwhile: %s", self.name, lack)
        self.sm = self.facts.sm
        self._watcher = threading.Thread(target=self._watch, name="gpu-watch", daemon=True)
        self._watcher.start()

    # --- the device's protocol --------------------------------------------------------------------------

    @property
    def gpu(self) -> CudaDevice:
        """What guests use it by."""
        return self

    @property
    def restarts(self) -> int:
        """How often it lost everything that was on it."""
        return self._restarts

    def load(self, ptx: bytes, entry: str, interrupt: Interrupt | None = None) -> LoadedKernel:
        """Check that a kernel can be confined, for nobody in particular. What runs comes from :meth:`kernel`."""
        kernel = self._reader(ptx, entry, interrupt)
        kernel.fence(_CHECKED, _CHECKED.base, self.sm, is_checked=False)
        return self._loaded(_facts(kernel.draft), 0)

    def has(self, ptx: bytes, entry: str) -> bool:
        """Kernels are each tenant's own: none is there for everybody."""
        del ptx, entry
        return False

    def revive(self, encoded: bytes) -> LoadedKernel:
        """Kernels of a GPU are in no snapshot."""
        del encoded
        raise InternalError("this device has no kernels that were compiled before")

    # --- tenants ----------------------------------------------------------------------------------------

    def barred(self, tenant: int) -> str:
        """Why a tenant may not use the GPU now; empty when it may."""
        with self._changed:
            until_s, text = self._barred.get(tenant, (0.0, ""))
            left_s = until_s - time.monotonic()
        return f"{text}; it may again in {max(round(left_s), 1)} s" if left_s > 0 else ""

    def enter(self, tenant: int) -> Residence:
        """The tenant's residence, opened if there is none, for one more guest; to be left by :meth:`leave`.

        Raises :class:`DeviceRestarting`, and :class:`CapacityExhausted` when the GPU has no memory for its partition,
        or the tenant as many guests there as it may.
        """
        found = self._find(tenant)
        if found is None:
            with asleep():
                self._opening.acquire()
            try:
                found = self._find(tenant) or self._open(tenant)
            finally:
                self._opening.release()
        return found

    def leave(self, residence: Residence) -> None:
        """One guest less."""
        with self._changed:
            residence.guests -= 1
            residence.idle_since_s = time.monotonic()

    def leave_busy(self, residence: Residence, lane: Lane, kernel: str, release: Callable[[], None]) -> None:
        """One guest less, whose kernel may still run: ``release`` is called, once, when it does not.

        A kernel that does not end is ended with the worker.
        """
        with self._changed:
            self._leaving.append(_Leaving(residence, lane, kernel, release))
            self._changed.notify()

    def kernel(
        self, residence: Residence, ptx: bytes, entry: str, interrupt: Interrupt | None
    ) -> tuple[LoadedKernel, GpuKernel]:
        """A kernel of the tenant's, fenced and assembled, or as it was kept; it is in use as long as anything refers to
        the second of what this gives.

        Raises :class:`~tensor_wasm.errors.PtxError`, :class:`CapacityExhausted` when the partition has no room for its
        variables, :class:`DeviceRestarting`, and what ``interrupt`` gives.
        """
        began_s = time.monotonic()
        with asleep():
            kernel = residence.tenant.kernel(ptx, entry, interrupt=interrupt)
        with self._changed:  # the worker counts on: what it assembled just now has a higher number than all before
            is_new = kernel.number > residence.newest
            residence.newest = max(kernel.number, residence.newest)
        self.statistics.count_lookup("memory", hit=not is_new)
        if is_new:
            duration_s = time.monotonic() - began_s
            self.statistics.count_load(duration_s)
            self.statistics.count_compilation(duration_s)
        return self._loaded(_facts(kernel), kernel.max_threads), kernel

    @property
    def memory(self) -> Gpu:
        """The GPU itself: copies, and the staging area."""
        return self._gpu

    @property
    def is_ready(self) -> bool:
        """Whether there is a worker now."""
        return self._gpu.is_ready

    def board(self, engine: Engine) -> FileMemory:
        """The board, for the stores of an engine."""
        return FileMemory(engine, self._gpu.board_descriptor, BYTES)

    @property
    def partition_bytes(self) -> int:
        """What each tenant has."""
        return self._partition_bytes

    def close(self) -> None:
        """End the worker; no guest may be left. Safe to call twice."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._watcher.join()
        self._gpu.close()

    # --- residences -------------------------------------------------------------------------------------

    def _find(self, tenant: int) -> Residence | None:
        with self._changed:
            found = self._residences.get(tenant)
            if found is None or found.is_lost:
                return None
            if found.guests >= GUESTS_OF_TENANT_MAX:
                raise CapacityExhausted(
                    f"{found.guests} instances of the tenant have something on the GPU, as many as may: end some"
                )
            found.guests += 1
            return found

    def _open(self, tenant: int) -> Residence:
        """Open a partition; where there is no memory, those that nobody uses are closed first."""
        try:
            opened = GpuTenant(self._gpu, tenant, self._partition_bytes, self._reader)
        except CapacityExhausted:
            if not self._close_idle(0.0):
                raise
            opened = GpuTenant(self._gpu, tenant, self._partition_bytes, self._reader)
        residence = Residence(opened, guests=1)
        with self._changed:
            self._residences[tenant] = residence
        return residence

    def _close_idle(self, kept_s: float) -> int:
        """Close what had no guest for ``kept_s``; how many. ``_opening`` is held."""
        with self._changed:
            before_s = time.monotonic() - kept_s
            idle = [one for one in self._residences.values() if not one.guests and one.idle_since_s <= before_s]
            for residence in idle:
                del self._residences[residence.number]
        for residence in idle:
            with suppress(DeviceRestarting):
                residence.tenant.close()
        return len(idle)

    def _loaded(self, facts: CompiledKernel, max_threads: int) -> LoadedKernel:
        parameters = [(tags(p.kind), p.offset, p.size_bytes) for p in facts.parameters]
        # A block has as many threads as the text allows and its registers leave room for.
        shape = facts.maxntid or (max_threads, 1, 1)
        threads = min(shape[0] * shape[1] * shape[2], max_threads)
        return LoadedKernel(
            facts, self._trampoline, KernelEntry(parameters, facts.reqntid, (threads, 1, 1), uses_helpers=False)
        )

    @cached_property
    def _trampoline(self) -> Module:
        wasm = trampoline()
        return self._modules.get(blake3(wasm).hexdigest(), wasm)

    # --- ends -------------------------------------------------------------------------------------------

    def _ended(self, end: WorkerEnd) -> None:
        """The worker has ended, and another takes its place."""
        offender = end.offender
        with self._changed:
            if self._is_closing:
                return
            self._restarts += 1
            self._residences = {number: one for number, one in self._residences.items() if not one.is_lost}
            if offender is not None:
                self._note(offender)
            self._changed.notify()
        _log.error(
            "%s starts anew: %s; caused by %s",
            self.name,
            end.reason,
            "no tenant that is known" if offender is None else f"kernel {offender.kernel} of tenant {offender.tenant}",
        )
        if self.on_restart is not None:
            self.on_restart(end)

    def _note(self, offender: Offender) -> None:
        """Count an offence; the third bars the tenant. The lock is held."""
        now_s = time.monotonic()
        for tenant, times in tuple(self._offences.items()):
            if now_s - times[-1] > OFFENCE_WINDOW_S:
                del self._offences[tenant]
        self._barred = {tenant: bar for tenant, bar in self._barred.items() if bar[0] > now_s}
        times = self._offences.setdefault(offender.tenant, deque(maxlen=OFFENCES_MAX))
        times.append(now_s)
        if len(times) == OFFENCES_MAX and now_s - times[0] <= OFFENCE_WINDOW_S:
            del self._offences[offender.tenant]
            text = (
                f"kernels of this tenant ended the GPU's work {OFFENCES_MAX} times within"
                f" {OFFENCE_WINDOW_S / 60:.0f} minutes, {offender.kernel[:64]} last"
            )
            self._barred[offender.tenant] = now_s + OFFENCE_WINDOW_S, text
            _log.warning("tenant %d may not use %s for a while: %s", offender.tenant, self.name, text)

    def _watch(self) -> None:
        """Give back what guests left that have ended, and partitions that nobody uses."""
        swept_s = time.monotonic()
        while True:
            with self._changed:
                if self._is_closing:
                    return
                self._changed.wait(_LEAVING_S if self._leaving else _SWEEP_S)
                leaving = tuple(self._leaving)
            try:
                for one in leaving:
                    self._look_at(one)
                if time.monotonic() - swept_s >= _SWEEP_S:
                    swept_s = time.monotonic()
                    with self._opening:
                        self._close_idle(_KEPT_S)
            except Exception:
                _log.exception("the GPU's guests cannot be looked after")

    def _look_at(self, one: _Leaving) -> None:
        residence = one.residence
        if one.lane.doorbell.is_busy and not residence.is_lost:
            # One that came after another's may only wait for that: its turn to be judged comes when the other is over,
            # which is by the deadline of its own guest.
            if time.monotonic() - one.since_s > _ENDLESS_S and self._gpu.holds_up_others(one.lane):
                offender = Offender(residence.number, "a kernel does not end", one.kernel)
                self._gpu.restart(offender, generation=residence.generation)
            return
        with self._changed:
            self._leaving.remove(one)
        try:
            one.release()
        except TensorWasmError as error:
            if not residence.is_lost:
                _log.error("what a guest had on the GPU cannot be given back: %s", error)
        finally:
            self.leave(residence)


def _facts(kernel: Draft | GpuKernel) -> CompiledKernel:
    """What the gate and the host must know of a kernel, as they know it of the CPU's."""
    return CompiledKernel(
        b"", kernel.name, kernel.parameters, kernel.parameter_bytes, REGION_BYTES, kernel.reqntid, kernel.maxntid, ()
    )
