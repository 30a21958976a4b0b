from __future__ import annotations

import math

import pytest

from tensor_wasm.cli.quantities import age, mebibytes, moment, rate


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-3, "0.0s"),
        (0, "0.0s"),
        (0.29, "0.2s"),
        (9.99, "9.9s"),
        (10, "10s"),
        (59.99, "59s"),
        (62.4, "1m 02s"),
        (3599.9, "59m 59s"),
        (3600, "1h 00m"),
        (11_220, "3h 07m"),
        (86_399, "23h 59m"),
        (187_200, "2d 04h"),
    ],
)
def test_an_age_has_two_units_and_never_runs_ahead(seconds, shown):
    assert age(seconds) == shown


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [(0, "0.0 MiB"), (1, "<0.1 MiB"), (65_536, "0.1 MiB"), (1 << 20, "1.0 MiB"), (1 << 30, "1,024.0 MiB")],
)
def test_a_size_is_in_mebibytes(size_bytes, shown):
    assert mebibytes(size_bytes) == shown


def test_a_rate_has_a_decimal_while_it_is_small():
    assert [rate(0), rate(12.34), rate(123_456.7)] == ["0.0", "12.3", "123,457"]


@pytest.mark.parametrize("shown_as", [age, mebibytes, rate, moment])
@pytest.mark.parametrize("value", ["text", True, [], {}, math.nan, math.inf, 10**400, 1e300])
def test_what_is_no_amount_is_shown_and_no_failure(shown_as, value):
    assert shown_as(value)
    assert shown_as(None) == ""


def test_a_moment_is_in_utc():
    assert moment(1_700_000_000.25) == "2023-11-14 22:13:20 UTC"
