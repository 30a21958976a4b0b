"""Amounts as people read them. What comes from a node may be of another type: it is then shown as it is."""

from __future__ import annotations

import datetime as dt
import math

_MIB = 1 << 20


def age(value: object) -> str:
    """Seconds as ``2.5s``, ``42s``, ``1m 02s``, ``3h 07m`` or ``2d 04h``; never below zero."""
    seconds = _number(value)
    if seconds is None:
        return _as_it_is(value)
    seconds = max(seconds, 0.0)
    if seconds < 10:
        return f"{math.floor(seconds * 10) / 10:.1f}s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    if whole < 86_400:
        return f"{whole // 3600}h {whole // 60 % 60:02}m"
    return f"{whole // 86_400}d {whole // 3600 % 24:02}h"


def duration(value: object) -> str:
    """A short time in its own unit: ``310 ns``, ``8.2 µs``, ``3.1 ms``, ``1.2 s``."""
    seconds = _number(value)
    if seconds is None:
        return _as_it_is(value)
    for unit, size in (("ns", 1e-9), ("µs", 1e-6), ("ms", 1e-3)):
        amount = seconds / size
        if abs(amount) < 999.5:
            return f"{amount:.0f} {unit}" if unit == "ns" or abs(amount) >= 99.95 else f"{amount:.1f} {unit}"
    return f"{seconds:,.1f} s"


def part(value: object, digits: int = 0) -> str:
    """A ratio in per cent: ``12%``."""
    ratio = _number(value)
    return _as_it_is(value) if ratio is None else f"{ratio:.{digits}%}"


def mebibytes(value: object) -> str:
    """Bytes as ``1,024.0 MiB``; what is not 0 is not shown as 0."""
    size_bytes = _number(value)
    if size_bytes is None:
        return _as_it_is(value)
    if 0 < size_bytes < 0.05 * _MIB:
        return "<0.1 MiB"
    return f"{size_bytes / _MIB:,.1f} MiB"


def rate(value: object) -> str:
    """A number a second: one decimal below 100."""
    number = _number(value)
    if number is None:
        return _as_it_is(value)
    return f"{number:,.1f}" if abs(number) < 100 else f"{number:,.0f}"


def moment(value: object) -> str:
    """Seconds since 1970 as ``2023-11-14 22:13:20 UTC``."""
    seconds = _number(value)
    if seconds is None:
        return _as_it_is(value)
    try:
        found = dt.datetime.fromtimestamp(seconds, dt.UTC)
    except (ValueError, OverflowError, OSError):
        return _as_it_is(value)
    return found.strftime("%Y-%m-%d %H:%M:%S UTC")


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _as_it_is(value: object) -> str:
    return "" if value is None else str(value)
