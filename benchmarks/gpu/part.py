"""A part of the measurement: a process of its own that leaves what it found as JSON, after every finding."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
for folder in (ROOT / "src", ROOT / "tests"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

#: In place of a GPU's index: a driver that is emulated, to try all this without a GPU.
EMULATED = "emulated"


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table. ``is_met`` says whether the bar is, None where there is none."""

    name: str
    found: str
    bar: str = ""
    is_met: bool | None = None
    note: str = ""


@dataclass(slots=True)
class Findings:
    """What a part found so far. Each change is written to ``output``: a part that is ended has not run in vain."""

    output: Path | None
    rows: list[Row] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, found: str, bar: str = "", is_met: bool | None = None, note: str = "") -> None:
        """Add a line."""
        self.rows.append(Row(name, found, bar, is_met, note))
        print(f"  {name}: {found}" + (f"  [{bar}: {'met' if is_met else 'missed'}]" if is_met is not None else ""))
        self._write()

    def keep(self, name: str, value: Any) -> None:
        """Add a detail, which only the JSON has."""
        self.details[name] = value
        self._write()

    def _write(self) -> None:
        if self.output is not None:
            text = json.dumps({"rows": [asdict(row) for row in self.rows], "details": self.details}, indent=1)
            self.output.write_text(text, "utf-8")


@dataclass(frozen=True, slots=True)
class Options:
    """How to measure: the GPU's index, or a word for what stands in for one; ``is_quick`` for sizes that show only that
    everything works.
    """

    gpu: str
    is_quick: bool
    seconds: float


def run(measure: Callable[[Options, Findings], None], description: str | None) -> None:
    """The command line of a part. Ends the process; the exit code is 1 when the part failed."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--gpu", default="0", help=f"a GPU's index, or {EMULATED}")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, which only show that everything works")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each timed case lasts about")
    parser.add_argument("--output", type=Path, help="a file for what was found, as JSON")
    options = parser.parse_args()
    findings = Findings(options.output)
    try:
        measure(Options(options.gpu, options.quick, options.seconds), findings)
    except Exception as error:
        traceback.print_exc()
        findings.keep("error", told(error))
        sys.exit(1)


def attempt(findings: Findings, name: str, measure: Callable[[], None]) -> None:
    """Measure one case; when it fails that is a line, and the others go on."""
    try:
        measure()
    except Exception as error:
        traceback.print_exc()
        findings.add(name, f"failed: {told(error)}", is_met=False)


def told(error: Exception) -> str:
    """An error in a line: its kind, and the start and the end of what it says."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text if len(text) <= 240 else text[:80] + ' ... ' + text[-150:]}"


def percentiles(samples: Sequence[float]) -> tuple[float, float, float]:
    """The 50th, 95th and 99th."""
    ordered = sorted(samples)
    p50, p95, p99 = (ordered[min(int(len(ordered) * part), len(ordered) - 1)] for part in (0.5, 0.95, 0.99))
    return p50, p95, p99


def microseconds(samples: Sequence[float]) -> str:
    """Percentiles of microseconds, for a table."""
    return "P50 {:.2f}, P95 {:.2f}, P99 {:.2f} µs".format(*percentiles(samples))


def median_s(action: Callable[[], object], *, rounds: int, seconds: float) -> float:
    """What an action takes: the median of at least that many rounds, or of as many as last so long."""
    samples = []
    end = time.monotonic() + seconds
    while len(samples) < rounds or (time.monotonic() < end and len(samples) < 1000):
        began = time.perf_counter()
        action()
        samples.append(time.perf_counter() - began)
    return statistics.median(samples)


def rate(size_bytes: float, seconds: float) -> str:
    """Bytes a second, for a table."""
    return f"{size_bytes / seconds / 1e9:.1f} GB/s" if seconds else "-"
