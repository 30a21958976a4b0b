"""The client's side of one worker: its process, its requests that are not answered yet, its end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Final

import tensor_wasm
from tensor_wasm.device.cuda import board
from tensor_wasm.device.cuda.driver import GpuFacts
from tensor_wasm.device.cuda.messages import FRAME_BYTES_MAX, Frames, Kind, Message, decode_facts, request
from tensor_wasm.device.cuda.shared import SharedFile
from tensor_wasm.errors import DeviceRestarting, InternalError, KernelError

#: Longest time from starting a process to its first words: an interpreter, the driver, pinning the staging area.
START_LIMIT_S: Final = 120.0
#: For a worker that was asked to end: time to wipe the tenants' memory.
GRACE_S: Final = 5.0
_RECEIVE_BYTES: Final = 1 << 16
_ERROR_BYTES: Final = 1 << 16
_ERROR_TAIL_BYTES: Final = 2_000
#: All that a worker gets of this process's environment, which may hold tokens: what the driver needs.
_ENVIRONMENT: Final = (
    "CUDA_DEVICE_ORDER",
    "CUDA_MODULE_LOADING",
    "CUDA_VISIBLE_DEVICES",
    "HOME",
    "LD_LIBRARY_PATH",
    "PATH",
)
#: The driver keeps kernels that it assembled in files by default, where the next process finds them.
_OWN_ENVIRONMENT: Final = {"CUDA_CACHE_DISABLE": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

COMMAND: Final = ("-S", "-P", "-m", "tensor_wasm.device.cuda.worker")


class WorkerFailed(Exception):
    """The process did not become a worker; the text says why."""


class WorkerHandle:
    """One worker. Threads may :meth:`ask` at once; one receives.

    Raises :class:`WorkerFailed` when no process could be started.
    """

    def __init__(self, command: Sequence[str] | None, index: int, shared: SharedFile) -> None:
        self._errors = _error_file()
        ours, theirs = socket.socketpair()
        self._connection = ours
        self._frames = Frames()
        self._buffer = memoryview(bytearray(_RECEIVE_BYTES))
        self._sending = threading.Lock()
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[Message]] = {}
        self._next_request = 1
        #: Why there will be no answers any more.
        self._end: DeviceRestarting | None = None
        if command is None:
            command = [sys.executable, *(["-B"] if sys.dont_write_bytecode else []), *COMMAND]
        numbers = (index, theirs.fileno(), shared.descriptor, board.BYTES + shared.staging_bytes)
        try:
            # Not forked: the node has threads and locks, of which a copy would be broken.
            self._process = subprocess.Popen(
                [*command, *map(str, numbers)],
                stdin=subprocess.DEVNULL,
                stdout=self._errors,
                stderr=self._errors,
                cwd="/",
                env=worker_environment(),
                pass_fds=(theirs.fileno(), shared.descriptor),
                start_new_session=True,  # Ctrl-C in a terminal is for the client
            )
        except OSError as error:
            os.close(self._errors)
            ours.close()
            raise WorkerFailed(f"a worker could not be started: {error.strerror}") from error
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    # --- talking ----------------------------------------------------------------------------------------

    def wait_until_ready(self, closing: threading.Event) -> GpuFacts:
        """Wait for the end of its start. Raises :class:`WorkerFailed`, also when ``closing`` is set meanwhile."""
        until_s = time.monotonic() + START_LIMIT_S
        while not closing.is_set():
            if time.monotonic() > until_s:
                raise WorkerFailed(f"the worker was not ready after {START_LIMIT_S:.0f} s")
            try:
                messages = self.receive(0.05)
            except OSError as error:
                raise WorkerFailed(f"the worker did not start: {self.describe_end()}") from error
            except InternalError as error:
                raise WorkerFailed(f"the worker did not start: it said what no worker says: {error}") from error
            for message in messages or ():
                if message.kind is Kind.UNUSABLE:
                    raise WorkerFailed(message.text())
                if message.kind is not Kind.READY or len(message.fields) != 1:
                    raise WorkerFailed("the worker began with something else than that it is ready")
                try:
                    return decode_facts(message.fields[0])
                except InternalError as error:
                    raise WorkerFailed(str(error)) from error
        raise WorkerFailed("the device is closed")

    def ask(self, kind: Kind, numbers: Sequence[int], *content: bytes) -> Future[Message]:
        """Send a request; its answer comes as the future's result, or :class:`DeviceRestarting` when none will.

        Raises :class:`DeviceRestarting`, and :class:`~tensor_wasm.errors.KernelError` for one that is too long.
        """
        if sum(map(len, content)) > FRAME_BYTES_MAX // 2:
            raise KernelError("the kernel's text is too long for the GPU")
        future: Future[Message] = Future()
        with self._lock:
            if self._end is not None:
                raise self._end_again(self._end)
            number = self._next_request
            parts = _joined(request(kind, number, numbers, *content).parts())
            self._next_request = number % 0xFFFF_FFFF + 1
            self._waiting[number] = future
        try:
            with self._sending:
                for part in parts:
                    self._connection.sendall(part)
        except OSError:
            pass  # it ended: whoever receives notices, and ends the future
        except BaseException:
            # Half a frame may be sent: what comes after it has no meaning.
            self.kill()
            raise
        return future

    def beat(self) -> None:
        """Ask for a sign of life, unless another thread is sending: never waits."""
        if not self._sending.acquire(blocking=False):
            return
        try:
            # So short a message goes whole or not at all.
            self._connection.send(b"".join(request(Kind.BEAT, 0).parts()), socket.MSG_DONTWAIT)
        except OSError:
            pass
        finally:
            self._sending.release()

    def receive(self, wait_s: float) -> list[Message] | None:
        """Wait so long for messages: those that are no answers to :meth:`ask`, which reach who asked; None for silence.

        Raises OSError once the process has closed its socket, and :class:`~tensor_wasm.errors.InternalError` for bytes
        that no worker sends.
        """
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        if not poll.poll(max(wait_s, 0.0) * 1000):
            return None
        count = self._connection.recv_into(self._buffer)
        if not count:
            raise ConnectionResetError
        heard = []
        for message in self._frames.feed(self._buffer[:count]):
            if message.request:
                with self._lock:
                    future = self._waiting.pop(message.request, None)
                if future is not None:
                    future.set_result(message)
            else:
                heard.append(message)
        return heard

    # --- the end ----------------------------------------------------------------------------------------

    def kill(self) -> None:
        """End the process now."""
        self._process.kill()

    def abandon(self, error: DeviceRestarting) -> None:
        """End the process now, and all requests that wait for an answer, with an error."""
        self.kill()
        with self._lock:
            if self._end is None:
                self._end = error
            waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            future.set_exception(self._end_again(error))

    def ask_to_end(self) -> None:
        """Close the socket, on which the process ends by itself."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def reap(self, wait_s: float) -> bool:
        """Wait so long for the end of a process that was killed, and give back what it took; whether it ended."""
        try:
            self._process.wait(wait_s)
        except subprocess.TimeoutExpired:
            return False
        self._connection.close()
        if self._errors >= 0:
            os.close(self._errors)
            self._errors = -1
        return True

    def describe_end(self) -> str:
        """Why the process is gone, which it is; kills it if not."""
        try:
            status = self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return "it closed its socket"
        how = f"status {status}" if status >= 0 else f"signal {_signal_name(-status)}"
        said = os.pread(self._errors, _ERROR_BYTES, 0).rstrip(b"\0")[-_ERROR_TAIL_BYTES:]
        return f"it ended with {how}: {said.decode('utf-8', 'replace').strip() or 'it said nothing'}"

    @staticmethod
    def _end_again(error: DeviceRestarting) -> DeviceRestarting:
        return DeviceRestarting(str(error))  # an exception is raised once: it grows with each stack


def _joined(parts: list[bytes]) -> list[bytes]:
    """Parts of a frame as they are sent: at once if they are short."""
    return [b"".join(parts)] if sum(map(len, parts)) < _RECEIVE_BYTES else parts


def _error_file() -> int:
    """A file in memory for what a process says on standard error; it cannot grow."""
    descriptor = os.memfd_create("worker-errors", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, _ERROR_BYTES)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return descriptor


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def worker_environment() -> dict[str, str]:
    """What a worker gets, and whatever else asks the driver.

    The path to import from is this interpreter's own, so that both run the same code.
    """
    root = str(Path(tensor_wasm.__file__).resolve().parents[1])
    entries = dict.fromkeys([*(entry for entry in sys.path if Path(entry).is_absolute()), root])
    kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    return {"PYTHONPATH": os.pathsep.join(entries)} | _OWN_ENVIRONMENT | kept
