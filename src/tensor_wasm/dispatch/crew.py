"""A crew: helper threads that run launches of one set of memories beside whoever leads them.

Each has a store of its own, whose memories are the leader's by another name, and in it an instance of each kernel that
the crew knows. While a crew serves, its helpers are in WebAssembly, see :mod:`.crew_module`: Python is needed to teach
them a kernel, and when one fails.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from queue import SimpleQueue
from typing import Any

from tensor_wasm.compiler.grid import LAUNCH_PARAMETERS, STOPPED
from tensor_wasm.dispatch import crew_module, scratch
from tensor_wasm.dispatch.crew_module import BOARD_BYTES
from tensor_wasm.errors import InternalError, TensorWasmError
from tensor_wasm.runtime import (
    FURTHER_NICENESS,
    Budget,
    Engine,
    Failure,
    Instance,
    Module,
    SharedMemory,
    Store,
    step_back,
)
from tensor_wasm.runtime import bindings as native
from tensor_wasm.runtime.endings import from_call
from tensor_wasm.wasm import Module as ModuleWriter

#: A launch that takes one core this long is worth waking helpers, which costs some 20 µs.
WORTH_NS = scratch.WORTH_NS
#: What a thread of a kernel that never ran is taken to cost.
UNKNOWN_NS = scratch.UNKNOWN_THREAD_NS

_UNBOUNDED = Budget()
_INSTANCES_MAX = (1 << 31) - 1
_WASM_PAGE_BYTES = 65_536
#: 32-bit addresses.
_PAGES_MAX = 65_536
_RETRY_S = 0.001
#: What a kernel's module says of a trap.
_GLOBALS = ("block_x", "block_y", "block_z", "row", "place", "line", "fault")


def is_worth(blocks: int, threads: int, thread_ns: float) -> bool:
    """Whether a launch should use several cores.

    ``threads`` are those of all its blocks; ``thread_ns`` is what one cost when the kernel ran last, in time of one
    core, or ``UNKNOWN_NS``. The gate has the same rule in WebAssembly.
    """
    return threads * thread_ns >= WORTH_NS and blocks > 1


class HelperThread:
    """A thread that does what it is given, one thing after another; it steps back by ``niceness``."""

    def __init__(self, name: str, niceness: int = 0) -> None:
        self._niceness = niceness
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def do(self, work: Callable[[], None]) -> None:
        """Have something done; it must not raise."""
        self._work.put(work)

    def close(self) -> None:
        """End the thread once it is through."""
        self._work.put(None)
        self._thread.join()

    def is_current(self) -> bool:
        """Whether it is this thread that asks."""
        return self._thread is threading.current_thread()

    def _run(self) -> None:
        step_back(self._niceness)
        while (work := self._work.get()) is not None:
            work()


class Boards:
    """The boards of one engine, in a shared memory, and the bell for all of them. Safe for threads."""

    def __init__(self, engine: Engine, memory: SharedMemory, start: int, count: int) -> None:
        self.engine = engine
        self.memory = memory
        self._free = [start + BOARD_BYTES * number for number in range(count)]
        self._store = Store(engine, _UNBOUNDED)
        code = engine.compile(crew_module.bell_module(memory.pages))
        self._ring = self._store.instantiate(code, [memory.extern]).function("ring")
        self._lock = threading.Lock()
        self.helper_code = engine.compile(crew_module.helper_module(memory.pages))

    def take(self) -> int | None:
        """The offset of a board, all zeros; None when all are in use."""
        with self._lock:
            return self._free.pop() if self._free else None

    def give(self, board: int) -> None:
        """Take a board back that nobody uses any more."""
        ctypes.memset(self.memory.address + board, 0, BOARD_BYTES)
        with self._lock:
            self._free.append(board)

    def ring(self, board: int) -> None:
        """Wake the helpers that wait at a board."""
        with self._lock:
            self._store.call_short(self._ring, board)

    def close(self) -> None:
        """Give everything back."""
        self._store.close()


@dataclass(frozen=True, slots=True)
class HelperFailure:
    """How a helper's part of a launch ended: ``cause`` is what its interrupt said, if it did.

    ``values`` are the globals of the kernel's instance.
    """

    kernel: int
    cause: BaseException | None
    failure: Failure
    values: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Memories:
    """The two memories of a leader's store that kernels work on, guest's first: where they are in this process."""

    bases: tuple[int, int]
    guest_bytes: int

    @staticmethod
    def of(store: Store, externs: Sequence[Any]) -> Memories:
        """The memories that two C externs of ``store`` name, as large as they are now."""
        guest, scratch = (native.memory_data(store.context, ctypes.byref(extern.of.memory)) or 0 for extern in externs)
        return Memories((guest, scratch), native.memory_data_size(store.context, ctypes.byref(externs[0].of.memory)))


class Crew:
    """Helpers for one leader.

    ``counter`` is the address in scratch memory of eight bytes for the counter of blocks, at a multiple of 8.
    ``interrupt`` is asked while a helper runs, as a store's is. Methods that are not marked as helpers' are for the
    leader's thread, between launches. Raises :class:`InternalError` when all boards are in use.
    """

    def __init__(
        self,
        boards: Boards,
        memories: Memories,
        counter: int,
        threads: Sequence[HelperThread],
        interrupt: Callable[[], TensorWasmError | None],
    ) -> None:
        board = boards.take()
        if board is None:
            raise InternalError("all boards are in use")
        self.board = board
        self.counter = counter
        self.failure: HelperFailure | None = None
        self._boards = boards
        self._address = boards.memory.address + board
        self._counter = ctypes.c_uint64.from_address(memories.bases[1] + counter)
        self._interrupt = interrupt
        self._is_stopping = False
        self._is_serving = False
        self._lock = threading.Lock()
        self.memories = memories
        #: How often helpers were taught a kernel: each leaves an instance in their stores.
        self.lessons = 0
        code = boards.engine.compile(_aliases(memories.guest_bytes // _WASM_PAGE_BYTES))
        self._helpers = [_Helper(self, boards, code, thread) for thread in threads]

    @property
    def cores(self) -> int:
        """The helpers and their leader."""
        return len(self._helpers) + 1

    def add(self, number: int, module: Module, regions: Sequence[int], variables: int) -> None:
        """Teach the helpers a kernel, in the place of the one of this number, below ``CREW_KERNELS``.

        ``regions`` are where each helper's region is in scratch memory, zeroed; ``variables`` is the leader's.
        """
        self.recall()
        self.lessons += 1
        for helper, region in zip(self._helpers, regions, strict=True):
            helper.add(number, module, region, variables)

    def serve(self) -> None:
        """Let the helpers wait for launches; to be called before each one."""
        if self._is_serving:
            return
        self.failure = None
        self._word(crew_module.LEAVE).value = 0
        self._is_serving = True
        for helper in self._helpers:
            helper.start()

    def recall(self) -> None:
        """Have the helpers return, ending a launch whose leader has failed."""
        if not self._is_serving:
            return
        self._is_stopping = True
        self._counter.value = STOPPED
        self._word(crew_module.OPEN).value = 0
        self._word(crew_module.LEAVE).value = 1
        self._boards.ring(self.board)
        for helper in self._helpers:
            helper.wait()
        self._is_serving = self._is_stopping = False
        self._word(crew_module.ACTIVE).value = 0

    def close(self) -> None:
        """Have the helpers return, and end their stores."""
        self.recall()
        for helper in self._helpers:
            helper.close()
        if self._helpers:
            self._helpers.clear()
            self._boards.give(self.board)

    # --- for helpers ------------------------------------------------------------------------------------

    @property
    def is_stopping(self) -> bool:
        """Whether helpers are to return."""
        return self._is_stopping

    def ask(self) -> TensorWasmError | None:
        """What ends a helper's part."""
        if self._is_stopping or self.failure is not None:
            return TensorWasmError("the launch ended on another core")
        return self._interrupt()

    def note(self, failure: HelperFailure) -> None:
        """A helper failed: nobody takes another block. The first failure is the launch's."""
        with self._lock:
            if self.failure is None and not self._is_stopping:
                self.failure = failure
        self._counter.value = STOPPED
        self._word(crew_module.FAILED).value = 1
        self._boards.engine.look_soon()  # the leader may be in a block that has no end

    def kernel(self) -> int:
        """The number of the kernel that runs."""
        return self._word(crew_module.KERNEL).value

    def _word(self, place: int) -> ctypes.c_int32:
        return ctypes.c_int32.from_address(self._address + place)


class CrewPool:
    """The helper threads of a node, lent to those guests that first have a use for them. Safe for threads."""

    def __init__(self, engine: Engine, memory: SharedMemory, start: int, helpers: int) -> None:
        self._boards = Boards(engine, memory, start, helpers)
        self._free: list[HelperThread] = []
        self._unborn = helpers
        self._lent: dict[Crew, list[HelperThread]] = {}
        self._lock = threading.Lock()

    def hire(self, memories: Memories, counter: int, interrupt: Callable[[], TensorWasmError | None]) -> Crew | None:
        """A crew of all threads that are free, as :class:`Crew` is made; None when none is."""
        with self._lock:
            threads, self._free = self._free, []
            for number in range(self._unborn):
                threads.append(HelperThread(f"kernel-helper-{number}", FURTHER_NICENESS))
            self._unborn = 0
        if not threads:
            return None
        try:
            crew = Crew(self._boards, memories, counter, threads, interrupt)
        except BaseException:
            with self._lock:
                self._free += threads
            raise
        self._lent[crew] = threads
        return crew

    def dismiss(self, crew: Crew) -> None:
        """End a crew; its threads are free again."""
        crew.close()
        with self._lock:
            self._free += self._lent.pop(crew)

    def close(self) -> None:
        """End all threads; no crew may be left."""
        for thread in self._free:
            thread.close()
        self._free.clear()
        self._boards.close()


class _Helper:
    """One helper of a crew: its store, and the thread that is lent to it."""

    def __init__(self, crew: Crew, boards: Boards, code: Module, thread: HelperThread) -> None:
        engine = boards.engine
        self._crew = crew
        self._thread = thread
        self._is_idle = threading.Event()
        self.store = Store(engine, _UNBOUNDED, interrupt=crew.ask)
        native.store_limiter(self.store.pointer, -1, -1, _INSTANCES_MAX, -1, -1)
        with engine.pool.alias(crew.memories.bases):
            host = self.store.instantiate(code, ())
        self._memories = [host.extern("memory"), host.extern("scratch")]
        self._instance = self.store.instantiate(boards.helper_code, [boards.memory.extern])
        self._serve: Any = self._instance.function("serve")
        self._finish = self._instance.function("finish")
        self._table = self._instance.extern("kernels")
        self._is_active = self._instance.extern("is_active")
        self._kernels: dict[int, Instance] = {}

    def add(self, number: int, module: Module, region: int, variables: int) -> None:
        store = self.store
        externs = [*self._memories, store.i32_global(region), store.i32_global(variables)]
        kernel = store.instantiate(module, externs, runs_code=True)
        store.table_set(self._table, number, kernel.function("share"))
        self._kernels[number] = kernel

    def start(self) -> None:
        self._is_idle.clear()
        self._thread.do(self._run)

    def wait(self) -> None:
        self._is_idle.wait()

    def close(self) -> None:
        self.store.close()

    def _run(self) -> None:
        """Serve until told to leave. On the helper's thread."""
        try:
            while not self._crew.is_stopping and not self._call():
                pass
        finally:
            self._is_idle.set()

    def _call(self) -> bool:
        """One call of ``serve``; whether it returned. Of a failure it says so."""
        raw = (native.RawValue * 1)()
        raw[0].i64 = self._crew.board
        trap = ctypes.c_void_p()
        store = self.store
        error = native.func_call(store.context, ctypes.byref(self._serve), raw, 1, ctypes.byref(trap))
        if not error and not trap.value:
            return True
        cause, store.failure = store.failure, None
        failure = from_call(error, trap.value)
        if not store.read_global(self._is_active):
            time.sleep(_RETRY_S)  # interrupted between launches
            return False
        number = self._crew.kernel()
        kernel = self._kernels[number]
        values = {name: store.read_global(extern) for name, extern in _told(kernel)}
        self._crew.note(HelperFailure(number, cause, failure, values))
        # An interrupt that is still due would end this call as well.
        store.interrupt = None
        with contextlib.suppress(Exception):
            store.call_short(self._finish, self._crew.board)
        store.interrupt = self._crew.ask
        return False


def _told(kernel: Instance) -> Iterator[tuple[str, Any]]:
    """The globals of a kernel that say what happened: those of every kernel, and ``site_0`` and so on."""
    yield from ((name, kernel.extern(name)) for name in _GLOBALS)
    for number in itertools.count():
        extern = kernel.extern(f"site_{number}")
        if extern is None:
            return
        yield f"site_{number}", extern


@lru_cache(maxsize=64)
def _aliases(guest_pages: int) -> bytes:
    """The two memories: the guest's as large as it is, since kernels ask; scratch memory as large as it may become."""
    module = ModuleWriter()
    module.memory(guest_pages, export="memory")
    module.memory(_PAGES_MAX, export="scratch")
    return module.encode().wasm


__all__ = [
    "LAUNCH_PARAMETERS",
    "UNKNOWN_NS",
    "WORTH_NS",
    "Boards",
    "Crew",
    "CrewPool",
    "HelperFailure",
    "HelperThread",
    "Memories",
    "is_worth",
]
