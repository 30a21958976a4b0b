"""Families with many series, written at once: all but the numbers stays from scrape to scrape, as a form.

With 200 tenants there are some 18,000 samples. One by one they take three times as long as a scrape has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

from tensor_wasm.telemetry.families import PREFIX, Exemplar, Family, Metric


class Sheet:
    """The forms of one source's families, one for each: those of the series that were written last.

    Any thread may write at any time. Labels are texts as :func:`~tensor_wasm.telemetry.families.labels_text` makes
    them, one for each series; values come in the same order.
    """

    def __init__(self) -> None:
        self._forms: dict[str, tuple[tuple[str, ...], str]] = {}

    def samples(self, family: Family, labels: tuple[str, ...], values: Iterable[float]) -> Metric:
        """A counter or gauge of many series."""
        return Metric(family, self._form(family, labels) % tuple(values))

    def histograms(
        self,
        family: Family,
        labels: tuple[str, ...],
        rows: Iterable[tuple[Sequence[int], float]],
        exemplars: Mapping[int, Exemplar] | None = None,
    ) -> Metric:
        """A histogram of many series: of each the counts a bucket, not cumulative, and the sum of values."""
        values: list[float] = []
        for counts, total in rows:
            values += accumulate(counts)
            count = values[-1]
            values.append(total)
            values.append(count)
        return Metric(family, self._form(family, labels) % tuple(values), exemplars or {})

    def _form(self, family: Family, labels: tuple[str, ...]) -> str:
        known = self._forms.get(family.name)
        if known is None or known[0] != labels:
            known = self._forms[family.name] = labels, _form(family, labels)
        return known[1]


def _form(family: Family, labels: tuple[str, ...]) -> str:
    """The family's lines with ``%s`` for each number. Labels have no ``%``."""
    name = PREFIX + family.name
    if family.kind != "histogram":
        return "".join(f"{name}{_braced(text)} %s\n" for text in labels)
    places = [f'le="{bound!r}"}} %s\n' for bound in family.bounds] + ['le="+Inf"} %s\n']
    lines = []
    for text in labels:
        begin = f"{name}_bucket{{{text}{',' if text else ''}"
        lines += [begin + place for place in places]
        lines.append(f"{name}_sum{_braced(text)} %s\n{name}_count{_braced(text)} %s\n")
    return "".join(lines)


def _braced(text: str) -> str:
    return f"{{{text}}}" if text else ""
