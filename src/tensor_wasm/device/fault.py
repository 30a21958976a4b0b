"""What a kernel's trap was, in words: kernel, reason, block, thread, PTX line."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tensor_wasm.compiler import Fault, faulting_thread
from tensor_wasm.device.protocol import LoadedKernel
from tensor_wasm.runtime import Failure

#: Why a kernel ended itself, by its ``fault`` global.
REASONS: dict[int, str] = {
    Fault.ADDRESS: "address outside device memory",
    Fault.MISALIGNED: "misaligned access",
    Fault.TRAP: "trap instruction",
    Fault.BARRIER: "a barrier that can never fill",
}

_FAULT_ADDRESS = re.compile(r"memory fault at wasm address 0x([0-9a-f]+) ")

#: Addresses below this are a null pointer and an offset.
_NULL_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Placed:
    """An array argument where the kernel saw it. ``position`` counts from 0."""

    position: int
    name: str
    address: int
    size_bytes: int
    is_read_only: bool = False

    @property
    def label(self) -> str:
        """How messages call it."""
        return f"argument {self.position} ({self.name})"


@dataclass(frozen=True, slots=True)
class TrapReport:
    """What is known of a trap.

    ``code`` is the kernel's ``fault`` global, ``address`` where memory was closed, ``text`` the trap's name, or the
    assertion that failed, when neither tells. ``block`` and ``thread`` are indices; ``line`` is 0 when it is not known.
    """

    kernel: str
    code: int
    address: int | None
    text: str
    block: tuple[int, int, int]
    thread: tuple[int, int, int]
    line: int

    def message(self, placed: Sequence[Placed]) -> str:
        """All of it in a sentence, given where the arrays were."""
        return (
            f"kernel {self.kernel} faulted: {self._reason(placed)}; block ({_comma(self.block)}), "
            f"thread ({_comma(self.thread)}), PTX line {self.line}"
        )

    def _reason(self, placed: Sequence[Placed]) -> str:
        if self.code in REASONS:
            return REASONS[self.code]
        return self.text if self.address is None else _place(self.address, placed)


def read_trap(
    kernel: LoadedKernel,
    read: Callable[[str], int],
    failure: Failure,
    shape: tuple[int, int, int],
    *,
    address: int | None = None,
    assertion: str = "",
) -> TrapReport:
    """What a kernel's exported globals and its trap's frames tell.

    ``read`` gives an exported global, ``shape`` is the block's, ``address`` where memory was closed, if that is known,
    ``assertion`` what the kernel printed of one that failed.
    """
    code = read("fault")
    # The innermost frame may be a helper of the compiler's, which belongs to no line: its caller does.
    line = next((line for frame in failure.frames if (line := kernel.line(frame.module_offset))), 0)
    if code == Fault.BARRIER:  # no thread was running: the kernel says which line they wait on
        line = read("line")
    block, number = faulting_thread(read, shape, address, line, kernel.compiled.sites)
    text = (assertion or "an assertion failed") if code == Fault.ASSERTION else failure.text
    return TrapReport(kernel.compiled.name, code, address, text, block, thread_axes(number, shape), line)


def fault_address(message: str) -> int | None:
    """The address in Wasmtime's message of a memory fault, None when it has none."""
    found = _FAULT_ADDRESS.search(message)
    return int(found[1], 16) if found else None


def _place(address: int, placed: Sequence[Placed]) -> str:
    where = f"out-of-bounds access at {address:#x}"
    for array in placed:
        if array.is_read_only and array.address <= address < array.address + array.size_bytes:
            return f"write to {array.label}, which is a read-only array, at byte {address - array.address:,}"
    if address < _NULL_BYTES:
        return f"{where}, a null pointer"
    if not placed:
        return where
    nearest = min(placed, key=lambda array: _distance(address, array))
    whose = f"{nearest.label}, an array of {nearest.size_bytes:,} bytes"
    if address < nearest.address:
        return f"{where}, {nearest.address - address:,} bytes before {whose}"
    past = address - nearest.address - nearest.size_bytes
    return f"{where}, {f'{past:,} bytes past' if past else 'right past'} the end of {whose}"


def _distance(address: int, array: Placed) -> int:
    return max(array.address - address, address - (array.address + array.size_bytes), 0)


def thread_axes(linear: int, block: tuple[int, int, int]) -> tuple[int, int, int]:
    """A thread's index from its number in the block, x fastest."""
    x, y, _ = block
    return linear % x, linear // x % y, linear // (x * y)


def _comma(axes: tuple[int, int, int]) -> str:
    return ", ".join(map(str, axes))
