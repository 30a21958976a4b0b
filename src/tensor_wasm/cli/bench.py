"""``tensor-wasm bench``: benchmarks of this machine, each with its peer in the same run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tensor_wasm.cli.output import print_json, print_line
from tensor_wasm.cli.session import Session, with_session

if TYPE_CHECKING:
    from click.decorators import FC

    from tensor_wasm.bench import Report

_count = click.option("--count", type=click.IntRange(min=1000), metavar="N", help="Samples of each case.")


def _seconds(meaning: str, *, default: float, least: float) -> Callable[[FC], FC]:
    """How long something is measured."""
    return click.option("--seconds", type=click.FloatRange(min=least), default=default, show_default=True, help=meaning)


@click.group()
def bench() -> None:
    """Measure this machine; every case has its peer in the same run."""


@bench.command()
@_count
@with_session
@click.pass_obj
def dispatch(session: Session, count: int | None) -> None:
    """Launch an empty kernel, alone and on a busy node."""
    from tensor_wasm.bench.dispatch import measure

    _run(session, lambda home: measure(home, count or 200_000))


@bench.command()
@_count
@with_session
@click.pass_obj
def board(session: Session, count: int | None) -> None:
    """Launch to the board of a GPU and back, without one."""
    from tensor_wasm.bench.board import measure

    _run(session, lambda home: measure(home, count or 100_000))


@bench.command()
@_count
@with_session
@click.pass_obj
def kernel(session: Session, count: int | None) -> None:
    """Launch vector_add over 1,024 elements."""
    from tensor_wasm.bench.kernel import measure

    _run(session, lambda home: measure(home, count or 50_000))


@bench.command()
@_count
@with_session
@click.pass_obj
def instance(session: Session, count: int | None) -> None:
    """Make, call and drop a fresh instance."""
    from tensor_wasm.bench.instance import measure

    _run(session, lambda home: measure(home, count or 5_000))


@bench.command()
@_seconds("How long a load lasts.", default=5.0, least=1)
@with_session
@click.pass_obj
def invoke(session: Session, seconds: float) -> None:
    """Serve invocations over HTTP."""
    from tensor_wasm.bench.invoke import measure

    _run(session, lambda home: measure(home, seconds))


@bench.command()
@_seconds("How long each case lasts.", default=5.0, least=0.1)
@with_session
@click.pass_obj
def fairness(session: Session, seconds: float) -> None:
    """Share permits between guests and tenants."""
    from tensor_wasm.bench.fairness import measure

    _run(session, lambda home: measure(home, seconds))


@bench.command()
@_seconds("How long each case lasts.", default=5.0, least=1)
@with_session
@click.pass_obj
def admission(session: Session, seconds: float) -> None:
    """Invoke over HTTP while another tenant floods the node."""
    from tensor_wasm.bench.admission import measure

    _run(session, lambda home: measure(home, seconds))


@bench.command()
@click.option("--instances", type=click.IntRange(4, 1000), default=100, show_default=True, help="How many are ended.")
@with_session
@click.pass_obj
def termination(session: Session, instances: int) -> None:
    """End instances in every state."""
    from tensor_wasm.bench.termination import measure

    _run(session, lambda home: measure(home, instances))


@bench.command()
@click.option("--jobs", "count", type=click.IntRange(1, 1_000_000), default=10_000, show_default=True, help="How many.")
@with_session
@click.pass_obj
def jobs(session: Session, count: int) -> None:
    """Queue background jobs over HTTP and drain them."""
    from tensor_wasm.bench.jobs import measure

    _run(session, lambda home: measure(home, count))


@bench.command()
@click.option("--large-mib", type=click.IntRange(1, 2048), default=512, show_default=True, help="The large memory.")
@click.option("--file-mib", type=click.IntRange(1, 2048), default=128, show_default=True, help="What files hold.")
@with_session
@click.pass_obj
def coldstart(session: Session, large_mib: int, file_mib: int) -> None:
    """Make instances afresh, from snapshots and warm; capture, export and import."""
    from tensor_wasm.bench.coldstart import measure

    _run(session, lambda home: measure(home, large_mib << 20, file_mib << 20))


@bench.command()
@with_session
@click.pass_obj
def stream(session: Session) -> None:
    """Stream what a guest emits over HTTP."""
    from tensor_wasm.bench.stream import measure

    _run(session, measure)


@bench.command()
@_seconds("How long launches are timed.", default=8.0, least=1)
@with_session
@click.pass_obj
def scrape(session: Session, seconds: float) -> None:
    """Read the metrics of a node with 200 tenants, and launch meanwhile."""
    from tensor_wasm.bench.scrape import measure

    _run(session, lambda home: measure(home, seconds))


@bench.command()
@_seconds("How long each case lasts.", default=6.0, least=0.1)
@with_session
@click.pass_obj
def trace(session: Session, seconds: float) -> None:
    """Trace a guest of 1,000 launches: every call, one in a hundred, none."""
    from tensor_wasm.bench.trace import measure

    _run(session, lambda home: measure(home, seconds))


def _run(session: Session | None, measure: Callable[[Path], Report]) -> None:
    with tempfile.TemporaryDirectory(prefix="tensor-wasm-bench-") as home:
        report = measure(Path(home))
    if session is not None and session.is_json:
        print_json(report.as_dict())
        return
    for line in _lines(report):
        print_line(line)


def _lines(report: Report) -> list[str]:
    """The report as a table. A case that is one number has it in the first column."""
    width = max(len(case.name) for case in report.cases)
    unit_width = max(len(case.unit) for case in report.cases)
    titles = [f"{title:>{8 + unit_width}}" for title in ("P50", "P95", "P99", "max")]
    lines = [f"{'case':<{width}}  {' '.join(titles)}  {'rate/s':>9}  {'vs peer':>8}  bar"]
    for case in report.cases:
        ratio = report.ratio(case)
        values = [case.p50, case.p95, case.p99, case.highest]
        if case.count == 1 and case.highest is not None:
            values[1:] = [None] * 3
        numbers = " ".join(_number(value, case.unit, unit_width) for value in values)
        rate = "" if case.rate is None else f"{case.rate:,.0f}"
        shown = "" if ratio is None else f"{ratio:.1f} x"
        lines.append(f"{case.name:<{width}}  {numbers}  {rate:>9}  {shown:>8}  {case.bar or ''}".rstrip())
    return lines


def _number(value: float | None, unit: str, unit_width: int) -> str:
    return " " * (8 + unit_width) if value is None else f"{value:>7.3f} {unit:<{unit_width}}"
