"""The host's side of one running guest: what its imports read and change."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from tensor_wasm.compiler import Fault
from tensor_wasm.device.fault import REASONS, fault_address, read_trap
from tensor_wasm.device.printed import take_printed
from tensor_wasm.device.protocol import Device, LoadedKernel
from tensor_wasm.dispatch import Gate, GateFactory, Ledger, Slot
from tensor_wasm.dispatch.crew import Crew, HelperFailure
from tensor_wasm.dispatch.layout import State
from tensor_wasm.dispatch.scratch import COUNTER
from tensor_wasm.errors import (
    Cancelled,
    DeadlineExceeded,
    DeviceRestarting,
    EndingError,
    GuestTrap,
    KernelFault,
    QuotaExceeded,
    Terminated,
)
from tensor_wasm.host.device_memory import CpuMemory, DeviceMemory
from tensor_wasm.host.stream import Stream
from tensor_wasm.host.trace import Recording, Span, Trace
from tensor_wasm.runtime import (
    CHECK_TICKS_MAX,
    EPOCH_TICK_S,
    Budget,
    Failure,
    FileMemory,
    Instance,
    Pages,
    Store,
    let_others_first,
)

if TYPE_CHECKING:
    from tensor_wasm.host.guest_gpu import GuestGpu

#: What a guest calls the memory its kernels work on.
_REASONS = REASONS | {Fault.ADDRESS: "address outside guest memory"}


#: After so many lessons a crew is made anew: what it was taught stays in its helpers' stores.
_LESSONS_MAX = 1024


class GuestKernel(NamedTuple):
    """A kernel that a guest has loaded, and how much PTX that was."""

    loaded: LoadedKernel
    instance: Instance
    ptx_bytes: int


@dataclass(frozen=True, slots=True)
class PublishedKernel:
    """A kernel of the registry, verified: its PTX, and the entry points that its publisher signed."""

    ptx: bytes
    entry_points: tuple[str, ...]


def _nothing_published(_tenant: int, _name: str, _version: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class HostServices:
    """What the node lends to every guest.

    ``published`` finds a tenant's kernel by name and version, None when there is none. It raises
    :class:`~tensor_wasm.errors.BadSignature` for one that is not to be trusted. ``board`` is what a GPU's worker
    shares.
    """

    device: Device
    gates: GateFactory
    ledger: Ledger
    published: Callable[[int, str, str], PublishedKernel | None] = _nothing_published
    board: FileMemory | None = None


_TICK_NS = round(EPOCH_TICK_S * 1e9)


def _ignore(_change: int) -> None:
    pass


class Guest:
    """One guest from its store's making to its end; a store's owner.

    ``deadline_ns`` is on :func:`time.monotonic_ns`'s clock, None when the guest has no end. ``input`` is what
    ``read-input`` gives. ``is_cancelled`` is asked while the guest runs; ``device_budget`` bounds its device memory,
    ``on_device_bytes`` is told when that grows or shrinks. ``stream`` takes the chunks that it emits, None when nobody
    reads any.
    """

    __slots__ = (
        "clock_started_ns",
        "crew",
        "deadline_ns",
        "device_budget",
        "device_memory",
        "error_text",
        "gate",
        "gpu",
        "has_refusals",
        "input",
        "is_cancelled",
        "kernels",
        "link",
        "memory",
        "on_device_bytes",
        "printers",
        "ptx_bytes",
        "recording",
        "services",
        "slot",
        "store",
        "stream",
        "tenant",
    )

    def __init__(
        self,
        services: HostServices,
        slot: Slot,
        deadline_ns: int | None,
        *,
        tenant: int = 0,
        guest_input: bytes = b"",
        is_cancelled: Callable[[], bool] | None = None,
        device_budget: Budget | None = None,
        on_device_bytes: Callable[[int], None] = _ignore,
        stream: Stream | None = None,
    ) -> None:
        self.services = services
        self.slot = slot
        self.deadline_ns = deadline_ns
        self.tenant = tenant
        self.input = guest_input
        self.is_cancelled = is_cancelled
        self.device_budget = device_budget or Budget()
        self.on_device_bytes = on_device_bytes
        self.stream = stream
        self.store: Store | None = None
        self.link: Instance | None = None
        self.memory: Any = None
        self.gate: Gate | None = None
        #: By number, which is the low bits of an id.
        self.kernels: dict[int, GuestKernel] = {}
        #: Kernels that may print, and where the region of each starts in scratch memory; in the order of their loading.
        self.printers: dict[int, tuple[LoadedKernel, int]] = {}
        self.ptx_bytes = 0
        self.has_refusals = False
        self.error_text = b""
        self.clock_started_ns = 0
        self.device_memory: DeviceMemory | None = None
        #: On a GPU, once it has a kernel or memory there.
        self.gpu: GuestGpu | None = None
        self.crew: Crew | None = None
        #: Where what it does is noted while it is traced.
        self.recording: Recording | None = None

    @property
    def is_capable(self) -> bool:
        """Whether the tenant may use the device, now."""
        return self.slot.is_capable

    def barred(self) -> str:
        """Why the tenant may not use the device for a while, whatever :attr:`is_capable` says; empty when it may."""
        gpu = self.services.device.gpu
        return "" if gpu is None else gpu.barred(self.tenant)

    @property
    def is_to_settle(self) -> bool:
        """Whether its slot of the ledger may have permits or counts, which are to go to its tenant."""
        return self.gate is not None or self.has_refusals

    def count_quota(self) -> None:
        """Count a refusal for quota; a guest without a gate may meet one too."""
        self.has_refusals = True
        self.services.ledger.count_quota(self.slot)

    # --- calls of a kept instance -----------------------------------------------------------------------

    def begin_call(
        self,
        deadline_ns: int | None,
        guest_input: bytes,
        is_cancelled: Callable[[], bool] | None,
        stream: Stream | None = None,
    ) -> None:
        """Begin another call of the same instance; the making of the guest began the first one."""
        self.deadline_ns = deadline_ns
        self.input = guest_input
        self.is_cancelled = is_cancelled
        self.stream = stream
        self.slot.state = State.RUNNING
        if self.gate is not None:
            self.gate.start_clock(self.services.ledger, self.slot, self.left_ns())

    def end_call(self) -> None:
        """Rest until the next call: keep what is the instance's, give back what others can use."""
        self._dismiss_crew()
        self.deadline_ns = self.is_cancelled = self.stream = None
        self.input = b""
        self.slot.state = State.IDLE

    # --- time and orders --------------------------------------------------------------------------------

    def left_ns(self) -> int | None:
        """Nanoseconds until the deadline, not below 0; None without one."""
        if self.deadline_ns is None:
            return None
        return max(self.deadline_ns - time.monotonic_ns(), 0)

    def check(self) -> EndingError | None:
        """As :meth:`interrupt`, for the store's looks at it: the next one is due with the deadline.

        Whoever gives an order, cancels, or fails on another core, has the engine look at once. A guest that is asked
        has run for a while: on a thread of the node's it steps back.
        """
        ending = self.interrupt()
        if self.store is not None:
            self.store.check_ticks = self._ticks_left()
        let_others_first()
        return ending

    def _ticks_left(self) -> int:
        left_ns = self.left_ns()
        if left_ns is None:
            return CHECK_TICKS_MAX
        return min(left_ns // _TICK_NS + 1, CHECK_TICKS_MAX)

    def interrupt(self) -> EndingError | None:
        """The ending that is due now, if one is; that of a launch which failed on another core is."""
        if self.crew is not None and self.crew.failure is not None:
            return self._failure_elsewhere(self.crew.failure)
        return self.due()

    def due(self) -> EndingError | None:
        """The ending that an order, the caller, the deadline or a lost GPU makes due now; safe for helpers' threads."""
        if self.slot.terminate_asked:
            return Terminated("an operator ended this instance")
        if self.is_cancelled is not None and self.is_cancelled():
            return Cancelled("the caller cancelled the invocation")
        if self.deadline_ns is not None and time.monotonic_ns() >= self.deadline_ns:
            return DeadlineExceeded("the invocation's deadline came before the function returned")
        if self.gpu is not None and self.gpu.is_lost:
            return DeviceRestarting("the GPU starts anew: what this instance had on it is lost; try again")
        return None

    # --- memory -----------------------------------------------------------------------------------------

    def window(self, pointer: int, length: int) -> memoryview | None:
        """Guest memory at an i32 pointer, or None when the range is not inside it (or there is no memory yet)."""
        if self.memory is None or self.store is None or length < 0:
            return None
        view = self.store.memory_view(self.memory.of.memory)
        start = pointer & 0xFFFFFFFF
        return view[start : start + length] if start + length <= len(view) else None

    # --- the gate ---------------------------------------------------------------------------------------

    def bind_gate(self) -> Gate:
        """The guest's gate, made at the first need.

        Raises :class:`GuestTrap` while the guest has no memory to bind it to, which is so in its ``start`` function.
        """
        if self.gate is None:
            if self.memory is None or self.store is None or self.link is None:
                raise GuestTrap("wasi:cuda cannot be called from the module's start function")
            self.gate = self.services.gates.bind(self.store, self.link, self.memory, self.slot, self.left_ns())
            if self.recording is not None:
                self.recording.note_gate()
        return self.gate

    def open_gpu(self) -> GuestGpu | None:
        """The guest's part of the GPU, made at the first need; None where the device is no GPU.

        Raises as :meth:`bind_gate`, :class:`DeviceRestarting`, and :class:`~tensor_wasm.errors.CapacityExhausted` when
        the GPU has no room for another guest.
        """
        device, board = self.services.device.gpu, self.services.board
        if device is None or board is None or self.gpu is not None:
            return self.gpu
        # Only here: a node whose device is the CPU loads nothing of this.
        from tensor_wasm.host import gpu
        from tensor_wasm.host.guest_gpu import GuestGpu

        gate, store, link, memory = self.bind_gate(), self.store, self.link, self.memory
        assert store is not None
        assert link is not None
        assert memory is not None
        functions = (link.extern(item.name) for item in gpu.IMPORTS)
        self.gpu = GuestGpu(
            device,
            self.tenant,
            gate,
            Pages(store, memory.of.memory),
            (board.extern(store), self.services.ledger.memory.extern, *functions),
            self.device_budget,
            self.on_device_bytes,
            gate.clock_offset_ns(self.services.ledger, self.slot),
        )
        return self.gpu

    def open_memory(self) -> DeviceMemory:
        """The guest's device memory, made at the first need. Raises as :meth:`open_gpu`, :class:`QuotaExceeded`."""
        if self.device_memory is None:
            gpu = self.open_gpu()
            if gpu is None:
                self.device_memory = CpuMemory(self.bind_gate(), self.device_budget, self.on_device_bytes)
            else:
                from tensor_wasm.host.gpu_memory import GpuMemory

                self.device_memory = GpuMemory(self.bind_gate(), gpu)
        return self.device_memory

    def hire_crew(self, number: int) -> int:
        """Teach helpers the guest's kernel ``number``, finding some first if it has none.

        Gives the offset of their board plus how many they are, or 0 when it gets none.
        """
        crews, gate = self.services.gates.crews, self.gate
        if crews is None or gate is None:
            return 0
        if self.crew is not None and self.crew.lessons >= _LESSONS_MAX:
            self._dismiss_crew()
        try:
            if self.crew is None:
                self.crew = crews.hire(gate.memories, COUNTER, self.due)
                if self.crew is None:
                    return 0
            helpers = self.crew.cores - 1
            loaded = self.kernels[number].loaded
            variables, *regions = gate.regions(number, helpers, loaded.compiled.work_bytes)
            self.crew.add(number, loaded.module, regions, variables)
        except QuotaExceeded:
            return 0
        self.crew.serve()
        return self.crew.board + helpers

    def _dismiss_crew(self) -> None:
        if self.crew is not None:
            assert self.services.gates.crews is not None
            assert self.gate is not None
            self.services.gates.crews.dismiss(self.crew)
            self.crew = None
            self.gate.forget_helpers()

    def take_printed(self) -> str:
        """Write what kernels printed to the guest's stderr; the assertion that failed, if one did."""
        assertion = ""
        if not self.printers or self.store is None or self.gate is None:
            return assertion
        output = self.store.output
        with self.gate.scratch() as scratch:
            for kernel, base in self.printers.values():
                region = scratch[base : base + kernel.compiled.work_bytes]
                printed = take_printed(kernel.compiled, region, base, 0 if output is None else output.room_bytes)
                assertion = printed.assertion or assertion
                if output is not None:
                    output.append_error(printed.text)
                region.release()
        return assertion

    # --- traces -------------------------------------------------------------------------------------------

    def begin_recording(self, trace: Trace, span: Span, instance_id: str) -> None:
        """From now on note what it does, as part of ``span``."""
        self.recording = Recording(self, trace, span, instance_id)

    def end_recording(self) -> None:
        """Note no more. Safe to call twice."""
        recording, self.recording = self.recording, None
        if recording is not None:
            recording.close()

    def close(self) -> None:
        """End helpers, and give device memory back; to be called while the store is still there."""
        self.end_recording()
        if self.crew is not None:
            assert self.services.gates.crews is not None
            self.services.gates.crews.dismiss(self.crew)
            self.crew = None
        if self.gate is not None:
            for number in self.kernels:
                self.note_cost(number)
        if self.device_memory is not None:
            self.device_memory.close()
        if self.gpu is not None:
            self.gpu.close(self.slot.kernel)
        if self.gate is not None:
            self.gate.close()
        if self.store is not None:
            # Without the way back there is no cycle: an input of many megabytes must not wait for its collector.
            self.store.owner = self.store.interrupt = None

    def note_cost(self, number: int) -> None:
        """Keep what a thread of a kernel cost, for the next guest that loads it."""
        assert self.gate is not None
        self.kernels[number].loaded.entry.cost.thread_ns = self.gate.thread_ns(number)

    # --- endings ----------------------------------------------------------------------------------------

    def ending(self, failure: Failure) -> EndingError | None:
        """What a failed call means; None when the guest left through ``proc_exit(0)``, which is returning."""
        if failure.exit_status is not None:
            return GuestTrap(f"the guest exited with status {failure.exit_status}") if failure.exit_status else None
        due = self.due() if self.slot.terminate_asked else None
        if due is not None:
            return due
        if self.slot.state == State.IN_KERNEL and self.gate is not None:
            return self._kernel_fault(failure, self.gate)
        place = ""
        if failure.frames:
            top = failure.frames[0]
            place = f" in function {top.function_index}, at byte {top.module_offset:#x} of the module"
        return GuestTrap(f"the guest trapped: {failure.text}{place}")

    def _failure_elsewhere(self, failed: HelperFailure) -> EndingError:
        """What a launch ended with that failed on a helper's core."""
        if isinstance(failed.cause, EndingError):
            return failed.cause
        assert self.gate is not None
        return self._fault(self.kernels[failed.kernel].loaded, failed.values.__getitem__, failed.failure, self.gate)

    def _kernel_fault(self, failure: Failure, gate: Gate) -> EndingError:
        if self.crew is not None and self.crew.failure is not None:
            return self._failure_elsewhere(self.crew.failure)
        kernel, instance, _ = self.kernels[self.slot.kernel]
        assertion = self.take_printed()
        store = self.store
        assert store is not None
        return self._fault(kernel, lambda name: store.read_global(instance.extern(name)), failure, gate, assertion)

    def _fault(
        self, kernel: LoadedKernel, read: Callable[[str], int], failure: Failure, gate: Gate, assertion: str = ""
    ) -> KernelFault:
        self.services.ledger.count_fault(self.slot)
        address = fault_address(failure.message)
        trap = read_trap(kernel, read, failure, gate.block_shape, address=address, assertion=assertion)
        block, thread = (",".join(map(str, axes)) for axes in (trap.block, trap.thread))
        reason = _REASONS.get(trap.code, trap.text)
        return KernelFault(
            f"kernel {trap.kernel} faulted: {reason}; block ({block}), thread ({thread}), PTX line {trap.line}"
        )
