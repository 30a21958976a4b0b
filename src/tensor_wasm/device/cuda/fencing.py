"""Reading a tenant's text, fencing a kernel of it and making machine code: here, or in a compiler process, where that
has a time limit.

A text is read first, so that there is room for the image in the partition, and fenced for that place then.

In a Python program, which has no compiler processes, machine code is made in the program's own process, on a thread:
another process would cost it a second, nobody else's work is in this one, and other threads run meanwhile. Who waits
gives up after a time, or when the program is to end; the thread goes on, for the library cannot be stopped.
"""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from tensor_wasm.compiler import ParameterLayout
from tensor_wasm.device.compilers import Compilers
from tensor_wasm.device.cuda.assembler import AssembledKernel, Assembler
from tensor_wasm.device.fence import FencedKernel, Partition, fence, lay_out
from tensor_wasm.device.fence.written import written
from tensor_wasm.device.protocol import Interrupt
from tensor_wasm.errors import InternalError, PtxError
from tensor_wasm.ptx import find_kernel, read
from tensor_wasm.ptx.program import Program, Space, Trap
from tensor_wasm.runtime import asleep

_Value = TypeVar("_Value")
#: How often a caller that waits for a compiler looks whether it should still wait.
_POLL_S: Final = 0.04
#: How long making machine code may take in this process.
_LIMIT_S: Final = 60.0

Axes = tuple[int, int, int]
#: Has machine code made, somewhere.
_Run = Callable[[Callable[[], AssembledKernel]], AssembledKernel]


@dataclass(frozen=True, slots=True)
class Draft:
    """What a text says of a kernel, and what its image needs.

    ``target`` is the text's own; ``trap_lines`` are the lines of trap instructions. ``has_variables`` when there are
    some that kernels write to. ``written`` is a mask of the parameter block's words: bit i where a pointer at byte
    offset 8 * i may be written through.
    """

    name: str
    parameters: tuple[ParameterLayout, ...]
    parameter_bytes: int
    reqntid: Axes | None
    maxntid: Axes | None
    target: str
    image_bytes: int
    image_alignment: int
    trap_lines: frozenset[int]
    has_variables: bool
    written: int

    @classmethod
    def of(cls, program: Program, entry: str) -> Draft:
        """That of a text that was read. Raises :class:`~tensor_wasm.errors.PtxError`."""
        kernel, image = find_kernel(program, entry), lay_out(program)
        traps = (block.terminator.line for block in kernel.blocks if isinstance(block.terminator, Trap))
        return cls(
            name=kernel.name,
            parameters=tuple(map(ParameterLayout.of, kernel.parameters)),
            parameter_bytes=kernel.parameter_bytes,
            reqntid=kernel.reqntid,
            maxntid=kernel.maxntid,
            target=program.target,
            image_bytes=image.size_bytes,
            image_alignment=image.alignment,
            trap_lines=frozenset(max(line, 1) for line in traps),
            has_variables=any(variable.space is Space.GLOBAL for variable in program.variables),
            written=written(kernel),
        )

    def encode(self) -> bytes:
        """The draft as bytes for :meth:`decode`."""
        parameters = [[p.name, p.kind, p.size_bytes, p.offset] for p in self.parameters]
        image = self.image_bytes, self.image_alignment
        shape = self.reqntid, self.maxntid
        fields = [self.name, parameters, self.parameter_bytes, *shape, self.target, *image]
        return json.dumps([*fields, sorted(self.trap_lines), self.has_variables, self.written]).encode()

    @classmethod
    def decode(cls, data: bytes) -> Draft:
        """The draft that :meth:`encode` gave. Raises :class:`InternalError` for anything else."""
        try:
            name, parameters, parameter_bytes, reqntid, maxntid, *rest, has_variables, mask = json.loads(data)
            target, image_bytes, image_alignment, trap_lines = rest
            return cls(
                name,
                tuple(ParameterLayout(*parameter) for parameter in parameters),
                parameter_bytes,
                None if reqntid is None else _axes(*reqntid),
                None if maxntid is None else _axes(*maxntid),
                target,
                image_bytes,
                image_alignment,
                frozenset(trap_lines),
                has_variables,
                mask,
            )
        except (ValueError, TypeError) as error:
            raise InternalError("the bytes are no draft of a kernel") from error


class Fenceable(Protocol):
    """A kernel whose text was read."""

    @property
    def draft(self) -> Draft:
        """What the text says."""

    def fence(
        self,
        partition: Partition,
        image_base: int,
        target: str,
        *,
        is_checked: bool,
        assembler: Assembler | None = None,
    ) -> FencedKernel | AssembledKernel:
        """The kernel for a partition, as machine code where there is an assembler and it is not to be spared this.

        Raises :class:`~tensor_wasm.errors.PtxError`.
        """


#: Reads a text for its kernel ``entry``; the interrupt is asked where another process is waited for.
Reader = Callable[[bytes, str, Interrupt | None], Fenceable]


def read_here(ptx: bytes, entry: str, interrupt: Interrupt | None = None) -> Fenceable:
    """Read a text, and fence its kernel, on this thread. Raises :class:`~tensor_wasm.errors.PtxError`."""
    return _read(ptx, entry, lambda assemble: _assemble_here(assemble, interrupt))


def _read(ptx: bytes, entry: str, run: _Run | None) -> _ReadHere:
    program = read(ptx, entry)
    return _ReadHere(program, entry, Draft.of(program, entry), run)


@dataclass(frozen=True, slots=True)
class _ReadHere:
    program: Program
    entry: str
    draft: Draft
    #: What makes machine code; without it there is none.
    run: _Run | None

    def fence(
        self,
        partition: Partition,
        image_base: int,
        target: str,
        *,
        is_checked: bool,
        assembler: Assembler | None = None,
    ) -> FencedKernel | AssembledKernel:
        """See :class:`Fenceable`."""
        fenced = fence(self.program, self.entry, partition, image_base, target=target, is_checked=is_checked)
        run = self.run
        if assembler is None or run is None:
            return fenced
        return _widened(lambda is_wide: run(lambda: assembler.assemble(fenced, is_wide=is_wide)))


def reader_of(compilers: Compilers | None) -> Reader:
    """What reads texts in compiler processes, where there are any that take them.

    Without such processes no machine code is made: the time that a tenant's text takes would have no limit here.

    It raises also :class:`~tensor_wasm.errors.CapacityExhausted` and :class:`~tensor_wasm.errors.NotReady`.
    """

    def read_elsewhere(ptx: bytes, entry: str, interrupt: Interrupt | None = None) -> Fenceable:
        if compilers is None or not compilers.has_processes:
            return _read(ptx, entry, None)
        if compilers.takes(len(ptx)):
            draft = Draft.decode(_wait(compilers.draft(ptx, entry), interrupt))
        else:
            draft = _read(ptx, entry, None).draft
        return _ReadElsewhere(compilers, ptx, entry, interrupt, draft)

    return read_elsewhere


@dataclass(frozen=True, slots=True)
class _ReadElsewhere:
    compilers: Compilers
    ptx: bytes
    entry: str
    interrupt: Interrupt | None
    draft: Draft

    def fence(
        self,
        partition: Partition,
        image_base: int,
        target: str,
        *,
        is_checked: bool,
        assembler: Assembler | None = None,
    ) -> FencedKernel | AssembledKernel:
        """See :class:`Fenceable`."""
        order = Order(self.entry, partition, image_base, target, is_checked, assembler)
        if assembler is not None:  # also what the processes are too young to take: here it would have no limit
            return _widened(lambda is_wide: self._assemble(dataclasses.replace(order, is_wide=is_wide)))
        if not self.compilers.takes(len(self.ptx)):
            return order.fence(self.ptx)
        text, name, image, _ = self._carry_out(order)
        return FencedKernel(text.decode(), name.decode("utf-8", "surrogatepass"), image)

    def _assemble(self, order: Order) -> AssembledKernel:
        code, name, image, is_narrow = self._carry_out(order)
        return AssembledKernel(code, name.decode("utf-8", "surrogatepass"), image, is_narrow != b"")

    def _carry_out(self, order: Order) -> tuple[bytes, bytes, bytes, bytes]:
        return _wait(self.compilers.fenced(self.ptx, order.encode()), self.interrupt)


@dataclass(frozen=True, slots=True)
class Order:
    """What a compiler process is to fence a text's kernel for, and by what to make machine code of it.

    ``is_wide`` is as :meth:`Assembler.assemble` has it.
    """

    entry: str
    partition: Partition
    image_base: int
    target: str
    is_checked: bool
    assembler: Assembler | None = None
    is_wide: bool = False

    def encode(self) -> bytes:
        """The order as bytes for :meth:`decode`."""
        where = self.partition.base, self.partition.size_bytes, self.image_base
        assembler = None if self.assembler is None else dataclasses.astuple(self.assembler)
        return json.dumps([self.entry, *where, self.target, self.is_checked, assembler, self.is_wide]).encode()

    @classmethod
    def decode(cls, data: bytes) -> Order:
        """The order that :meth:`encode` gave."""
        entry, base, size_bytes, image_base, target, is_checked, named, is_wide = json.loads(data)
        assembler = None if named is None else Assembler(*named)
        return cls(entry, Partition(base, size_bytes), image_base, target, is_checked, assembler, is_wide)

    def fence(self, ptx: bytes) -> FencedKernel:
        """Fence the kernel. Raises :class:`~tensor_wasm.errors.PtxError`."""
        program, partition = read(ptx, self.entry), self.partition
        return fence(program, self.entry, partition, self.image_base, target=self.target, is_checked=self.is_checked)

    def carry_out(self, ptx: bytes) -> tuple[bytes, bytes, bytes, bytes]:
        """Fence, and make machine code if there is an assembler: text or machine code, name, image, and not empty for a
        kernel that is narrow (:class:`AssembledKernel`). Raises :class:`~tensor_wasm.errors.PtxError`.
        """
        fenced = self.fence(ptx)
        name = fenced.name.encode("utf-8", "surrogatepass")
        if self.assembler is None:
            return fenced.ptx.encode(), name, fenced.image, b""
        assembled = self.assembler.assemble(fenced, is_wide=self.is_wide)
        return assembled.code, name, fenced.image, b"\1" if assembled.is_narrow else b""


def _axes(x: int, y: int, z: int) -> Axes:
    return x, y, z


def _widened(assemble: Callable[[bool], AssembledKernel]) -> AssembledKernel:
    """A kernel, and where it is narrow what the largest blocks can have: apart, as either may take its time."""
    kernel = assemble(False)
    if not kernel.is_narrow:
        return kernel
    try:
        return dataclasses.replace(kernel, wide=assemble(True).code)
    except PtxError:
        return kernel  # it cannot do with so few registers: large blocks are refused


def _assemble_here(assemble: Callable[[], AssembledKernel], interrupt: Interrupt | None) -> AssembledKernel:
    """Make machine code on a thread of its own."""
    job: Future[AssembledKernel] = Future()
    job.set_running_or_notify_cancel()  # who gives up does not take it back: it runs

    def run() -> None:
        try:
            job.set_result(assemble())
        except BaseException as error:
            job.set_exception(error)

    threading.Thread(target=run, name="assembler", daemon=True).start()
    return _wait(job, interrupt, _LIMIT_S)


def _wait(job: Future[_Value], interrupt: Interrupt | None, limit_s: float = float("inf")) -> _Value:
    """Wait for a compiler. Raises what that came to, and what ``interrupt`` gives."""
    until_s = time.monotonic() + limit_s
    with asleep():
        while not job.done():
            if time.monotonic() > until_s:
                raise PtxError(f"the kernel takes too long to assemble: the limit is {limit_s:g} s; make it smaller")
            error: Any = None if interrupt is None else interrupt()
            if error is not None:
                job.cancel()
                raise error
            wait([job], _POLL_S)
    return job.result()
