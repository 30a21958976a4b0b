"""The supervision of a GPU's worker: it is started, watched, and replaced when it ends."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from tensor_wasm.device.cuda.driver import GpuFacts
from tensor_wasm.device.cuda.lane import Offender
from tensor_wasm.device.cuda.messages import Kind, Message
from tensor_wasm.device.cuda.shared import SharedFile
from tensor_wasm.device.cuda.worker_handle import GRACE_S, WorkerFailed, WorkerHandle
from tensor_wasm.errors import DeviceRestarting, DeviceUnavailable, InternalError

_log = logging.getLogger("tensor_wasm.device")

#: A worker that says nothing for so long is ended.
SILENCE_S: Final = 10.0
#: After a start that failed the next one waits, each time twice as long.
_PAUSE_S: Final = 0.25
_PAUSE_MAX_S: Final = 30.0
#: How often a process that was killed and does not end is mentioned: the driver hangs.
_REAP_S: Final = 10.0
#: How often the supervisor looks around at least.
_TURN_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class WorkerEnd:
    """That a worker ended: why, whose work did it if that is known, and which tenants had a partition then."""

    reason: str
    offender: Offender | None
    victims: tuple[int, ...]
    generation: int


class Supervisor:
    """Has a worker for the GPU ``index`` at all times, from :meth:`start` until this is closed. Safe for threads.

    Args:
        index: Which GPU, as the driver counts them.
        shared: The file that workers get.
        command: What to run as a worker.
        silence_s: A worker that says nothing for so long is ended.
        settle: Called when a worker is there, and the process of the one before is gone.
        forget: Called when a worker is over: forgets what was made by it, and gives the tenants that had something
            there. Neither it nor ``settle`` runs beside a :meth:`holding` block, and neither may call back.
        lose: Called once that worker was killed, before the requests to it end.
        on_end: Called after the end of each worker but the last, by a thread that does nothing else meanwhile.
    """

    def __init__(
        self,
        index: int,
        shared: SharedFile,
        command: Sequence[str] | None,
        *,
        silence_s: float,
        settle: Callable[[], object],
        forget: Callable[[], tuple[int, ...]],
        lose: Callable[[], object],
        on_end: Callable[[WorkerEnd], None],
    ) -> None:
        self._index = index
        self._shared = shared
        self._command = command
        self._silence_s = silence_s
        self._settle = settle
        self._forget = forget
        self._lose = lose
        self._on_end = on_end
        self._lock = threading.Lock()
        self._closing = threading.Event()
        #: The worker, None while there is none.
        self.worker: WorkerHandle | None = None
        #: Counts workers: which this is, or which comes next.
        self.generation = 1
        #: Why there is no worker, empty while there is one.
        self.trouble = "it has not started"
        #: How the last worker that ended did.
        self.last_end: WorkerEnd | None = None
        self._first: Future[GpuFacts] = Future()
        # Not the caller's: the worker ends with the thread that started it.
        self._thread = threading.Thread(target=self._supervise, name="gpu-worker", daemon=True)

    def start(self) -> GpuFacts:
        """Start the first worker, and wait for it. Raises :class:`DeviceUnavailable` when there can be none."""
        self._thread.start()
        return self._first.result()

    def current(self, generation: int | None) -> tuple[WorkerHandle, int]:
        """The worker of a generation, None for any, and which generation that is.

        Raises :class:`~tensor_wasm.errors.DeviceRestarting` when there is none, or another.
        """
        with self._lock:
            if self.worker is None or generation not in (None, self.generation):
                raise restarting()
            return self.worker, self.generation

    @contextmanager
    def holding(self, worker: WorkerHandle | None) -> Iterator[bool]:
        """A block in which no worker comes or goes; whether this one, or none, is there."""
        with self._lock:
            yield worker is self.worker

    def restart(self, offender: Offender | None, generation: int | None) -> None:
        """End the worker now; another starts in the background.

        Nothing happens when the generation that is meant is over.
        """
        with self._lock:
            worker = self.worker
            if worker is None or generation not in (None, self.generation):
                return
        self._abandon(worker, offender.reason if offender else "it was told to start anew", offender)

    def close(self) -> bool:
        """End the worker for good. Whether this did it, and no earlier call."""
        with self._lock:
            is_first = not self._closing.is_set()
            self._closing.set()
            worker = self.worker
        if is_first and worker is not None:
            worker.ask_to_end()
        if threading.current_thread() is not self._thread and self._thread.ident is not None:
            self._thread.join()
        return is_first

    def _abandon(self, worker: WorkerHandle, reason: str, offender: Offender | None) -> None:
        """End a worker and all that was its; nothing happens when that was done."""
        with self._lock:
            if self.worker is not worker:
                return
            self.worker = None
            self.trouble = reason
            self.last_end = WorkerEnd(reason, offender, self._forget(), self.generation)
            self.generation += 1
        worker.kill()
        # Before the requests end: with that of a lane that closes its number is free, and nobody looks at it.
        self._lose()
        worker.abandon(restarting())

    def _supervise(self) -> None:
        """Have a worker at all times, until this is closed. :meth:`start` is told the first one's facts, or
        why there are none.
        """
        try:
            self._keep_one()
        except BaseException as error:  # a defect of ours: nobody may wait for what will not come
            _log.exception("GPU %d is given up", self._index)
            self.trouble = f"{type(error).__name__}: {error}"
            worker = self.worker
            if worker is not None:
                self._abandon(worker, self.trouble, None)
            if not self._first.done():
                self._first.set_exception(InternalError(self.trouble))

    def _keep_one(self) -> None:
        known: GpuFacts | None = None
        pause_s = _PAUSE_S
        while not self._closing.is_set():
            try:
                worker, facts = self._start(known)
            except WorkerFailed as failure:
                self.trouble = str(failure)
                if known is None:
                    self._first.set_exception(DeviceUnavailable(f"GPU {self._index} cannot be used: {failure}"))
                    return
                if not self._closing.is_set():
                    _log.warning("GPU %d has no worker, next try in %.2f s: %s", self._index, pause_s, failure)
            else:
                with self._lock:
                    self.worker = worker
                    self.trouble = ""
                    self._settle()
                if known is None:
                    known = facts
                    self._first.set_result(facts)
                else:
                    _log.info("GPU %d has a worker again", self._index)
                self._serve(worker)
                pause_s = _PAUSE_S
                continue
            self._closing.wait(pause_s)
            pause_s = min(2 * pause_s, _PAUSE_MAX_S)

    def _start(self, known: GpuFacts | None) -> tuple[WorkerHandle, GpuFacts]:
        worker = WorkerHandle(self._command, self._index, self._shared)
        try:
            facts = worker.wait_until_ready(self._closing)
            if known is not None and facts.uuid != known.uuid:
                raise WorkerFailed("another GPU has its place now")
        except BaseException:
            worker.abandon(restarting())
            self._reap(worker)
            raise
        return worker, facts

    def _serve(self, worker: WorkerHandle) -> None:
        """Pass a worker's answers on until it ends, and see to its end."""
        reason, offender = self._listen(worker)
        if self._closing.is_set():
            worker.reap(GRACE_S)  # it wipes the tenants' memory
        self._abandon(worker, reason, offender)
        with self._lock:
            end = self.last_end
        assert end is not None
        if not self._closing.is_set():
            _log.error("GPU %d lost its worker: %s", self._index, end.reason)
            try:
                self._on_end(end)
            except Exception:
                _log.exception("what is done after the end of a GPU's worker failed")
        self._reap(worker)

    def _listen(self, worker: WorkerHandle) -> tuple[str, Offender | None]:
        """Why a worker ended, and for whose work, if one tenant alone had any."""
        turn_s = min(_TURN_S, self._silence_s / 8)
        silent_s, before_s, beat_s = 0.0, time.monotonic(), 0.0
        while True:
            try:
                heard = worker.receive(turn_s)
                for message in heard or ():
                    if message.kind is Kind.LAST_WORDS:
                        return _last_words(message)
            except OSError:
                return worker.describe_end(), None
            except InternalError as error:
                return f"it sent what no worker sends: {error}", None
            now_s = time.monotonic()
            # A turn that took long was this process's fault, which stood still.
            silent_s = 0.0 if heard is not None else silent_s + min(now_s - before_s, 2 * turn_s)
            before_s = now_s
            if silent_s > self._silence_s:
                return f"it said nothing for {self._silence_s:g} s: the driver hangs", None
            if now_s > beat_s:
                worker.beat()
                beat_s = now_s + 2 * turn_s

    def _reap(self, worker: WorkerHandle) -> None:
        """Wait for the end of a process that was killed: what it had on the GPU is free only then."""
        while not worker.reap(_REAP_S):
            self.trouble = f"process {worker.pid}, a worker that was killed, does not end: the driver hangs"
            _log.error("GPU %d: %s", self._index, self.trouble)
            if self._closing.is_set():
                return


def _last_words(message: Message) -> tuple[str, Offender | None]:
    reason = message.text()
    if len(message.fields) != 3:
        return reason, None
    tenants = message.numbers()
    kernel = message.fields[1].decode("utf-8", "replace")
    return reason, Offender(tenants[0], reason, kernel) if len(tenants) == 1 else None


def restarting() -> DeviceRestarting:
    """What calls meet while a GPU has no worker, or not the one that is meant."""
    return DeviceRestarting("the GPU starts anew: all that was on it is lost; try again shortly")
