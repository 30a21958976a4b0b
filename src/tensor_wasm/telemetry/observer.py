"""The observer: samples a node now and then, keeps three windows of samples, and makes the document of its state.

It has threads of its own and needs no event loop. What hangs, a lock that a busy worker holds or a disk that does not
answer, holds up neither the samples nor the document: it is passed over, and the document says so.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from tensor_wasm.config import Config
from tensor_wasm.node import Node
from tensor_wasm.telemetry import sections
from tensor_wasm.telemetry.bounded import Bounded
from tensor_wasm.telemetry.build import build
from tensor_wasm.telemetry.http_metrics import HttpMetrics
from tensor_wasm.telemetry.lag import LagMonitor
from tensor_wasm.telemetry.nvml import GpuReader
from tensor_wasm.telemetry.observation import FORMAT, HistoryPoint, NodeState, Observation
from tensor_wasm.telemetry.readings import Readings
from tensor_wasm.telemetry.releases import Releases, moment
from tensor_wasm.telemetry.sections import Reading, Span
from tensor_wasm.telemetry.slo import Deployment

_log = logging.getLogger("tensor_wasm.telemetry")

SAMPLES_PER_WINDOW = 60
WINDOWS_KEPT = 3
#: Longest wait for one part, and for all of them.
_PART_S = 0.15
_WHOLE_S = 0.4
#: A document that is no older is given to the next who asks too.
_FRESH_S = 0.1
#: How often what ran here is written down.
_SAVE_S = 60.0
_SAVING_S = 1.0
_SAVE = "releases"


@dataclass(frozen=True, slots=True)
class _Sample:
    """The parts at one moment, by their names; those that could be read."""

    at_s: float
    parts: Mapping[str, Reading]


class Observer:
    """Observes a node. :meth:`document` may be asked from any thread, also when :meth:`start` was never called.

    ``lag`` and ``gpus`` are None where there is no event loop or nobody asks for GPUs. ``url`` is where the API
    listens, once it does.
    """

    def __init__(
        self,
        node: Node,
        config: Config,
        http: HttpMetrics,
        lag: LagMonitor | None = None,
        gpus: GpuReader | None = None,
    ) -> None:
        self.url: str | None = None
        self._node = node
        self._config = config
        self._window_s = config.observe_window_s
        self._deployment = Deployment.HOST if node.device.kind == "cpu" else Deployment.CUDA
        self._started_s = time.monotonic()
        self._bounded = Bounded(Readings(node, config, http, lag, gpus).parts(), _PART_S, _WHOLE_S)
        self._releases = Releases(config.home, build(), time.time())
        self._saver = Bounded({_SAVE: self._save}, _SAVING_S, _SAVING_S)
        self._saved_s = self._started_s
        # Held by who reads: for no longer than a round of readings takes.
        self._turn = threading.Lock()
        self._last: dict[str, Reading] = {}
        self._samples: deque[_Sample] = deque()
        self._points: deque[HistoryPoint] = deque(maxlen=SAMPLES_PER_WINDOW * WINDOWS_KEPT)
        self._lags: deque[tuple[float, float]] = deque()
        self._document: tuple[float, Observation] | None = None
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to take samples."""
        self.sample()
        self._thread = threading.Thread(target=self._run, name="observe", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take no more samples, and write down what ran. Safe to call twice."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            self._saver.read()
        self._saver.close()
        self._bounded.close()

    def sample(self) -> None:
        """Take a sample now."""
        with self._turn:
            now_s, _ = self._read()
            sample = _Sample(now_s, {name: part for name, part in self._last.items() if part.at_s >= now_s - _WHOLE_S})
            before = self._samples[-1].parts if self._samples else {}
            self._points.append(sections.point(moment(time.time()), before, sample.parts))
            self._samples.append(sample)
            while len(self._samples) > 1 and self._samples[1].at_s <= now_s - self._window_s:
                self._samples.popleft()

    def document(self, *, history: bool = False) -> Observation:
        """The node's state now. Takes half a second at the longest, whatever the node is doing."""
        with self._turn:
            if self._document is None or time.monotonic() - self._document[0] > _FRESH_S:
                made = self._make()
                self._document = time.monotonic(), made
            made = self._document[1]
            points = list(self._points) if history else []
        return msgspec.structs.replace(made, history=points) if history else made

    # --- the thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        interval_s = self._window_s / SAMPLES_PER_WINDOW
        due_s = time.monotonic() + interval_s
        while not self._ending.wait(max(due_s - time.monotonic(), 0.0)):
            try:
                self.sample()
                if time.monotonic() - self._saved_s >= _SAVE_S:
                    self._saved_s = time.monotonic()
                    self._saver.read()
            except Exception:
                _log.exception("a sample of the node could not be taken")
            due_s = max(due_s + interval_s, time.monotonic())

    def _save(self) -> None:
        dispatch = self._last.get("dispatch")
        self._releases.save(() if dispatch is None else dispatch.value.latency, time.time())

    # --- one reading ------------------------------------------------------------------------------------

    def _read(self) -> tuple[float, dict[str, str]]:
        """Read all parts; when that was, and what could not be read. Not called but by who has the turn."""
        values, failures = self._bounded.read()
        now_s = time.monotonic()
        self._last |= {name: Reading(at_s, value) for name, (at_s, value) in values.items()}
        loop = self._last.get("event loop")
        if loop is not None and "event loop" in values and loop.value is not None:
            self._lags.append((now_s, loop.value.max_s))
        while self._lags and self._lags[0][0] < now_s - self._window_s:
            self._lags.popleft()
        return now_s, failures

    def _span(self, name: str) -> Span:
        """A part from the oldest sample that has it to the last reading."""
        before = next((sample.parts[name] for sample in self._samples if name in sample.parts), None)
        return Span(before, self._last.get(name))

    def _make(self) -> Observation:
        now_s, failures = self._read()
        spans = {name: self._span(name) for name in self._last}
        utilization = [
            part.value.used / part.value.permits
            for sample in self._samples
            if (part := sample.parts.get("dispatch")) is not None and part.value.permits
        ]
        lag_max_s = max((longest_s for _, longest_s in self._lags), default=None)
        oldest_s = self._samples[0].at_s if self._samples else now_s
        node = NodeState(
            version=build().version,
            git_sha=build().git_sha,
            device=self._node.device.name,
            deployment=self._deployment.value,
            pid=os.getpid(),
            uptime_s=round(now_s - self._started_s, 3),
            draining=self._node.drain.is_draining,
            url=self.url,
        )
        return Observation(
            schema=FORMAT,
            taken_at=moment(time.time()),
            window_s=self._window_s,
            covered_s=round(min(now_s - oldest_s, self._window_s), 3),
            node=node,
            release=self._releases.describe(),
            **sections.all_of(spans, utilization, lag_max_s, self._config.workers, self._deployment),
            unread=[f"{name}: {reason}" for name, reason in failures.items()],
        )
