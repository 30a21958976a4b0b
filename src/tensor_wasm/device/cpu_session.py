"""An opened CPU device: its machine, and the kernels and arrays that are on it."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from numpy.typing import NDArray

from tensor_wasm.abi import limits
from tensor_wasm.compiler import CompiledKernel
from tensor_wasm.device.fault import Placed
from tensor_wasm.device.guarded import Piece, copy_bytes
from tensor_wasm.device.machine import KernelInstance, KernelTrap, Machine
from tensor_wasm.device.processor import processor_name
from tensor_wasm.device.protocol import SM, LoadedKernel
from tensor_wasm.device.session_protocol import Arguments, DeviceInfo, SessionArray
from tensor_wasm.device.shape import BLOCK_MAX, GRID_MAX, Axes
from tensor_wasm.device.transfer import EMPTY_ADDRESS, Transfer
from tensor_wasm.errors import CapacityExhausted, KernelError
from tensor_wasm.ptx.constants import WARP_SIZE
from tensor_wasm.runtime import SealedFiles


class CpuSession:
    """A :class:`~.session_protocol.Session` on the processors. Threads take turns."""

    def __init__(self, files: SealedFiles, threads: int) -> None:
        self.machine = machine = Machine(files, threads)
        self.info = DeviceInfo(
            name=processor_name(),
            kind=machine.device.kind,
            sm=SM,
            memory_bytes=machine.memory.capacity_bytes,
            warp_size=WARP_SIZE,
            max_threads_per_block=limits.BLOCK_THREADS_MAX,
            max_block=BLOCK_MAX,
            max_grid=GRID_MAX,
            max_shared_bytes=limits.SHARED_MAX_BYTES,
        )

    @property
    def is_closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self.machine.is_closed

    def load(self, ptx: bytes, entry: str) -> CpuKernel:
        """Compile a kernel, or take it from the cache. Raises :class:`PtxError`."""
        return CpuKernel(self.machine, self.machine.device.load(ptx, entry))

    def keep(self, array: NDArray[Any]) -> CpuArray:
        """Copy an array to the device. Raises :class:`CapacityExhausted`."""
        return CpuArray(self.machine, array)

    def close(self) -> None:
        """End a launch that runs and give all memory back."""
        self.machine.close()


class CpuArray:
    """A :class:`~.session_protocol.SessionArray`."""

    __slots__ = ("__weakref__", "_loan", "_machine", "_piece", "nbytes")

    def __init__(self, machine: Machine, array: NDArray[Any]) -> None:
        self.nbytes: int = array.nbytes
        self._machine = machine
        with machine.turn():
            self._piece: Piece | None = machine.memory.take(array.nbytes)
            self._loan = machine.lend(self, self._piece)
            copy_bytes(self._piece.host_address, array.ctypes.data, array.nbytes)

    @property
    def is_closed(self) -> bool:
        """Whether its memory was given back."""
        return self._piece is None

    def place(self) -> Piece:
        """Where it is. Raises :class:`KernelError` when it is closed."""
        if self._piece is None:
            raise KernelError("the device array is closed")
        return self._piece

    def copy_out(self, target: NDArray[Any]) -> None:
        """Its bytes into an array of as many."""
        with self._machine.turn():
            copy_bytes(target.ctypes.data, self.place().host_address, self.nbytes)

    def close(self) -> None:
        """Give the memory back."""
        if self._piece is not None and not self._machine.is_closed:
            with self._machine.turn():  # not while a kernel uses it
                self._piece = None
                self._machine.give_back(self._loan)


class CpuKernel:
    """A :class:`~.session_protocol.SessionKernel`."""

    def __init__(self, machine: Machine, loaded: LoadedKernel) -> None:
        self.facts: CompiledKernel = loaded.compiled
        self._machine = machine
        self._loaded = loaded
        self._instance: KernelInstance | None = None
        self._regions: list[Piece] = []  # one for each core that it ran on
        with machine.turn():
            self._take_region()

    def launch(self, grid: Axes, block: Axes, shared_bytes: int, arguments: Arguments, deadline_ns: int | None) -> None:
        """Run once. What the kernel printed is written to ``sys.stderr`` when it has ended."""
        printed: list[bytes] = []
        try:
            with self._machine.turn(deadline_ns):
                transfer = Transfer(self._machine.memory, [array for _, array in arguments.arrays])
                try:
                    transfer.copy_in()
                    self._point(arguments, transfer)
                    try:
                        self._run(grid, block, shared_bytes, arguments.block, printed)
                    except KernelTrap as trap:
                        raise trap.fault(self._placed(arguments, transfer)) from None
                    transfer.copy_back()
                finally:
                    transfer.release()
        finally:
            for text in printed:
                _write_to_stderr(text)

    def _point(self, arguments: Arguments, transfer: Transfer) -> None:
        """Write the arrays' addresses into the parameter block."""
        parameters = self.facts.parameters
        for (position, _), address in zip(arguments.arrays, transfer.addresses, strict=True):
            start = parameters[position].offset
            arguments.block[start : start + 8] = address.to_bytes(8, "little")
        for position, array in arguments.kept:
            start = parameters[position].offset
            arguments.block[start : start + 8] = _address(array).to_bytes(8, "little")

    def _placed(self, arguments: Arguments, transfer: Transfer) -> list[Placed]:
        """Where the arrays are, for messages."""
        parameters = self.facts.parameters
        found = [
            Placed(position, parameters[position].name, address, array.nbytes, transfer.is_read_only(index))
            for index, ((position, array), address) in enumerate(zip(arguments.arrays, transfer.addresses, strict=True))
        ]
        for position, array in arguments.kept:
            found.append(Placed(position, parameters[position].name, _address(array), array.nbytes))
        return found

    def _run(self, grid: Axes, block: Axes, shared_bytes: int, parameters: bytearray, printed: list[bytes]) -> None:
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


def _write_to_stderr(text: bytes) -> None:
    """Write what a kernel printed; a program without stderr does not hear it."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text.decode("utf-8", "replace"))
            sys.stderr.flush()


def _address(array: SessionArray) -> int:
    return array.place().address if array.nbytes else EMPTY_ADDRESS
