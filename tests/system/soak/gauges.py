"""What a node occupies: read from its metrics, from its admin routes and from /proc, and compared."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

_PREFIX = "tensor_wasm_"
_MIB = 1 << 20


@dataclass(slots=True)
class Series:
    """A scrape: values by name and labels, counters and gauges apart."""

    counters: dict[str, float] = field(default_factory=dict)
    gauges: dict[str, float] = field(default_factory=dict)

    def sum(self, name: str) -> float:
        """A gauge's sum over all labels."""
        full = _PREFIX + name
        return sum(value for key, value in self.gauges.items() if key.partition("{")[0] == full)


def parse(text: str) -> Series:
    series = Series()
    for family in text_string_to_metric_families(text):
        values = series.gauges if family.type == "gauge" else series.counters
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            values[f"{sample.name}{{{labels}}}"] = sample.value
    return series


#: Gauges that are 0 in a node that does nothing.
IDLE_GAUGES = (
    "active_instances", "dispatch_permits_used", "dispatch_waiting", "gpu_memory_used_bytes", "guest_memory_bytes",
    "queued_invocations",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reading:
    """A node at one moment. ``busy`` are the gauges and usages of :data:`IDLE_GAUGES`, and requests in flight.

    ``snapshots`` are files of them; ``stored_bytes`` what all tenants are said to store; ``compilers`` the node's child
    processes; ``mappings`` the ranges of its address space; ``files`` what its home holds.
    """

    busy: dict[str, float]
    functions: int
    artifacts: int
    snapshots: int
    stored_bytes: int
    tokens: int
    connections: int
    threads: int
    descriptors: int
    compilers: int
    mappings: int
    resident_bytes: int
    anonymous_bytes: int
    compilers_resident_bytes: int
    files: int
    files_bytes: int

    def as_dict(self) -> dict[str, object]:
        return asdict(self)

    @property
    def is_idle(self) -> bool:
        return not any(self.busy.values())


def read(pid: int, home: Path, metrics: str, tokens: int, stored_bytes: int, usages: dict[str, float]) -> Reading:
    """``metrics`` is a scrape; ``usages`` what the routes say is held, by name."""
    series = parse(metrics)
    busy = {name: series.sum(name) for name in IDLE_GAUGES} | usages
    busy["http_requests_in_flight"] = series.sum("http_requests_in_flight") - 1  # the scrape itself
    files = [path for path in home.rglob("*") if path.is_file()]
    children = children_of(pid)
    return Reading(
        busy=busy,
        functions=int(series.sum("functions")),
        artifacts=sum(path.parent.parent.name == "artifacts" for path in files),
        snapshots=sum(path.parent.name == "snapshots" for path in files),
        stored_bytes=stored_bytes,
        tokens=tokens,
        connections=int(series.sum("http_connections")),
        threads=entries(f"/proc/{pid}/task"),
        descriptors=entries(f"/proc/{pid}/fd"),
        compilers=len(children),
        mappings=Path(f"/proc/{pid}/maps").read_bytes().count(b"\n"),
        resident_bytes=_status(pid, "VmRSS"),
        anonymous_bytes=_status(pid, "RssAnon"),
        compilers_resident_bytes=sum(_status(child, "VmRSS") for child in children),
        files=len(files),
        files_bytes=sum(size_bytes(path) for path in files),
    )


def children_of(pid: int) -> list[int]:
    """Processes that a process started, zombies too."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            found += [int(text) for text in (task / "children").read_text().split()]
        except FileNotFoundError:  # the thread ended
            continue
    return found


def size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def entries(path: str) -> int:
    """How many entries a directory has."""
    return sum(1 for _ in Path(path).iterdir())


def _status(pid: int, name: str) -> int:
    """A line of /proc/PID/status in bytes; 0 for a process that ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:")), 0)


@dataclass(frozen=True, slots=True)
class Bound:
    """A row of :data:`BOUNDS`: how much more a number may be at the end than at the start, and why."""

    name: str
    value: Callable[[Reading], float]
    spare: Callable[[float], float]
    reason: str


def _none(_: float) -> float:
    return 0.0


#: Threads of the event loop's own pool (Python's :class:`~concurrent.futures.ThreadPoolExecutor`): it grows to this
#: size when so many things come at the same moment, and stays.
_LOOPS_THREADS = min(32, (os.cpu_count() or 1) + 4)


#: What must return to the start.
BOUNDS: tuple[Bound, ...] = (
    Bound("functions", lambda r: r.functions, _none, "all that were deployed were deleted"),
    Bound("artifacts", lambda r: r.artifacts, _none, "a deleted function's module goes with the last that has it"),
    Bound("snapshots", lambda r: r.snapshots, _none, "all that were made were deleted, and none is half-written"),
    Bound("stored_bytes", lambda r: r.stored_bytes, _none, "all that counted is gone, warm starts too"),
    Bound("tokens", lambda r: r.tokens, _none, "all that were made were revoked"),
    Bound("connections", lambda r: r.connections, _none, "clients closed theirs"),
    Bound(
        "threads",
        lambda r: r.threads,
        lambda _: _LOOPS_THREADS,
        "idle threads beyond the settings' end after 10 seconds, but the event loop's own",
    ),
    Bound("descriptors", lambda r: r.descriptors, _none, "sockets were closed; the database is open from the start"),
    Bound("compilers", lambda r: r.compilers, _none, "a pool of fixed size, full after the warm-up"),
    Bound("mappings", lambda r: r.mappings, lambda start: max(0.25 * start, 200), "modules in caches have some each"),
    Bound(
        "resident_bytes",
        lambda r: r.resident_bytes,
        lambda start: max(0.1 * start, 32 * _MIB),
        "caches are full after the warm-up; the rest is the allocator's own fragments",
    ),
)


def compare(start: Reading, end: Reading) -> dict[str, str]:
    """What did not return to the start, by name."""
    found = {f"{name} at the end": f"{value:g}" for name, value in end.busy.items() if value}
    for bound in BOUNDS:
        before, after = bound.value(start), bound.value(end)
        allowed = before + bound.spare(before)
        if after > allowed or (
            bound.name in ("functions", "tokens", "artifacts", "snapshots", "stored_bytes") and after < before
        ):
            found[f"{bound.name} at the end"] = f"{after:g}, not {before:g} (at most {allowed:g}: {bound.reason})"
    return found
