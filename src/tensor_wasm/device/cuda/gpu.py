"""A GPU as its client sees it: a worker process that is replaced when it ends, and requests to it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

import numpy as np

from tensor_wasm.device.cuda import board
from tensor_wasm.device.cuda.assembler import AssembledKernel
from tensor_wasm.device.cuda.driver import GpuFacts
from tensor_wasm.device.cuda.lane import Lane, Offender, Window
from tensor_wasm.device.cuda.lane_table import Doorbell, LaneTable
from tensor_wasm.device.cuda.messages import Kind, Message
from tensor_wasm.device.cuda.shared import SharedFile
from tensor_wasm.device.cuda.staging import Copies, Staging
from tensor_wasm.device.cuda.worker_handle import GRACE_S, WorkerFailed, WorkerHandle
from tensor_wasm.device.fence import FAULT_BYTES, FencedKernel, Partition
from tensor_wasm.errors import (
    CapacityExhausted,
    DeviceRestarting,
    DeviceUnavailable,
    InternalError,
    KernelError,
    PtxError,
)
from tensor_wasm.runtime import asleep

__all__ = ["STAGING_BYTES", "Gpu", "Lane", "Offender", "Window", "WorkerEnd"]

_log = logging.getLogger("tensor_wasm.device")

#: The staging area's size unless it is given.
STAGING_BYTES: Final = 256 << 20
#: A worker that says nothing for so long is ended.
SILENCE_S: Final = 10.0
#: After a start that failed the next one waits, each time twice as long.
_PAUSE_S: Final = 0.25
_PAUSE_MAX_S: Final = 30.0
#: How often a process that was killed and does not end is mentioned: the driver hangs.
_REAP_S: Final = 10.0
#: How often the supervisor looks around at least.
_TURN_S: Final = 0.25
#: An image larger than this goes through the staging area.
_IMAGE_BYTES_MAX: Final = 256 << 10


@dataclass(frozen=True, slots=True)
class WorkerEnd:
    """That a worker ended: why, whose work did it if that is known, and which tenants had a partition then."""

    reason: str
    offender: Offender | None
    victims: tuple[int, ...]
    generation: int


def _ignore(_: WorkerEnd) -> None:
    """Nothing."""


class Gpu:
    """The GPU ``index``. Threads may share it. Close it: that ends its worker.

    Everything that was made by it belongs to the worker of a ``generation``: once that is over, partitions, kernels and
    lanes are void, and their owners make new ones. Calls take the ``generation`` that is meant, None for any.

    Every call raises :class:`~tensor_wasm.errors.DeviceRestarting` while there is no worker, or not the one that is
    meant, and when it ends meanwhile; :class:`~tensor_wasm.errors.KernelError` for what the tenant does not have.

    Args:
        index: Which GPU, as the driver counts them.
        staging_bytes: Size of the staging area, a multiple of 64 KiB.
        command: What to run as a worker.
        on_end: Called after the end of each worker but the last, by a thread that does nothing else meanwhile.
        silence_s: A worker that says nothing for so long is ended.

    Raises:
        DeviceUnavailable: The GPU cannot be used; the message says why.
    """

    def __init__(
        self,
        index: int,
        *,
        staging_bytes: int = STAGING_BYTES,
        command: Sequence[str] | None = None,
        on_end: Callable[[WorkerEnd], None] = _ignore,
        silence_s: float = SILENCE_S,
    ) -> None:
        self.index = index
        self._command = command
        self._on_end = on_end
        self._silence_s = silence_s
        try:
            self._shared = SharedFile.create(staging_bytes)
        except OSError as error:
            raise DeviceUnavailable(f"there is no memory for the GPU's staging area: {error.strerror}") from error
        self.board = self._shared.content
        self.address = self._shared.address
        self._staging = Staging(staging_bytes)
        self._copies = Copies(self.board[board.BYTES :], self._staging.copies, _numbers)
        self._lanes = LaneTable(self.board)
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._worker: WorkerHandle | None = None
        self._last_end: WorkerEnd | None = None
        self._tenants: set[int] = set()
        self._kernels: dict[int, str] = {}
        #: Why there is no worker.
        self._trouble = "it has not started"
        self.generation = 1
        first: Future[GpuFacts] = Future()
        # Not the caller's: the worker ends with the thread that started it.
        self._supervisor = threading.Thread(target=self._supervise, args=(first,), name="gpu-worker", daemon=True)
        self._supervisor.start()
        try:
            self.facts: GpuFacts = first.result()
        except BaseException:
            self.close()
            raise

    # --- what it is -------------------------------------------------------------------------------------

    @property
    def board_descriptor(self) -> int:
        """The shared file: the board and the staging area."""
        return self._shared.descriptor

    @property
    def is_ready(self) -> bool:
        """Whether there is a worker now."""
        return self._worker is not None

    @property
    def trouble(self) -> str:
        """Why there is no worker, empty while there is one; for operators, not for tenants."""
        return self._trouble

    @property
    def last_end(self) -> WorkerEnd | None:
        """How the last worker that ended did."""
        return self._last_end

    @property
    def pid(self) -> int | None:
        """The worker's process, when there is one."""
        worker = self._worker
        return None if worker is None else worker.pid

    # --- tenants ----------------------------------------------------------------------------------------

    def open_tenant(self, tenant: int, size_bytes: int) -> Partition:
        """Give a tenant a partition, all zeros; ``size_bytes`` is a power of two of at least 4 MiB.

        Raises :class:`~tensor_wasm.errors.CapacityExhausted` when the GPU has no memory for it.
        """
        worker = self._current(None)
        (base,) = self._ask(worker, Kind.OPEN_TENANT, (tenant, size_bytes), count=1)
        try:
            partition = Partition(base, size_bytes)
        except ValueError as error:
            raise InternalError("the GPU's worker gave a partition that is none") from error
        with self._lock:
            if worker is not self._worker:
                raise _restarting()
            self._tenants.add(tenant)
        return partition

    def close_tenant(self, tenant: int, *, generation: int | None = None) -> None:
        """Take a tenant's partition, and its kernels and lanes, once its work is over; waits for that."""
        worker = self._current(generation)
        self._ask(worker, Kind.CLOSE_TENANT, (tenant,))
        with self._lock:
            if worker is self._worker:
                self._tenants.discard(tenant)
                self._lanes.lose(tenant)

    # --- kernels ----------------------------------------------------------------------------------------

    def load(
        self,
        tenant: int,
        fenced: FencedKernel | AssembledKernel,
        image_base: int,
        *,
        leaves_faults: bool,
        generation: int | None = None,
    ) -> tuple[int, int]:
        """Load a kernel for a tenant: its number, and the most threads that its blocks can have. One that is a text is
        assembled by the driver, and launches of all tenants wait meanwhile.

        Raises :class:`~tensor_wasm.errors.PtxError` when the driver's assembler refuses it.
        """
        worker = self._current(generation)
        image = fenced.image
        if len(image) > _IMAGE_BYTES_MAX:
            self._copies.copy(worker.ask, tenant, image_base, np.frombuffer(image, np.uint8), is_in=True)
            image = bytes(FAULT_BYTES)
        code = (fenced.ptx.encode(), b"") if isinstance(fenced, FencedKernel) else (fenced.code, fenced.wide)
        content = (*code, fenced.name.encode(), image)
        number, max_threads = self._ask(worker, Kind.LOAD, (tenant, image_base, int(leaves_faults)), *content, count=2)
        with self._lock:
            if worker is self._worker:
                self._kernels[number] = fenced.name
        return number, max_threads

    def unload(self, number: int, *, generation: int | None = None) -> None:
        """Forget a kernel; launches that run go on to their end."""
        worker = self._current(generation)
        self._ask(worker, Kind.UNLOAD, (number,))
        with self._lock:
            if worker is self._worker:
                self._kernels.pop(number, None)

    def kernel_name(self, number: int) -> str:
        """The name of a kernel that is loaded; empty for another."""
        return self._kernels.get(number, "")

    # --- lanes ------------------------------------------------------------------------------------------

    def open_lane(self, tenant: int, *, generation: int | None = None) -> Lane:
        """A lane for a tenant's launches.

        Raises :class:`~tensor_wasm.errors.CapacityExhausted` when all are in use.
        """
        with self._lock:
            worker, current = self._worker, self.generation
        if worker is None or generation not in (None, current):
            raise _restarting()
        doorbell = self._lanes.take(tenant)
        try:
            future = worker.ask(Kind.OPEN_LANE, (doorbell.number, tenant))
        except BaseException:
            self._lanes.give(doorbell)
            raise
        try:
            with asleep():
                _numbers(future.result())
        except (DeviceRestarting, CapacityExhausted, KernelError, InternalError):
            self._lanes.give(doorbell)
            raise
        except BaseException:  # an interrupt: it may be open, or will be
            self._close_lane(worker, doorbell)
            raise
        return Lane(
            doorbell,
            self.board,
            current,
            end=lambda lane: self._close_lane(worker, lane.doorbell),
            restart=lambda offender, which: self.restart(offender, generation=which),
            name=self.kernel_name,
        )

    def holds_up_others(self, lane: Lane) -> bool:
        """Whether of all that is in flight a lane's request was taken first: nothing else holds it up."""
        return self._lanes.first() is lane.doorbell

    def _close_lane(self, worker: WorkerHandle, doorbell: Doorbell) -> None:
        if doorbell.is_closing:
            return
        doorbell.is_closing = True
        try:
            # Answered, by whatever, once the worker does not serve it any more.
            future = worker.ask(Kind.CLOSE_LANE, (doorbell.number,))
        except DeviceRestarting:
            self._lanes.give(doorbell)
        else:
            future.add_done_callback(lambda _: self._lanes.give(doorbell))

    # --- memory -----------------------------------------------------------------------------------------

    def copy_in(self, tenant: int, address: int, data: memoryview, *, generation: int | None = None) -> None:
        """Copy bytes, any number of them, to a tenant's memory; done when this returns."""
        worker = self._current(generation)
        if data.nbytes:
            self._copies.copy(worker.ask, tenant, address, np.frombuffer(data, np.uint8), is_in=True)

    def copy_out(self, tenant: int, address: int, into: memoryview, *, generation: int | None = None) -> None:
        """Fill ``into`` from a tenant's memory."""
        worker = self._current(generation)
        if into.nbytes:
            self._copies.copy(worker.ask, tenant, address, np.frombuffer(into, np.uint8), is_in=False)

    def set_memory(
        self, tenant: int, address: int, value: int, size_bytes: int, *, generation: int | None = None
    ) -> None:
        """A byte into all of a range of a tenant's memory."""
        self._ask(self._current(generation), Kind.SET_MEMORY, (tenant, address, value, size_bytes))

    def take_staging(self, size_bytes: int) -> int | None:
        """A part of the staging area, at a multiple of 64 KiB from its start; None when there is no room now."""
        return self._staging.take(size_bytes)

    def give_staging(self, offset: int, size_bytes: int) -> None:
        """Give a part of the staging area back, once no launch that uses it is in flight."""
        self._staging.give(offset, size_bytes)

    # --- the worker -------------------------------------------------------------------------------------

    def restart(self, offender: Offender | None, *, generation: int | None = None) -> None:
        """End the worker now, and with it everything on the GPU; another starts in the background.

        Nothing happens when the generation that is meant is over.
        """
        with self._lock:
            worker = self._worker
            if worker is None or generation not in (None, self.generation):
                return
        self._abandon(worker, offender.reason if offender else "it was told to start anew", offender)

    def close(self) -> None:
        """End the worker for good. Safe to call twice; the board's mapping stays while anything refers to it."""
        with self._lock:
            is_first = not self._closing.is_set()
            self._closing.set()
            worker = self._worker
        if is_first and worker is not None:
            worker.ask_to_end()
        if threading.current_thread() is not self._supervisor:
            self._supervisor.join()
        if is_first:
            self._lanes.close()
            self._copies.close()
            self._shared.close()

    def _current(self, generation: int | None) -> WorkerHandle:
        with self._lock:
            if self._worker is None or generation not in (None, self.generation):
                raise _restarting()
            return self._worker

    def _ask(
        self, worker: WorkerHandle, kind: Kind, numbers: tuple[int, ...], *content: bytes, count: int = 0
    ) -> tuple[int, ...]:
        future = worker.ask(kind, numbers, *content)
        with asleep():
            return _numbers(future.result(), count)

    def _abandon(self, worker: WorkerHandle, reason: str, offender: Offender | None) -> None:
        """End a worker and all that was its; nothing happens when that was done."""
        with self._lock:
            if self._worker is not worker:
                return
            self._worker = None
            self._trouble = reason
            self._last_end = WorkerEnd(reason, offender, tuple(sorted(self._tenants)), self.generation)
            self.generation += 1
            self._tenants.clear()
            self._kernels.clear()
        worker.kill()
        # Before the requests end: with that of a lane that closes its number is free, and nobody looks at it.
        self._lanes.lose()
        worker.abandon(_restarting())

    # --- the supervisor ---------------------------------------------------------------------------------

    def _supervise(self, first: Future[GpuFacts]) -> None:
        """Have a worker at all times, until this is closed. The first one's facts, or why there are none, are
        ``first``'s.
        """
        try:
            self._keep_one(first)
        except BaseException as error:  # a defect of ours: nobody may wait for what will not come
            _log.exception("GPU %d is given up", self.index)
            self._trouble = f"{type(error).__name__}: {error}"
            worker = self._worker
            if worker is not None:
                self._abandon(worker, self._trouble, None)
            if not first.done():
                first.set_exception(InternalError(self._trouble))

    def _keep_one(self, first: Future[GpuFacts]) -> None:
        known: GpuFacts | None = None
        pause_s = _PAUSE_S
        while not self._closing.is_set():
            try:
                worker, facts = self._start(known)
            except WorkerFailed as failure:
                self._trouble = str(failure)
                if known is None:
                    first.set_exception(DeviceUnavailable(f"GPU {self.index} cannot be used: {failure}"))
                    return
                if not self._closing.is_set():
                    _log.warning("GPU %d has no worker, next try in %.2f s: %s", self.index, pause_s, failure)
            else:
                with self._lock:
                    self._worker = worker
                    self._trouble = ""
                if known is None:
                    known = facts
                    first.set_result(facts)
                else:
                    _log.info("GPU %d has a worker again", self.index)
                self._serve(worker)
                pause_s = _PAUSE_S
                continue
            self._closing.wait(pause_s)
            pause_s = min(2 * pause_s, _PAUSE_MAX_S)

    def _start(self, known: GpuFacts | None) -> tuple[WorkerHandle, GpuFacts]:
        worker = WorkerHandle(self._command, self.index, self._shared)
        try:
            facts = worker.wait_until_ready(self._closing)
            if known is not None and facts.uuid != known.uuid:
                raise WorkerFailed("another GPU has its place now")
        except BaseException:
            worker.abandon(_restarting())
            self._reap(worker)
            raise
        return worker, facts

    def _serve(self, worker: WorkerHandle) -> None:
        """Pass a worker's answers on until it ends, and see to its end."""
        reason, offender = self._listen(worker)
        if self._closing.is_set():
            worker.reap(GRACE_S)  # it wipes the tenants' memory
        self._abandon(worker, reason, offender)
        with self._lock:
            end = self._last_end
        assert end is not None
        if not self._closing.is_set():
            _log.error("GPU %d lost its worker: %s", self.index, end.reason)
            try:
                self._on_end(end)
            except Exception:
                _log.exception("what is done after the end of a GPU's worker failed")
        self._reap(worker)

    def _listen(self, worker: WorkerHandle) -> tuple[str, Offender | None]:
        """Why a worker ended, and for whose work, if one tenant alone had any."""
        turn_s = min(_TURN_S, self._silence_s / 8)
        silent_s, before_s, beat_s = 0.0, time.monotonic(), 0.0
        while True:
            try:
                heard = worker.receive(turn_s)
                for message in heard or ():
                    if message.kind is Kind.LAST_WORDS:
                        return _last_words(message)
            except OSError:
                return worker.describe_end(), None
            except InternalError as error:
                return f"it sent what no worker sends: {error}", None
            now_s = time.monotonic()
            # A turn that took long was this process's fault, which stood still.
            silent_s = 0.0 if heard is not None else silent_s + min(now_s - before_s, 2 * turn_s)
            before_s = now_s
            if silent_s > self._silence_s:
                return f"it said nothing for {self._silence_s:g} s: the driver hangs", None
            if now_s > beat_s:
                worker.beat()
                beat_s = now_s + 2 * turn_s

    def _reap(self, worker: WorkerHandle) -> None:
        """Wait for the end of a process that was killed: what it had on the GPU is free only then."""
        while not worker.reap(_REAP_S):
            self._trouble = f"process {worker.pid}, a worker that was killed, does not end: the driver hangs"
            _log.error("GPU %d: %s", self.index, self._trouble)
            if self._closing.is_set():
                return


def _last_words(message: Message) -> tuple[str, Offender | None]:
    reason = message.text()
    if len(message.fields) != 3:
        return reason, None
    tenants = message.numbers()
    kernel = message.fields[1].decode("utf-8", "replace")
    return reason, Offender(tenants[0], reason, kernel) if len(tenants) == 1 else None


def _numbers(message: Message, count: int | None = None) -> tuple[int, ...]:
    """The numbers of an answer; raises what it says instead."""
    match message.kind:
        case Kind.DONE:
            return message.numbers(count)
        case Kind.INVALID:
            raise KernelError(f"the GPU's worker refuses this: {message.text()}")
        case Kind.NO_MEMORY:
            raise CapacityExhausted(f"the GPU has no room for this: {message.text()}")
        case Kind.PTX_ERROR:
            raise PtxError(f"the GPU's assembler refuses the kernel: {message.text()}")
        case _:
            raise InternalError(f"the GPU's worker failed: {message.text()}")


def _restarting() -> DeviceRestarting:
    return DeviceRestarting("the GPU starts anew: all that was on it is lost; try again shortly")
