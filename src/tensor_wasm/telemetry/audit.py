"""The audit log: one JSON line for each call that changes state or is refused.

Whoever has a record hands it over and goes on; one thread writes. What cannot be written is counted and never held up
for. ``audit_schema.py`` says what a line holds. ``python -m tensor_wasm.telemetry.audit > docs/audit.schema.json``
writes the schema.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import fcntl
import json
import logging
import os
import queue
import select
import stat
import sys
import termios
import threading
import time
from array import array
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path

from tensor_wasm.errors import ConfigurationError
from tensor_wasm.telemetry.audit_schema import LINE_MAX_BYTES, AuditRecord, encode, schema
from tensor_wasm.telemetry.families import Family, Metric, sample

__all__ = ["AuditLog", "AuditRecord"]

FAILURES = Family("audit_write_failures_total", "counter", "Lines of the audit log that could not be written.")

#: Lines that may wait for the disk; threads that write at the same moment may each add one more.
QUEUE_LINES = 10_000
WARNING_INTERVAL_S = 60.0
CLOSE_TIMEOUT_S = 5.0

# What is written in one piece. Each write lets go of the interpreter, and while other threads are busy it may be tens
# of milliseconds before this one has it again: with small pieces, a flood of refusals would drown every other line.
_FILE_BATCH_BYTES = 1 << 20
#: One buffer of a UNIX socket, the journal's for instance, which others that write to it do not part.
_SOCKET_BATCH_BYTES = 1 << 16
#: What a pipe shall hold: as much as Linux lets anybody have (``/proc/sys/fs/pipe-max-size``).
_PIPE_BYTES = 1 << 20

_FILE = "file:"

_LOG = logging.getLogger(__name__)


class _Order(enum.Enum):
    """What the queue has besides lines and the events of who waits for them."""

    REOPEN = enum.auto()
    STOP = enum.auto()


class AuditLog:
    """The node's audit log. Every method may be called from any thread.

    ``destination`` is "stdout", "none" or "file:" and an absolute path. Raises :class:`ConfigurationError` when that
    cannot be opened. Lines of one thread stay in their order.
    """

    def __init__(self, destination: str) -> None:
        self._destination = destination
        self._failures = 0
        self._lock = threading.Lock()
        self._quiet_until_s = 0.0
        self._warning: threading.Thread | None = None
        self._queue: queue.SimpleQueue[bytes | threading.Event | _Order] = queue.SimpleQueue()
        self._is_closed = False
        self._sink = _opened(destination)
        self._thread: threading.Thread | None = None
        if self._sink is not None:
            self._thread = threading.Thread(target=self._run, args=(self._sink,), name="audit", daemon=True)
            self._thread.start()

    @property
    def is_on(self) -> bool:
        """Whether lines go anywhere: without, there is no need to make records."""
        return self._sink is not None

    @property
    def failures(self) -> int:
        """Lines that could not be written."""
        return self._failures

    def write(self, record: AuditRecord) -> None:
        """Have a record written soon. Never waits and never raises: a line that is lost is counted."""
        if self._sink is None:
            return
        try:
            line = encode(record)
        except Exception as error:  # the call that it tells of has been served: that is not to fail now
            self._fail(1, f"a record of {record.event} is no JSON: {error}")
            return
        if self._is_closed:
            self._fail(1, "closed")
        elif self._queue.qsize() >= QUEUE_LINES:
            self._fail(1, f"{QUEUE_LINES:,} lines wait to be written")
        else:
            self._queue.put(line)

    def reopen(self) -> None:
        """Go on in a new file where the old one was renamed. Returns at once; lines handed over before stay in the old.

        When there can be no new file, the old one is kept as long as it has a name.
        """
        if self._sink is not None and not self._is_closed:
            self._queue.put(_Order.REOPEN)

    def flush(self, timeout_s: float = CLOSE_TIMEOUT_S) -> bool:
        """Wait until all lines handed over before are written or lost. False when ``timeout_s`` is over first."""
        if self._thread is None or not self._thread.is_alive():
            return True
        done = threading.Event()
        self._queue.put(done)
        return done.wait(timeout_s)

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> bool:
        """Write what waits, and end. False when ``timeout_s`` is over first: the rest then counts as lost."""
        if self._thread is None or self._sink is None:
            return True
        if not self._is_closed:
            self._is_closed = True
            self._queue.put(_Order.STOP)
        self._thread.join(timeout_s)
        is_done = not self._thread.is_alive()
        if is_done:
            self._sink.close()
        lost = self._drop()
        if not is_done:
            self._queue.put(_Order.STOP)  # the one from before may have been dropped with the rest
        if lost:
            self._fail(lost, "the node stopped before they were written")
        if self._warning is not None:
            self._warning.join(timeout_s)
        return is_done

    def collect(self) -> list[Metric]:
        """The family of lost lines."""
        return [Metric(FAILURES, sample(FAILURES, "", self._failures))]

    # --- the thread that writes ---

    def _run(self, sink: _Sink) -> None:
        following: bytes | threading.Event | _Order | None = None
        while True:
            item = self._queue.get() if following is None else following
            following = None
            if isinstance(item, bytes):
                following = self._write_batch(sink, item)
            elif isinstance(item, threading.Event):
                item.set()
            elif item is _Order.REOPEN:
                if (error := sink.reopen()) is not None:
                    self._fail(0, f"cannot be opened again: {error.strerror}")
            else:
                return

    def _write_batch(self, sink: _Sink, first: bytes) -> bytes | threading.Event | _Order | None:
        """Write ``first`` and the lines that follow it, as many as go in one piece. Returns what came after them."""
        lines, size, room_bytes = [first], len(first), sink.room_bytes()
        following: bytes | threading.Event | _Order | None = None
        with contextlib.suppress(queue.Empty):
            while True:
                following = self._queue.get_nowait()
                if not isinstance(following, bytes) or size + len(following) > room_bytes:
                    break
                lines.append(following)
                size += len(following)
                following = None
        written, error = sink.write(lines)
        if error is not None:
            self._fail(len(lines) - written, error.strerror or type(error).__name__)
        return following

    def _drop(self) -> int:
        """Take what waits out of the queue; how many lines that were."""
        lines = 0
        with contextlib.suppress(queue.Empty):
            while True:
                item = self._queue.get_nowait()
                lines += isinstance(item, bytes)
                if isinstance(item, threading.Event):
                    item.set()
        return lines

    # --- what is lost ---

    def _fail(self, lines: int, reason: str) -> None:
        with self._lock:
            self._failures += lines
            now_s = time.monotonic()
            if now_s < self._quiet_until_s or (self._warning is not None and self._warning.is_alive()):
                return
            self._quiet_until_s = now_s + WARNING_INTERVAL_S
            # In a thread of its own: the caller may be the event loop, and standard error the very pipe that is full.
            self._warning = threading.Thread(target=self._warn, args=(reason,), name="audit-warning", daemon=True)
            with contextlib.suppress(RuntimeError):  # no more threads
                self._warning.start()

    def _warn(self, reason: str) -> None:
        _LOG.warning("audit log %s: %s; lines lost so far: %d", self._destination, reason, self._failures)


# --- where lines go ---------------------------------------------------------------------------------------


class _Sink:
    """A file descriptor that whole lines are written to. Used by one thread."""

    def __init__(self, descriptor: int, path: str | None) -> None:
        self._descriptor: int | None = descriptor
        self._path = path
        self._is_stale = False
        self._is_torn = False
        self._batch_bytes = LINE_MAX_BYTES
        self._empty_pipe_bytes = 0
        self._take(descriptor)

    def room_bytes(self) -> int:
        """How much can be written now without what others write to the same pipe coming between."""
        if self._empty_pipe_bytes and self._descriptor is not None:
            # A write that fits is made under the pipe's lock (Linux, ``pipe_write``); one that does not is parted where
            # the pipe is full, unless it is as short as a line. Half of it: others may write before we do.
            unread = array("i", [0])
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._descriptor, termios.FIONREAD, unread)
                if unread[0] == 0:
                    return self._empty_pipe_bytes
        return self._batch_bytes

    def write(self, lines: list[bytes]) -> tuple[int, OSError | None]:
        """Write lines in one piece where the file takes it. How many are in it whole, and why not all."""
        if self._path is not None and (self._is_stale or self._is_deleted()):
            refusal = self.reopen()
            if self._descriptor is None:
                return 0, refusal
        assert self._descriptor is not None
        pieces = [b"\n", *lines] if self._is_torn else lines
        data = memoryview(b"".join(pieces))
        done = 0
        try:
            while done < len(data):
                done += _write_some(self._descriptor, data[done:])
        except OSError as error:
            return max(0, self._settle(pieces, done) - (len(pieces) - len(lines))), error
        self._is_torn = False
        return len(lines), None

    def reopen(self) -> OSError | None:
        """Open the path again. When that fails, what is open is kept if it has a name: better there than lost."""
        if self._path is None:
            return None
        try:
            descriptor = _open(self._path)
        except OSError as error:
            self._is_stale = True
            if self._descriptor is not None and self._is_deleted():
                self.close()
            return error
        self.close()
        self._take(descriptor)
        return None

    def close(self) -> None:
        """Close the descriptor."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            with contextlib.suppress(OSError):  # what a disk refuses at the very end
                os.close(descriptor)

    def _take(self, descriptor: int) -> None:
        self._descriptor, self._is_stale = descriptor, False
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode):
            self._batch_bytes = _FILE_BATCH_BYTES
        elif stat.S_ISSOCK(mode):
            self._batch_bytes = _SOCKET_BATCH_BYTES
        elif stat.S_ISFIFO(mode):
            with contextlib.suppress(OSError):  # more than this user may have
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            self._empty_pipe_bytes = max(LINE_MAX_BYTES, fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ) // 2)
        self._is_torn = self._path is not None and stat.S_ISREG(mode) and _ends_within_a_line(self._path)

    def _is_deleted(self) -> bool:
        try:
            return self._descriptor is None or os.fstat(self._descriptor).st_nlink == 0
        except OSError:  # a file of a network that has forgotten it
            return True

    def _settle(self, pieces: list[bytes], done: int) -> int:
        """After a write that stopped at ``done`` bytes: no half line is left for the next to go on in. Whole pieces."""
        ends = list(accumulate(map(len, pieces)))
        whole = bisect_right(ends, done)
        rest = done - (ends[whole - 1] if whole else 0)
        if whole or rest:
            self._is_torn = rest > 0 and not self._cut(rest)
        return whole

    def _cut(self, size_bytes: int) -> bool:
        """Take the last bytes written out of the file, if it is ours and nobody else wrote behind them."""
        assert self._descriptor is not None
        if self._path is None:
            return False
        try:
            end = os.lseek(self._descriptor, 0, os.SEEK_CUR)
            if os.fstat(self._descriptor).st_size != end:
                return False
            os.ftruncate(self._descriptor, end - size_bytes)
        except OSError:
            return False
        return True


def _write_some(descriptor: int, data: memoryview) -> int:
    while True:
        try:
            return os.write(descriptor, data)
        except BlockingIOError:  # another process made the pipe that it shares with us so
            waiting = select.poll()
            waiting.register(descriptor, select.POLLOUT)
            waiting.poll()


def _opened(destination: str) -> _Sink | None:
    if destination == "none":
        return None
    try:
        if destination == "stdout":
            # Not descriptor 1 as it is: where it was closed at the start, it may be the database by now.
            if sys.__stdout__ is None:
                raise OSError(errno.EBADF, "standard output is closed")
            return _Sink(os.dup(sys.__stdout__.fileno()), None)
        path = destination.removeprefix(_FILE)
        if path == destination or not path.startswith("/"):
            raise OSError(errno.EINVAL, "it is neither stdout nor none nor file: and an absolute path")
        return _Sink(_open(path), path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise ConfigurationError(
            f"TENSOR_WASM_AUDIT={destination!r} cannot be opened: {reason or error}; name a file that can be written, "
            "stdout or none"
        ) from None


def _open(path: str) -> int:
    """A descriptor that appends to a file, made with mode 0600. Raises OSError, also for what is no file.

    Never waits, as opening a FIFO would.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o600)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISCHR(mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is neither a file nor a character device")
    os.set_blocking(descriptor, True)
    return descriptor


def _ends_within_a_line(path: str) -> bool:
    """Whether whoever wrote a file last could not finish. False where it may not be read."""
    with contextlib.suppress(OSError), Path(path).open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
    return False


if __name__ == "__main__":
    sys.stdout.write(json.dumps(schema(), indent=2, ensure_ascii=False) + "\n")
