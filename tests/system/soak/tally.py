"""What happened in a soak: how often each thing, how long it took, and what should not have happened."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

#: Of a finding that repeats itself so many are kept; the rest are counted.
_KEPT_FINDINGS = 5
#: Latencies kept of a deed, chosen evenly from all there were.
_KEPT_LATENCIES = 10_000


@dataclass(frozen=True, slots=True)
class Spread:
    """How a number is spread, in its own unit."""

    count: int
    p50: float
    p95: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if not values:
            return cls(0, 0.0, 0.0, 0.0)
        ordered = sorted(values)
        return cls(len(ordered), ordered[len(ordered) // 2], ordered[len(ordered) * 95 // 100], ordered[-1])


class Tally:
    """Counts, latencies and findings. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._random = Random(0)
        self.outcomes: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.totals: Counter[str] = Counter()
        self._latencies_s: defaultdict[str, list[float]] = defaultdict(list)
        self._findings: dict[str, list[str]] = {}
        self._found: Counter[str] = Counter()

    def count(self, deed: str, outcome: str, took_s: float) -> None:
        """A deed ended with this outcome."""
        with self._lock:
            counts = self.outcomes[deed]
            counts[outcome] += 1
            kept, seen = self._latencies_s[deed], counts.total()
            if len(kept) < _KEPT_LATENCIES:
                kept.append(took_s)
            elif (place := self._random.randrange(seen)) < _KEPT_LATENCIES:
                kept[place] = took_s

    def add(self, name: str, count: int = 1) -> None:
        """Count something by name."""
        with self._lock:
            self.totals[name] += count

    def find(self, what: str, details: str = "") -> None:
        """Something is wrong: ``what`` in general, ``details`` of this time."""
        with self._lock:
            self._found[what] += 1
            kept = self._findings.setdefault(what, [])
            if len(kept) < _KEPT_FINDINGS:
                kept.append(details)

    def latency(self, deed: str) -> Spread:
        with self._lock:
            return Spread.of(self._latencies_s[deed])

    @property
    def findings(self) -> dict[str, list[str]]:
        """Details by what is wrong; where there were more than are kept, how many."""
        with self._lock:
            found = {}
            for what, kept in self._findings.items():
                more = self._found[what] - len(kept)
                found[what] = kept + ([f"and {more} more"] if more else [])
            return found
