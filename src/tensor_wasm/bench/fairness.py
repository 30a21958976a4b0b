"""Who gets the device's permits when many want them: guests of equal rank, a tenant that floods, tenants by weight.

Each case runs a second time as a *plain first-come semaphore*: the same guests under one tenant. Within a tenant
permits are given in order of arrival, so with one tenant in all that is what the gate is. Guests run on threads of the
priority that a node gives its workers.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tensor_wasm.bench.dispatch import VECTOR_ADD
from tensor_wasm.bench.report import Report
from tensor_wasm.bench.sandbox import KeptGuest, Workshop, guest_wasm
from tensor_wasm.bench.working_guest import steps_for, working_guest
from tensor_wasm.dispatch import Ledger, Share
from tensor_wasm.dispatch.layout import COUNTERS, HISTOGRAM_SUM, INSTANCE_COUNTERS
from tensor_wasm.errors import InternalError, Terminated
from tensor_wasm.runtime import FIRST_NICENESS, FURTHER_NICENESS, CallFailed, step_back

_GUESTS = 64
_PERMITS_FOR_ALL = 64
_PERMITS = 4
_LAUNCH_S = 0.001
_WEIGHT = 3
_SETTLE_S = 0.3
_FOREVER = (1 << 31) - 1
_FIRST_COME = ", first come"


def measure(home: Path, duration_s: float) -> Report:
    """Run each case for ``duration_s`` seconds."""
    report = Report("fairness")
    with _workshop(home, guest_wasm(), _PERMITS_FOR_ALL) as workshop:
        for is_fair in (True, False):
            _equal_guests(report, workshop, duration_s, is_fair=is_fair)
    # With more permits than cores also the system's scheduler has a say in who gets on; with one a core it has not.
    for permits in sorted({_PERMITS, min(_PERMITS, len(os.sched_getaffinity(0)))}, reverse=True):
        with _workshop(home, working_guest(), permits) as workshop:
            for is_fair in (True, False):
                _beside_a_flood(report, workshop, permits, duration_s, is_fair=is_fair)
    for permits in (_PERMITS, 1):
        with _workshop(home, working_guest(), permits) as workshop:
            for is_fair in (True, False):
                _by_weight(report, workshop, permits, duration_s, is_fair=is_fair)
    return report


@contextmanager
def _workshop(home: Path, wasm: bytes, permits: int) -> Iterator[Workshop]:
    workshop = Workshop(home, wasm, permits)
    try:
        yield workshop
    finally:
        workshop.close()


# --- cases -------------------------------------------------------------------------------------------------


def _equal_guests(report: Report, workshop: Workshop, duration_s: float, *, is_fair: bool) -> None:
    """All launch ``vector_add`` without rest: does one starve?"""
    tenants = range(_GUESTS) if is_fair else [0] * _GUESTS
    with ExitStack() as stack:
        guests = [stack.enter_context(workshop.guest(tenant)) for tenant in tenants]
        for guest in guests:
            guest.run("prepare", VECTOR_ADD)
        with flooding(guests, "launch_loop", _FOREVER):
            launches, elapsed_s = _launches(guests, duration_s)
    report.add_value(
        _name(f"{_GUESTS} equal guests, {_PERMITS_FOR_ALL} permits: slowest to the median", is_fair),
        _ratio(float(launches.min()), float(np.median(launches))),
        "x",
        rate=float(launches.sum()) / elapsed_s,
        bar=">= 0.5" if is_fair else None,
    )


def _beside_a_flood(report: Report, workshop: Workshop, permits: int, duration_s: float, *, is_fair: bool) -> None:
    """Tenant A floods with launches of 1 ms, B launches one at a time: how long does each launch of B's wait?"""
    with ExitStack() as stack:
        flood = [stack.enter_context(workshop.guest(1)) for _ in range(_GUESTS)]
        one = stack.enter_context(workshop.guest(2 if is_fair else 1))
        for guest in (*flood, one):
            guest.run("prepare")
        steps = _steps(one)
        meter = Meter(workshop.ledger, [one])
        others = Meter(workshop.ledger, flood)
        niceness = FIRST_NICENESS if is_fair else FURTHER_NICENESS
        with flooding(flood, "flood", steps):
            before = others.read()
            with ThreadPoolExecutor(1, initializer=step_back, initargs=(niceness,)) as pool:
                found = pool.submit(_one_at_a_time, one, meter, steps, duration_s).result()
            flood_s = (others.read() - before).held_s
    held_s, waited_s = sum(times.held_s for times in found), sum(times.wait_s for times in found)
    case = f"one at a time beside a flood, {permits} permits"
    report.add(
        _name(f"{case}: wait", is_fair),
        [times.wait_s * 1e3 for times in found],
        "ms",
        rate=len(found) / (held_s + waited_s),
        bar="P95 <= 2 ms" if is_fair else None,
        peer=_name(f"{case}: wait", False) if is_fair else None,
    )
    report.add_value(
        _name(f"{case}: holds one, of the time it asks", is_fair),
        held_s / (held_s + waited_s),
        "x",
        bar=">= 0.4" if is_fair else None,
    )
    part = held_s / (held_s + flood_s)
    report.add_value(_name(f"{case}: part of their time, fair is {1 / permits:g}", is_fair), part, "x")


def _one_at_a_time(guest: KeptGuest, meter: Meter, steps: int, duration_s: float) -> list[Times]:
    """Launch again and again; the times of each launch."""
    found = []
    began_s = time.perf_counter()
    while time.perf_counter() - began_s < duration_s:
        start = meter.read()
        guest.run("launch", steps)
        found.append(meter.read() - start)
    return found


def _by_weight(report: Report, workshop: Workshop, permits: int, duration_s: float, *, is_fair: bool) -> None:
    """Two tenants flood, one of three times the other's weight."""
    with ExitStack() as stack:
        half = _GUESTS // 2
        light = [stack.enter_context(workshop.guest(3)) for _ in range(half)]
        heavy = [stack.enter_context(workshop.guest(4 if is_fair else 3)) for _ in range(half)]
        workshop.ledger.set_share(4, Share(_WEIGHT))
        for guest in (*light, *heavy):
            guest.run("prepare")
        steps = _steps(light[0])
        with flooding([*light, *heavy], "flood", steps):
            launches, elapsed_s = _launches([*light, *heavy], duration_s)
    case = f"weights 1 and {_WEIGHT}, {permits} permits" if permits > 1 else f"weights 1 and {_WEIGHT}, 1 permit"
    report.add_value(
        _name(f"{case}: launches, second to first", is_fair),
        _ratio(float(launches[half:].sum()), float(launches[:half].sum())),
        "x",
        rate=float(launches.sum()) / elapsed_s,
        bar=f"{0.9 * _WEIGHT:g} to {1.1 * _WEIGHT:g}" if is_fair else None,
    )


def _steps(guest: KeptGuest) -> int:
    """How many steps a launch of 1 ms has."""
    return steps_for(lambda count: guest.run("launch", count), _LAUNCH_S)


def _name(case: str, is_fair: bool) -> str:
    return case if is_fair else case + _FIRST_COME


def _ratio(one: float, other: float) -> float:
    """Their ratio; 0 when there was no time to measure."""
    return one / other if other else 0.0


def _launches(guests: list[KeptGuest], duration_s: float) -> tuple[NDArray[np.int64], float]:
    """How many launches each guest completes in about ``duration_s``, and how long that was."""
    before, began_s = _completed(guests), time.perf_counter()
    time.sleep(duration_s)
    return _completed(guests) - before, time.perf_counter() - began_s


def _completed(guests: list[KeptGuest]) -> NDArray[np.int64]:
    return np.array([guest.slot.dispatches for guest in guests])


# --- guests that launch without end ------------------------------------------------------------------------


@contextmanager
def flooding(guests: list[KeptGuest], export: str, *args: int) -> Iterator[None]:
    """Run an export that does not return in each guest, on a thread of its own, while the context lasts.

    Raises :class:`InternalError` when one ended before it was told to.
    """
    early: list[str] = []

    def run(guest: KeptGuest, niceness: int) -> None:
        step_back(niceness)
        try:
            early.append(f"{export} gave {guest.call(export, *args)}")
        except (Terminated, CallFailed) as ended:  # the latter when it was waiting for a permit
            if not guest.slot.terminate_asked:
                early.append(str(ended))

    threads = []
    tenants: set[int] = set()
    for guest in guests:
        niceness = FURTHER_NICENESS if guest.slot.tenant_index in tenants else FIRST_NICENESS
        tenants.add(guest.slot.tenant_index)
        threads.append(threading.Thread(target=run, args=(guest, niceness), daemon=True))
        threads[-1].start()
    try:
        time.sleep(_SETTLE_S)
        yield
    finally:
        for guest in guests:
            guest.slot.ask_to_terminate()
        for thread in threads:
            thread.join()
    if early:
        raise InternalError(f"{len(early)} guests ended early: {early[0]}")


# --- times of launches -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Times:
    """What launches took so far: waiting for permits, and executing, which is what a permit is held for."""

    wait_s: float
    held_s: float

    def __sub__(self, earlier: Times) -> Times:
        return Times(self.wait_s - earlier.wait_s, self.held_s - earlier.held_s)


class Meter:
    """Reads the times of some guests in the ledger, without stopping them; exact while none of them launches."""

    def __init__(self, ledger: Ledger, guests: list[KeptGuest]) -> None:
        self._ledger = ledger  # keeps the memory
        self._waits, self._executions = (
            [
                ctypes.c_int64.from_address(
                    ledger.memory.address + guest.slot.offset + INSTANCE_COUNTERS + histogram + HISTOGRAM_SUM
                )
                for guest in guests
            ]
            for histogram in (COUNTERS.permit_wait, COUNTERS.execution)
        )

    def read(self) -> Times:
        """The times until now."""
        wait_ns, held_ns = (sum(word.value for word in words) for words in (self._waits, self._executions))
        return Times(wait_ns / 1e9, held_ns / 1e9)
