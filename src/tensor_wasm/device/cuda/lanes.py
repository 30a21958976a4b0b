"""Launches: what lanes ask for on the board goes to the driver. This is the path that every launch takes.

Every number on the board is checked before the driver sees it, and read once: whoever writes it may write again
meanwhile. The stream of a lane says what is over wherever memory or code is given back; ``DONE``, which the board's
owner could write too, decides only when a lane's next request is looked at. How long the GPU took, where that is asked
for, is :mod:`.timing`'s matter.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from tensor_wasm.device.cuda.board import (
    ACCEPTED_NS,
    BODIES,
    BODY_BYTES,
    BYTES,
    DONE,
    DOORBELL_BYTES,
    LANES,
    PARAMETERS_MAX,
    REQUEST,
    RESULT,
    WINDOW_BYTES,
    WINDOWS,
    WINDOWS_MAX,
    Direction,
    Result,
)
from tensor_wasm.device.cuda.driver import OUT_OF_MEMORY, Driver, DriverError
from tensor_wasm.device.cuda.records import WORD_BYTES, Kernel, Lane, Running, Tenant
from tensor_wasm.device.cuda.timing import Mark, Timing, Timings

#: A body up to its parameters: kernel, grid, block, shared, bytes of parameters, windows, whether it is timed.
_HEAD: Final = struct.Struct("<I3I3I4I")
#: A window.
_WINDOW: Final = struct.Struct("<QIII4x")
assert _WINDOW.size == WINDOW_BYTES

#: Blocks along x, along y and z (CUDA C++ Programming Guide, technical specifications); threads along z.
_GRID_X_MAX: Final = (1 << 31) - 1
_GRID_YZ_MAX: Final = (1 << 16) - 1
_BLOCK_Z_MAX: Final = 64

_WORDS: Final = DOORBELL_BYTES // WORD_BYTES
_DONE: Final = DONE // WORD_BYTES
_RESULT: Final = RESULT // WORD_BYTES
_ACCEPTED: Final = ACCEPTED_NS // 8

#: Requests of a lane that are taken for over because the board says so, until its stream is asked.
_TRUST: Final = 64
#: Streams that one check asks.
_QUERIES: Final = 4
#: A request in flight for no longer than this is not waited for.
_SHORT_NS: Final = 2_000_000
#: How long unloading waits for kernels of no end.
_PATIENCE_NS: Final = 30_000_000_000


class Lanes:
    """The lanes of a board of which ``memory`` is all, seen by this process at ``host_address``, by the device at
    ``device_address``. ``kernels`` are those that requests may name, by their numbers.
    """

    def __init__(
        self, driver: Driver, memory: memoryview, host_address: int, device_address: int, shared_bytes_max: int
    ) -> None:
        self.kernels: dict[int, Kernel] = {}
        self._driver = driver
        self._memory = memory
        self._host_address = host_address
        self._device_address = device_address
        self._shared_bytes_max = shared_bytes_max
        self._staging = host_address + BYTES
        self._staging_bytes = len(memory) - BYTES
        self._words = memory[:BODIES].cast("I")
        self._longs = memory[:BODIES].cast("Q")
        self._timings = Timings(driver, self._words, self._longs)
        #: The timings' own, for the look that each poll takes.
        self._timed = self._timings.waiting
        self._lanes: list[Lane | None] = [None] * LANES
        self._streams: list[int] = []
        #: Lanes whose request the driver did not take whole.
        self._failed: set[Lane] = set()
        #: Kernels that are to be unloaded, lanes that may run them, and since when.
        self._retired: list[tuple[Kernel, list[Lane], int]] = []
        self._turn = self._check_turn = 0
        # One comparison of numbers in a row finds all lanes that ask, without a list or an object for any of them.
        doorbells = np.frombuffer(memory, np.uint32, LANES * _WORDS).reshape(LANES, _WORDS)
        self._all_asked = doorbells[:, REQUEST // WORD_BYTES]
        self._all_done = doorbells[:, _DONE]
        self._all_started = np.zeros(LANES, np.uint32)
        self._started = self._all_started.data
        self._flags = bytearray(LANES)
        self._all_flags = np.frombuffer(self._flags, np.bool_)
        self._show(0)

    def _show(self, count: int) -> None:
        """Have polls look at the first ``count`` lanes."""
        self._count = count
        self._asked, self._done = self._all_asked[:count], self._all_done[:count]
        self._begun, self._differs = self._all_started[:count], self._all_flags[:count]

    # --- opening and closing ----------------------------------------------------------------------------

    def open(self, number: int, tenant: Tenant) -> None:
        """Give a lane to a tenant; the lane's part of the board is zeros then. Raises ValueError, DriverError."""
        if not 0 <= number < LANES:
            raise ValueError(f"there is no lane {number}")
        if self._lanes[number] is not None:
            raise ValueError(f"lane {number} is in use")
        stream = self._streams.pop() if self._streams else self._driver.create_stream()
        lane = Lane(number, tenant, stream, self._host_address, self._device_address)
        doorbell = number * DOORBELL_BYTES
        self._memory[lane.body : lane.body + BODY_BYTES] = bytes(BODY_BYTES)
        self._memory[doorbell : doorbell + DOORBELL_BYTES] = bytes(DOORBELL_BYTES)
        self._started[number] = 0
        self._lanes[number] = lane
        tenant.lanes.add(lane)
        self._show(max(self._count, number + 1))

    def close(self, number: int) -> None:
        """Begin nothing more for a lane; it is closed once it is idle, see :meth:`is_open`. Raises ValueError."""
        lane = self._lanes[number] if 0 <= number < LANES else None
        if lane is None:
            raise ValueError(f"lane {number} is not open")
        lane.is_closing = True
        self._end_if_done(lane)

    def is_open(self, number: int) -> bool:
        """Whether a lane is in use, be it for what it began before it was closed."""
        return self._lanes[number] is not None

    def close_all(self, tenant: Tenant) -> bool:
        """Close a tenant's lanes, where they are idle; whether none is left."""
        for lane in tuple(tenant.lanes):
            lane.is_closing = True
            self._end_if_done(lane)
        return not tenant.lanes

    def _end_if_done(self, lane: Lane) -> None:
        """Forget a lane that is closing when its stream is done; another lane has the stream then."""
        if not self.is_done(lane.stream):
            return
        self._failed.discard(lane)
        self._timings.end(lane)
        lane.is_closed = True
        lane.tenant.lanes.discard(lane)
        self._started[lane.number] = self._words[lane.word]  # what was never begun asks no more
        self._lanes[lane.number] = None
        self._streams.append(lane.stream)
        count = self._count
        while count and self._lanes[count - 1] is None:
            count -= 1
        self._show(count)

    def is_done(self, stream: int) -> bool:
        """Whether a stream is done; false where the driver has no memory to say so, so that it is asked again."""
        try:
            return self._driver.is_stream_done(stream)
        except DriverError as error:
            if error.code != OUT_OF_MEMORY:
                raise
            return False

    # --- kernels ----------------------------------------------------------------------------------------

    def retire(self, kernel: Kernel) -> None:
        """Begin no more launches of a kernel, and unload it once all that its tenant has in flight is over."""
        del self.kernels[kernel.number]
        self._retired.append((kernel, list(kernel.tenant.lanes), time.monotonic_ns()))
        self._unload()

    def _unload(self) -> None:
        late_ns = time.monotonic_ns() - _PATIENCE_NS
        kept = []
        for kernel, lanes, since_ns in self._retired:
            busy = [lane for lane in lanes if not lane.is_closed and not self.is_done(lane.stream)]
            # The driver waits for all kernels that run, other tenants' too, and this thread could begin none meanwhile.
            is_early = since_ns > late_ns and not self.is_over(since_ns)
            if busy or is_early or not self._is_unloaded(kernel):
                kept.append((kernel, busy, since_ns))
        self._retired = kept

    def _is_unloaded(self, kernel: Kernel) -> bool:
        try:
            self._unload_modules(kernel)
        except DriverError as error:
            if error.is_sticky:
                raise
            return False
        return True

    def unload(self, kernel: Kernel) -> None:
        """Unload a kernel now that its tenant has no lane. Raises :class:`DriverError`."""
        self.kernels.pop(kernel.number, None)
        self._retired = [each for each in self._retired if each[0] is not kernel]
        self._unload_modules(kernel)

    def _unload_modules(self, kernel: Kernel) -> None:
        while kernel.modules:
            self._driver.unload_module(kernel.modules[-1])
            kernel.modules.pop()
        kernel.tenant.kernels.discard(kernel)

    # --- launches ---------------------------------------------------------------------------------------

    def poll(self) -> int:
        """Begin what lanes ask for; how many requests were begun. Raises a sticky :class:`DriverError`."""
        if self._failed:
            self._end_failed()
        if self._timed:
            self._timings.poll()
        np.not_equal(self._asked, self._begun, self._differs)
        find, count = self._flags.find, self._count
        turn = self._turn if self._turn < count else 0
        number = find(1, turn, count)
        if number < 0:
            if not turn:
                return 0
            number, count, turn = find(1, 0, turn), turn, 0
            if number < 0:
                return 0
        first, begun = number, 0
        while number >= 0:
            begun += self._begin(number)
            number = find(1, number + 1, count)
            if number < 0 and turn:
                number, count, turn = find(1, 0, turn), turn, 0
        # The one after the first goes first the next time: who shares the device with many is not always behind them.
        self._turn = first + 1
        return begun

    def _begin(self, number: int) -> int:
        lane = self._lanes[number]
        if lane is None or lane.is_closing or self._words[lane.word + _DONE] != lane.started:
            return 0
        kernel_number, gx, gy, gz, bx, by, bz, shared_bytes, parameter_bytes, windows, is_timed = _HEAD.unpack_from(
            self._memory, lane.body
        )
        kernel = self.kernels.get(kernel_number)
        request = self._words[lane.word]
        if not self._may_begin(lane, kernel):
            return 0
        lane.started = self._started[number] = request
        threads = bx * by * bz
        if (
            kernel is None
            or kernel.tenant is not lane.tenant
            or not 0 < gx <= _GRID_X_MAX
            or not 0 < gy <= _GRID_YZ_MAX
            or not 0 < gz <= _GRID_YZ_MAX
            or bz > _BLOCK_Z_MAX
            or not threads
            or not kernel.parameter_bytes <= parameter_bytes <= PARAMETERS_MAX
        ):
            return self._end(lane, Result.REFUSED)
        if threads > kernel.max_threads or shared_bytes > self._shared_bytes_max:
            return self._end(lane, Result.NOT_LAUNCHABLE)
        copies = self._windows(lane, windows) if windows else ()
        if copies is None:
            return self._end(lane, Result.REFUSED)
        driver, stream, fault = self._driver, lane.stream, kernel.fault
        lane.kernel = kernel
        lane.accepted_ns = time.monotonic_ns()
        result = Result.NOT_LAUNCHABLE
        try:
            timing = self._time(lane, copies) if is_timed else None
            for address, staging, size_bytes, direction in copies:
                if direction & Direction.IN:
                    driver.copy_to_device(address, staging, size_bytes, stream)
            if shared_bytes > kernel.shared_bytes:
                self._allow_shared(kernel, shared_bytes)
            if fault:
                kernel.lane = lane
                driver.set_memory(fault, 0, WORD_BYTES, stream)
            if timing is not None:
                self._timings.mark(timing, Mark.BEFORE_KERNEL, stream)
            driver.launch(
                kernel.function if threads <= kernel.fast_threads else kernel.wide_function,
                (gx, gy, gz),
                (bx, by, bz),
                shared_bytes,
                stream,
                lane.parameters,
                kernel.parameter_bytes,
            )
            if timing is not None:
                self._timings.mark(timing, Mark.AFTER_KERNEL, stream)
            for address, staging, size_bytes, direction in copies:
                if direction & Direction.OUT:
                    driver.copy_to_host(staging, address, size_bytes, stream)
            if timing is not None:
                self._timings.mark(timing, Mark.AFTER_COPIES, stream)
            if fault:
                driver.copy_to_host(lane.fault_address, fault, WORD_BYTES, stream)
            result = Result.OK
            # Before the last call: the GPU may write DONE at once, and the owner then reads the time.
            lane.accepted_ns = self._longs[lane.word // 2 + _ACCEPTED] = time.monotonic_ns()
            if timing is None:
                driver.write_value(lane.done_address, request, stream)
            else:
                driver.write_value(lane.ended_address, request, stream)
                self._timed.append(lane)
        except DriverError as error:
            if error.is_sticky:
                raise
            lane.result = result
            self._failed.add(lane)
        return 1

    def _time(self, lane: Lane, copies: Sequence[tuple[int, int, int, int]]) -> Timing | None:
        """Take the time of a request from now on, if that can be."""
        directions = [direction for _, _, _, direction in copies]
        is_in, is_out = (any(each & which for each in directions) for which in (Direction.IN, Direction.OUT))
        timing = self._timings.begin(lane, is_in, is_out)
        if timing is not None:
            self._timings.mark(timing, Mark.BEFORE_COPIES, lane.stream)
        return timing

    def _allow_shared(self, kernel: Kernel, shared_bytes: int) -> None:
        self._driver.allow_shared(kernel.function, shared_bytes)
        if kernel.wide_function:
            self._driver.allow_shared(kernel.wide_function, shared_bytes)
        kernel.shared_bytes = shared_bytes

    def _may_begin(self, lane: Lane, kernel: Kernel | None) -> bool:
        """Whether a request can be begun now, or is to be looked at again later."""
        if kernel is not None and kernel.fault:
            # There is one fault word: while the kernel runs for another lane, that lane's fault may be in it.
            other = kernel.lane
            if (
                other is not None
                and other is not lane
                and other.kernel is kernel
                and not other.is_closed
                and self._words[other.word + _DONE] != other.started
            ):
                return False
        lane.trusted += 1
        if lane.trusted > _TRUST:
            # Nobody fills a stream by saying that its work is over: the driver would wait for room, and all with it.
            if not self.is_done(lane.stream):
                return False
            lane.trusted = 0
        return True

    def _windows(self, lane: Lane, count: int) -> list[tuple[int, int, int, int]] | None:
        """A request's windows: on the device, in this process, bytes, directions; None where one is not allowed."""
        if count > WINDOWS_MAX:
            return None
        start = lane.body + WINDOWS
        base, end = lane.base, lane.end
        copies = []
        for address, staging, size_bytes, direction in _WINDOW.iter_unpack(
            self._memory[start : start + count * WINDOW_BYTES]
        ):
            if size_bytes:
                if (
                    not base <= address <= end - size_bytes
                    or staging + size_bytes > self._staging_bytes
                    or direction > Direction.IN | Direction.OUT
                ):
                    return None
                copies.append((address, self._staging + staging, size_bytes, direction))
        return copies

    def _end(self, lane: Lane, result: Result) -> int:
        """Say that a request is over of which the driver knows nothing."""
        self._words[lane.word + _RESULT] = result
        self._words[lane.word + _DONE] = lane.started
        return 1

    def _end_failed(self) -> None:
        """Say that requests are over which the driver did not take whole, where what it took is done."""
        for lane in tuple(self._failed):
            if self.is_done(lane.stream):
                self._failed.discard(lane)
                self._timings.end(lane)
                self._end(lane, lane.result)

    # --- what is in flight ------------------------------------------------------------------------------

    def _busy(self) -> Iterator[Lane]:
        """Lanes with a request in flight, and those that close."""
        np.not_equal(self._done, self._begun, self._differs)
        for number in np.flatnonzero(self._differs).tolist():
            lane = self._lanes[number]
            if lane is not None:
                yield lane

    def is_over(self, since_ns: int) -> bool:
        """Whether all requests are over that were in flight at a time, but for the youngest."""
        latest_ns = min(since_ns, time.monotonic_ns() - _SHORT_NS)
        return all(lane.accepted_ns > latest_ns for lane in self._busy())

    def running(self) -> tuple[Running, ...]:
        """All requests in flight."""
        return tuple(
            Running(lane.number, lane.tenant.number, lane.kernel.name if lane.kernel else "", lane.accepted_ns / 1e9)
            for lane in self._busy()
        )

    def check(self) -> None:
        """Notice a lost context, close lanes and unload kernels that wait for it. Raises :class:`DriverError`."""
        busy = list(self._busy())
        # An error that ends the context is every stream's: a few, others each time, are enough.
        for place in range(min(_QUERIES, len(busy))):
            self.is_done(busy[(self._check_turn + place) % len(busy)].stream)
        self._check_turn += _QUERIES
        for lane in tuple(self._closing()):
            self._end_if_done(lane)
        if self._retired:
            self._unload()
        if self._failed:
            self._end_failed()

    def _closing(self) -> Iterator[Lane]:
        return (lane for lane in self._lanes[: self._count] if lane is not None and lane.is_closing)

    def release(self) -> None:
        """End the streams and events, and let go of the board. All lanes are closed."""
        try:
            self._timings.release()
            while self._streams:
                self._driver.destroy_stream(self._streams[-1])
                self._streams.pop()
        finally:
            self._all_asked = self._all_done = np.zeros(0, np.uint32)
            self._show(0)
            self._words.release()
            self._longs.release()
