"""Which of a test's many repetitions the fast tests run; the others are slow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

#: Rooms whose tests repeat one behaviour over many formats, shapes, widths and compilers.
ROOMS = ("compiler", "device/fence", "kernels")

#: A parameter's name, or those that ``parametrize`` takes together; and which values.
_Value = tuple[tuple[str, ...], tuple[int, ...]]


def some(values: Sequence[object], count: int) -> list[object]:
    """A test's values, for ``parametrize``, of which ``count`` spread evenly are fast: for draws and other likes."""
    fast = {len(values) * place // count for place in range(count)}
    return [pytest.param(value, marks=() if place in fast else pytest.mark.slow) for place, value in enumerate(values)]


def mark_the_rest_slow(items: Iterable[pytest.Item], tests: Path) -> None:
    """Mark slow all of a test's combinations but as many as it takes for each value of each parameter to occur.

    Those that are slow already neither count nor change. The choice depends on nothing but the parameters' order.
    """
    folders = {tests / room for room in ROOMS}
    repeated: dict[str, list[pytest.Function]] = defaultdict(list)
    for item in items:
        is_repeated = isinstance(item, pytest.Function) and hasattr(item, "callspec")
        if is_repeated and not folders.isdisjoint(item.path.parents) and not item.get_closest_marker("slow"):
            repeated[item.nodeid.partition("[")[0]].append(item)
    for combinations in repeated.values():
        kept = covering([_values(item) for item in combinations])
        for place, item in enumerate(combinations):
            if place not in kept:
                item.add_marker(pytest.mark.slow)


def _values(item: pytest.Function) -> frozenset[_Value]:
    """By identity: values need not be hashable, and a parameter's are the same objects in all combinations."""
    parameters = dict(item.callspec.params)
    found: set[_Value] = set()
    for mark in item.iter_markers("parametrize"):
        names = mark.args[0].replace(",", " ").split() if isinstance(mark.args[0], str) else mark.args[0]
        found.add((tuple(names), tuple(id(parameters.pop(name)) for name in names)))
    return frozenset(found | {((name,), (id(value),)) for name, value in parameters.items()})


def covering(sets: list[frozenset[_Value]]) -> set[int]:
    """Which of the sets have all elements together: always the first of those that add most."""
    missing = frozenset[_Value]().union(*sets)
    kept: set[int] = set()
    while missing:
        place = max(range(len(sets)), key=lambda place: len(sets[place] & missing))
        kept.add(place)
        missing -= sets[place]
    return kept
