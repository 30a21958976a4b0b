"""Rate limits: how often something may happen, kept as one number for each key."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

_QPS_MIN, _QPS_MAX = 1e-6, 1e9
#: Of the buckets, the part that goes when one has to and none is full: so it is seldom that all are looked at.
_DROPPED_PART = 8


@dataclass(frozen=True, slots=True)
class Rate:
    """``qps`` times a second on average, ``burst`` times at once after a pause. Raises ValueError."""

    qps: float
    burst: int
    #: A whole number: sums of it are exact, so a burst is exactly as long as it says.
    interval_ns: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not _QPS_MIN <= self.qps <= _QPS_MAX or self.burst < 1:
            raise ValueError(f"a rate is {_QPS_MIN:g} to {_QPS_MAX:g}, its burst at least 1")
        object.__setattr__(self, "interval_ns", round(1e9 / self.qps))

    @classmethod
    def of(cls, qps: float | None, burst: int | None) -> Rate | None:
        """The rate, None where there is no limit; without a burst, one second's worth is, but at least 1."""
        if qps is None:
            return None
        return cls(qps, math.ceil(qps) if burst is None else burst)


class RateLimiter:
    """Buckets of at most ``capacity`` keys. Safe to use from several threads.

    The generic cell rate algorithm (ITU-T I.371): a key's number is the time at which its bucket is full again.
    """

    def __init__(self, capacity: int = 10_000) -> None:
        self._capacity = capacity
        self._full_at_ns: OrderedDict[Hashable, int] = OrderedDict()  # the least recently used first
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._full_at_ns)

    def check(self, now_s: float, limits: Sequence[tuple[Hashable, Rate]]) -> float:
        """0.0 when every key's rate allows one more, which is then taken from each; else the seconds to wait.

        Then nothing is taken. ``now_s`` is of a monotonic clock. The same call that long after it is allowed, if there
        is none between. The keys of one call are different ones.
        """
        now_ns = int(now_s * 1e9)
        with self._lock:
            allowed_at_ns = now_ns
            for key, rate in limits:
                full_at_ns = self._full_at(now_ns, key, rate)
                allowed_at_ns = max(allowed_at_ns, full_at_ns - (rate.burst - 1) * rate.interval_ns)
            if allowed_at_ns > now_ns:
                return _distance_s(now_s, allowed_at_ns)
            for key, rate in limits:
                self._full_at_ns[key] = max(self._full_at_ns.get(key, now_ns), now_ns) + rate.interval_ns
            if len(self._full_at_ns) > self._capacity:
                self._drop(now_ns)
            return 0.0

    def _full_at(self, now_ns: int, key: Hashable, rate: Rate) -> int:
        """When the bucket of a key is full again that is used now."""
        full_at_ns = self._full_at_ns.get(key)
        if full_at_ns is None:
            return now_ns
        self._full_at_ns.move_to_end(key)
        # Nobody owes more than a whole bucket of today's rate: the rate may have been raised, the clock put back.
        longest_ns = now_ns + rate.burst * rate.interval_ns
        if full_at_ns > longest_ns:
            full_at_ns = self._full_at_ns[key] = longest_ns
        return full_at_ns

    def _drop(self, now_ns: int) -> None:
        """Make room: first what is full, which loses nothing, then what was not used for longest."""
        for key in [key for key, full_at_ns in self._full_at_ns.items() if full_at_ns <= now_ns]:
            del self._full_at_ns[key]
        if len(self._full_at_ns) > self._capacity:
            for _ in range(len(self._full_at_ns) - self._capacity + self._capacity // _DROPPED_PART):
                self._full_at_ns.popitem(last=False)


def _distance_s(start_s: float, end_ns: int) -> float:
    """Seconds that, added to ``start_s``, are ``end_ns`` or a little more, also after rounding."""
    distance_s = end_ns / 1e9 - start_s
    while int((start_s + distance_s) * 1e9) < end_ns:
        distance_s += math.ulp(start_s + distance_s)
    return distance_s
