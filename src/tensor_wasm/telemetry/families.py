"""The metric families, and how their samples are written.

Text is made from templates, a whole histogram at a time: with 200 tenants there are some 15,000 samples, which
``prometheus_client``'s own writer takes five times the budget of a scrape for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate

PREFIX = "tensor_wasm_"
#: Last words of names that say what values are in.
UNITS = ("seconds", "bytes", "celsius", "ratio")


@dataclass(frozen=True, slots=True)
class Family:
    """A metric family: ``name`` without the prefix, ``kind`` counter, gauge or histogram.

    A counter's name ends in ``_total``, as its samples' do. ``labels`` are the names of what its samples have in
    braces, ``bounds`` those of a histogram's buckets but the last.
    """

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()

    @property
    def unit(self) -> str:
        """What its values are in: the last word of its name where that is a unit, else empty."""
        word = self.name.removesuffix("_total").rpartition("_")[2]
        return word if word in UNITS else ""


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One value of those that a bucket counts: the trace it was measured in, and when (seconds since 1970).

    ``trace_id`` needs no escaping.
    """

    trace_id: str
    value: float
    at: float

    def text(self) -> str:
        """What OpenMetrics has behind a bucket's count."""
        return f' # {{trace_id="{self.trace_id}"}} {number(self.value)} {self.at:.3f}'


@dataclass(frozen=True, slots=True)
class Metric:
    """A family and its samples, already as text: lines that each end in a newline.

    Where there are many of them they are ``pieces``, which come after ``lines``. ``exemplars`` are those of some lines,
    by the line's number from 0. Only OpenMetrics has a place for them.
    """

    family: Family
    lines: str = ""
    exemplars: Mapping[int, Exemplar] = field(default_factory=dict)
    pieces: tuple[bytes, ...] = ()

    def text(self, *, with_exemplars: bool = False) -> tuple[bytes, ...]:
        """The samples, in pieces."""
        pieces = self.lines.encode(), *self.pieces
        if not with_exemplars or not self.exemplars:
            return pieces
        lines = b"".join(pieces).split(b"\n")
        for index, exemplar in self.exemplars.items():
            lines[index] += exemplar.text().encode()
        return (b"\n".join(lines),)


def labels_text(**labels: str) -> str:
    """Labels as they stand between braces, values escaped."""
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def sample(family: Family, labels: str, value: float) -> str:
    """One line of a counter or gauge."""
    braces = f"{{{labels}}}" if labels else ""
    return f"{PREFIX}{family.name}{braces} {number(value)}\n"


def histogram(family: Family, labels: str, bounds: tuple[float, ...], counts: Sequence[int], total: float) -> str:
    """The lines of one histogram: ``counts`` a bucket (not cumulative), one more than ``bounds``; the sum of values."""
    cumulative = tuple(accumulate(counts))
    template = _histogram_template(family.name, bounds)
    separated = labels + "," if labels else ""
    braces = f"{{{labels}}}" if labels else ""
    text = template.replace("\0", separated).replace("\1", braces)
    return text % (*cumulative, number(total), cumulative[-1])


def histogram_lines(bounds: tuple[float, ...]) -> int:
    """How many lines one histogram has; its buckets come first, in order."""
    return len(bounds) + 3  # the bucket above all, sum and count


def number(value: float) -> str:
    """A finite number as both formats read it; integers exactly."""
    return str(value) if isinstance(value, int) else repr(value)


@lru_cache(maxsize=64)
def _histogram_template(name: str, bounds: tuple[float, ...]) -> str:
    """A histogram with NUL for "labels and a comma", SOH for "labels in braces", and %-places for the numbers."""
    full = PREFIX + name
    buckets = [f'{full}_bucket{{\0le="{bound!r}"}} %d\n' for bound in bounds]
    buckets.append(f'{full}_bucket{{\0le="+Inf"}} %d\n')
    return "".join(buckets) + f"{full}_sum\1 %s\n{full}_count\1 %d\n"


@lru_cache(maxsize=4096)
def _escaped(value: str) -> str:
    """A label's value. It may hold no ``%``: labels go into a histogram's template before the numbers do."""
    text = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return "".join(character for character in text if character.isprintable() and character != "%")
