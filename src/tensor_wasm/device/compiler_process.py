"""A compiler process: ``python -m tensor_wasm.device.compiler_process MEMORY_BYTES``, started by its node.

It reads jobs from standard input and writes results to standard output, one after the other, until its input ends,
which is when the node closes it or dies. It is given the texts of tenants and nothing else: neither the node's
environment, which may hold tokens, nor an open file of it.

The machine code it gives is run by the node, which trusts it as it trusts the compilers that made it. That is no more
trust than they had when they ran inside the node: what reads hostile text here is Python, which has no memory to
corrupt, and Cranelift in Rust, whose input Wasmtime validated. Who has made these two emit hostile code needs no
process boundary to get into the node. The boundary is there for time, memory and the node's interpreter lock.
For GPUs NVIDIA's assembler runs here too, in C++. It reads what the fence wrote, never a tenant's own text, and what it
makes is trusted as what it would make in the driver.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import NoReturn

from tensor_wasm.device import compiler_messages as messages
from tensor_wasm.device.compilation import compile_ptx
from tensor_wasm.device.compiler_messages import NO_MEMORY, Kind, Message
from tensor_wasm.errors import InvalidWasm, PtxError
from tensor_wasm.runtime import Engine
from tensor_wasm.wasm import Module

#: Above the guests' own priority (0), so that compiling slows them the least; not so low that it starves.
_NICENESS = 10
#: The kernel's killer takes a compiler before anything else when the machine is out of memory.
_FIRST_TO_KILL = b"1000"
#: What it may write to files: the end of an error on standard error, which is a file in memory.
_FILE_BYTES_MAX = 1 << 16
#: The node kills what is past its limit. A process whose node died while it held the interpreter lock ends by itself.
_GRACE_S = 5.0
_PR_SET_NO_NEW_PRIVS = 38
_ERROR_CHARACTERS_MAX = 2_000


def main(memory_bytes: int) -> None:
    """Serve jobs until standard input ends."""
    requests = sys.stdin.fileno()
    replies = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a stray print must not look like a frame
    _restrict(memory_bytes)
    jobs: SimpleQueue[Message] = SimpleQueue()
    threading.Thread(target=_listen, args=(requests, jobs), daemon=True).start()
    compiler = _Compiler(Engine())
    gc.freeze()
    _send(replies, Message(Kind.READY))
    try:
        while True:
            _send(replies, compiler.answer(jobs.get()))
    except BaseException as error:
        _give_up(error)


def _restrict(memory_bytes: int) -> None:
    """Give up what compiling does not need. What the system does not allow is left."""
    with contextlib.suppress(OSError):
        os.nice(_NICENESS)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_bytes(_FIRST_TO_KILL)
    # Writable private memory; address space would count the reservations of allocators and of thread stacks too.
    limits = ((resource.RLIMIT_DATA, memory_bytes), (resource.RLIMIT_FSIZE, _FILE_BYTES_MAX), (resource.RLIMIT_CORE, 0))
    for limit, value in limits:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(limit, (value, value))
    ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the node decides when to end


def _listen(descriptor: int, jobs: SimpleQueue[Message]) -> None:
    """Queue what the node asks. The end of its pipe ends this process, also in the middle of a job."""
    with os.fdopen(descriptor, "rb", buffering=0) as stream:

        def read(count: int) -> bytearray:
            data = bytearray(count)
            view, done = memoryview(data), 0
            while done < count:
                taken = stream.readinto(view[done:])
                if not taken:
                    os._exit(0)
                done += taken
            return data

        try:
            while True:
                jobs.put(messages.receive(read))
        except BaseException as error:
            _give_up(error)


def _give_up(error: BaseException) -> NoReturn:
    """End the process, whichever thread asks: the node reads why from standard error, and starts another."""
    with contextlib.suppress(OSError):
        text = NO_MEMORY if isinstance(error, MemoryError) else f"{type(error).__name__}: {error}".encode()
        os.write(2, text[:_ERROR_CHARACTERS_MAX])
    os._exit(1)


def _send(descriptor: int, message: Message) -> None:
    for part in (message.head(), *message.fields):
        view = memoryview(part)
        while view:
            view = view[os.write(descriptor, view) :]


class _Compiler:
    """Answers jobs, on one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # The first compilation starts Cranelift's threads and fills its tables: 5 ms that are not the first job's.
        nothing = Module()
        nothing.function(())
        engine.compile(nothing.encode().wasm)
        self._jobs: dict[Kind, Callable[..., Message]] = {
            Kind.COMPILE_KERNEL: self._kernel,
            Kind.COMPILE_MODULE: self._module,
            Kind.DRAFT_KERNEL: self._draft,
            Kind.FENCE_KERNEL: self._fence,
        }

    def answer(self, request: Message) -> Message:
        """The result of a job, or its error."""
        limit, *fields = request.fields
        signal.setitimer(signal.ITIMER_REAL, messages.unpack_limit(limit) + _GRACE_S)
        try:
            return self._jobs[request.kind](*fields)
        except PtxError as error:
            place = messages.pack_place(error.line, error.column)
            return Message(Kind.PTX_ERROR, (_memory(), place, _text(error.text)))
        except InvalidWasm as error:
            return Message(Kind.INVALID_WASM, (_memory(), _text(str(error))))
        except MemoryError:
            pass  # what the job holds is free only when this block is left
        except Exception as error:  # a defect of ours: it costs this job, and the node logs it
            return Message(Kind.FAILED, (_memory(), _text(f"{type(error).__name__}: {error}")))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        gc.collect()
        return Message(Kind.OUT_OF_MEMORY, (_memory(),))

    def _kernel(self, entry: bytes, ptx: bytes) -> Message:
        kernel = compile_ptx(ptx, entry.decode("utf-8", "surrogatepass"))
        try:
            code = self._engine.compile(kernel.wasm).serialize()
        except InvalidWasm as error:
            # Wasmtime's validation stands behind our compiler: what it refuses is our defect, never a hole.
            text = f"kernel {kernel.name} became a module that does not validate: {error}"
            return Message(Kind.FAILED, (_memory(), _text(text)))
        return Message(Kind.KERNEL, (_memory(), kernel.encode(), code))

    def _draft(self, entry: bytes, ptx: bytes) -> Message:
        from tensor_wasm.device.cuda.fencing import read_here  # only here: nodes without a GPU never ask

        return Message(Kind.DRAFT, (_memory(), read_here(ptx, entry.decode("utf-8", "surrogatepass")).draft.encode()))

    def _fence(self, order: bytes, ptx: bytes) -> Message:
        from tensor_wasm.device.cuda.fencing import Order

        fenced = Order.decode(order).carry_out(ptx)
        return Message(Kind.FENCED, (_memory(), *fenced))

    def _module(self, wasm: bytes) -> Message:
        code = self._engine.compile(wasm).serialize()
        return Message(Kind.MODULE, (_memory(), code))


def _memory() -> bytes:
    """What this process holds now. Not the peak that getrusage tells: across exec it includes the node's own."""
    pages = int(Path("/proc/self/statm").read_bytes().split()[1])
    return messages.pack_size(pages * resource.getpagesize())


def _text(text: str) -> bytes:
    return text[:_ERROR_CHARACTERS_MAX].encode("utf-8", "replace")


if __name__ == "__main__":
    main(int(sys.argv[1]))
