from __future__ import annotations

import math
import random
import threading
from fractions import Fraction

import pytest

from tensor_wasm.tenancy import Rate, RateLimiter


class Bucket:
    """The same limit as everybody tells it: tokens that come in at a rate, up to a most; with exact fractions."""

    def __init__(self, rate):
        self.rate = rate
        self.tokens = Fraction(rate.burst)
        self.at = None

    def has(self, now):
        if self.at is not None:
            self.tokens = min(Fraction(self.rate.burst), self.tokens + (now - self.at) * Fraction(self.rate.qps))
        self.at = now
        return self.tokens >= 1


def test_it_does_as_token_buckets_do():
    seed = random.randrange(1 << 32)
    print("seed", seed)
    dice = random.Random(seed)
    for _ in range(100):
        # Rates whose intervals are whole nanoseconds and times that are whole multiples of one: nothing is rounded.
        rates = {key: Rate(2.0 ** dice.randrange(-3, 9), dice.randrange(1, 6)) for key in "abc"}
        limiter, buckets = RateLimiter(), {key: Bucket(rate) for key, rate in rates.items()}
        now = Fraction(dice.randrange(1 << 20))
        for _ in range(60):
            now += Fraction(dice.choice([0, 0, 1, 3, 40, 700]), 512)
            keys = dice.sample("abc", dice.randrange(1, 4))
            has = [buckets[key].has(now) for key in keys]  # all of them: each goes on to this time
            allowed = all(has)
            if allowed:
                for key in keys:
                    buckets[key].tokens -= 1
            wait = limiter.check(float(now), [(key, rates[key]) for key in keys])
            assert (wait == 0.0) == allowed
            if not allowed:
                missing = [(1 - buckets[key].tokens) / Fraction(rates[key].qps) for key in keys]
                assert wait == pytest.approx(float(max(missing)), abs=1e-8)


def test_the_wait_is_right_to_the_instant_whatever_the_numbers():
    seed = random.randrange(1 << 32)
    print("seed", seed)
    dice = random.Random(seed)
    refused = 0
    for _ in range(3000):
        limits = [
            (key, Rate(10 ** dice.uniform(-3, 6), dice.choice([1, 2, 7, 1000]))) for key in range(dice.choice([1, 2]))
        ]
        limiter = RateLimiter()
        now = dice.choice([0.0, dice.uniform(0, 1e-3), dice.uniform(0, 10), dice.uniform(0, 1e7)])
        for _ in range(dice.randrange(1, 12)):
            limiter.check(now, limits)
            now += dice.choice([0.0, 1e-7, 1e-4, 0.1])
        wait = limiter.check(now, limits)
        if wait == 0.0:
            continue
        refused += 1
        assert 0 < wait <= max(1 / rate.qps for _, rate in limits) + 1e-6
        if wait > 1e-4:
            assert limiter.check(now + wait * 0.999, limits) > 0
        assert limiter.check(now + wait, limits) == 0.0
    assert refused > 500


@pytest.mark.parametrize("qps", [0.3, 1, 3, 7, 49, 1e5 / 3, 999_999.0])
@pytest.mark.parametrize("now", [0.0, 0.1, 12_345.678, 9_999_999.9])
def test_a_burst_is_as_long_as_it_says(qps, now):
    for burst in (1, 2, 3, 10, 1000):
        limiter, rate = RateLimiter(), Rate(qps, burst)
        allowed = 0
        while limiter.check(now, [("key", rate)]) == 0.0:
            allowed += 1
        assert allowed == burst


def test_the_average_is_the_rate():
    limiter, rate = RateLimiter(), Rate(7, 3)
    allowed = sum(limiter.check(1e6 + tick / 1000, [("key", rate)]) == 0.0 for tick in range(100_000))
    assert 700 <= allowed <= 703


def test_one_that_refuses_leaves_the_others_as_they_were():
    limiter, tight, loose = RateLimiter(), Rate(1, 1), Rate(1, 3)
    assert limiter.check(0, [("tight", tight), ("loose", loose)]) == 0.0
    for _ in range(10):
        assert limiter.check(0, [("loose", loose), ("tight", tight)]) == 1.0
    assert limiter.check(0, [("loose", loose)]) == 0.0
    assert limiter.check(0, [("loose", loose)]) == 0.0
    assert limiter.check(0, [("loose", loose)]) == 1.0


def test_keys_have_nothing_to_do_with_each_other():
    limiter, rate = RateLimiter(), Rate(1, 1)
    assert [limiter.check(0, [(key, rate)]) for key in (("a", 1), ("a", 2), ("b", 1), 1, "1")] == [0.0] * 5
    assert limiter.check(0, [(("a", 1), rate)]) == 1.0


def test_nothing_to_check_allows():
    limiter = RateLimiter()
    assert limiter.check(0, []) == 0.0
    assert len(limiter) == 0


def test_a_raised_rate_helps_at_once():
    """Under the old rate the bucket would be full in 1,000 seconds."""
    limiter = RateLimiter()
    for _ in range(1000):
        assert limiter.check(5.0, [("key", Rate(1, 1000))]) == 0.0
    wait = limiter.check(5.0, [("key", Rate(100, 10))])
    assert wait == pytest.approx(0.01)
    assert limiter.check(5.0 + wait, [("key", Rate(100, 10))]) == 0.0


def test_a_clock_that_goes_back_locks_nobody_out():
    limiter, rate = RateLimiter(), Rate(10, 2)
    limiter.check(1e6, [("key", rate)])
    wait = limiter.check(5.0, [("key", rate)])
    assert wait == pytest.approx(0.1)
    assert limiter.check(5.0 + wait, [("key", rate)]) == 0.0


@pytest.mark.parametrize(
    ("qps", "burst"),
    [(0, 1), (-1, 1), (math.nan, 1), (math.inf, 1), (-math.inf, 1), (5e-324, 1), (1e300, 1), (1, 0), (1, -1)],
)
def test_what_is_no_rate_is_refused(qps, burst):
    with pytest.raises(ValueError):
        Rate(qps, burst)


def test_a_rate_without_a_burst_allows_one_seconds_worth():
    assert Rate.of(None, 5) is None
    assert [Rate.of(qps, None).burst for qps in (0.001, 1.0, 2.5, 1e6)] == [1, 1, 3, 1_000_000]
    assert Rate.of(2.5, 7) == Rate(2.5, 7)


# --- bounds -------------------------------------------------------------------------------------------------


def test_there_are_never_more_buckets_than_the_capacity():
    limiter, rate = RateLimiter(capacity=100), Rate(0.001, 1)
    for number in range(5000):
        assert limiter.check(0, [(number, rate), (-number - 1, rate)]) == 0.0
        assert len(limiter) <= 100


def test_full_buckets_go_before_one_that_is_not():
    limiter, slow, quick = RateLimiter(capacity=10), Rate(0.001, 1), Rate(1000, 1)
    assert limiter.check(0, [("victim", slow)]) == 0.0
    for number in range(1000):
        limiter.check(number / 100, [(number, quick)])
        assert len(limiter) <= 10
    assert limiter.check(10, [("victim", slow)]) > 0


def test_of_those_that_are_not_full_the_least_recently_used_go():
    limiter, rate = RateLimiter(capacity=16), Rate(0.001, 1)
    for number in range(16):
        limiter.check(0, [(number, rate)])
    assert limiter.check(0, [(0, rate)]) > 0  # asks in vain, and so is in use
    limiter.check(0, [("new", rate)])
    newest_first = ["new", 0, *range(15, 0, -1)]
    refused = [limiter.check(0, [(key, rate)]) > 0 for key in newest_first]
    kept = refused.count(True)
    assert refused == [True] * kept + [False] * (len(newest_first) - kept)
    assert 12 <= kept <= 16


def test_whoever_hammers_keeps_its_bucket_in_a_flood_of_others():
    limiter, rate = RateLimiter(capacity=100), Rate(0.001, 5)
    allowed = 0
    for number in range(5000):
        allowed += limiter.check(0, [("hammer", rate)]) == 0.0
        limiter.check(0, [(number, rate)])
    assert allowed == 5


def test_a_flood_of_keys_costs_little_a_key():
    """Each of a million looks at all others would take minutes."""
    limiter, rate = RateLimiter(), Rate(0.001, 1)
    for number in range(40_000):
        limiter.check(0, [(number, rate)])
    assert len(limiter) <= 10_000


def test_threads_together_get_one_burst():
    limiter, rate = RateLimiter(), Rate(0.001, 500)
    allowed = []

    def ask():
        allowed.append(sum(limiter.check(0, [("key", rate)]) == 0.0 for _ in range(1000)))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(allowed) == 500
