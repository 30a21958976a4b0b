"""The live board of ``tensor-wasm observe``: a node's document as a person reads it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tensor_wasm.cli.failures import ExitCode, Failure
from tensor_wasm.cli.observation import Document, Source
from tensor_wasm.cli.output import safe
from tensor_wasm.cli.quantities import age, duration, mebibytes, part, rate

_GOOD, _BAD, _QUIET, _HEAD = "green", "bold red", "dim", "bold"
_BAR_CELLS = 20
#: Rows of the two tables that may be long; what is above them matters more.
_TENANTS, _INSTANCES = 6, 8
_STATES = {"ok": _GOOD, "breached": _BAD}


def watch(source: Source, interval_s: float) -> None:
    """Draw the board until somebody has seen enough. Raises :class:`Failure` when there is nothing to draw at first."""
    document = source.document()
    console = Console()
    failure: Failure | None = None
    seen_s = time.monotonic()

    def ended(_number: int, _frame: object) -> None:
        raise SystemExit(ExitCode.OK)

    before = signal.signal(signal.SIGTERM, ended)
    try:
        with _keys() as key, Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(board(document, failure, time.monotonic() - seen_s), refresh=True)
                if key(interval_s) in ("q", "Q", "\x03", "\x04"):
                    return
                try:
                    document, failure, seen_s = source.document(), None, time.monotonic()
                except Failure as error:
                    failure = error
    except KeyboardInterrupt:
        return
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """A function that waits so many seconds for a key, and gives it, or nothing. Without a keyboard it only waits."""
    if not sys.stdin.isatty():
        yield _sleep
        return
    descriptor = sys.stdin.fileno()
    modes = termios.tcgetattr(descriptor)

    def wait(wait_s: float) -> str:
        until_s = time.monotonic() + wait_s
        while (left_s := until_s - time.monotonic()) > 0:
            if select.select([descriptor], [], [], left_s)[0]:
                given = os.read(descriptor, 1).decode("latin-1")
                if not given or given in "qQ\x03\x04":  # at the end of the input nobody can press a key any more
                    return given or "q"
        return ""

    try:
        tty.setcbreak(descriptor)
        yield wait
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, modes)


def _sleep(wait_s: float) -> str:
    time.sleep(wait_s)
    return ""


def board(document: Document, failure: Failure | None = None, age_s: float = 0.0) -> RenderableType:
    """The whole board. ``failure`` says why the document is ``age_s`` old."""
    sections: list[RenderableType] = [_head(document)]
    if failure is not None:
        sections.append(_line(("no answer ", _BAD), (f"for {age(age_s)}: {failure.message}", "")))
    sections += [_line(("unread ", _BAD), (text, "")) for text in _texts(document, "unread")]
    sections += [_latencies(document), _state(document), _objectives(document)]
    tenants, instances = _rows(document, "tenants"), _rows(document, "instances")
    if tenants:
        sections.append(_tenants(tenants[:_TENANTS]))
    if instances:
        sections.append(_instances(instances[:_INSTANCES], _get(document, "instance_count")))
    sections.append(_line(("q ends", _QUIET)))
    return Group(*sections)


# --- sections ---------------------------------------------------------------------------------------------


def _head(document: Document) -> Text:
    node, release = _dict(document, "node"), _dict(document, "release")
    previous = _dict(release, "previous")
    words: list[tuple[object, str]] = [
        (f"TensorWasm {_get(node, 'version')} ", _HEAD),
        (f"{str(_get(node, 'git_sha'))[:7]} on {_get(node, 'device')}, up {age(_get(node, 'uptime_s'))}", ""),
        (f", process {_get(node, 'pid')}, {_get(node, 'url') or 'not listening'}", _QUIET),
    ]
    if _get(node, "draining") is True:
        words.append((" DRAINING", _BAD))
    words.append((f"\nthe last {age(_get(document, 'covered_s'))}, at {_get(document, 'taken_at')}", _QUIET))
    if previous:
        p95 = duration(_get(previous, "dispatch_p95_s")) or "never"
        words.append((f"; before: {_get(previous, 'version')}, dispatch P95 {p95}", _QUIET))
    return _line(*words)


def _latencies(document: Document) -> Table:
    http = _dict(document, "http")
    rows = [
        ("dispatch", _dict(document, "dispatch")),
        ("kernels", _dict(document, "execution")),
        ("permit wait", _dict(document, "permit_wait")),
        ("HTTP", _dict(http, "all")),
        ("invoke", _dict(http, "invoke")),
        ("healthz", _dict(http, "healthz")),
    ]
    table = _table("LATENCY", "PER S", "P50", "P95", "P99")
    for name, latency in rows:
        quantiles = [duration(_get(latency, key)) or "-" for key in ("p50_s", "p95_s", "p99_s")]
        table.add_row(*_cells([name, rate(_get(latency, "per_s")), *quantiles]))
    return table


def _state(document: Document) -> Group:
    permits, loop, workers = _dict(document, "permits"), _dict(document, "event_loop"), _dict(document, "workers")
    jobs, kernels, snapshots = _dict(document, "jobs"), _dict(document, "kernels"), _dict(document, "snapshots")
    disk, http = _dict(document, "disk"), _dict(document, "http")
    wedged, stalled_s = _get(permits, "held_without_launch"), _get(loop, "stalled_s")
    lines = [
        _line(
            ("permits ", _HEAD),
            (_bar(_get(permits, "used"), _get(permits, "total")), _GOOD),
            (f" {_get(permits, 'used')} of {_get(permits, 'total')}, {part(_get(permits, 'utilization'))} used", ""),
            (f", {_get(permits, 'waiting')} wait", ""),
            (f", {wedged} HELD WITHOUT A LAUNCH" if wedged else "", _BAD),
        ),
        _line(
            ("event loop ", _HEAD),
            (f"late by P95 {duration(_get(loop, 'lag_p95_s')) or '-'}", ""),
            (f", at most {duration(_get(loop, 'lag_max_s')) or '-'}", ""),
            (f", STALLED FOR {age(stalled_s)}" if _is_long(stalled_s) else "", _BAD),
            ("   workers ", _HEAD),
            (f"{_get(workers, 'busy')} of {_get(workers, 'total')} busy, {_get(workers, 'queued')} wait", ""),
            ("   jobs ", _HEAD),
            (f"{_get(jobs, 'active')} run, {_get(jobs, 'pending')} wait", ""),
        ),
        _line(
            ("requests ", _HEAD),
            (f"{rate(_get(http, 'requests_per_s'))} a second, {_get(http, 'in_flight')} in flight", ""),
            (f", {part(_get(http, 'errors_5xx_ratio')) or 'none'} failed", ""),
            ("   kernels ", _HEAD),
            (f"{rate(_get(kernels, 'compiles_per_s'))} compiled a second", ""),
            ("   snapshots ", _HEAD),
            (f"{_get(snapshots, 'in_progress')} written, {rate(_get(snapshots, 'captures_per_s'))} a second", ""),
            ("   disk ", _HEAD),
            (f"{part(_get(disk, 'busy_ratio')) or '?'} busy", ""),
        ),
    ]
    for gpu in _rows(document, "gpus"):
        throttled = ", ".join(_texts(gpu, "throttle_reasons"))
        lines.append(
            _line(
                (f"{_get(gpu, 'device')} ", _HEAD),
                (f"{_get(gpu, 'temperature_celsius')} °C, {part(_get(gpu, 'utilization_ratio'))} used", ""),
                (f", slowed by {throttled}" if throttled else "", _BAD),
                (f", {_get(gpu, 'ecc_errors')} memory errors" if _get(gpu, "ecc_errors") else "", _BAD),
            )
        )
    return Group(*lines)


def _objectives(document: Document) -> Table:
    table = _table("OBJECTIVE", "VALUE", "TARGET", "STATE", "RUNBOOK")
    for row in _rows(document, "slo"):
        is_time = _get(row, "unit") == "s"
        value, target = (
            (duration(_get(row, name)) if is_time else part(_get(row, name), 2)) or "-" for name in ("value", "target")
        )
        state = str(_get(row, "state"))
        runbook = _get(row, "runbook") if state == "breached" else ""
        cells = _cells([_get(row, "name"), value, target, state.replace("_", " "), runbook])
        cells[3].stylize(_STATES.get(state, _QUIET))
        table.add_row(*cells)
    return table


def _tenants(tenants: Sequence[Mapping[str, Any]]) -> Table:
    table = _table(
        "TENANT", "LAUNCHES/S", "OF ALL", "OF KERNEL TIME", "PERMITS", "WAIT", "WAIT P95", "CALLS/S", "REFUSED/S"
    )
    for row in tenants:
        name = _get(row, "tenant")
        table.add_row(
            *_cells(
                [
                    "other" if name == "" else name,
                    rate(_get(row, "dispatches_per_s")),
                    part(_get(row, "dispatch_share")) or "-",
                    part(_get(row, "execution_share")) or "-",
                    _get(row, "held"),
                    _get(row, "waiting"),
                    duration(_get(row, "permit_wait_p95_s")) or "-",
                    rate(_get(row, "invocations_per_s")),
                    rate(_get(row, "refused_per_s")),
                ]
            )
        )
    return table


def _instances(instances: Sequence[Mapping[str, Any]], count: object) -> Table:
    table = _table(
        f"INSTANCE ({count})", "TENANT", "FUNCTION", "EXPORT", "STATE", "AGE", "LAUNCHES/S", "PERMITS", "MEMORY"
    )
    for row in instances:
        table.add_row(
            *_cells(
                [
                    _get(row, "id"),
                    _get(row, "tenant"),
                    _get(row, "function"),
                    _get(row, "export"),
                    str(_get(row, "state")).replace("_", " "),
                    age(_get(row, "age_s")),
                    rate(_get(row, "launches_per_s")),
                    _get(row, "held_permits"),
                    mebibytes(_get(row, "memory_bytes")),
                ]
            )
        )
    return table


# --- words and cells --------------------------------------------------------------------------------------


def _line(*words: tuple[object, str]) -> Text:
    """A line of styled words, each made safe: names and messages come from other people."""
    text = Text(no_wrap=True, overflow="ellipsis")
    for word, style in words:
        text.append(safe(str(word), keep="\n"), style)
    return text


def _cells(values: Sequence[object]) -> list[Text]:
    return [Text(safe(str(value)), no_wrap=True, overflow="ellipsis") for value in values]


def _table(first: str, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style=_HEAD)
    table.add_column(Text(safe(first)), no_wrap=True)
    for column in columns:
        table.add_column(column, no_wrap=True, overflow="ellipsis", justify="left")
    return table


def _bar(used: object, total: object) -> str:
    if not (isinstance(used, int | float) and isinstance(total, int | float)) or total <= 0:
        return ""
    filled = round(min(max(used / total, 0.0), 1.0) * _BAR_CELLS)
    return "█" * filled + "░" * (_BAR_CELLS - filled)


def _is_long(value: object) -> bool:
    return isinstance(value, int | float) and value >= 1.0


def _get(value: Mapping[str, Any], name: str) -> Any:
    found = value.get(name)
    return "" if found is None else found


def _dict(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def _rows(value: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    found = value.get(name)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _texts(value: Mapping[str, Any], name: str) -> list[str]:
    found = value.get(name)
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []
