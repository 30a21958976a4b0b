"""Reading a tenant's text and fencing a kernel of it: here, or in a compiler process, where it has a time limit.

A text is read first, so that there is room for the image in the partition, and fenced for that place then.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from tensor_wasm.compiler import ParameterLayout
from tensor_wasm.device.compilers import Compilers
from tensor_wasm.device.fence import FencedKernel, Partition, fence, lay_out
from tensor_wasm.device.protocol import Interrupt
from tensor_wasm.errors import InternalError
from tensor_wasm.ptx import find_kernel, read
from tensor_wasm.ptx.program import Program, Space, Trap
from tensor_wasm.runtime import asleep

_Value = TypeVar("_Value")
#: How often a caller that waits for a compiler looks whether it should still wait.
_POLL_S: Final = 0.04

Axes = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Draft:
    """What a text says of a kernel, and what its image needs.

    ``target`` is the text's own; ``trap_lines`` are the lines of trap instructions. ``has_variables`` when there are
    some that kernels write to.
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
        )

    def encode(self) -> bytes:
        """The draft as bytes for :meth:`decode`."""
        parameters = [[p.name, p.kind, p.size_bytes, p.offset] for p in self.parameters]
        image = self.image_bytes, self.image_alignment
        shape = self.reqntid, self.maxntid
        fields = [self.name, parameters, self.parameter_bytes, *shape, self.target, *image]
        return json.dumps([*fields, sorted(self.trap_lines), self.has_variables]).encode()

    @classmethod
    def decode(cls, data: bytes) -> Draft:
        """The draft that :meth:`encode` gave. Raises :class:`InternalError` for anything else."""
        try:
            name, parameters, parameter_bytes, reqntid, maxntid, *rest, trap_lines, has_variables = json.loads(data)
            target, image_bytes, image_alignment = rest
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
            )
        except (ValueError, TypeError) as error:
            raise InternalError("the bytes are no draft of a kernel") from error


class Fenceable(Protocol):
    """A kernel whose text was read."""

    @property
    def draft(self) -> Draft:
        """What the text says."""

    def fence(self, partition: Partition, image_base: int, target: str, *, is_checked: bool) -> FencedKernel:
        """The kernel for a partition. Raises :class:`~tensor_wasm.errors.PtxError`."""


#: Reads a text for its kernel ``entry``; the interrupt is asked where another process is waited for.
Reader = Callable[[bytes, str, Interrupt | None], Fenceable]


def read_here(ptx: bytes, entry: str, _interrupt: Interrupt | None = None) -> Fenceable:
    """Read a text, and fence its kernel, on this thread. Raises :class:`~tensor_wasm.errors.PtxError`."""
    program = read(ptx, entry)
    return _ReadHere(program, entry, Draft.of(program, entry))


@dataclass(frozen=True, slots=True)
class _ReadHere:
    program: Program
    entry: str
    draft: Draft

    def fence(self, partition: Partition, image_base: int, target: str, *, is_checked: bool) -> FencedKernel:
        """See :class:`Fenceable`."""
        return fence(self.program, self.entry, partition, image_base, target=target, is_checked=is_checked)


def reader_of(compilers: Compilers | None) -> Reader:
    """What reads texts in compiler processes, where there are any that take them.

    It raises also :class:`~tensor_wasm.errors.CapacityExhausted` and :class:`~tensor_wasm.errors.NotReady`.
    """

    def read_elsewhere(ptx: bytes, entry: str, interrupt: Interrupt | None = None) -> Fenceable:
        if compilers is None or not compilers.takes(len(ptx)):
            return read_here(ptx, entry)
        draft = Draft.decode(_wait(compilers.draft(ptx, entry), interrupt))
        return _ReadElsewhere(compilers, ptx, entry, interrupt, draft)

    return read_elsewhere


@dataclass(frozen=True, slots=True)
class _ReadElsewhere:
    compilers: Compilers
    ptx: bytes
    entry: str
    interrupt: Interrupt | None
    draft: Draft

    def fence(self, partition: Partition, image_base: int, target: str, *, is_checked: bool) -> FencedKernel:
        """See :class:`Fenceable`."""
        order = Order(self.entry, partition, image_base, target, is_checked)
        text, name, image = _wait(self.compilers.fenced(self.ptx, order.encode()), self.interrupt)
        return FencedKernel(text.decode(), name.decode("utf-8", "surrogatepass"), image)


@dataclass(frozen=True, slots=True)
class Order:
    """What a compiler process is to fence a text's kernel for."""

    entry: str
    partition: Partition
    image_base: int
    target: str
    is_checked: bool

    def encode(self) -> bytes:
        """The order as bytes for :meth:`decode`."""
        where = self.partition.base, self.partition.size_bytes, self.image_base
        return json.dumps([self.entry, *where, self.target, self.is_checked]).encode()

    @classmethod
    def decode(cls, data: bytes) -> Order:
        """The order that :meth:`encode` gave."""
        entry, base, size_bytes, image_base, target, is_checked = json.loads(data)
        return cls(entry, Partition(base, size_bytes), image_base, target, is_checked)

    def carry_out(self, ptx: bytes) -> FencedKernel:
        """Fence. Raises :class:`~tensor_wasm.errors.PtxError`."""
        kernel = read_here(ptx, self.entry)
        return kernel.fence(self.partition, self.image_base, self.target, is_checked=self.is_checked)


def _axes(x: int, y: int, z: int) -> Axes:
    return x, y, z


def _wait(job: Future[_Value], interrupt: Interrupt | None) -> _Value:
    """Wait for a compiler. Raises what that came to, and what ``interrupt`` gives."""
    with asleep():
        while not job.done():
            error: Any = None if interrupt is None else interrupt()
            if error is not None:
                job.cancel()
                raise error
            wait([job], _POLL_S)
    return job.result()
