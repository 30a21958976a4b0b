"""Jobs for compiler processes: what is asked, and what each answer means to who asked."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from tensor_wasm.device import compiler_messages as messages
from tensor_wasm.device.compiler_messages import Kind, Message
from tensor_wasm.errors import InternalError, InvalidWasm, PtxError, TensorWasmError

_log = logging.getLogger("tensor_wasm.device")

#: Texts and modules of up to this size are small.
SMALL_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class KernelCode:
    """A kernel from a compiler process: ``kernel`` is an encoded :class:`~tensor_wasm.compiler.CompiledKernel`.

    ``machine_code`` is of its module; ``duration_s`` is the time from the job's start to its result.
    """

    kernel: bytes
    machine_code: bytes
    duration_s: float


@dataclass(slots=True, eq=False)
class Job:
    """One compilation.

    ``subject`` is what is compiled, in words; ``refusal`` makes the error for a text that is at fault; ``result`` makes
    the future's value of the answer's fields and the seconds taken. ``caller`` is for whom it is, None for nobody in
    particular.
    """

    kind: Kind
    fields: tuple[bytes, ...]
    subject: str
    refusal: Callable[[str], TensorWasmError]
    result: Callable[[tuple[bytes, ...], float], Any]
    future: Future[Any] = field(default_factory=Future)
    caller: Hashable = None

    @property
    def is_small(self) -> bool:
        """Whether it may be expected to take little time."""
        return len(self.fields[-1]) <= SMALL_BYTES

    def request(self, limit_s: float) -> Message:
        """The job as a frame."""
        return Message(self.kind, (messages.pack_limit(limit_s), *self.fields))

    def too_slow(self, limit_s: float) -> TensorWasmError:
        """The error of a job that was ended at its time limit."""
        return self.refusal(
            f"the {self.subject} takes too long to compile: the limit is {limit_s:g} s; make it smaller"
        )

    def too_large(self) -> TensorWasmError:
        """The error of a job that met its memory limit."""
        return self.refusal(f"the {self.subject} needs too much memory to compile; make it smaller")

    def read(self, answer: Message, duration_s: float) -> Any:
        """The value that the answer has, or raise the error that it tells of. The first field is not looked at."""
        _memory, *fields = answer.fields
        match answer.kind:
            case Kind.KERNEL | Kind.MODULE | Kind.DRAFT | Kind.FENCED:
                return self.result(tuple(fields), duration_s)
            case Kind.PTX_ERROR:
                raise PtxError(fields[1].decode(), *messages.unpack_place(fields[0]))
            case Kind.INVALID_WASM:
                raise InvalidWasm(fields[0].decode())
            case Kind.OUT_OF_MEMORY:
                raise self.too_large()
            case _:
                _log.error("a compiler process failed: %s", b" ".join(fields).decode("utf-8", "replace"))
                raise InternalError(f"the compiler failed on this {self.subject}")


def kernel_job(ptx: bytes, entry: str) -> Job:
    """A kernel from PTX; the future gives :class:`KernelCode`."""
    return Job(
        Kind.COMPILE_KERNEL,
        (entry.encode("utf-8", "surrogatepass"), ptx),
        "kernel",
        PtxError,
        lambda fields, duration_s: KernelCode(fields[0], fields[1], duration_s),
    )


def draft_job(ptx: bytes, entry: str) -> Job:
    """Read a text for a GPU; the future gives an encoded draft of the kernel."""
    name = entry.encode("utf-8", "surrogatepass")
    return Job(Kind.DRAFT_KERNEL, (name, ptx), "kernel", PtxError, lambda fields, _duration_s: fields[0])


def fence_job(ptx: bytes, order: bytes) -> Job:
    """Fence a kernel for a GPU; the future gives its text or machine code, its name, its image, and
    not empty for one that is narrow.
    """
    return Job(Kind.FENCE_KERNEL, (order, ptx), "kernel", PtxError, lambda fields, _duration_s: fields)


def module_job(wasm: bytes) -> Job:
    """A WebAssembly module; the future gives its serialized machine code as bytes."""
    return Job(Kind.COMPILE_MODULE, (wasm,), "module", InvalidWasm, lambda fields, _duration_s: fields[0])
