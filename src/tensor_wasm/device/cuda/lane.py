"""Python's way to launch on a GPU: a request on the board, and waiting for its end. The gate has a way of its own."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tensor_wasm.device.cuda import board
from tensor_wasm.device.cuda.board import Result
from tensor_wasm.device.cuda.lane_table import Doorbell
from tensor_wasm.errors import DeadlineExceeded, DeviceRestarting, KernelArgumentError, KernelError
from tensor_wasm.runtime import asleep

#: How long a thread looks for the end of a launch without a pause; then it sleeps, ever longer.
_SPIN_NS: Final = 100_000
_SLEEP_S: Final = 20e-6
_SLEEP_MAX_S: Final = 1e-3
#: How long a kernel whose caller was interrupted may go on.
_GRACE_NS: Final = 500_000_000
_BODY: Final = struct.Struct("<I3I3I3I")
_WINDOW: Final = struct.Struct("<QIII4x")
assert (board.KERNEL, board.GRID, board.BLOCK, board.SHARED) == (0, 4, 16, 28)
assert (board.PARAMETER_BYTES, board.WINDOW_COUNT, _WINDOW.size) == (32, 36, board.WINDOW_BYTES)


#: Why a kernel cost the worker that did not end: its deadline had come; its caller was interrupted.
LATE: Final = "its kernel did not end in time"
LEFT: Final = "its kernel was to end and did not"

Interrupt = Callable[[], Exception | None]


def _never() -> None:
    """No interrupt."""


@dataclass(frozen=True, slots=True)
class Offender:
    """Whose work cost all tenants the worker: the tenant, why, and its kernel's name."""

    tenant: int
    reason: str
    kernel: str


@dataclass(frozen=True, slots=True)
class Window:
    """What a launch copies: ``size_bytes`` between an address on the device and a place in the staging area.

    ``direction`` has bits of :class:`.board.Direction`.
    """

    address: int
    staging: int
    size_bytes: int
    direction: int


class Lane:
    """A lane, for one thread at a time; :meth:`.gpu.Gpu.open_lane` makes one. ``end`` gives it back.

    ``restart`` ends the worker, ``name`` gives a kernel's name.
    """

    def __init__(
        self,
        doorbell: Doorbell,
        content: memoryview,
        generation: int,
        *,
        end: Callable[[Lane], None],
        restart: Callable[[Offender, int], None],
        name: Callable[[int], str],
    ) -> None:
        self.doorbell = doorbell
        self.generation = generation
        self._content = content
        self._end = end
        self._restart = restart
        self._name = name

    @property
    def number(self) -> int:
        """Which lane it is."""
        return self.doorbell.number

    @property
    def tenant(self) -> int:
        """Whose it is."""
        return self.doorbell.tenant

    def launch(
        self,
        kernel: int,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        shared_bytes: int,
        parameters: bytes,
        windows: Sequence[Window],
        deadline_ns: int | None,
        interrupt: Interrupt = _never,
    ) -> int:
        """Run a kernel and wait for its end: the PTX line of its fault, 0 without one.

        ``deadline_ns`` is a time of :func:`time.monotonic_ns`. A kernel that has not ended then costs all tenants the
        worker: a GPU ends no kernel from outside. ``interrupt`` is asked again and again; what it gives is raised once
        the kernel has ended, which is soon or costs the worker likewise.

        Raises:
            KernelArgumentError: More parameters or windows than a request has room for.
            KernelError: The GPU does not launch this, or it names what the tenant does not have.
            DeadlineExceeded: The kernel has not ended.
            DeviceRestarting: The worker ended, and with it all that was on the device.
        """
        if len(parameters) > board.PARAMETERS_MAX or len(windows) > board.WINDOWS_MAX:
            raise KernelArgumentError(
                f"a launch on a GPU has at most {board.PARAMETERS_MAX:,} bytes of parameters and {board.WINDOWS_MAX} "
                f"arrays, not {len(parameters):,} and {len(windows)}"
            )
        doorbell = self.doorbell
        self._wait(kernel, deadline_ns, interrupt)  # for one that an interrupt left in flight
        self._check()
        content, body = self._content, board.BODIES + self.number * board.BODY_BYTES
        try:
            _BODY.pack_into(content, body, kernel, *grid, *block, shared_bytes, len(parameters), len(windows))
            place = body + board.WINDOWS
            for window in windows:
                _WINDOW.pack_into(content, place, window.address, window.staging, window.size_bytes, window.direction)
                place += board.WINDOW_BYTES
        except struct.error as error:
            raise KernelArgumentError(f"a launch on a GPU cannot have such numbers: {error}") from error
        content[body + board.PARAMETERS : body + board.PARAMETERS + len(parameters)] = parameters
        doorbell.ring()
        self._wait(kernel, deadline_ns, interrupt)
        self._check()
        if doorbell.result == Result.NOT_LAUNCHABLE:
            raise KernelError(
                "the GPU does not launch this: too many threads for the kernel's registers, or too much shared memory"
            )
        if doorbell.result == Result.REFUSED:
            raise KernelError("the GPU's worker refuses the launch: it names what the tenant does not have")
        if doorbell.result != Result.OK:
            raise _lost()
        return doorbell.fault_line

    def close(self) -> None:
        """Give the lane back, once what is in flight is over. Waits for nothing; safe to call twice."""
        self._end(self)

    def _check(self) -> None:
        if self.doorbell.is_void or self.doorbell.is_closing:
            raise _lost()

    def _wait(self, kernel: int, deadline_ns: int | None, interrupt: Interrupt) -> None:
        """Until nothing is in flight. Raises :class:`DeadlineExceeded`, and what ``interrupt`` gives."""
        doorbell = self.doorbell
        spin_until_ns = time.monotonic_ns() + _SPIN_NS
        while doorbell.is_busy:
            if time.monotonic_ns() > spin_until_ns:
                break
        else:
            return
        pause_s = _SLEEP_S
        error: Exception | None = None
        until_ns = 0
        with asleep():
            while doorbell.is_busy:
                if deadline_ns is not None and time.monotonic_ns() > deadline_ns:
                    name = self._name(kernel)
                    self._restart(Offender(self.tenant, LATE, name), self.generation)
                    raise DeadlineExceeded(f"kernel {name} did not end in time; the GPU starts anew")
                if error is None:
                    error = interrupt()
                    until_ns = time.monotonic_ns() + _GRACE_NS
                elif time.monotonic_ns() > until_ns:
                    name = self._name(kernel)
                    self._restart(Offender(self.tenant, LEFT, name), self.generation)
                    raise error
                time.sleep(pause_s)
                pause_s = min(pause_s * 1.5, _SLEEP_MAX_S)
        if error is not None:
            raise error


def _lost() -> DeviceRestarting:
    return DeviceRestarting("the GPU lost everything that was on it, and starts anew")
