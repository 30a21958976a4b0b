"""The node's side of one compiler process: starting it, one exchange at a time, its end."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import tensor_wasm
from tensor_wasm.device.compiler_messages import NO_MEMORY, Kind, Message, receive
from tensor_wasm.errors import InternalError

#: Longest time from starting a process to its first word: an interpreter and its imports on a busy machine.
START_LIMIT_S = 60.0

_CHUNK_BYTES = 1 << 20
_ERROR_TAIL_BYTES = 2_000
#: Cranelift compiles functions in parallel; a compiler is not to take every core of a large machine.
_THREADS_MAX = 4


class CompilerLate(Exception):
    """No answer within the time limit. The process must be killed: it still works."""


class CompilerDied(Exception):
    """The process ended in the middle of an exchange; ``is_out_of_memory`` when it said that this was why."""

    def __init__(self, text: str, *, is_out_of_memory: bool = False) -> None:
        super().__init__(text)
        self.is_out_of_memory = is_out_of_memory


class CompilerHandle:
    """One compiler process. For one thread at a time, but :meth:`kill`, which ends another thread's exchange."""

    def __init__(self, memory_bytes: int) -> None:
        self._errors = os.memfd_create("compiler-errors", os.MFD_CLOEXEC)
        command = [sys.executable, "-S", "-P", "-m", "tensor_wasm.device.compiler_process", str(memory_bytes)]
        if sys.dont_write_bytecode:
            command.insert(1, "-B")
        try:
            # Not forked: the node has threads, locks and Wasmtime's signal handlers, of which a copy would be broken.
            self._process = subprocess.Popen(
                command,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                cwd="/",
                env=_environment(),
                start_new_session=True,  # Ctrl-C in a terminal is for the node
            )
        except OSError as error:
            os.close(self._errors)
            raise CompilerDied(f"a compiler process could not be started: {error.strerror}") from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        for pipe in (self._input, self._output):
            os.set_blocking(pipe.fileno(), False)
            with contextlib.suppress(OSError):  # a convenience: fewer turns for a long text
                fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _CHUNK_BYTES)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def wait_until_ready(self) -> None:
        """Wait for the end of its start. Raises :class:`CompilerLate`, :class:`CompilerDied`."""
        if self._receive(time.monotonic() + START_LIMIT_S).kind is not Kind.READY:
            raise CompilerDied("a compiler process began with something else than that it is ready")

    def exchange(self, request: Message, limit_s: float) -> Message:
        """Send a job, wait for its result. Raises :class:`CompilerLate`, :class:`CompilerDied`."""
        until = time.monotonic() + limit_s
        for part in (request.head(), *request.fields):
            self._send(part, until)
        return self._receive(until)

    def kill(self) -> None:
        """End the process now."""
        self._process.kill()

    def close(self) -> None:
        """End the process and give back what it took. Not while another thread is in an exchange."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):
            self._input.close()
        self._output.close()
        os.close(self._errors)

    def _send(self, part: bytes, until: float) -> None:
        view = memoryview(part)
        while view:
            self._wait(self._input.fileno(), select.POLLOUT, until)
            try:
                count = self._input.write(view[:_CHUNK_BYTES])
            except OSError:
                raise self._died() from None
            view = view[count or 0 :]

    def _receive(self, until: float) -> Message:
        def read(count: int) -> bytes:
            # Machine code may have many megabytes: taken in pieces, none of which holds the interpreter lock for long.
            data = io.BytesIO()
            while data.tell() < count:
                self._wait(self._output.fileno(), select.POLLIN, until)
                piece = self._output.read(min(count - data.tell(), _CHUNK_BYTES))
                if piece == b"":
                    raise self._died()
                data.write(piece or b"")
            return data.getvalue()

        try:
            return receive(read)
        except InternalError as error:
            raise CompilerDied(str(error)) from error

    @staticmethod
    def _wait(descriptor: int, event: int, until: float) -> None:
        poll = select.poll()
        poll.register(descriptor, event)
        if not poll.poll(max(until - time.monotonic(), 0) * 1000):
            raise CompilerLate

    def _died(self) -> CompilerDied:
        """Why the process is gone."""
        self._process.kill()  # it may have closed its output only
        status = self._process.wait()
        size = os.fstat(self._errors).st_size
        tail = os.pread(self._errors, _ERROR_TAIL_BYTES, max(size - _ERROR_TAIL_BYTES, 0))
        how = f"status {status}" if status >= 0 else f"signal {_signal_name(-status)}"
        text = f"a compiler process ended with {how}: {tail.decode('utf-8', 'replace').strip() or 'it said nothing'}"
        return CompilerDied(text, is_out_of_memory=NO_MEMORY in tail)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _environment() -> dict[str, str]:
    """All that a compiler process gets of the node's environment, which may hold tokens: where to import from.

    The path is this interpreter's own, so that both run the same code; the current directory, written as an empty
    entry, is not of it.
    """
    root = str(Path(tensor_wasm.__file__).resolve().parents[1])
    entries = dict.fromkeys([*(entry for entry in sys.path if Path(entry).is_absolute()), root])
    threads = str(min(os.cpu_count() or 1, _THREADS_MAX))
    environment = {
        "PYTHONPATH": os.pathsep.join(entries),
        "RAYON_NUM_THREADS": threads,
        # A compiler calculates nothing with arrays: no threads for that.
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    libraries = os.environ.get("LD_LIBRARY_PATH")
    return environment if libraries is None else environment | {"LD_LIBRARY_PATH": libraries}
