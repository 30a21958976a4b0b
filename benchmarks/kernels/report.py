"""What was measured, as a table to read, a table for a page, and JSON."""

from __future__ import annotations

import os
import platform
import statistics
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version

from cases import Bar
from compilation import Load
from peers import OURS
from timing import Samples, ratio

import tensor_wasm
from tensor_wasm.device.processor import processor_name

#: What the geometric mean of the ratios that count in it must reach.
_MEAN_BAR = 0.5
#: When runs took so much more time than the processor gave them, something else ran.
_BUSY = 1.1
#: Characters of a line of a page.
_PAGE_WIDTH = 120


@dataclass(frozen=True, slots=True)
class Row:
    """A measured case: samples by participant."""

    name: str
    size: str
    bar: Bar
    samples: dict[str, Samples]


@dataclass(slots=True)
class Report:
    """Everything a run found. ``clock`` says by which time ratios are made; ``two_cores`` how many times as fast
    two cores are as one, None when a launch uses one.
    """

    clock: str
    peers: dict[str, str]
    skipped: dict[str, str]
    rows: list[Row] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)
    two_cores: float | None = None
    is_quick: bool = False

    def ratio(self, row: Row, peer: str) -> float | None:
        """How many times as fast ours is as a peer in a case."""
        if peer not in row.samples:
            return None
        return ratio(row.samples[OURS], row.samples[peer], self.clock)

    def counted(self) -> list[float]:
        """The ratios that count in the mean."""
        found = [self.ratio(row, row.bar.peer) for row in self.rows if row.bar.in_mean]
        return [value for value in found if value is not None]

    def is_busy(self) -> bool:
        """Whether something else ran on the core meanwhile."""
        shares = [
            statistics.median(wall / cpu for wall, cpu in zip(s.wall_ms, s.cpu_ms, strict=True) if cpu)
            for row in self.rows
            for s in row.samples.values()
            if sum(s.cpu_ms) > 1
        ]
        return bool(shares) and max(shares) > _BUSY

    def machine(self) -> dict[str, object]:
        """Where this was measured."""
        return {
            "processor": processor_name(),
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "python": platform.python_version(),
            "tensor_wasm": tensor_wasm.__version__,
            "wasmtime": version("wasmtime"),
            **self.peers,
        }

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        return {
            "machine": self.machine(),
            "clock": self.clock,
            "quick": self.is_quick,
            "busy": self.is_busy(),
            "skipped": self.skipped,
            "kernels": [self._row_as_dict(row) for row in self.rows],
            "geometric_mean": _mean(self.counted()),
            "two_cores": self.two_cores,
            "compilation": [
                {
                    "name": load.name,
                    "bar_ms": load.bar_ms,
                    "median_ms": statistics.median(load.samples.of(self.clock)),
                    "min_ms": min(load.samples.of(self.clock)),
                    "wall_ms": load.samples.wall_ms,
                    "cpu_ms": load.samples.cpu_ms,
                }
                for load in self.loads
            ],
        }

    def _row_as_dict(self, row: Row) -> dict[str, object]:
        return {
            "name": row.name,
            "size": row.size,
            "bar": {"peer": row.bar.peer, "ratio": row.bar.ratio},
            "results": {
                name: {
                    "median_ms": statistics.median(samples.of(self.clock)),
                    "min_ms": min(samples.of(self.clock)),
                    "ratio": None if name == OURS else self.ratio(row, name),
                    "wall_ms": samples.wall_ms,
                    "cpu_ms": samples.cpu_ms,
                }
                for name, samples in row.samples.items()
            },
        }

    # --- tables -----------------------------------------------------------------------------------------

    def kernel_table(self) -> list[list[str]]:
        """Median and least time in milliseconds of each participant, and ratios to the peers."""
        header = ["kernel", "size", f"{OURS}, ms"]
        for peer in self.peers:
            header += [f"{peer}, ms", f"to {peer}"]
        table = [[*header, "bar"]]
        for row in self.rows:
            cells = [row.name, row.size, self._times(row.samples[OURS])]
            for peer in self.peers:
                value = self.ratio(row, peer)
                cells += [self._times(row.samples[peer]), "" if value is None else _factor(value)]
            value = self.ratio(row, row.bar.peer)
            table.append([*cells, _verdict(f"≥ {row.bar.ratio:g} × {row.bar.peer}", value, row.bar.ratio)])
        return table

    def compile_table(self) -> list[list[str]]:
        """Median and least time of each way of loading."""
        table = [["loading a kernel", "ms", "bar"]]
        for load in self.loads:
            median = statistics.median(load.samples.of(self.clock))
            met = "met" if median <= load.bar_ms else "missed"
            table.append([load.name, self._times(load.samples), f"≤ {load.bar_ms:g} ms: {met}"])
        return table

    def summary(self) -> list[str]:
        """The lines under the tables."""
        lines = []
        ratios = self.counted()
        if ratios:
            mean = _mean(ratios)
            assert mean is not None
            names = sum(row.bar.in_mean for row in self.rows)
            bar = _verdict(f"≥ {_MEAN_BAR:g} × PoCL", mean, _MEAN_BAR)
            least = _factor(min(ratios))
            lines.append(f"Geometric mean of the {names} with the bar of 0.25: {_factor(mean)}, least {least} ({bar}).")
        if self.two_cores is None:
            lines.append("conv2d on 2 cores against 1: not available, a launch uses one core (bar: ≥ 1.6 ×).")
        else:
            lines.append(
                f"conv2d on 2 cores against 1: {_factor(self.two_cores)} ({_verdict('≥ 1.6 ×', self.two_cores, 1.6)})."
            )
        return lines

    def notes(self) -> list[str]:
        """What a reader must know beside the figures."""
        lines = [f"skipped: {reason}" for reason in self.skipped.values()]
        if self.clock == "wall" and self.is_busy():
            lines.append("The machine was busy: runs waited for the processor. Repeat, or use --clock cpu.")
        return lines

    def text(self) -> str:
        """For a terminal."""
        versions = ", ".join(f"{name} {value}" for name, value in self.machine().items())
        parts = [versions, *self.notes(), "", *_aligned(self.kernel_table()), "", *self.summary()]
        if self.loads:
            parts += ["", *_aligned(self.compile_table())]
        return "\n".join(parts)

    def markdown(self) -> str:
        """For a page."""
        machine, today = self.machine(), datetime.now(UTC)
        versions = ", ".join(f"{name} {value}" for name, value in self.peers.items())
        time_word = "time" if self.clock == "wall" else "processor time"
        intro = (
            f"Read on {today:%d %B %Y}: {machine['processor']}, {machine['cores']} cores, one of them used; "
            f"Wasmtime {machine['wasmtime']}; {versions}. Median {time_word} in milliseconds, the least in brackets; "
            f"ratios are how many times as fast {OURS} is."
        )
        intro = "\n".join(textwrap.wrap(intro, _PAGE_WIDTH))
        parts = [intro, "", *_paragraphs(self.notes()), *_marked(self.kernel_table()), "", "\n\n".join(self.summary())]
        if self.loads:
            parts += ["", *_marked(self.compile_table())]
        return "\n".join(parts)

    def _times(self, samples: Samples) -> str:
        values = samples.of(self.clock)
        return _pair(statistics.median(values), min(values))


def _mean(ratios: Sequence[float]) -> float | None:
    return statistics.geometric_mean(ratios) if ratios else None


def _number(value: float) -> str:
    """Three digits that count."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:,.{digits}f}"


def _pair(median: float, least: float) -> str:
    return f"{_number(median)} ({_number(least)})"


def _factor(value: float) -> str:
    return f"{_number(value)} ×"


def _verdict(bar: str, value: float | None, least: float) -> str:
    if value is None:
        return f"{bar}: not measured"
    return f"{bar}: {'met' if value >= least else 'missed'}"


def _paragraphs(lines: Sequence[str]) -> list[str]:
    return [part for line in lines for part in (line, "")]


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def _marked(table: Sequence[Sequence[str]]) -> list[str]:
    header, *rows = table
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]
