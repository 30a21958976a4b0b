"""The node's side of exporting spans: a bounded queue, and the process that makes spans of what is in it.

A process of its own, with the lowest priority: OpenTelemetry's SDK takes some 40 µs for a span, of which a traced
invocation with many launches has 500, and would hold the interpreter lock against the node's threads for that long.
Here a trace is a few lists and its rings. Nothing ever waits for the process or for the collector behind
it: where they do not keep up, traces are dropped and counted.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import math
import os
import select
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path

import msgspec

import tensor_wasm
from tensor_wasm.host.trace import Trace
from tensor_wasm.telemetry.families import Family, Metric, labels_text, sample
from tensor_wasm.telemetry.span_messages import ExportMessage, encode

SPANS = Family(
    "trace_spans_total",
    "counter",
    "Spans of traced requests, by whether the collector took them, refused them, or they were dropped before.",
    ("outcome",),
)

#: Its label's values.
OUTCOMES = ("exported", "failed", "dropped")
#: Traces that wait are dropped, the newest first, beyond so many and beyond so many bytes. Their rings are bounded by
#: themselves: once all wait to be read, a traced invocation notes no launches.
_QUEUE_MAX = 4096
_QUEUE_BYTES_MAX = 16 << 20
#: What a trace takes, and a span.
_TRACE_BYTES = 512
_SPAN_BYTES = 512
_PIPE_BYTES = 1 << 20
#: Traces are gathered for so long before the thread that sends them has something to do: one wake for many.
_GATHER_S = 0.05
_POLL_S = 0.2
#: Pause before a process that died is started again.
_RESTART_S = 5.0
#: Time for what waits to be exported when the node stops.
_FAREWELL_S = 3.0
#: How often the log tells that spans are lost.
_TELL_S = 60.0
_REASON_SHOWN = 300
#: All that the process gets of the node's environment, which may hold tokens: what is OpenTelemetry's, and the way out.
_PREFIX = "OTEL_"
_NETWORK = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")

_log = logging.getLogger("tensor_wasm.telemetry")


class SpanExport:
    """Sends traces that are over to a collector. :meth:`put` may be called from any thread, between :meth:`start` and
    :meth:`close`.
    """

    def __init__(self, endpoint: str, environ: Mapping[str, str]) -> None:
        self._endpoint = endpoint
        self._environment = _environment(environ)
        self._queue: deque[tuple[Trace, int]] = deque()
        self._queued_bytes = 0
        self._counts = dict.fromkeys(OUTCOMES, 0)
        self._lock = threading.Lock()  # the queue's bytes, the counts
        self._is_filled = threading.Event()
        self._closing = threading.Event()
        self._until_s = math.inf  # when what is not exported by then is dropped
        self._process: subprocess.Popen[bytes] | None = None
        self._listener: threading.Thread | None = None
        self._sent = 0  # spans that the process has and has not told of
        self._told_s = -_TELL_S
        self._thread = threading.Thread(target=self._work, name="spans", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def put(self, trace: Trace) -> None:
        """Export a trace, or drop it when too much waits."""
        size_bytes = _TRACE_BYTES + _SPAN_BYTES * len(trace.spans)
        with self._lock:
            if (
                self._closing.is_set()
                or len(self._queue) >= _QUEUE_MAX
                or self._queued_bytes + size_bytes > _QUEUE_BYTES_MAX
            ):
                self._counts["dropped"] += trace.span_count
                trace.drop()
                return
            self._queued_bytes += size_bytes
            self._queue.append((trace, size_bytes))
        if not self._is_filled.is_set():
            self._is_filled.set()

    def collect(self) -> list[Metric]:
        """The family."""
        return [metric(self.counts())]

    def counts(self) -> dict[str, int]:
        """Spans so far by what became of them: ``exported``, ``failed``, ``dropped``."""
        with self._lock:
            return dict(self._counts)

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and the process has told of all it was sent."""
        with self._lock:
            return not self._queue and self._sent == 0

    def close(self) -> None:
        """Export what waits within a few seconds, then end. Safe to call twice, and without a start."""
        with self._lock:
            self._until_s = min(self._until_s, time.monotonic() + _FAREWELL_S)
            self._closing.set()
        self._is_filled.set()
        if self._thread.is_alive():
            self._thread.join()

    # --- on the thread that sends -----------------------------------------------------------------------

    def _work(self) -> None:
        if not self._start_process():
            self._closing.wait(_RESTART_S)
        while not self._closing.is_set():
            self._is_filled.wait()
            self._closing.wait(_GATHER_S)
            self._is_filled.clear()
            if not self._send_all():
                self._closing.wait(_RESTART_S)
                self._is_filled.set()
        self._send_all()
        self._end_process()

    def _send_all(self) -> bool:
        """Send what waits; False when there is no process to send it to."""
        while self._queue:
            if self._process is None and not self._start_process():
                return False
            trace, size_bytes = self._queue.popleft()
            with self._lock:
                self._queued_bytes -= size_bytes
                self._sent += trace.span_count
            if not self._send(encode(trace)):
                self._lose_process()
                return False
        return True

    def _send(self, message: bytes) -> bool:
        """Write a message to the process; False when it is gone, or there is no more time."""
        assert self._process is not None
        assert self._process.stdin is not None
        descriptor = self._process.stdin.fileno()
        view = memoryview(message)
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        while view:
            try:
                view = view[os.write(descriptor, view) :]
            except BlockingIOError:
                poll.poll(_POLL_S * 1000)
                if time.monotonic() >= self._until_s:
                    return False
            except OSError:
                return False
        return True

    # --- the process ------------------------------------------------------------------------------------

    def _start_process(self) -> bool:
        # Safe path: the current directory holds no modules of ours.
        command = [sys.executable, "-P", "-m", "tensor_wasm.telemetry.span_process", self._endpoint]
        if sys.dont_write_bytecode:
            command.insert(1, "-B")
        try:
            self._process = subprocess.Popen(
                command,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=self._environment,
                start_new_session=True,  # Ctrl-C in a terminal is for the node
            )
        except OSError as error:
            self._tell(f"the process that exports spans cannot be started: {error.strerror}")
            return False
        assert self._process.stdin is not None
        descriptor = self._process.stdin.fileno()
        os.set_blocking(descriptor, False)
        with contextlib.suppress(OSError):  # a convenience: fewer turns
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._listener = threading.Thread(target=self._listen, args=(self._process,), name="spans-told", daemon=True)
        self._listener.start()
        return True

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        """Count what the process tells, until its end."""
        assert process.stdout is not None
        for line in process.stdout:
            try:
                told = msgspec.json.decode(line, type=ExportMessage)
            except msgspec.MsgspecError:
                continue
            with self._lock:
                self._counts["exported"] += told.exported
                self._counts["failed"] += told.failed
                self._sent -= told.exported + told.failed
            if told.failed:
                self._tell(f"{told.failed} spans could not be exported: {told.reason[:_REASON_SHOWN]}")
        process.stdout.close()

    def _lose_process(self) -> None:
        """Forget a process that takes nothing any more."""
        process = self._stop_process(0.0)
        if not self._closing.is_set():
            self._tell(f"the process that exports spans ended with status {process.returncode}; it is started again")

    def _end_process(self) -> None:
        """Let the process export what it has; then it is ended, and what is left is lost."""
        if self._process is not None:
            self._stop_process(max(self._until_s - time.monotonic(), 0.0))
        with self._lock:
            for trace, _ in self._queue:
                self._counts["dropped"] += trace.span_count
                trace.drop()
            self._queue.clear()
            self._queued_bytes = 0

    def _stop_process(self, patience_s: float) -> subprocess.Popen[bytes]:
        """Say that nothing more comes, wait for the process's end, end it; what it had not told of is lost."""
        process, self._process = self._process, None
        assert process is not None
        assert process.stdin is not None
        assert self._listener is not None
        process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)
        process.kill()
        process.wait()
        self._listener.join()
        with self._lock:
            self._counts["dropped"] += self._sent
            self._sent = 0
        return process

    def _tell(self, text: str) -> None:
        now_s = time.monotonic()
        if now_s - self._told_s >= _TELL_S:
            self._told_s = now_s
            _log.warning("%s", text)


def metric(counts: Mapping[str, int]) -> Metric:
    """The family with these counts by outcome."""
    return Metric(SPANS, "".join(sample(SPANS, labels_text(outcome=outcome), counts[outcome]) for outcome in OUTCOMES))


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    root = str(Path(tensor_wasm.__file__).resolve().parents[1])
    entries = dict.fromkeys([*(entry for entry in sys.path if Path(entry).is_absolute()), root])
    wanted = {name: value for name, value in environ.items() if name.startswith(_PREFIX) or name.upper() in _NETWORK}
    libraries = environ.get("LD_LIBRARY_PATH")
    if libraries is not None:
        wanted["LD_LIBRARY_PATH"] = libraries
    # It calculates nothing with arrays: no threads for that.
    return wanted | {"PYTHONPATH": os.pathsep.join(entries), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
