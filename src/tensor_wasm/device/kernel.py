"""A kernel of an opened device: its parameters, and launching it."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from tensor_wasm.compiler import ParameterLayout
from tensor_wasm.device import shape
from tensor_wasm.device.array import DeviceArray, check_array
from tensor_wasm.device.fault import Placed
from tensor_wasm.device.guarded import Piece
from tensor_wasm.device.machine import KernelInstance, KernelTrap, Machine
from tensor_wasm.device.protocol import LoadedKernel
from tensor_wasm.device.scalars import POINTER_KINDS, described, expected, scalar_bytes
from tensor_wasm.device.transfer import EMPTY_ADDRESS, Transfer
from tensor_wasm.errors import CapacityExhausted, KernelArgumentError

_NS_PER_S = 1_000_000_000
_TIMEOUT_MAX_S = 1e9


class KernelParameter(NamedTuple):
    """A parameter of a kernel: name and PTX type as in the text, size in bytes.

    The type of a struct passed by value is ``b8[16]``, with its size.
    """

    name: str
    type: str
    size: int


class _Arguments:
    """Checked arguments: the parameter block, and the arrays whose addresses are still to be written into it."""

    __slots__ = ("arrays", "block", "kept")

    def __init__(self, size_bytes: int) -> None:
        self.block = bytearray(size_bytes)
        self.arrays: list[tuple[int, NDArray[Any]]] = []
        self.kept: list[tuple[int, DeviceArray]] = []


class Kernel:
    """A kernel on a device; :meth:`tensor_wasm.OpenDevice.load_ptx` makes one.

    Its own variables (``__device__`` and ``__constant__`` in CUDA C) live as long as it does, and are not shared with
    other kernels, those of the same text included.

    Attributes:
        name: The entry's name in the PTX text.
        parameters: What :meth:`launch` takes, in order.
    """

    def __init__(self, device: object, machine: Machine, loaded: LoadedKernel) -> None:
        self._device = device  # open as long as its kernels are in use
        self.name = loaded.compiled.name
        self.parameters = tuple(KernelParameter(p.name, p.kind, p.size_bytes) for p in loaded.compiled.parameters)
        self._machine = machine
        self._loaded = loaded
        self._instance: KernelInstance | None = None
        self._regions: list[Piece] = []  # one for each core that it ran on
        with machine.turn():
            self._take_region()

    def launch(
        self,
        grid: shape.Extent,
        block: shape.Extent,
        args: Sequence[object] = (),
        shared_mem: SupportsIndex = 0,
        timeout: float | None = None,
    ) -> None:
        """Run the kernel once, and return when it has ended.

        An argument is a NumPy array (C-contiguous) or a :class:`DeviceArray`, passed as a pointer to its first
        element; a NumPy scalar of exactly the parameter's width and kind; a Python ``int`` or ``float``, which takes
        the parameter's type; or ``bytes`` for a struct. Writable NumPy arrays hold afterwards what the kernel wrote.
        Arrays that share memory share it on the device.

        Args:
            grid: Blocks, x or up to three axes.
            block: Threads in a block, likewise.
            args: One for each of ``parameters``.
            shared_mem: Bytes of dynamic shared memory.
            timeout: Seconds after which the launch is ended, None for never. Looked at 20 times a second.

        Raises:
            KernelArgumentError: Something does not fit; nothing has run.
            CapacityExhausted: The arrays do not fit the device's memory; nothing has run.
            KernelFault: The kernel failed; the message names kernel, block, thread and PTX line.
            DeadlineExceeded: ``timeout`` came.
            KernelError: The device, or a device array, is closed.

        What the kernel printed (``printf``, failed assertions) is written to ``sys.stderr`` when it has ended.
        After a failed run NumPy arrays are as they were before. Ctrl-C ends a launch with ``KeyboardInterrupt``.
        """
        deadline_ns = _deadline_ns(timeout)
        grid_axes = shape.axes("grid", grid, shape.GRID_MAX)
        block_axes = shape.axes("block", block, shape.BLOCK_MAX)
        compiled = self._loaded.compiled
        shape.check_block(self.name, block_axes, compiled.reqntid, compiled.maxntid)
        shared_bytes = shape.shared_bytes(shared_mem)
        arguments = self._check(args)
        printed: list[bytes] = []
        try:
            with self._machine.turn(deadline_ns):
                transfer = Transfer(self._machine.memory, [array for _, array in arguments.arrays])
                try:
                    transfer.copy_in()
                    self._point(arguments, transfer)
                    try:
                        self._run(grid_axes, block_axes, shared_bytes, arguments.block, printed)
                    except KernelTrap as trap:
                        raise trap.fault(self._placed(arguments, transfer)) from None
                    transfer.copy_back()
                finally:
                    transfer.release()
        finally:
            for text in printed:
                _write_to_stderr(text)

    def _check(self, args: Sequence[object]) -> _Arguments:
        """Arguments by value in the parameter block, arrays noted. Raises :class:`KernelArgumentError`."""
        compiled = self._loaded.compiled
        if not isinstance(args, Sequence) or len(args) != len(compiled.parameters):
            given = f"{len(args)}" if isinstance(args, Sequence) else described(args)
            inside = ", ".join(f"{parameter.name}: {parameter.kind}" for parameter in compiled.parameters)
            raise KernelArgumentError(
                f"{self.name} takes {len(compiled.parameters)} arguments in a list, not {given}: ({inside})"
            )
        arguments = _Arguments(compiled.parameter_bytes)
        for position, (parameter, argument) in enumerate(zip(compiled.parameters, args, strict=True)):
            try:
                self._check_one(position, parameter, argument, arguments)
            except KernelArgumentError as error:
                label = f"argument {position} ({parameter.name}, {parameter.kind}) of {self.name}"
                raise KernelArgumentError(f"{label}: {error}") from None
        return arguments

    def _check_one(self, position: int, parameter: ParameterLayout, argument: object, arguments: _Arguments) -> None:
        if not isinstance(argument, np.ndarray | DeviceArray):
            start = parameter.offset
            arguments.block[start : start + parameter.size_bytes] = scalar_bytes(parameter, argument)
            return
        if parameter.kind not in POINTER_KINDS:
            raise KernelArgumentError(f"it takes {expected(parameter)}, not {described(argument)}")
        if isinstance(argument, np.ndarray):
            check_array(argument)
            arguments.arrays.append((position, argument))
        elif not argument.belongs_to(self._machine):
            raise KernelArgumentError("the device array is in another device's memory")
        else:
            argument.piece()  # raises when it is closed
            arguments.kept.append((position, argument))

    def _point(self, arguments: _Arguments, transfer: Transfer) -> None:
        """Write the arrays' addresses into the parameter block."""
        parameters = self._loaded.compiled.parameters
        for (position, _), address in zip(arguments.arrays, transfer.addresses, strict=True):
            start = parameters[position].offset
            arguments.block[start : start + 8] = address.to_bytes(8, "little")
        for position, array in arguments.kept:
            start = parameters[position].offset
            arguments.block[start : start + 8] = _address(array).to_bytes(8, "little")

    def _placed(self, arguments: _Arguments, transfer: Transfer) -> list[Placed]:
        """Where the arrays are, for messages."""
        found = [
            Placed(position, self.parameters[position].name, address, array.nbytes, transfer.is_read_only(index))
            for index, ((position, array), address) in enumerate(zip(arguments.arrays, transfer.addresses, strict=True))
        ]
        for position, array in arguments.kept:
            found.append(Placed(position, self.parameters[position].name, _address(array), array.nbytes))
        return found

    def _run(
        self,
        grid: shape.Axes,
        block: shape.Axes,
        shared_bytes: int,
        parameters: bytearray,
        printed: list[bytes],
    ) -> None:
        instance = self._instance
        if instance is None:
            instance = self._instance = self._machine.start(self._loaded, self._regions[0])
        try:
            instance.run(grid, block, shared_bytes, bytes(parameters), self._helper_regions)
        except BaseException:
            self._instance = None  # whatever it left behind, the next launch starts anew
            raise
        finally:
            if instance.printed:
                printed.append(instance.printed)
                instance.printed = b""

    def _take_region(self) -> None:
        """Have one region more. The caller has the turn."""
        region = self._machine.take_region(self._loaded)
        self._machine.lend(self, region, is_scratch=True)
        self._regions.append(region)

    def _helper_regions(self, helpers: int) -> list[Piece]:
        """Regions for so many helpers, or none when they do not fit. The caller has the turn."""
        try:
            while len(self._regions) <= helpers:
                self._take_region()
        except CapacityExhausted:
            return []
        return self._regions[1 : helpers + 1]

    def __repr__(self) -> str:
        inside = ", ".join(f"{parameter.name}: {parameter.type}" for parameter in self.parameters)
        return f"<Kernel {self.name}({inside})>"


def _write_to_stderr(text: bytes) -> None:
    """Write what a kernel printed; a program without stderr does not hear it."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text.decode("utf-8", "replace"))
            sys.stderr.flush()


def _address(array: DeviceArray) -> int:
    return array.piece().address if array.nbytes else EMPTY_ADDRESS


def _deadline_ns(timeout: float | None) -> int | None:
    if timeout is None:
        return None
    if not isinstance(timeout, int | float) or not math.isfinite(timeout) or not 0 < timeout <= _TIMEOUT_MAX_S:
        raise KernelArgumentError(f"timeout must be a number of seconds above 0, not {described(timeout)}")
    return time.monotonic_ns() + int(timeout * _NS_PER_S)
