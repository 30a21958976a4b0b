"""How a kernel says what went wrong: exported globals, and the code that sets them before it traps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING

from tensor_wasm.compiler.special import AXES
from tensor_wasm.wasm import Body, Function, Module, ValType

if TYPE_CHECKING:
    from tensor_wasm.compiler.compiled import Site


class Fault(IntEnum):
    """What the exported global ``fault`` holds after a trap."""

    NONE = 0  #: a trap of WebAssembly's own: an address past the end of guest memory
    ADDRESS = 1  #: an address outside every memory the kernel may use
    MISALIGNED = 2  #: an address that is not a multiple of the access's size
    TRAP = 3  #: PTX ``trap``
    BARRIER = 4  #: a barrier that can never fill; the global ``line`` says which
    ASSERTION = 5  #: a failed ``assert``; the last record in the kernel's buffer says which


#: The exported global ``place`` has the number of the thread that runs from this bit on. Below is an access that all
#: threads of a strip make together, of adjacent elements: from the next bit on one more than the binary logarithm of an
#: element's bytes, and in the low half the first one's address. Both are 0 while the thread runs alone.
#: Where blocks are joined (:mod:`.joining`) the exported global ``row`` has how many threads their rows have, else 0,
#: and threads of all of them are counted as those of one block.
THREAD_SHIFT = 40
SIZE_SHIFT = 32

#: Instead of that logarithm while a whole row runs: the thread is its first. The exported global ``site_N`` then has
#: the address of the row's first thread in access N (:class:`~tensor_wasm.compiler.compiled.Site`).
ROW_SIZE = 0xFF


def push_thread_place(body: Body) -> None:
    """Turn the number of a thread on the stack, an i32, into what ``place`` is while it runs alone."""
    body.op("i64.extend_i32_u")
    body.i64_const(THREAD_SHIFT)
    body.op("i64.shl")


def faulting_thread(
    read: Callable[[str], int], shape: tuple[int, int, int], address: int | None, line: int, sites: Sequence[Site]
) -> tuple[tuple[int, int, int], int]:
    """Which thread faulted: its block's index, and its number there.

    ``read`` gives an exported global, ``shape`` is the block's, ``address`` where memory was closed, if known, ``line``
    that of the access, ``sites`` the kernel's.
    """
    x, y, z = (read(f"block_{axis}") for axis in AXES)
    thread, row = _running(read, address, line, sites), read("row")
    if not row:
        return (x, y, z), thread
    # Several blocks were done as one, whose rows have that many threads: x is the first one's.
    place, rows = thread % row, thread // row
    return (x + place // shape[0], y, z), rows * shape[0] + place % shape[0]


def _running(read: Callable[[str], int], address: int | None, line: int, sites: Sequence[Site]) -> int:
    """The number of the thread that ran, in its block or in those done as one."""
    place = read("place")
    thread, size = place >> THREAD_SHIFT, (place >> SIZE_SHIFT) & 0xFF
    if not size or address is None:
        return thread
    if size != ROW_SIZE:
        return thread + max(0, (address - (place & 0xFFFF_FFFF)) >> (size - 1))
    for number, site in enumerate(sites):
        if site.line == line:
            return thread + max(0, (address - read(f"site_{number}")) // site.size_bytes)
    return thread


class Faults:
    """The fault global of a module, and its helpers, written when first needed."""

    def __init__(self, module: Module) -> None:
        self._module = module
        self._code = module.global_(ValType.I32, 0, export="fault")
        self._guest: Function | None = None
        self._window: Function | None = None
        self._assertion: Function | None = None

    def raise_(self, body: Body, fault: Fault) -> None:
        """End the launch for ``fault``."""
        body.i32_const(fault)
        body.global_set(self._code)
        body.op("unreachable")

    def assertion(self, body: Body) -> None:
        """End the launch for a failed assertion."""
        if self._assertion is None:
            self._assertion = self._module.function((), name="assertion_fault")
            self.raise_(self._assertion.code, Fault.ASSERTION)
        body.call(self._assertion)

    def guest_address(self, body: Body) -> None:
        """End the launch for the i64 address on the stack, which guest memory cannot have."""
        if self._guest is None:
            self._guest = function = self._module.function((ValType.I64,), name="guest_fault")
            (address,) = function.parameters
            code = function.code
            # With a high half of 0 it was the alignment that was wrong.
            code.get(address)
            code.i64_const(32)
            code.op("i64.shr_u", "i64.eqz")
            self._set_and_trap(code)
        body.call(self._guest)
        body.op("unreachable")

    def window_address(self, body: Body) -> None:
        """End the launch for an offset in a window, and its last valid offset, both i64 on the stack."""
        if self._window is None:
            self._window = function = self._module.function((ValType.I64, ValType.I64), name="window_fault")
            offset, last = function.parameters
            code = function.code
            code.get(offset)
            code.get(last)
            code.op("i64.le_u")
            self._set_and_trap(code)
        body.call(self._window)
        body.op("unreachable")

    def _set_and_trap(self, code: Body) -> None:
        """Misaligned if the i32 on the stack is not 0, else out of range."""
        code.op("i32.eqz")
        with code.if_(ValType.I32):
            code.i32_const(Fault.ADDRESS)
            code.else_()
            code.i32_const(Fault.MISALIGNED)
        code.global_set(self._code)
        code.op("unreachable")
