"""Families with many series, written at once: all but the numbers stays from scrape to scrape, as a form.

With 200 tenants there are some 18,000 samples. One by one they take three times as long as a scrape has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tensor_wasm.telemetry.families import PREFIX, Exemplar, Family, Metric

#: How long a piece of text may be. Longer ones would be memory of their own, which the system has to clear each time.
_PIECE_BYTES = 64 << 10
#: How much longer a line may be than its form: a number of 64 bits.
_NUMBER_BYTES = 20


@dataclass(frozen=True, slots=True)
class _Form:
    """The text of a family with places for its numbers, in pieces, and how many numbers each takes."""

    labels: tuple[str, ...]
    pieces: tuple[tuple[bytes, int], ...]

    def filled(self, values: Sequence[float]) -> tuple[bytes, ...]:
        """The text."""
        found = []
        start = 0
        for piece, count in self.pieces:
            found.append(piece % tuple(values[start : start + count]))
            start += count
        return tuple(found)


class Sheet:
    """The forms of one source's families, one for each: those of the series that were written last.

    Any thread may write at any time. Labels are texts as :func:`~tensor_wasm.telemetry.families.labels_text` makes
    them, one for each series; values come in the same order.
    """

    def __init__(self) -> None:
        self._forms: dict[str, _Form] = {}

    def samples(self, family: Family, labels: tuple[str, ...], values: Iterable[int]) -> Metric:
        """A counter or gauge of many series."""
        return Metric(family, pieces=self._form(family, labels).filled(list(values)))

    def histograms(
        self,
        family: Family,
        labels: tuple[str, ...],
        rows: Iterable[tuple[Sequence[int], float]],
        exemplars: Mapping[int, Exemplar] | None = None,
    ) -> Metric:
        """A histogram of many series: of each how many values each bucket has with those before it, and their sum."""
        values: list[float] = []
        for counts, total in rows:
            values += counts
            values.append(total)
            values.append(counts[-1])
        return Metric(family, exemplars=exemplars or {}, pieces=self._form(family, labels).filled(values))

    def _form(self, family: Family, labels: tuple[str, ...]) -> _Form:
        known = self._forms.get(family.name)
        if known is None or known.labels != labels:
            known = self._forms[family.name] = _form(family, labels)
        return known


def _form(family: Family, labels: tuple[str, ...]) -> _Form:
    series = [_series(family, text).encode() for text in labels]
    values_of_one = len(family.bounds) + 3 if family.kind == "histogram" else 1
    longest_bytes = max(map(len, series), default=0) + values_of_one * _NUMBER_BYTES
    step = max(_PIECE_BYTES // max(longest_bytes, 1), 1)
    groups = [series[start : start + step] for start in range(0, len(series), step)]
    return _Form(labels, tuple((b"".join(group), len(group) * values_of_one) for group in groups))


def _series(family: Family, labels: str) -> str:
    """One series' lines with a place for each number. Labels have no ``%``."""
    name, braces = PREFIX + family.name, f"{{{labels}}}" if labels else ""
    if family.kind != "histogram":
        return f"{name}{braces} %d\n"
    begin = f"{name}_bucket{{{labels}{',' if labels else ''}le="
    buckets = "".join(f'{begin}"{bound!r}"}} %d\n' for bound in family.bounds)
    return f'{buckets}{begin}"+Inf"}} %d\n{name}_sum{braces} %a\n{name}_count{braces} %d\n'
