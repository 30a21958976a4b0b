"""A guest whose kernels are trampolines, and a thread that plays the worker and the GPU behind the board."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dispatch.rig import ARGV_AT, Rig, RigGuest
from tensor_wasm.abi import Tag, pack
from tensor_wasm.device.cuda import board
from tensor_wasm.device.cuda.board import Direction, Result
from tensor_wasm.device.cuda.shared import SharedFile
from tensor_wasm.device.cuda.trampoline import REGION_BYTES, region, trampoline
from tensor_wasm.device.fence.written import EVERYTHING
from tensor_wasm.dispatch import KernelEntry
from tensor_wasm.dispatch.scratch import Placement
from tensor_wasm.errors import KernelFault, TensorWasmError
from tensor_wasm.runtime import PAGE_BYTES, Engine, FileMemory, HostFunction, Pages, Store
from tensor_wasm.wasm import Module, ValType

STAGING_BYTES = 1 << 20
#: Where the device's memory starts: its partition.
BASE = 0x7F00_0000_0000
EMPTY = BASE - 8
POINTER = 1 << Tag.POINTER | 1 << Tag.DEVICE_POINTER | 1 << Tag.U64
LIMIT_S = 120
KERNEL = 77


@dataclass(frozen=True)
class Request:
    """A launch as the worker sees it. Windows are (address, staging, bytes, direction)."""

    lane: int
    number: int
    kernel: int
    grid: tuple[int, ...]
    block: tuple[int, ...]
    shared_bytes: int
    parameters: bytes
    windows: list[tuple[int, int, int, int]]
    is_timed: bool = False

    def pointer(self, place: int = 0) -> int:
        (value,) = struct.unpack_from("<Q", self.parameters, place)
        return int(value)


@dataclass(frozen=True)
class Answer:
    """What the worker does when the kernel has run: ``is_silent``: nothing. ``later_s``: not at once.

    ``spent_ns`` is how long the GPU says that it took, for the kernel, copies in and copies out.
    """

    result: int = Result.OK
    fault_line: int = 0
    is_silent: bool = False
    later_s: float = 0.0
    spent_ns: tuple[int, int, int] = (0, 0, 0)


Kernel = Callable[["Worker", Request], Answer | None]


class Worker:
    """The thread. ``kernel`` is what each launch runs, on ``device``: the bytes from ``BASE`` on."""

    def __init__(self, file: SharedFile, device_bytes: int, lanes: int) -> None:
        self.file = file
        self.words = file.content[: board.BODIES].cast("I")
        self.longs = file.content[: board.BODIES].cast("Q")
        self.device = bytearray(device_bytes)
        self.requests: list[Request] = []
        self.kernel: Kernel = lambda _worker, _request: None
        self.failure: BaseException | None = None
        self._begun = [0] * lanes
        self._is_over = False
        self._thread = threading.Thread(target=self._run, name="worker")
        self._thread.start()

    def word(self, lane: int, place: int) -> int:
        return self.words[(lane * board.DOORBELL_BYTES + place) >> 2]

    def set_word(self, lane: int, place: int, value: int) -> None:
        self.words[(lane * board.DOORBELL_BYTES + place) >> 2] = value

    def start_lane(self, lane: int, number: int) -> None:
        """Have a lane's latest request be of this number, and be over."""
        self._begun[lane] = number
        self.set_word(lane, board.DONE, number)
        self.set_word(lane, board.REQUEST, number)

    def is_busy(self, lane: int) -> bool:
        return self.word(lane, board.REQUEST) != self.word(lane, board.DONE)

    def read(self, address: int, size_bytes: int) -> bytes:
        return bytes(self.device[address - BASE : address - BASE + size_bytes])

    def write(self, address: int, data: bytes) -> None:
        assert 0 <= address - BASE <= len(self.device) - len(data)
        self.device[address - BASE : address - BASE + len(data)] = data

    def interrupt(self) -> TensorWasmError | None:
        """What ends a guest that waits for a worker that is no more."""
        return None if self._thread.is_alive() else TensorWasmError("the worker failed")

    def close(self) -> None:
        self._is_over = True
        self._thread.join()
        self.words.release()
        self.longs.release()
        assert self.failure is None, self.failure

    def _run(self) -> None:
        try:
            while not self._is_over:
                if not any(self._serve(lane) for lane in range(len(self._begun))):
                    time.sleep(0.0002)
        except BaseException as error:
            self.failure = error
            raise

    def _serve(self, lane: int) -> bool:
        number = self.word(lane, board.REQUEST)
        if number == self._begun[lane]:
            return False
        self._begun[lane] = number
        request = self._read(lane, number)
        self.requests.append(request)
        for address, staging, size_bytes, direction in request.windows:
            if direction & Direction.IN:
                at = board.BYTES + staging
                self.write(address, bytes(self.file.content[at : at + size_bytes]))
        answer = self.kernel(self, request) or Answer()
        for address, staging, size_bytes, direction in request.windows:
            if direction & Direction.OUT:
                at = board.BYTES + staging
                self.file.content[at : at + size_bytes] = self.read(address, size_bytes)
        if answer.is_silent:
            return True
        time.sleep(answer.later_s)
        self.longs[(lane * board.DOORBELL_BYTES + board.ACCEPTED_NS) >> 3] = time.monotonic_ns()
        for place, time_ns in zip((board.KERNEL_NS, board.COPY_IN_NS, board.COPY_OUT_NS), answer.spent_ns, strict=True):
            self.longs[(lane * board.DOORBELL_BYTES + place) >> 3] = time_ns
        self.set_word(lane, board.RESULT, answer.result)
        self.set_word(lane, board.FAULT_LINE, answer.fault_line)
        self.set_word(lane, board.DONE, number)
        return True

    def _read(self, lane: int, number: int) -> Request:
        at = board.BODIES + lane * board.BODY_BYTES
        body = bytes(self.file.content[at : at + board.BODY_BYTES])
        kernel, gx, gy, gz, bx, by, bz, shared_bytes, size_bytes, count, timed = struct.unpack_from("<11I", body)
        assert timed in (0, 1)
        windows = [
            struct.unpack_from("<QIII", body, board.WINDOWS + board.WINDOW_BYTES * place) for place in range(count)
        ]
        parameters = body[board.PARAMETERS : board.PARAMETERS + size_bytes]
        shape = (gx, gy, gz), (bx, by, bz)
        return Request(lane, number, kernel, *shape, shared_bytes, parameters, windows, bool(timed))


class LaunchRig(Rig):
    """An engine with guests whose launches go to a board, and its worker.

    ``on_reach`` and ``on_fetch`` are the host's part; without them every guest has room enough.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        staging_bytes: int = STAGING_BYTES,
        device_bytes: int = 4 << 20,
        pages: int = 2,
        lanes: int = 4,
    ) -> None:
        functions = [
            HostFunction("tensor_wasm", "reach", ("i32", "i32"), ("i32",), self._reach),
            HostFunction("tensor_wasm", "fetch", (), (), self._fetch),
            HostFunction("tensor_wasm", "fail", ("i32", "i32"), (), self._fail),
        ]
        super().__init__(engine, has_windows=True, functions=functions, pages=pages)
        self.memory_bytes = pages << 16
        self.file = SharedFile.create(staging_bytes)
        self.board = FileMemory(engine, self.file.descriptor, board.BYTES)
        self.worker = Worker(self.file, device_bytes, lanes)
        self.trampoline = engine.compile(trampoline())
        self.host_functions = self.linker.template(engine.compile(_relay()), runs_code=False)
        self.on_reach: Callable[[LaunchGuest, int, int], int] = lambda _guest, _low, _high: 0
        self.on_fetch: Callable[[LaunchGuest], None] = lambda _guest: None
        self.does_fail_return = False
        #: What the host was asked, in order.
        self.calls: list[tuple[Any, ...]] = []

    def _reach(self, guest: LaunchGuest, values: Any) -> None:
        low, high = values[0].i32 & 0xFFFFFFFF, values[1].i32 & 0xFFFFFFFF or 1 << 32
        self.calls.append(("reach", low, high))
        values[0].i32 = self.on_reach(guest, low, high)

    def _fetch(self, guest: LaunchGuest, _values: Any) -> None:
        self.calls.append(("fetch",))
        self.on_fetch(guest)

    def _fail(self, _guest: LaunchGuest, values: Any) -> None:
        result, line = values[0].i32, values[1].i32 & 0xFFFFFFFF
        self.calls.append(("fail", result, line))
        if not self.does_fail_return:
            raise KernelFault(f"result {result}, line {line}")

    def close(self) -> None:
        self.worker.close()
        self.board.close()
        self.file.close()


class LaunchGuest(RigGuest):
    """A guest with one kernel, of so many pointers, through which it may write where ``written`` has a bit.

    By default it has an arena, and its memory's start is the staging area's.
    """

    def __init__(
        self,
        rig: LaunchRig,
        pointers: int = 1,
        *,
        placement: Placement | None = None,
        kernel_number: int = KERNEL,
        entry: KernelEntry | None = None,
        parameter_bytes: int | None = None,
        lane: int = 0,
        left_ms: int | None = None,
        interrupt: Callable[[], TensorWasmError | None] | None = None,
        memory_bytes: int = 1 << 24,
        written: int = EVERYTHING,
    ) -> None:
        entry = entry or KernelEntry([(POINTER, 8 * place, 8) for place in range(pointers)])
        interrupt = interrupt or rig.worker.interrupt
        super().__init__(rig, None, entry=entry, left_ms=left_ms, interrupt=interrupt, memory_bytes=memory_bytes)
        self.launches = rig
        self.kernel_number = kernel_number
        self.parameter_bytes = 8 * pointers if parameter_bytes is None else parameter_bytes
        self.written = written
        self._shown = (0, 0)
        self.placement = placement or Placement(
            lane, BASE, EMPTY, arena=BASE, arena_bytes=1 << 20, shown_bytes=min(STAGING_BYTES, rig.memory_bytes)
        )

    def bind(self) -> None:
        left_ns = None if self.left_ms is None else self.left_ms * 1_000_000
        self.gate = self.rig.factory.bind(self.store, self.link, self.memory, self.slot, left_ns)
        self.place(self.placement)
        imports = host_imports(self.launches, self.store)
        _, _, base = self.gate.add(self.launches.trampoline, REGION_BYTES, self.entry, imports)
        with self.gate.scratch() as view:
            view[base : base + REGION_BYTES] = region(self.kernel_number, self.parameter_bytes, self.written)

    def place(self, placement: Placement) -> None:
        """Say where launches go, with the pages there that the placement speaks of."""
        assert self.gate is not None
        self.placement = placement
        pages = Pages(self.store, self.memory.of.memory)
        if self._shown[1]:
            content = self.read(*self._shown)
            pages.hide(*self._shown)
            self.write(self._shown[0], content)
        start, size_bytes = self._shown = (
            placement.shown & -PAGE_BYTES,
            -(-placement.shown_bytes // PAGE_BYTES) * PAGE_BYTES,
        )
        if size_bytes:
            at = board.BYTES + placement.staging
            self.launches.file.content[at : at + size_bytes] = self.read(start, size_bytes)
            pages.show(start, size_bytes, self.launches.file.descriptor, at)
        self.gate.place(placement)

    def show(self, *windows: tuple[int, int], **shape: Any) -> int:
        """Launch with pointers to windows (start, bytes) of guest memory."""
        return self.launch(pack([(Tag.POINTER, *window) for window in windows]), **shape)

    def address(self, start: int, low: int) -> int:
        return self.placement.arena + start - low


def both(address: int, staging: int, size_bytes: int) -> list[tuple[int, int, int, int]]:
    """The windows of bytes that go to the device and come back."""
    return [(address, staging, size_bytes, Direction.IN), (address, staging, size_bytes, Direction.OUT)]


def host_imports(rig: LaunchRig, store: Store) -> Sequence[Any]:
    relay = store.start(rig.host_functions)
    functions = [relay.extern(name) for name in ("reach", "fetch", "fail")]
    return [rig.board.extern(store), rig.ledger.memory.extern, *functions]


def _relay() -> bytes:
    """Hands the host's functions on."""
    module = Module()
    i32 = ValType.I32
    functions = [
        module.import_function("tensor_wasm", name, [i32] * taken, [i32] * given)
        for name, taken, given in (("reach", 2, 1), ("fetch", 0, 0), ("fail", 2, 0))
    ]
    for function, name in zip(functions, ("reach", "fetch", "fail"), strict=True):
        module.export(name, function)
    return module.encode().wasm


__all__ = ["ARGV_AT", "BASE", "EMPTY", "KERNEL", "Answer", "LaunchGuest", "LaunchRig", "Request", "Worker", "both"]
