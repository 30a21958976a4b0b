"""What is below an opened device: the machine of one kind that loads kernels, runs them, and keeps arrays.

All that a user sees, and every check of what he gives, is above this and the same for all kinds of devices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol

from numpy.typing import NDArray

from tensor_wasm.compiler import ParameterLayout
from tensor_wasm.device.shape import Axes

#: The smallest part of a GPU's memory that an opened device has.
GPU_MEMORY_LEAST_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """What a device is, and the limits of a launch on it.

    Attributes:
        name: The processor, or the GPU.
        kind: ``cpu`` or ``cuda``.
        sm: The architecture whose PTX it takes, and that of older ones.
        memory_bytes: The most that all arrays together can have.
        warp_size: Lanes of a warp.
        max_threads_per_block: Threads, over all axes.
        max_block: Threads on each axis.
        max_grid: Blocks on each axis.
        max_shared_bytes: Dynamic shared memory of a block.
    """

    name: str
    kind: str
    sm: str
    memory_bytes: int
    warp_size: int
    max_threads_per_block: int
    max_block: Axes
    max_grid: Axes
    max_shared_bytes: int


class KernelFacts(Protocol):
    """What a kernel's text says of it, as :class:`~tensor_wasm.compiler.CompiledKernel` does."""

    @property
    def name(self) -> str:
        """The entry's name."""

    @property
    def parameters(self) -> tuple[ParameterLayout, ...]:
        """In order."""

    @property
    def parameter_bytes(self) -> int:
        """Size of the parameter block."""

    @property
    def reqntid(self) -> Axes | None:
        """The block that the kernel must have."""

    @property
    def maxntid(self) -> Axes | None:
        """The largest block that it may have."""


class Place(Protocol):
    """Where an array is, and stays as long as this is referred to."""

    @property
    def address(self) -> int:
        """What kernels are given."""


class SessionArray(Protocol):
    """An array in a session's memory. That is given back by :meth:`close`, or when nothing refers to it any more."""

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""

    @property
    def is_closed(self) -> bool:
        """Whether its memory was given back."""

    def place(self) -> Place:
        """Where it is. Raises :class:`~tensor_wasm.errors.KernelError` when it is closed, or was lost."""

    def copy_out(self, target: NDArray[Any]) -> None:
        """Its bytes into an array of as many. Raises as :meth:`place`."""

    def close(self) -> None:
        """Give the memory back. Safe to call twice."""


class Arguments:
    """Checked arguments of a launch, by their position.

    ``block`` is the parameter block, in which the addresses of ``arrays`` and of those ``kept`` on the device are
    still to be written.
    """

    __slots__ = ("arrays", "block", "kept")

    def __init__(self, size_bytes: int) -> None:
        self.block = bytearray(size_bytes)
        self.arrays: list[tuple[int, NDArray[Any]]] = []
        self.kept: list[tuple[int, SessionArray]] = []


class SessionKernel(Protocol):
    """A kernel of a session, with variables of its own."""

    @property
    def facts(self) -> KernelFacts:
        """What its text says of it."""

    def launch(self, grid: Axes, block: Axes, shared_bytes: int, arguments: Arguments, deadline_ns: int | None) -> None:
        """Run once, until ``deadline_ns`` (of ``monotonic_ns``); writable arrays hold then what the kernel wrote.

        Raises as :meth:`tensor_wasm.Kernel.launch`; arrays are then as they were.
        """


class Session(Protocol):
    """An opened device. Safe for threads."""

    @property
    def info(self) -> DeviceInfo:
        """What it is."""

    @property
    def is_closed(self) -> bool:
        """Whether :meth:`close` was called."""

    def load(self, ptx: bytes, entry: str) -> SessionKernel:
        """A kernel of a text. Raises :class:`~tensor_wasm.errors.PtxError`."""

    def keep(self, array: NDArray[Any]) -> SessionArray:
        """Copy an array to the device. Raises :class:`~tensor_wasm.errors.CapacityExhausted`."""

    def close(self) -> None:
        """End launches that run and give all memory back. Safe to call twice, and from any thread."""
