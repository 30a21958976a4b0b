"""What PromQL expressions name, and whether a node has it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

#: Labels that the scrape or Prometheus sets, not the node.
SCRAPED = frozenset({"deployment", "instance", "job"})

_SELECTOR = re.compile(r"(?<![\w:])(tensor_wasm[\w:]*)\s*(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"')
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")


@dataclass(frozen=True, slots=True)
class Matcher:
    label: str
    operator: str
    value: str

    def holds(self, value: str) -> bool:
        """Whether a label's value is one that it selects."""
        is_same = re.fullmatch(self.value, value) is not None if self.operator.endswith("~") else value == self.value
        return is_same == (self.operator in {"=", "=~"})


@dataclass(frozen=True, slots=True)
class Selector:
    """A metric's name and what is asked of its labels."""

    name: str
    matchers: tuple[Matcher, ...]

    @property
    def is_recorded(self) -> bool:
        return ":" in self.name


@dataclass(frozen=True, slots=True)
class Series:
    """One series of a node: its name and labels."""

    name: str
    labels: dict[str, str]


def series_of(text: str) -> list[Series]:
    """All series of a node's /metrics."""
    return [
        Series(sample.name, sample.labels)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


def selectors(expression: str) -> list[Selector]:
    """What an expression reads."""
    return [
        Selector(name, tuple(Matcher(*found) for found in _MATCHER.findall(braces or "")))
        for name, braces in _SELECTOR.findall(expression)
    ]


def grouped_by(expression: str) -> set[str]:
    """The labels that an expression aggregates or matches by."""
    return {label.strip() for labels in _GROUPING.findall(expression) for label in labels.split(",") if label.strip()}


def unknown(expression: str, series: Iterable[Series]) -> list[str]:
    """What an expression names and none of the series has: metrics, labels, values of labels. Empty when all is well.

    Recorded names are not looked at. A label that an expression aggregates by must be of one of its metrics.
    """
    series = list(series)
    wrong: list[str] = []
    has_labels: set[str] = set(SCRAPED)
    read = [selector for selector in selectors(expression) if not selector.is_recorded]
    for selector in read:
        same = [one for one in series if one.name == selector.name]
        if not same:
            wrong.append(f"no metric {selector.name}")
            continue
        has_labels |= same[0].labels.keys()
        own = [matcher for matcher in selector.matchers if matcher.label not in SCRAPED]
        wrong += [
            f"{selector.name} has no label {matcher.label}" for matcher in own if matcher.label not in same[0].labels
        ]
        if not any(all(m.holds(one.labels.get(m.label, "")) for m in own) for one in same):
            wrong.append(f"no series for {selector}")
    if read:
        wrong += [f"no label {label} in {expression}" for label in grouped_by(expression) - has_labels]
    return wrong
