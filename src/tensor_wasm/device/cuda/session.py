"""A GPU opened by a Python program: a worker of its own, and in that one tenant, the program.

Each thread that launches has a lane meanwhile, so launches of several threads run side by side. What a worker's end
takes away comes again by itself where it can: the next launch waits for the new worker and loads its kernel again.
Arrays that were kept on the device cannot.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Final, Self

from numpy.typing import NDArray

from tensor_wasm.abi import limits
from tensor_wasm.compiler import Fault
from tensor_wasm.device.cuda.gpu import Gpu, Lane, Window
from tensor_wasm.device.cuda.lane import LATE, LEFT
from tensor_wasm.device.cuda.supervisor import WorkerEnd
from tensor_wasm.device.cuda.tenant import GpuKernel, GpuTenant
from tensor_wasm.device.cuda.transfer import GpuTransfer
from tensor_wasm.device.fault import REASONS
from tensor_wasm.device.guarded import bytes_at
from tensor_wasm.device.protocol import SM
from tensor_wasm.device.session_protocol import GPU_MEMORY_LEAST_BYTES, Arguments, DeviceInfo, Place
from tensor_wasm.device.shape import BLOCK_MAX, GRID_MAX, Axes
from tensor_wasm.device.signals import HeldSignals
from tensor_wasm.errors import (
    CapacityExhausted,
    DeadlineExceeded,
    DeviceRestarting,
    KernelArgumentError,
    KernelError,
    KernelFault,
    TensorWasmError,
    Terminated,
)
from tensor_wasm.ptx.constants import WARP_SIZE

#: The program.
_TENANT: Final = 1
#: How long a launch waits for a worker that is being started, and between two looks.
_RESTART_S: Final = 120.0
_POLL_S: Final = 0.02
#: For what a worker's end was for, after a launch met it.
_REPORT_S: Final = 5.0
_ENDS_KEPT: Final = 64

#: Grid, block, shared bytes, parameter block, windows.
_Launch = tuple[Axes, Axes, int, bytes, Sequence[Window]]


class CudaSession:
    """A :class:`~tensor_wasm.device.session_protocol.Session` on the GPU ``index``.

    With ``is_checked`` an access outside of the device's memory is a fault with its PTX line. ``memory_bytes`` is the
    most of the GPU's memory that is taken, :data:`GPU_MEMORY_LEAST_BYTES` or more. ``command`` is what
    runs instead of the worker, in tests. Raises :class:`~tensor_wasm.errors.DeviceUnavailable`.
    """

    def __init__(
        self,
        index: int,
        *,
        is_checked: bool = False,
        memory_bytes: int | None = None,
        command: Sequence[str] | None = None,
    ) -> None:
        self.is_checked = is_checked
        self.is_closed = False
        self._process = os.getpid()
        self._ends: dict[int, WorkerEnd] = {}
        self._inside: set[int] = set()
        self._returned: deque[_Loan] = deque()
        self._loans: dict[int, _Loan] = {}
        self._lanes: list[tuple[int, Lane]] = []
        self._turns: dict[int, threading.Lock] = {}
        self._opening = threading.Lock()
        self.gpu = Gpu(index, command=command, on_end=self._note)
        try:
            most = self.gpu.facts.memory_bytes // 2
            self._partition_bytes = 1 << min(memory_bytes or most, most).bit_length() - 1
            self._tenant = self._open_tenant()
        except BaseException:
            self.gpu.close()
            raise
        facts = self.gpu.facts
        self.info = DeviceInfo(
            name=facts.name,
            kind="cuda",
            sm=min(facts.sm, SM, key=lambda sm: int(sm.removeprefix("sm_"))),
            memory_bytes=self._tenant.capacity_bytes,
            warp_size=WARP_SIZE,
            max_threads_per_block=limits.BLOCK_THREADS_MAX,
            max_block=BLOCK_MAX,
            max_grid=GRID_MAX,
            max_shared_bytes=min(limits.SHARED_MAX_BYTES, facts.shared_bytes_max),
        )

    def load(self, ptx: bytes, entry: str) -> CudaKernel:
        """Fence a kernel and have it assembled, or take one that nothing uses any more. Raises :class:`PtxError`."""
        return CudaKernel(self, ptx, entry)

    def keep(self, array: NDArray[Any]) -> CudaArray:
        """Copy an array to the device. Raises :class:`CapacityExhausted`."""
        return CudaArray(self, array)

    def close(self) -> None:
        """End launches that run, and the worker. In a process that was forked off the device is another's."""
        self.is_closed = True
        if os.getpid() == self._process:
            self.gpu.close()

    # --- being in use -------------------------------------------------------------------------------------------

    def visit(self, deadline_ns: int | None = None) -> Visit:
        """A use of the device, for a ``with`` block; see :class:`Visit`."""
        return Visit(self, deadline_ns)

    def enter(self, thread: int) -> None:
        """A thread begins to use the device. Raises :class:`KernelError`."""
        if os.getpid() != self._process:
            raise KernelError("the device was opened in another process; open it again after a fork")
        if thread in self._inside:
            raise KernelError("a signal handler cannot use the device while its thread does")
        if self.is_closed:
            raise KernelError("the device is closed")
        self._inside.add(thread)
        self.take_returned()

    def leave(self, thread: int) -> None:
        """It is done."""
        try:
            self.take_returned()
        finally:
            self._inside.discard(thread)

    def tenant(self, visit: Visit) -> GpuTenant:
        """The program's part of the GPU as it is now; waits for a worker that is being started.

        Raises what ends the visit, and :class:`DeviceRestarting` when that takes too long.
        """
        until = time.monotonic() + _RESTART_S
        while True:
            if self._opening.acquire(timeout=_POLL_S):
                try:
                    if self._tenant.is_void:
                        self._tenant = self._open_tenant()
                    return self._tenant
                except DeviceRestarting:
                    if time.monotonic() > until:
                        raise
                finally:
                    self._opening.release()
                time.sleep(_POLL_S)
            ending = visit.ending()
            if ending is not None:
                raise ending

    def _open_tenant(self) -> GpuTenant:
        """The largest partition there is memory for, up to half of the GPU's, or what the caller allows."""
        while True:
            try:
                return GpuTenant(self.gpu, _TENANT, self._partition_bytes)
            except CapacityExhausted:
                if self._partition_bytes <= GPU_MEMORY_LEAST_BYTES:
                    raise
                self._partition_bytes //= 2

    def take_lane(self, tenant: GpuTenant) -> Lane:
        """A lane for one launch."""
        while self._lanes:
            try:
                generation, lane = self._lanes.pop()
            except IndexError:  # another thread took the last
                break
            if generation == tenant.generation:
                return lane
        return self.gpu.open_lane(tenant.number, generation=tenant.generation)

    def give_lane(self, tenant: GpuTenant, lane: Lane) -> None:
        """A launch is over, and its lane idle."""
        self._lanes.append((tenant.generation, lane))

    @contextlib.contextmanager
    def turn(self, kernel: GpuKernel, visit: Visit) -> Iterator[None]:
        """A kernel to oneself, where it leaves faults: there is one place for them. Raises what ends the visit."""
        if not kernel.leaves_faults:
            yield
            return
        lock = self._turns.setdefault(kernel.number, threading.Lock())
        while not lock.acquire(timeout=_POLL_S):
            ending = visit.ending()
            if ending is not None:
                raise ending
        try:
            yield
        finally:
            lock.release()

    # --- what nothing refers to any more ------------------------------------------------------------------------

    def lend(self, tenant: GpuTenant, address: int) -> Loaned:
        """Memory that is given back, by the next use of the device, when nothing refers to the result any more."""
        loaned = Loaned(tenant, address)
        # What the garbage collector calls is the queue's own function: no signal can come in between and lose it.
        loan = _Loan(loaned, self._returned.append)
        loan.tenant, loan.address = tenant, address
        self._loans[id(loan)] = loan
        return loaned

    def take_returned(self) -> None:
        """Take back what was lent."""
        while self._returned:
            try:
                loan = self._returned.popleft()
            except IndexError:  # another thread took the last
                return
            if self._loans.pop(id(loan), None) is not None and not loan.tenant.is_void:
                loan.tenant.give(loan.address)

    # --- the worker's end ---------------------------------------------------------------------------------------

    def _note(self, end: WorkerEnd) -> None:
        """A worker ended; called by whatever thread saw it."""
        self._ends[end.generation] = end
        for generation in sorted(self._ends)[:-_ENDS_KEPT]:
            self._ends.pop(generation, None)

    def end_of(self, generation: int) -> WorkerEnd | None:
        """Why a worker ended that has; waits a little for the news."""
        until = time.monotonic() + _REPORT_S
        while max(self._ends, default=0) < generation and not self.is_closed and time.monotonic() < until:
            time.sleep(_POLL_S / 10)
        return self._ends.get(generation)

    def error_of_end(self, tenant: GpuTenant, kernel: str, error: DeviceRestarting) -> TensorWasmError:
        """What a launch raises that met ``error``: the worker ended under it."""
        end = self.end_of(tenant.generation)
        if self.is_closed:
            return Terminated("the device was closed while the kernel ran")
        offender = end.offender if end is not None else None
        # A kernel of that name may run on other threads too, and have ended the worker by not ending.
        if offender is not None and offender.kernel in ("", kernel) and offender.reason not in (LATE, LEFT):
            return KernelFault(f"kernel {kernel} faulted: {offender.reason}")
        return error


class Visit:
    """A thread's use of a device, until the end of a ``with`` block.

    Meanwhile signal handlers do not raise: what they raise ends a running kernel, and is raised at the end of the
    block. Raises :class:`KernelError` when the device is closed.
    """

    __slots__ = ("_session", "_thread", "deadline_ns", "signals")

    def __init__(self, session: CudaSession, deadline_ns: int | None) -> None:
        self._session = session
        self._thread = threading.get_ident()
        self.deadline_ns = deadline_ns
        self.signals = HeldSignals()

    def ending(self) -> TensorWasmError | None:
        """Why a launch, or a wait, is to end now; None while it is not."""
        if self.signals.raised is not None:
            return Terminated("a signal ended the launch")
        if self._session.is_closed:
            return Terminated("the device was closed while the kernel ran")
        if self.deadline_ns is not None and time.monotonic_ns() >= self.deadline_ns:
            return DeadlineExceeded("the launch's timeout came before the kernel ended")
        return None

    def __enter__(self) -> Self:
        self.signals.hold()
        try:
            self._session.enter(self._thread)
        except BaseException:
            self.signals.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._session.leave(self._thread)
        finally:
            self.signals.release()


class Loaned:
    """A place in a tenant's memory, its holder's as long as anything refers to this."""

    __slots__ = ("__weakref__", "address", "tenant")

    def __init__(self, tenant: GpuTenant, address: int) -> None:
        self.tenant = tenant
        self.address = address


class _Loan(weakref.ref[Loaned]):
    """The same, weakly."""

    __slots__ = ("address", "tenant")

    tenant: GpuTenant
    address: int


class CudaArray:
    """A :class:`~tensor_wasm.device.session_protocol.SessionArray`. A launch that uses it keeps its memory."""

    __slots__ = ("_loaned", "_session", "nbytes")

    def __init__(self, session: CudaSession, array: NDArray[Any]) -> None:
        self.nbytes: int = array.nbytes
        self._session = session
        self._loaned: Loaned | None = None
        with session.visit() as visit:
            tenant = session.tenant(visit)
            loaned = session.lend(tenant, tenant.take(self.nbytes, is_cleared=False))
            if self.nbytes:
                tenant.copy_in(loaned.address, bytes_at(array.ctypes.data, self.nbytes))
            self._loaned = loaned

    @property
    def is_closed(self) -> bool:
        """Whether its memory was given back."""
        return self._loaned is None

    def place(self) -> Loaned:
        """Where it is. Raises :class:`KernelError` when it is closed, or was lost with a worker."""
        loaned = self._loaned
        if loaned is None:
            raise KernelError("the device array is closed")
        if loaned.tenant.is_void:
            end = self._session.end_of(loaned.tenant.generation)
            reason = f" ({end.reason})" if end is not None else ""
            raise KernelError(f"the device array is gone: the GPU started anew{reason} and lost what was in its memory")
        return loaned

    def copy_out(self, target: NDArray[Any]) -> None:
        """Its bytes into an array of as many."""
        with self._session.visit():
            place = self.place()
            if self.nbytes:
                place.tenant.copy_out(place.address, bytes_at(target.ctypes.data, self.nbytes))

    def close(self) -> None:
        """Give the memory back, once no launch uses it."""
        self._loaned = None


class CudaKernel:
    """A :class:`~tensor_wasm.device.session_protocol.SessionKernel`."""

    def __init__(self, session: CudaSession, ptx: bytes, entry: str) -> None:
        self._session = session
        self._ptx = ptx
        self._entry = entry
        self._lock = threading.Lock()
        with session.visit() as visit:
            self._tenant = session.tenant(visit)
            self._kernel = self._load(self._tenant, visit)
        self.facts = self._kernel

    def launch(self, grid: Axes, block: Axes, shared_bytes: int, arguments: Arguments, deadline_ns: int | None) -> None:
        """Run once."""
        session = self._session
        with session.visit(deadline_ns) as visit:
            tenant = session.tenant(visit)
            kernel = self._of(tenant, visit)
            threads = block[0] * block[1] * block[2]
            if threads > kernel.max_threads:
                raise KernelArgumentError(
                    f"{kernel.name} takes so many registers that its blocks have at most {kernel.max_threads:,} "
                    f"threads; {block} has {threads:,}"
                )
            places = [array.place() for _, array in arguments.kept]  # not given back as long as these are referred to
            is_written = [_is_written(kernel, position) for position, _ in arguments.arrays]
            transfer = GpuTransfer(session.gpu, tenant, [array for _, array in arguments.arrays], is_written)
            try:
                transfer.copy_in()
                parameters = self._point(arguments, transfer, places)
                self._run(tenant, kernel, (grid, block, shared_bytes, parameters, transfer.windows), visit)
                transfer.copy_back()
            except DeviceRestarting as error:
                raise session.error_of_end(tenant, kernel.name, error) from None
            finally:
                transfer.release()
            del places

    def _of(self, tenant: GpuTenant, visit: Visit) -> GpuKernel:
        """The kernel on the GPU as it is now: loaded again where the worker is another."""
        with self._lock:
            if self._tenant is not tenant:
                self._kernel, self._tenant = self._load(tenant, visit), tenant
            return self._kernel

    def _load(self, tenant: GpuTenant, visit: Visit) -> GpuKernel:
        return tenant.kernel(self._ptx, self._entry, is_checked=self._session.is_checked, interrupt=visit.ending)

    def _point(self, arguments: Arguments, transfer: GpuTransfer, places: Sequence[Place]) -> bytes:
        """The parameter block with the arrays' addresses."""
        parameters = self.facts.parameters
        addresses = zip(arguments.arrays, transfer.addresses, strict=True)
        found = [(position, address) for (position, _), address in addresses]
        found += [(position, place.address) for (position, _), place in zip(arguments.kept, places, strict=True)]
        for position, address in found:
            start = parameters[position].offset
            arguments.block[start : start + 8] = address.to_bytes(8, "little")
        return bytes(arguments.block)

    def _run(self, tenant: GpuTenant, kernel: GpuKernel, launch: _Launch, visit: Visit) -> None:
        """Run it once. Raises :class:`KernelFault`."""
        session = self._session
        with session.turn(kernel, visit):
            lane = session.take_lane(tenant)
            try:
                line = lane.launch(kernel.number, *launch, visit.deadline_ns, visit.ending)
            except KernelError:  # it did not run
                session.give_lane(tenant, lane)
                raise
            except BaseException:
                lane.close()
                raise
            session.give_lane(tenant, lane)
            if line:
                tenant.reset(kernel)
        if line:
            reason = REASONS[Fault.TRAP if line in kernel.trap_lines else Fault.ADDRESS]
            raise KernelFault(f"kernel {kernel.name} faulted: {reason}; PTX line {line}")


def _is_written(kernel: GpuKernel, position: int) -> bool:
    """Whether a kernel may write through the pointer that is its parameter ``position``."""
    return bool(kernel.written >> kernel.parameters[position].offset // 8 & 1)
