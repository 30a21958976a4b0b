"""A GPU as its client sees it: what is on it, and requests to its worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from tensor_wasm.device.cuda.supervisor import SILENCE_S, Supervisor, WorkerEnd, restarting
from tensor_wasm.device.cuda.worker_handle import WorkerHandle
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

__all__ = ["STAGING_BYTES", "Gpu", "Lane", "Offender", "Window"]

#: The staging area's size unless it is given.
STAGING_BYTES: Final = 256 << 20
#: An image larger than this goes through the staging area.
_IMAGE_BYTES_MAX: Final = 256 << 10


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
        try:
            self._shared = SharedFile.create(staging_bytes)
        except OSError as error:
            raise DeviceUnavailable(f"there is no memory for the GPU's staging area: {error.strerror}") from error
        self.board = self._shared.content
        self.address = self._shared.address
        self._staging = Staging(staging_bytes)
        self._copies = Copies(self.board[board.BYTES :], self._staging.copies, _numbers)
        self._lanes = LaneTable(self.board)
        self._tenants: set[int] = set()
        self._kernels: dict[int, str] = {}
        #: Parts of the staging area that were given back while there was no worker.
        self._unsettled: list[tuple[int, int]] = []
        self._supervisor = Supervisor(
            index,
            self._shared,
            command,
            silence_s=silence_s,
            settle=self._settle,
            forget=self._forget,
            lose=self._lanes.lose,
            on_end=on_end,
        )
        try:
            self.facts: GpuFacts = self._supervisor.start()
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
        return self._supervisor.worker is not None

    @property
    def generation(self) -> int:
        """Which worker this is, or which comes next: the first is 1."""
        return self._supervisor.generation

    @property
    def trouble(self) -> str:
        """Why there is no worker, empty while there is one; for operators, not for tenants."""
        return self._supervisor.trouble

    @property
    def last_end(self) -> WorkerEnd | None:
        """How the last worker that ended did."""
        return self._supervisor.last_end

    @property
    def pid(self) -> int | None:
        """The worker's process, when there is one."""
        worker = self._supervisor.worker
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
        with self._supervisor.holding(worker) as is_current:
            if not is_current:
                raise restarting()
            self._tenants.add(tenant)
        return partition

    def close_tenant(self, tenant: int, *, generation: int | None = None) -> None:
        """Take a tenant's partition, and its kernels and lanes, once its work is over; waits for that."""
        worker = self._current(generation)
        self._ask(worker, Kind.CLOSE_TENANT, (tenant,))
        with self._supervisor.holding(worker) as is_current:
            if is_current:
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
        with self._supervisor.holding(worker) as is_current:
            if is_current:
                self._kernels[number] = fenced.name
        return number, max_threads

    def unload(self, number: int, *, generation: int | None = None) -> None:
        """Forget a kernel; launches that run go on to their end."""
        worker = self._current(generation)
        self._ask(worker, Kind.UNLOAD, (number,))
        with self._supervisor.holding(worker) as is_current:
            if is_current:
                self._kernels.pop(number, None)

    def kernel_name(self, number: int) -> str:
        """The name of a kernel that is loaded; empty for another."""
        return self._kernels.get(number, "")

    # --- lanes ------------------------------------------------------------------------------------------

    def open_lane(self, tenant: int, *, generation: int | None = None) -> Lane:
        """A lane for a tenant's launches.

        Raises :class:`~tensor_wasm.errors.CapacityExhausted` when all are in use.
        """
        worker, current = self._supervisor.current(generation)
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

    def take_staging(self, size_bytes: int, tenant: int | None = None, instead_bytes: int = 0) -> int | None:
        """A part of the staging area, at a multiple of 64 KiB from its start; None when there is no room now.

        With ``tenant`` it counts to what that one has, of which there is a limit; see :meth:`.staging.Staging.take`.
        """
        return self._staging.take(size_bytes, tenant, instead_bytes)

    def give_staging(self, offset: int, size_bytes: int) -> None:
        """Give a part of the staging area back, once no launch that uses it is in flight.

        While there is no worker nobody else gets it: the one that was killed may still have the GPU write there.
        """
        with self._supervisor.holding(None) as there_is_none:
            if there_is_none:
                self._unsettled.append((offset, size_bytes))
                return
        self._staging.give(offset, size_bytes)

    def fill_staging(self, offset: int, data: memoryview) -> None:
        """Copy bytes to a part of the staging area."""
        start = board.BYTES + offset
        self._copies.move(self.board[start : start + data.nbytes], data)

    # --- the worker -------------------------------------------------------------------------------------

    def restart(self, offender: Offender | None, *, generation: int | None = None) -> None:
        """End the worker now, and with it everything on the GPU; another starts in the background.

        Nothing happens when the generation that is meant is over.
        """
        self._supervisor.restart(offender, generation)

    def close(self) -> None:
        """End the worker for good. Safe to call twice; the board's mapping stays while anything refers to it."""
        if self._supervisor.close():
            self._lanes.close()
            self._copies.close()
            self._shared.close()

    def _current(self, generation: int | None) -> WorkerHandle:
        return self._supervisor.current(generation)[0]

    def _forget(self) -> tuple[int, ...]:
        """Forget what a worker's end takes along; the tenants that had something there."""
        victims = tuple(sorted(self._tenants))
        self._tenants.clear()
        self._kernels.clear()
        return victims

    def _settle(self) -> None:
        """Give back what was given back while there was no worker: the process before is gone."""
        for part in self._unsettled:
            self._staging.give(*part)
        self._unsettled.clear()

    def _ask(
        self, worker: WorkerHandle, kind: Kind, numbers: tuple[int, ...], *content: bytes, count: int = 0
    ) -> tuple[int, ...]:
        future = worker.ask(kind, numbers, *content)
        with asleep():
            return _numbers(future.result(), count)


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
