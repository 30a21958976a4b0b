"""What one guest has on a GPU: a lane of the board, memory of its tenant's partition, and its kernels.

Guest pointers of a launch are windows of the guest's memory. Its pages from the lowest to the highest window become a
part of the pinned staging area, and the GPU itself copies from there to the guest's *arena* on the device and back. In
the arena they lie as they do in the guest's memory, so that windows that overlap stay one. Both grow with the launches;
what is too large for the staging area is copied in pieces, here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

from tensor_wasm.abi.limits import KERNELS_MAX
from tensor_wasm.device.cuda.board import Result
from tensor_wasm.device.cuda.device import CudaDevice
from tensor_wasm.device.cuda.tenant import GpuKernel
from tensor_wasm.device.cuda.trampoline import region
from tensor_wasm.device.fence.written import EVERYTHING
from tensor_wasm.device.protocol import Interrupt, LoadedKernel
from tensor_wasm.dispatch import Gate
from tensor_wasm.dispatch.scratch import Placement
from tensor_wasm.errors import CapacityExhausted, DeviceRestarting, EndingError, GuestTrap, KernelFault, QuotaExceeded
from tensor_wasm.host.staged_pages import StagedPages, with_room
from tensor_wasm.runtime import Budget, Instance, Pages

_U32_MAX: Final = (1 << 32) - 1
#: Of what is copied here; before each piece the guest's end is looked for.
_PIECE_BYTES: Final = 64 << 20


class GuestGpu:
    """A guest's part of a GPU, from its first kernel or allocation to its end. Used by its thread.

    ``quota`` bounds its bytes on the device, its arena too; ``on_change`` is told by how many they changed.
    ``imports`` are what the module that launches is given besides what every kernel's is. ``clock_ns`` is what to add
    to the gate's clock to have CLOCK_MONOTONIC.

    Raises :class:`DeviceRestarting`, :class:`CapacityExhausted`.
    """

    __slots__ = (
        "_arena",
        "_clock_ns",
        "_device",
        "_gate",
        "_imports",
        "_kernels",
        "_lane",
        "_low",
        "_on_change",
        "_pages",
        "_pieces",
        "_quota",
        "_residence",
        "_staged",
    )

    def __init__(
        self,
        device: CudaDevice,
        tenant: int,
        gate: Gate,
        pages: Pages,
        imports: Sequence[Any],
        quota: Budget,
        on_change: Callable[[int], None],
        clock_ns: int,
    ) -> None:
        self._device = device
        self._gate = gate
        self._pages = pages
        self._imports = imports
        self._quota = quota
        self._on_change = on_change
        self._clock_ns = clock_ns
        #: Address and bytes; 0 bytes while there is none.
        self._arena = (0, 0)
        self._low = 0
        #: Bytes of what was taken, by address.
        self._pieces: dict[int, int] = {}
        #: By the kernel's number in the gate.
        self._kernels: dict[int, GpuKernel] = {}
        self._residence = device.enter(tenant)
        try:
            self._lane = device.memory.open_lane(tenant, generation=self._residence.generation)
        except BaseException:
            device.leave(self._residence)
            raise
        self._staged = StagedPages(pages, device.memory, tenant)
        self._place()

    @property
    def is_lost(self) -> bool:
        """Whether the GPU lost what the guest had there."""
        return self._residence.is_lost

    def check(self) -> None:
        """Raise :class:`DeviceRestarting` when the GPU lost what the guest had there."""
        self._residence.check()

    # --- kernels ----------------------------------------------------------------------------------------

    def add(
        self, ptx: bytes, entry: str, interrupt: Callable[[], Exception | None]
    ) -> tuple[LoadedKernel, int, Instance, int]:
        """Load a kernel, and have the guest's launches know it: the kernel, its id, the instance of the module that
        launches it, and where that has its region. Raises as :meth:`CudaDevice.kernel`, :class:`QuotaExceeded`.
        """
        self.check()
        loaded, kernel = self._device.kernel(self._residence, ptx, entry, interrupt)
        work_bytes = loaded.compiled.work_bytes
        identity, instance, base = self._gate.add(loaded.module, work_bytes, loaded.entry, self._imports)
        words = region(kernel.number, kernel.parameter_bytes, kernel.written)
        with self._gate.scratch() as scratch:
            scratch[base : base + len(words)] = words
        self._kernels[identity & (KERNELS_MAX - 1)] = kernel
        return loaded, identity, instance, base

    def remove(self, number: int) -> None:
        """Forget a kernel, by its number in the gate."""
        self._kernels.pop(number, None)

    # --- memory -----------------------------------------------------------------------------------------

    def take(self, size_bytes: int) -> int | None:
        """Zeroed memory: its address, a multiple of 256; None when that passes the quota.

        Raises :class:`CapacityExhausted` when the tenant's partition has no room.
        """
        if not self._quota.take(size_bytes):
            return None
        try:
            address = self._residence.tenant.take(size_bytes)
        except BaseException:
            self._quota.give(size_bytes)
            raise
        self._pieces[address] = size_bytes
        self._on_change(size_bytes)
        return address

    def give(self, address: int) -> None:
        """Give memory back."""
        self._residence.tenant.give(address)
        self._forget(address)

    def offset(self, address: int) -> int:
        """Where in the partition an address is."""
        return address - self._residence.tenant.partition.base

    def write(self, address: int, source: memoryview) -> None:
        """Copy to the device."""
        if source:
            self._device.memory.copy_in(self._residence.number, address, source, generation=self._residence.generation)

    def read(self, address: int, target: memoryview) -> None:
        """Copy from the device."""
        if target:
            self._device.memory.copy_out(self._residence.number, address, target, generation=self._residence.generation)

    def fill(self, address: int, value: int, size_bytes: int) -> None:
        """Set bytes on the device."""
        if size_bytes:
            self._device.memory.set_memory(
                self._residence.number, address, value, size_bytes, generation=self._residence.generation
            )

    def _forget(self, address: int) -> None:
        size_bytes = self._pieces.pop(address)
        self._quota.give(size_bytes)
        self._on_change(-size_bytes)

    # --- launches, called by the module that makes them -------------------------------------------------------

    def reach(self, low: int, high: int, interrupt: Interrupt) -> bool:
        """Make room for windows between two places of guest memory. Whether they were copied here, since the staging
        area has no room: then :meth:`fetch` copies them back.

        Raises :class:`QuotaExceeded` when the device's memory does not suffice, and what ``interrupt`` gives.
        """
        self.check()
        span = high - low
        if span > self._arena[1]:
            self._grow_arena(span)
        is_staged = self._staged.extend(low, high)
        self._place()
        if is_staged:
            return False
        self._low = low
        for start, size_bytes in self._pieces_of_windows(interrupt):
            self.write(self._arena[0] + start - low, self._pages.view(start, size_bytes))
        return True

    def fetch(self, number: int, interrupt: Interrupt) -> None:
        """Copy the windows of the launch of the kernel ``number`` back that :meth:`reach` copied.

        Raises what ``interrupt`` gives.
        """
        self.check()
        for start, size_bytes in self._pieces_of_windows(interrupt, self._kernels[number].written):
            self.read(self._arena[0] + start - self._low, self._pages.view(start, size_bytes))

    def _pieces_of_windows(self, interrupt: Interrupt, written: int = EVERYTHING) -> Iterator[tuple[int, int]]:
        """Where the pieces of windows start in guest memory, and their bytes; before each of them, whether to go on.

        Only of those windows whose pointers stand in ``written`` words of the parameter block.
        """
        for window, window_bytes in self._gate.shown(written):
            end = window + window_bytes
            for start in range(window, end, _PIECE_BYTES):
                if (error := interrupt()) is not None:
                    raise error
                yield start, min(end - start, _PIECE_BYTES)

    def failure(self, result: int, line: int, number: int) -> EndingError:
        """What a launch of the kernel ``number`` ended with, by what the board says of it."""
        if self.is_lost or result == Result.LOST:
            return DeviceRestarting("the GPU starts anew: what was on it is lost, this launch too; try again")
        kernel = self._kernels.get(number)
        name = "?" if kernel is None else kernel.name
        if result == Result.REFUSED:
            return GuestTrap(f"kernel {name} cannot be launched: an earlier launch of this instance is not over")
        if result == Result.NOT_LAUNCHABLE:
            return GuestTrap(
                f"kernel {name} cannot be launched so on this GPU: its blocks ask for more threads or shared memory"
                " than it has for them"
            )
        return KernelFault(f"kernel {name} faulted: trap instruction; PTX line {line}")

    def _grow_arena(self, span: int) -> None:
        """Another arena, of at least ``span`` bytes. What is in the old one is not needed any more."""
        address, size_bytes = self._arena
        if size_bytes:
            self._arena = 0, 0
            self.give(address)
        size_bytes = with_room(span)
        try:
            found = self.take(size_bytes)
        except CapacityExhausted as error:
            raise QuotaExceeded(f"a launch has windows over {span} bytes of memory: {error}") from None
        if found is None:
            raise QuotaExceeded(
                f"a launch has windows over {span} bytes of memory, more than the tenant may have on the GPU"
            )
        self._arena = found, size_bytes

    def _place(self) -> None:
        tenant = self._residence.tenant
        self._gate.place(
            Placement(
                lane=self._lane.number,
                base=tenant.partition.base,
                empty=tenant.empty_address,
                arena=self._arena[0],
                arena_bytes=min(self._arena[1], _U32_MAX),  # who needs one byte more asks here each time
                staging=self._staged.place,
                shown_bytes=self._staged.size_bytes,
                shown=self._staged.start,
                clock_ns=self._clock_ns,
            )
        )

    # --- the end ----------------------------------------------------------------------------------------

    def close(self, number: int) -> None:
        """Give everything back: what a kernel still uses, once it has ended. ``number`` is that of the latest."""
        pieces = list(self._pieces)
        for address in pieces:
            self._forget(address)
        kernel = self._kernels.get(number)
        staged, lane, tenant = self._staged, self._lane, self._residence.tenant
        staged.hide()
        kernels = list(self._kernels.values())
        self._kernels.clear()

        def release() -> None:
            kernels.clear()  # they are in use up to here
            with suppress(DeviceRestarting):
                lane.close()
            staged.give_back()
            for address in pieces:
                tenant.give(address)

        if lane.doorbell.is_busy and not self.is_lost:
            self._device.leave_busy(self._residence, lane, "?" if kernel is None else kernel.name, release)
        else:
            try:
                release()
            finally:
                self._device.leave(self._residence)
