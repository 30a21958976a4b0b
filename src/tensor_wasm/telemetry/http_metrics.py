"""Counts of HTTP requests and their answers."""

from __future__ import annotations

from bisect import bisect_left

from tensor_wasm.telemetry.families import Family, Metric, histogram, labels_text, sample

REQUESTS = Family("http_requests_total", "counter", "HTTP answers, refusals and failures included.")
DURATION = Family("http_request_duration_seconds", "histogram", "Time from a request's head to the end of its answer.")
IN_FLIGHT = Family("http_requests_in_flight", "gauge", "Requests without an answer yet.")

DURATION_BUCKETS_S: tuple[float, ...] = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip

#: Label of routes and methods that are none of ours: a client cannot invent labels.
OTHER = "other"


class _Row:
    """Answers of one route, method and status."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(DURATION_BUCKETS_S) + 1)
        self.sum_s = 0.0


class HttpMetrics:
    """Counted on the event loop, read from any thread. Routes are templates, methods known ones or ``other``."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str, int], _Row] = {}
        self._in_flight: dict[tuple[str, str], int] = {(OTHER, OTHER): 0}

    def declare(self, route: str, method: str, status: int) -> None:
        """Show a route from the first scrape on, with zeros."""
        self._rows.setdefault((route, method, status), _Row())
        self._in_flight.setdefault((route, method), 0)

    def started(self, route: str, method: str) -> None:
        """A request's head was read."""
        key = (route, method)
        self._in_flight[key] = self._in_flight.get(key, 0) + 1

    def finished(self, route: str, method: str, status: int, duration_s: float) -> None:
        """A request that was :meth:`started` has its answer, or will get none."""
        self._in_flight[route, method] -= 1
        self.count(route, method, status, duration_s)

    def count(self, route: str, method: str, status: int, duration_s: float) -> None:
        """An answer to what never became a request: a head that is not HTTP."""
        row = self._rows.get((route, method, status))
        if row is None:
            row = self._rows.setdefault((route, method, status), _Row())
        row.counts[bisect_left(DURATION_BUCKETS_S, duration_s)] += 1
        row.sum_s += duration_s

    @property
    def in_flight(self) -> int:
        """Requests without an answer yet."""
        return sum(self._in_flight.copy().values())

    def collect(self) -> list[Metric]:
        """The three families."""
        requests, durations = [], []
        for (route, method, status), row in sorted(self._rows.copy().items()):
            labels = labels_text(route=route, method=method, status=str(status))
            counts = row.counts.copy()
            requests.append(sample(REQUESTS, labels, sum(counts)))
            durations.append(histogram(DURATION, labels, DURATION_BUCKETS_S, counts, row.sum_s))
        in_flight = [
            sample(IN_FLIGHT, labels_text(route=route, method=method), count)
            for (route, method), count in sorted(self._in_flight.copy().items())
        ]
        return [
            Metric(REQUESTS, "".join(requests)),
            Metric(DURATION, "".join(durations)),
            Metric(IN_FLIGHT, "".join(in_flight)),
        ]
