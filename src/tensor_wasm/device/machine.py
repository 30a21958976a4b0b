"""What an opened CPU device runs on: an engine, one store, the memory its kernels share, and helpers on other cores."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Self

from tensor_wasm.device.cpu import CpuDevice
from tensor_wasm.device.fault import Placed, TrapReport, fault_address, read_trap
from tensor_wasm.device.guarded import ALIGNMENT, GuardedMemory, Piece
from tensor_wasm.device.printed import take_printed
from tensor_wasm.device.protocol import LoadedKernel
from tensor_wasm.device.shape import Axes
from tensor_wasm.device.signals import HeldSignals
from tensor_wasm.dispatch import crew_module
from tensor_wasm.dispatch.crew import UNKNOWN_NS, Boards, Crew, HelperFailure, HelperThread, Memories, is_worth
from tensor_wasm.errors import DeadlineExceeded, EndingError, KernelError, KernelFault, Terminated
from tensor_wasm.runtime import Budget, Engine, Instance, ModuleCache, SealedFiles, SharedMemory, Store
from tensor_wasm.runtime import bindings as native
from tensor_wasm.runtime.endings import from_call
from tensor_wasm.wasm import Module

_WASM_PAGE_BYTES = 65_536
#: 32-bit addresses: a device has at most 4 GiB.
_PAGES_MAX = 65_536

#: Every kernel of a device is an instance of the one store, and stays until the device is closed.
_INSTANCES_MAX = (1 << 31) - 1

_NS_PER_S = 1_000_000_000

#: The counter of blocks.
_COUNTER_BYTES = 8

#: Bytes of text that a launch may print; further records are counted.
_PRINTED_BYTES_MAX = 16 << 20

#: How long a thread that waits for its turn sleeps before it looks for signals.
_CHECK_S = 0.05


class Machine:
    """Engine, store and memories of one opened device. Safe for threads: they take turns.

    ``memory`` is what kernels address; ``scratch`` has a piece for each kernel: its parameters and its own variables.
    ``threads`` is how many cores a launch may use.
    """

    def __init__(self, files: SealedFiles, threads: int = 1) -> None:
        self.threads = threads
        self.engine = Engine()
        self.engine.start()
        self.device = CpuDevice(ModuleCache(self.engine, files), files)
        self.store = Store(self.engine, Budget(), interrupt=self._interrupt)
        native.store_limiter(self.store.pointer, -1, -1, _INSTANCES_MAX, -1, -1)
        pages = min(_PAGES_MAX, physical_bytes() // _WASM_PAGE_BYTES)
        host = self.store.instantiate(self.engine.compile(_memories(pages)), ())
        self.memories: list[Any] = [host.extern("memory"), host.extern("scratch")]
        self.memory, self.scratch = (GuardedMemory(self.store, extern.of.memory) for extern in self.memories)
        self._team: Team | None = None
        self._lock = threading.Lock()
        self._turn: Turn | None = None
        self._loans: dict[int, Loan] = {}
        self._returned: deque[Loan] = deque()
        self.is_closed = False

    # --- turns --------------------------------------------------------------------------------------------

    def turn(self, deadline_ns: int | None = None) -> Turn:
        """The device to oneself, for a ``with`` block; see :class:`Turn`."""
        return Turn(self, deadline_ns)

    def lend(self, owner: object, piece: Piece, *, is_scratch: bool = False) -> Loan:
        """Have a piece given back when nothing refers to ``owner`` any more, in the next turn. The caller has one."""
        # What the garbage collector calls is the queue's own function: no signal can come in between and lose it.
        loan = Loan(owner, self._returned.append)
        loan.memory = self.scratch if is_scratch else self.memory
        loan.piece = piece
        self._loans[id(loan)] = loan
        return loan

    def give_back(self, loan: Loan) -> None:
        """Take back what was lent, if it still is. The caller has the turn."""
        if self._loans.pop(id(loan), None) is not None:
            loan.memory.give(loan.piece)

    def acquire(self, turn: Turn) -> None:
        """Wait until the device is ``turn``'s. Raises as :class:`Turn` says."""
        current = self._turn
        if current is not None and current.thread == turn.thread:
            raise KernelError("a signal handler cannot use the device while its thread does")
        while not self._lock.acquire(timeout=turn.wait_s()):
            if turn.signals.raised is not None:
                raise Terminated("a signal ended the wait for the device")
            if turn.wait_s() == 0:
                raise DeadlineExceeded("the launch's timeout came before other launches gave the device free")
        self._turn = turn
        if not self.is_closed:
            self._take_returned()

    def release(self) -> None:
        """End the current turn."""
        if not self.is_closed:
            self._take_returned()
        self._turn = None
        self._lock.release()

    def _take_returned(self) -> None:
        while self._returned:
            self.give_back(self._returned.popleft())

    # --- kernels ------------------------------------------------------------------------------------------

    def start(self, kernel: LoadedKernel, region: Piece) -> KernelInstance:
        """A kernel's instance, its own variables at their initial values. The caller has the turn."""
        self.scratch.clear(region)
        base = self.store.i32_global(region.address + _parameter_span(kernel.compiled.parameter_bytes))
        instance = self.store.instantiate(kernel.module, [*self.memories, base, base], runs_code=True)
        return KernelInstance(self, kernel, instance, region)

    def take_region(self, kernel: LoadedKernel) -> Piece:
        """Scratch memory for a kernel's parameters and variables. The caller has the turn."""
        compiled = kernel.compiled
        return self.scratch.take(_parameter_span(compiled.parameter_bytes) + compiled.work_bytes)

    def team(self) -> Team:
        """The helpers, made at the first need. The caller has the turn."""
        if self._team is None:
            counter = self.scratch.take(_COUNTER_BYTES)
            self._team = Team(self, counter.address, self._interrupt)
        return self._team

    def _interrupt(self) -> EndingError | None:
        turn = self._turn
        if turn is not None and turn.signals.raised is not None:
            return Terminated("a signal ended the launch")
        if self.is_closed:
            return Terminated("the device was closed while the kernel ran")
        if turn is not None and turn.wait_s() == 0:
            return DeadlineExceeded("the launch's timeout came before the kernel ended")
        if self._team is not None and self._team.crew.failure is not None:
            return Terminated("the launch failed on another core")
        return None

    # --- the end ------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End a launch that runs, give all memory back. Safe to call twice, and from any thread."""
        if self._team is not None and self._team.is_own_thread():  # the garbage collector may run there
            threading.Thread(target=self.close, daemon=True).start()
            return
        turn = Turn(self, None, may_be_closed=True)
        if self._turn is None or self._turn.thread != turn.thread:
            self.is_closed = True
        with turn:
            if self.store.pointer is not None:
                if self._team is not None:
                    self._team.close()
                self.memory.open_all()
                self.scratch.open_all()
                self.store.close()
                with contextlib.suppress(RuntimeError):  # the garbage collector closes it on the engine's own thread
                    self.engine.close()


class Team:
    """A crew, its threads, and the function by which the machine's own thread leads it.

    ``kernels`` is how many the crew was ever taught.
    """

    def __init__(self, machine: Machine, counter: int, interrupt: Callable[[], EndingError | None]) -> None:
        store, memories = machine.store, machine.memories
        self.kernels = 0
        board_memory = SharedMemory(machine.engine, 1)
        self._boards = Boards(machine.engine, board_memory, 0, 1)
        self._threads = [HelperThread(f"kernel-helper-{number}") for number in range(machine.threads - 1)]
        self.crew = Crew(self._boards, Memories.of(store, memories), counter, self._threads, interrupt)
        code = machine.engine.compile(crew_module.leader_module(board_memory.pages))
        leader = store.instantiate(code, [board_memory.extern, memories[1]])
        self.lead: Any = leader.function("lead")
        self.table = leader.extern("kernels")

    def is_own_thread(self) -> bool:
        """Whether a helper calls."""
        return any(thread.is_current() for thread in self._threads)

    def close(self) -> None:
        """End the helpers."""
        self.crew.close()
        for thread in self._threads:
            thread.close()
        self._boards.close()


class Loan(weakref.ref[object]):
    """A piece of memory, and weakly whose it is."""

    __slots__ = ("memory", "piece")

    memory: GuardedMemory
    piece: Piece


class Turn:
    """The device to oneself, until the end of a ``with`` block.

    Waits for whoever has it, at most until ``deadline_ns`` (of ``monotonic_ns``). Meanwhile signal handlers do not
    raise: what they raise ends a running kernel, and is raised at the end of the block. Raises :class:`KernelError`
    when the device is closed, :class:`DeadlineExceeded`.
    """

    __slots__ = ("_machine", "_may_be_closed", "deadline_ns", "signals", "thread")

    def __init__(self, machine: Machine, deadline_ns: int | None, *, may_be_closed: bool = False) -> None:
        self._machine = machine
        self._may_be_closed = may_be_closed
        self.deadline_ns = deadline_ns
        self.signals = HeldSignals()
        self.thread = threading.get_ident()

    def wait_s(self) -> float:
        """Seconds to wait before looking whether to go on; 0 when the deadline has come."""
        if self.deadline_ns is None:
            return _CHECK_S
        return min(max(self.deadline_ns - time.monotonic_ns(), 0) / _NS_PER_S, _CHECK_S)

    def __enter__(self) -> Self:
        self.signals.hold()
        try:
            self._machine.acquire(self)
        except BaseException:
            self.signals.release()
            raise
        if self._machine.is_closed and not self._may_be_closed:
            self.__exit__()
            raise KernelError("the device is closed")
        return self

    def __exit__(self, *_: object) -> None:
        self._machine.release()
        self.signals.release()


class KernelTrap(Exception):
    """A kernel trapped. Internal: whoever knows the arguments makes it a :class:`KernelFault`."""

    def __init__(self, report: TrapReport) -> None:
        self._report = report
        super().__init__(report.text)

    def fault(self, placed: Sequence[Placed]) -> KernelFault:
        """The error for the caller, given where the arrays were."""
        return KernelFault(self._report.message(placed))


def _no_regions(_helpers: int) -> Sequence[Piece]:
    return ()


class KernelInstance:
    """A kernel in a machine's store, ready to run."""

    __slots__ = (
        "_function",
        "_instance",
        "_kernel",
        "_machine",
        "_number",
        "_raw",
        "_region",
        "_serial",
        "_thread_ns",
        "_values",
        "printed",
    )

    def __init__(self, machine: Machine, kernel: LoadedKernel, instance: Instance, region: Piece) -> None:
        self._machine = machine
        self._kernel = kernel
        self._instance = instance
        self._region = region
        self._function: Any = instance.function("run")
        self._number: int | None = None  # what the crew calls it, since it had learned ``serial`` kernels
        self._serial = 0
        self._thread_ns: float = UNKNOWN_NS
        self._raw = (native.RawValue * crew_module.LEAD_PARAMETERS)()
        self._values = list(self._raw)  # views of the same, made once
        self.printed = b""

    def run(
        self,
        grid: Axes,
        block: Axes,
        shared_bytes: int,
        parameters: bytes,
        regions_for: Callable[[int], Sequence[Piece]] = _no_regions,
    ) -> None:
        """Run once; lets go of the GIL. The caller has the turn. ``printed`` is then what the kernel printed.

        ``regions_for`` gives regions for so many helpers, or none: then this core does all.

        Raises :class:`KernelTrap`, or what the machine's interrupt said. After either the kernel must be started
        anew.
        """
        ctypes.memmove(self._region.host_address, parameters, len(parameters))
        launch = (*grid, *block, shared_bytes, self._region.address)
        blocks = grid[0] * grid[1] * grid[2]
        threads = blocks * block[0] * block[1] * block[2]
        machine = self._machine
        regions: Sequence[Piece] = ()
        # What a kernel prints is in order, in one region: it runs on one core.
        if machine.threads > 1 and is_worth(blocks, threads, self._thread_ns) and self._kernel.compiled.records is None:
            regions = regions_for(machine.threads - 1)
        started = time.perf_counter_ns()
        if regions:
            team = machine.team()
            number = self._learn(team, regions)
            team.crew.serve()
            self._call(team.lead, (team.crew.board, team.crew.counter, team.crew.cores, number, *launch), block)
            if self._values[0].i32:
                team.crew.recall()
                self._fail_elsewhere(team.crew.failure, block)
        else:
            self._call(self._function, launch, block)
        if threads:
            self._thread_ns = (time.perf_counter_ns() - started) * (1 + len(regions)) / threads

    def _learn(self, team: Team, regions: Sequence[Piece]) -> int:
        """The number by which helpers know the kernel."""
        if self._number is None or team.kernels - self._serial > crew_module.CREW_KERNELS:
            for region in regions:
                self._machine.scratch.clear(region)
            span = _parameter_span(self._kernel.compiled.parameter_bytes)
            places = [region.address + span for region in regions]
            self._serial = team.kernels
            self._number = self._serial % crew_module.CREW_KERNELS
            team.kernels += 1
            team.crew.add(self._number, self._kernel.module, places, self._region.address + span)
            self._machine.store.table_set(team.table, self._number, self._instance.function("share"))
        return self._number

    def _call(self, function: Any, arguments: Sequence[int], block: Axes) -> None:
        values = self._values
        for value, number in zip(values, arguments, strict=False):
            value.i64 = number
        trap = ctypes.c_void_p()
        store = self._machine.store
        error = native.func_call(store.context, ctypes.byref(function), self._raw, len(arguments), ctypes.byref(trap))
        assertion = self._take_printed() if self._kernel.compiled.records is not None else ""
        if error or trap.value:
            crew = None if function is self._function else self._machine.team().crew
            self._fail(error, trap.value, block, crew, assertion)

    def _take_printed(self) -> str:
        """Take what the kernel printed; the assertion that failed, if one did."""
        compiled = self._kernel.compiled
        span = _parameter_span(compiled.parameter_bytes)
        content = (ctypes.c_ubyte * compiled.work_bytes).from_address(self._region.host_address + span)
        printed = take_printed(compiled, memoryview(content).cast("B"), self._region.address + span, _PRINTED_BYTES_MAX)
        self.printed = printed.text
        return printed.assertion

    def _fail(self, error: int | None, trap: int | None, block: Axes, crew: Crew | None, assertion: str) -> None:
        store = self._machine.store
        cause, store.failure = store.failure, None
        failure = from_call(error, trap)
        if crew is not None:
            crew.recall()
        if cause is not None:
            self._fail_elsewhere(None if crew is None else crew.failure, block)
            raise cause
        address = fault_address(failure.message)
        raise KernelTrap(read_trap(self._kernel, self._read, failure, block, address=address, assertion=assertion))

    def _fail_elsewhere(self, failed: HelperFailure | None, block: Axes) -> None:
        """Raise what a helper failed of, if one did."""
        if failed is None:
            return
        if failed.cause is not None:
            raise failed.cause
        read = failed.values.__getitem__
        address = fault_address(failed.failure.message)
        raise KernelTrap(read_trap(self._kernel, read, failed.failure, block, address=address))

    def _read(self, name: str) -> int:
        extern = self._instance.extern(name)
        return self._machine.store.read_global(extern)


def physical_bytes() -> int:
    """The machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _parameter_span(size_bytes: int) -> int:
    return -(-size_bytes // ALIGNMENT) * ALIGNMENT


def _memories(pages: int) -> bytes:
    module = Module()
    for name in ("memory", "scratch"):
        module.memory(pages, export=name)
    return module.encode().wasm
