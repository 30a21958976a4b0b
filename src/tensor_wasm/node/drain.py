"""The end of a node's work: it takes no more, waits for what runs, and ends what does not finish in time."""

from __future__ import annotations

import threading
import time

from tensor_wasm.node.instances import Instances
from tensor_wasm.node.intake import Intake
from tensor_wasm.node.job_queue import JobQueue
from tensor_wasm.node.kept import KeptInstances
from tensor_wasm.node.statistics import Statistics

_POLL_S = 0.01
#: How long instances that were ordered to end are waited for.
_TERMINATION_S = 1.0


class Drain:
    """Drains a node. Safe for threads, and to do again."""

    def __init__(
        self, intake: Intake, job_queue: JobQueue, instances: Instances, kept: KeptInstances, statistics: Statistics
    ) -> None:
        self._intake = intake
        self._job_queue = job_queue
        self._instances = instances
        self._kept = kept
        self._statistics = statistics

    @property
    def is_draining(self) -> bool:
        """Whether the node takes no more work."""
        return not self._intake.is_open

    def begin(self) -> None:
        """Take no more work; do not wait. Jobs that wait stay for the next start."""
        self._intake.stop()
        self._job_queue.pause()

    def finish(self, timeout_s: float) -> int:
        """Take no more work; wait for what runs, then end it. How many instances had to be ended."""
        self.begin()
        if self._wait_until_idle(timeout_s):
            return 0
        count = self._instances.terminate_all()
        self._wait_until_idle(_TERMINATION_S)
        return count

    def _wait_until_idle(self, timeout_s: float) -> bool:
        until = time.monotonic() + timeout_s
        idle = threading.Event()
        while self._statistics.active_count or self._intake.waiting:
            self._kept.end_idle()
            if time.monotonic() >= until:
                return False
            idle.wait(_POLL_S)
        return True
