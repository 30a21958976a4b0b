"""What tracing costs a guest of 1,000 launches: every call traced, and one in a hundred, beside none, in turns.

Spans go to a collector's stand-in on the same machine, which throws them away. As ``python -m tensor_wasm.bench.trace``
this is that stand-in: it says its port and serves until its input ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tensor_wasm.bench.background import bench_config
from tensor_wasm.bench.dispatch import EMPTY, VECTOR_ADD
from tensor_wasm.bench.report import Report
from tensor_wasm.bench.sandbox import guest_wasm
from tensor_wasm.node import Node, Origin
from tensor_wasm.node.origin import acting_for
from tensor_wasm.telemetry.sampling import ARGUMENT, SAMPLER
from tensor_wasm.telemetry.tracing import NoTracing, Tracing

LAUNCHES = 1000
_WARM_UP = 50
#: The background of traced calls is to be at work before calls are timed.
_SETTLE_S = 0.3
_EVERY = {SAMPLER: "always_on"}
_SOME = {SAMPLER: "traceidratio", ARGUMENT: "0.01"}
_BARS = {"every call": "<= 1.1", "1 % of the calls": "<= 1.01"}
_GUESTS = {EMPTY: "an empty kernel", VECTOR_ADD: "vector_add over 1,024 elements"}
#: Of the median: a call that took longer was interrupted. Percentiles are of all calls.
_DISTURBED = 2
#: Long enough that one traced call in a hundred is in each turn.
_TURN_CALLS = 200


def measure(home: Path, duration_s: float) -> Report:
    """Time calls for about ``duration_s`` seconds a case."""
    report = Report("trace")
    with _collector() as endpoint, Node(bench_config(home, invoke_deadline_s=60)) as node:
        function = node.functions.deploy("bench", guest_wasm())
        for number, what in _GUESTS.items():
            guest = node.spawner.spawn(function.id).id
            node.kept.call(guest, "prepare", [number])

            def call(identity: str = guest) -> None:
                node.kept.call(identity, "launch_loop", [LAUNCHES])

            for _ in range(_WARM_UP):
                call()
            _compare(report, call, what, endpoint, duration_s)
            node.kept.delete(guest)
    return report


def _compare(report: Report, call: Callable[[], None], what: str, endpoint: str, duration_s: float) -> None:
    untraced: list[float] = []
    for name, sampler in (("every call", _EVERY), ("1 % of the calls", _SOME)):
        ratios: list[float] = []
        traced: list[float] = []
        with ExitStack() as whole:
            # With every call traced there is always something to export: that must not go on beside the others.
            tracing = None if sampler is _EVERY else whole.enter_context(_exporting(call, endpoint, sampler))
            until_s = time.perf_counter() + duration_s
            while not ratios or time.perf_counter() < until_s:
                before = _turn(call, NoTracing())
                with ExitStack() as turn:
                    found = _turn(call, tracing or turn.enter_context(_exporting(call, endpoint, sampler)))
                after = _turn(call, NoTracing())
                untraced += before + after
                traced += found
                ratios.append(_undisturbed_s(found) / _undisturbed_s(before + after))
        report.add(f"{what}, {name} traced", [each * 1e6 for each in traced], "us", peer=f"{what}, none traced")
        ratio = f"{what}, {name} traced: its time to none traced"
        report.add_value(ratio, statistics.median(ratios), "", bar=_BARS[name])
    report.add(f"{what}, none traced", [each * 1e6 for each in untraced], "us")


@contextmanager
def _exporting(call: Callable[[], None], endpoint: str, sampler: Mapping[str, str]) -> Iterator[Tracing]:
    """Tracing whose spans come out at the other end: calls were made until they did."""
    tracing = Tracing(endpoint, sampler, 0.0)
    tracing.start()
    try:
        until_s = 0.0
        for number in itertools.count():
            _traced_call(call, tracing, number)
            if not until_s and tracing.counts()["exported"]:
                until_s = time.perf_counter() + _SETTLE_S
            if until_s and time.perf_counter() >= until_s:
                break
        yield tracing
    finally:
        tracing.close()


def _undisturbed_s(calls: Sequence[float]) -> float:
    """Seconds of a call in the mean, without those that something else on the machine has interrupted."""
    most_s = _DISTURBED * statistics.median(calls)
    return statistics.fmean(each for each in calls if each <= most_s)


def _turn(call: Callable[[], None], tracing: Tracing | NoTracing) -> list[float]:
    """Seconds of each of some calls, with what tracing adds to each."""
    found = []
    for number in range(_TURN_CALLS):
        started_s = time.perf_counter()
        _traced_call(call, tracing, number)
        found.append(time.perf_counter() - started_s)
    return found


def _traced_call(call: Callable[[], None], tracing: Tracing | NoTracing, number: int) -> None:
    """One call as a request makes it."""
    trace = tracing.begin(None, 0, 0.0)
    with acting_for(Origin(str(number), 0, trace)):
        call()
    if trace is not None:
        trace.spans[0].end()
        trace.finish()


# --- the collector's stand-in -----------------------------------------------------------------------------


@contextmanager
def _collector() -> Iterator[str]:
    command = [sys.executable, "-m", "tensor_wasm.bench.trace"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1/traces"
        finally:
            process.kill()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            await writer.drain()
    writer.close()


async def _serve() -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", 0, limit=1 << 20)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    os.nice(19)
    asyncio.run(_serve())
