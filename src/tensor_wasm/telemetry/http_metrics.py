"""Counts of HTTP requests and their answers."""

from __future__ import annotations

import re
import time
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from tensor_wasm.telemetry.families import Exemplar, Family, Metric, histogram_lines, labels_text
from tensor_wasm.telemetry.sheet import Sheet

DURATION_BUCKETS_S: tuple[float, ...] = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip

_REQUEST = ("route", "method")
_ANSWER = ("route", "method", "status")
REQUESTS = Family("http_requests_total", "counter", "HTTP answers, refusals and failures included.", _ANSWER)
DURATION = Family(
    "http_request_duration_seconds", "histogram", "Time from a request's head to the end of its answer.", _ANSWER,
    DURATION_BUCKETS_S,
)  # fmt: skip
IN_FLIGHT = Family("http_requests_in_flight", "gauge", "Requests without an answer yet.", _REQUEST)

_TRACE_ID = re.compile(r"[0-9a-f]{32}")

#: Label of routes and methods that are none of ours: a client cannot invent labels.
OTHER = "other"


class _Row:
    """Answers of one route, method and status."""

    __slots__ = ("counts", "exemplars", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(DURATION_BUCKETS_S) + 1)
        self.sum_s = 0.0
        #: The newest of each bucket that has one.
        self.exemplars: dict[int, Exemplar] = {}


class HttpMetrics:
    """Counted on the event loop, read from any thread. Routes are templates, methods known ones or ``other``."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str, int], _Row] = {}
        self._in_flight: dict[tuple[str, str], int] = {(OTHER, OTHER): 0}
        self._sheet = Sheet()
        self._labels: dict[tuple[str, ...], tuple[Sequence[tuple[str | int, ...]], tuple[str, ...]]] = {}

    def declare(self, route: str, method: str, status: int) -> None:
        """Show a route from the first scrape on, with zeros."""
        self._rows.setdefault((route, method, status), _Row())
        self._in_flight.setdefault((route, method), 0)

    def started(self, route: str, method: str) -> None:
        """A request's head was read."""
        key = (route, method)
        self._in_flight[key] = self._in_flight.get(key, 0) + 1

    def finished(self, route: str, method: str, status: int, duration_s: float, trace_id: str | None = None) -> None:
        """A request that was :meth:`started` has its answer, or will get none.

        ``trace_id`` is that of the trace it is in: 32 hexadecimal digits. None when nobody will find it anywhere.
        """
        self._in_flight[route, method] -= 1
        self.count(route, method, status, duration_s, trace_id)

    def count(self, route: str, method: str, status: int, duration_s: float, trace_id: str | None = None) -> None:
        """An answer to what never became a request: a head that is not HTTP."""
        row = self._rows.get((route, method, status))
        if row is None:
            row = self._rows.setdefault((route, method, status), _Row())
        bucket = bisect_left(DURATION_BUCKETS_S, duration_s)
        row.counts[bucket] += 1
        row.sum_s += duration_s
        if trace_id is not None and _TRACE_ID.fullmatch(trace_id):
            row.exemplars[bucket] = Exemplar(trace_id, duration_s, time.time())

    @property
    def in_flight(self) -> int:
        """Requests without an answer yet."""
        return sum(self._in_flight.copy().values())

    def read(self) -> dict[tuple[str, str, int], tuple[int, ...]]:
        """Counts of durations, in the buckets of ``DURATION_BUCKETS_S``, by route, method and status."""
        return {key: tuple(row.counts) for key, row in self._rows.copy().items()}

    def collect(self) -> list[Metric]:
        """The three families."""
        rows = sorted(self._rows.copy().items())
        in_flight = sorted(self._in_flight.copy().items())
        answers = self._texts(_ANSWER, [key for key, _ in rows])
        counts = [(tuple(accumulate(row.counts)), row.sum_s) for _, row in rows]
        exemplars = {
            index * histogram_lines(DURATION_BUCKETS_S) + bucket: exemplar
            for index, (_, row) in enumerate(rows)
            for bucket, exemplar in row.exemplars.copy().items()
        }
        return [
            self._sheet.samples(REQUESTS, answers, [buckets[-1] for buckets, _ in counts]),
            self._sheet.histograms(DURATION, answers, counts, exemplars),
            self._sheet.samples(
                IN_FLIGHT, self._texts(_REQUEST, [key for key, _ in in_flight]), [count for _, count in in_flight]
            ),
        ]

    def _texts(self, names: tuple[str, ...], keys: Sequence[tuple[str | int, ...]]) -> tuple[str, ...]:
        """The labels of these series. They seldom change: the last are remembered."""
        known = self._labels.get(names)
        if known is None or known[0] != keys:
            texts = tuple(labels_text(**dict(zip(names, map(str, key), strict=True))) for key in keys)
            known = self._labels[names] = keys, texts
        return known[1]
