"""``tensor-wasm bench``: benchmarks of this machine, each with its peer in the same run."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from tensor_wasm.bench.report import Report

app = typer.Typer(help="Measure this machine; every case with its peer in the same run.", no_args_is_help=True)

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
_Count = Annotated[int, typer.Option("--count", min=1000, help="Samples of each case.")]
_Seconds = Annotated[float, typer.Option("--seconds", min=1, help="How long each load lasts.")]


@app.command()
def dispatch(as_json: _Json = False, count: _Count = 200_000) -> None:
    """Launch an empty kernel, alone and on a busy node."""
    from tensor_wasm.bench import dispatch as benchmark

    _run(lambda home: benchmark.measure(home, count), as_json=as_json)


@app.command()
def kernel(as_json: _Json = False, count: _Count = 50_000) -> None:
    """Launch vector_add over 1,024 elements."""
    from tensor_wasm.bench import kernel as benchmark

    _run(lambda home: benchmark.measure(home, count), as_json=as_json)


@app.command()
def instance(as_json: _Json = False, count: _Count = 5_000) -> None:
    """Make, call and drop a fresh instance."""
    from tensor_wasm.bench import instance as benchmark

    _run(lambda home: benchmark.measure(home, count), as_json=as_json)


@app.command()
def invoke(as_json: _Json = False, seconds: _Seconds = 5.0) -> None:
    """Serve invocations over HTTP."""
    from tensor_wasm.bench import invoke as benchmark

    _run(lambda home: benchmark.measure(home, seconds), as_json=as_json)


def _run(measure: Callable[[Path], Report], *, as_json: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="tensor-wasm-bench-") as home:
        report = measure(Path(home))
    if as_json:
        sys.stdout.write(json.dumps(report.as_dict(), indent=2) + "\n")
        return
    for line in _lines(report):
        sys.stdout.write(line + "\n")


def _lines(report: Report) -> list[str]:
    width = max(len(case.name) for case in report.cases)
    lines = [f"{'case':<{width}}  {'P50':>10} {'P95':>10} {'P99':>10}  {'rate/s':>9}  {'vs peer':>8}  bar"]
    for case in report.cases:
        ratio = report.ratio(case)
        numbers = " ".join(f"{value:>7.3f} {case.unit}" for value in (case.p50, case.p95, case.p99))
        rate = "" if case.rate is None else f"{case.rate:,.0f}"
        shown = "" if ratio is None else f"{ratio:.1f} x"
        lines.append(f"{case.name:<{width}}  {numbers}  {rate:>9}  {shown:>8}  {case.bar or ''}".rstrip())
    return lines
