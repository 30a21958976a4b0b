"""The table of what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from part import Row

_HEADER = ("case", "found", "bar", "")


class Report:
    """The lines of all parts. ``machine`` says where they were found."""

    def __init__(self, machine: Mapping[str, str]) -> None:
        self._machine = machine
        self._rows: dict[str, list[Row]] = {}

    def add(self, part: str, rows: Sequence[Row]) -> None:
        """Add a part's lines."""
        self._rows[part] = list(rows)

    def title(self) -> str:
        """When and on what."""
        found = self._machine
        driver = f"driver {found['driver']}, " if "driver" in found else ""
        return (
            f"Read on {found['date']}: {found['gpu']} ({found['memory']}, {found['sm']}), {driver}"
            f"CUDA {found['cuda']}; "
            f"{found['cores']} cores of {found.get('processor', 'a processor')}, Linux {found['system']}, "
            f"Python {found['python']}."
        )

    def rows(self) -> list[tuple[str, str, str, str]]:
        """The table, its header first."""
        lines = [_HEADER]
        for rows in self._rows.values():
            for row in rows:
                verdict = "" if row.is_met is None else "met" if row.is_met else "**missed**"
                found = f"{row.found} ({row.note})" if row.note else row.found
                lines.append((row.name, found, row.bar, verdict))
        return lines

    def as_dicts(self, part: str) -> list[dict[str, Any]]:
        """A part's lines, for JSON."""
        return [asdict(row) for row in self._rows.get(part, ())]


def marked(table: Sequence[Sequence[str]]) -> list[str]:
    """Markdown."""
    header, *rows = table
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]
