"""The page that an operator has in hand, as it stands: its queries by number, its commands by how they begin."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from system.front_door import ROOT
from system.prometheus import scaled

DIRECTORY = ROOT / "docs" / "runbooks"
DISPATCH = DIRECTORY / "dispatch-latency-spike.md"

_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
_ITEM = re.compile(r"^(\d+)\. ", re.MULTILINE)
_FENCE = re.compile(r"^ *```(?P<kind>\w+)\n(?P<body>.*?)^ *```$", re.MULTILINE | re.DOTALL)
_ID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")


@dataclass(frozen=True, slots=True)
class Runbook:
    """A page's text; windows of its queries are divided by ``factor``, as those of the rules are."""

    text: str
    factor: float

    def query(self, number: int, which: int = 1) -> str:
        """A query of "First queries", by its number there; ``which`` where there are several under one."""
        return scaled(self._fences("First queries", number, "promql")[which - 1], self.factor)

    def command(self, beginning: str, *ids: str) -> str:
        """The first command of the page that begins so, with these instances in the place of its example's."""
        lines = [line.strip() for _, body in _fences(self.text, "sh") for line in body.splitlines()]
        found = next((line for line in lines if line.startswith(beginning)), None)
        assert found is not None, f"the runbook has no command that begins with {beginning!r}"
        return _ID.sub(" ".join(ids), found) if ids else found

    def step_query(self, step: int, which: int = 1) -> str:
        """A query of a step of "Mitigations, in order"."""
        return scaled(self._fences("Mitigations, in order", step, "promql")[which - 1], self.factor)

    def _fences(self, heading: str, number: int, kind: str) -> list[str]:
        section = _part(self.text, _HEADING, heading)
        found = [body for _, body in _fences(_part(section, _ITEM, str(number)), kind)]
        assert found, f"{heading!r} {number} of the runbook has no {kind}"
        return found


def read(path: Path, factor: float) -> Runbook:
    """A runbook's page."""
    return Runbook(path.read_text("utf-8"), factor)


def _part(text: str, mark: re.Pattern[str], name: str) -> str:
    """From a mark to the next of its kind."""
    marks = list(mark.finditer(text))
    for at, found in enumerate(marks):
        if found[1] == name:
            return text[found.end() : marks[at + 1].start() if at + 1 < len(marks) else len(text)]
    raise AssertionError(f"the runbook has no {name!r}")


def _fences(text: str, kind: str) -> list[tuple[str, str]]:
    return [(found["kind"], found["body"]) for found in _FENCE.finditer(text) if found["kind"] == kind]
