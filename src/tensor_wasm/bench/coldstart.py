"""How soon an instance is there: fresh, restored from a snapshot, started warm; and what snapshots cost."""

from __future__ import annotations

import io
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from tensor_wasm.bench.background import bench_config
from tensor_wasm.bench.report import Report
from tensor_wasm.bench.stateful_guest import slow_start_guest, stateful_guest
from tensor_wasm.bench.working_guest import steps_for
from tensor_wasm.node import KeptInstance, Node

_MIB = 1 << 20
_INIT_S = 0.05
_INVOCATIONS = 200
_RESTORES = 50
_TOUCHES = 10


def measure(home: Path, large_bytes: int, file_bytes: int) -> Report:
    """Measure with a small memory, one of ``large_bytes``, and files of ``file_bytes``."""
    report = Report("coldstart")
    limit_bytes = max(large_bytes, file_bytes) + 64 * _MIB
    with Node(bench_config(home, instance_memory_bytes=limit_bytes, snapshot_file_bytes=4 * limit_bytes)) as node:
        _measure_warm(report, node)
        _measure_snapshot(report, node, _MIB, captured="<= 10 ms", restored="<= 1 ms", touched=None)
        _measure_snapshot(report, node, large_bytes, captured="<= 2,000 ms", restored="<= 3 ms", touched="<= 30 ms")
        _measure_files(report, node, file_bytes)
    return report


def _measure_warm(report: Report, node: Node) -> None:
    probe = node.functions.deploy("probe", slow_start_guest(1)).id
    steps = steps_for(lambda count: node.invocations.invoke(probe, "work", [count]), _INIT_S)
    wasm = slow_start_guest(steps)
    cold, warm = node.functions.deploy("cold", wasm).id, node.functions.deploy("warm", wasm, prewarm="init").id
    fresh = report.add("invoke, no init", _times(lambda: node.invocations.invoke(cold, "noop"), _INVOCATIONS), "ms")
    samples = _times(lambda: node.invocations.invoke(warm, "noop"), _INVOCATIONS)
    found = report.add("invoke, prewarmed by an init of 50 ms", samples, "ms", peer=fresh.name)
    report.add_value("prewarmed to no init, P50", found.p50 / fresh.p50, "x", bar="<= 2")
    report.add("the init itself", _times(lambda: node.invocations.invoke(cold, "init"), _TOUCHES), "ms")


def _measure_snapshot(
    report: Report, node: Node, size_bytes: int, captured: str, restored: str, touched: str | None
) -> None:
    name = f"{size_bytes // _MIB} MiB"
    kept = _filled(node, size_bytes)
    began_s = time.perf_counter()
    snapshot = node.snapshots.capture(kept.id)
    report.add_value(f"{name}: capture, with the disk's sync", _since_ms(began_s), "ms", bar=captured)
    first_calls, touches = [], []
    for _ in range(_RESTORES if size_bytes <= 64 * _MIB else _TOUCHES):
        began_s = time.perf_counter()
        copy = node.spawner.restore(snapshot.id)
        node.kept.call(copy.id, "at", [4096])
        first_calls.append(_since_ms(began_s))
        began_s = time.perf_counter()
        node.kept.call(copy.id, "touch")
        touches.append(_since_ms(began_s))
        node.kept.delete(copy.id)
    report.add(f"{name}: restore to the first call's result", first_calls, "ms", bar=restored)
    report.add(f"{name}: a call that touches 1 % of its pages", touches, "ms", bar=touched)
    node.snapshots.delete(snapshot.id)
    node.kept.delete(kept.id)


def _measure_files(report: Report, node: Node, size_bytes: int) -> None:
    kept = _filled(node, size_bytes)
    snapshot = node.snapshots.capture(kept.id)
    began_s = time.perf_counter()
    data = b"".join(node.snapshot_files.export(snapshot.id))
    _add_rate(report, f"export of {size_bytes // _MIB} MiB", size_bytes, time.perf_counter() - began_s)
    began_s = time.perf_counter()
    node.snapshot_files.import_(str(uuid.uuid4()), io.BytesIO(data))
    _add_rate(
        report, f"import of {size_bytes // _MIB} MiB, with the disk's sync", size_bytes, time.perf_counter() - began_s
    )


def _add_rate(report: Report, name: str, size_bytes: int, elapsed_s: float) -> None:
    report.add_value(name, size_bytes / 1e6 / elapsed_s, "MB/s", bar=">= 300")


def _filled(node: Node, size_bytes: int) -> KeptInstance:
    kept = node.spawner.spawn(node.functions.deploy("state", stateful_guest(size_bytes)).id)
    node.kept.call(kept.id, "fill")
    return kept


def _times(work: Callable[[], object], count: int) -> list[float]:
    samples = []
    for _ in range(count):
        began_s = time.perf_counter()
        work()
        samples.append(_since_ms(began_s))
    return samples


def _since_ms(began_s: float) -> float:
    return (time.perf_counter() - began_s) * 1e3
