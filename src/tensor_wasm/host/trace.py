"""What a traced request did, and when: spans, and of each call of a guest the launches that its ring has.

Nobody makes anything of them here: they are noted while the guest's thread has nothing to wait for, and go, when the
request is over, to who exports them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tensor_wasm.dispatch import Events, FilledRing

if TYPE_CHECKING:
    from tensor_wasm.host.guest import Guest

#: Spans of one request besides launches and syncs; what is beyond is counted only.
SPANS_MAX = 128
#: How much of a name of the guest's a span tells.
_NAME_SHOWN = 128

SPAWN, CALL, LOAD = "tensor_wasm.spawn_instance", "tensor_wasm.call_export", "wasi_cuda.load_ptx"

#: A value of a span's attribute.
Attribute = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Launches:
    """The launches and syncs of one call.

    ``kernels`` are names by the ids in the events; ``clock_offset_ns`` is what to add to a launch's times to have
    :func:`time.monotonic_ns`'s.
    """

    events: Events
    kernels: Mapping[int, str]
    clock_offset_ns: int
    instance_id: str


@dataclass(slots=True)
class Span:
    """A piece of work. Times are of :func:`time.monotonic_ns`'s clock; ``parent`` is a span of the same trace, by its
    position, -1 for whatever the trace as a whole belongs to. ``failure`` says what it failed with.
    """

    name: str
    parent: int
    position: int
    started_ns: int
    ended_ns: int = 0
    attributes: dict[str, Attribute] = field(default_factory=dict)
    failure: str | None = None
    launches: Launches | None = None

    def end(self, failure: str | None = None) -> None:
        """It is over now."""
        self.ended_ns = time.monotonic_ns()
        self.failure = failure


@dataclass(frozen=True, slots=True)
class _Kept:
    """The launches of a call while they are in its ring."""

    span: Span
    ring: FilledRing
    kernels: Mapping[int, str]
    clock_offset_ns: int
    instance_id: str


class Trace:
    """The spans of one request, or of a job that it left. One thread at a time adds to it.

    ``trace_id`` and ``parent_id`` are hexadecimal as in W3C's header, ``state`` the ``tracestate`` that came along.
    ``root_id`` is the id of the first span, which is the request's; empty for a job, whose spans belong to
    ``parent_id``. ``wall_offset_ns`` makes times of the day of the spans' times. ``take`` gets it at the end, to call
    :meth:`read_rings` or :meth:`drop`.
    """

    __slots__ = (
        "_kept",
        "_take",
        "dropped_spans",
        "parent_id",
        "root_id",
        "spans",
        "state",
        "trace_id",
        "wall_offset_ns",
    )

    def __init__(
        self, trace_id: str, parent_id: str, state: str, take: Callable[[Trace], None], root_id: str = ""
    ) -> None:
        self.trace_id = trace_id
        self.parent_id = parent_id
        self.root_id = root_id
        self.state = state
        self.spans: list[Span] = []
        self.dropped_spans = 0
        self.wall_offset_ns = time.time_ns() - time.monotonic_ns()
        self._take = take
        self._kept: list[_Kept] = []

    @classmethod
    def of_request(
        cls,
        trace_id: str,
        parent_id: str,
        state: str,
        take: Callable[[Trace], None],
        name: str,
        started_ns: int,
    ) -> Trace:
        """The trace of a request, whose own span has begun."""
        trace = cls(trace_id, parent_id, state, take, os.urandom(8).hex())
        trace.spans.append(Span(name, -1, 0, started_ns))
        return trace

    def of_job(self) -> Trace:
        """A trace for what goes on after the request: the same one, below its span."""
        return Trace(self.trace_id, self.root_id or self.parent_id, self.state, self._take)

    def open(self, name: str, parent: Span | None = None) -> Span | None:
        """Begin a span, below the request's when no parent is given; None when there are too many."""
        position = len(self.spans)
        if position >= SPANS_MAX:
            self.dropped_spans += 1
            return None
        below = (0 if self.root_id else -1) if parent is None else parent.position
        span = Span(name, below, position, time.monotonic_ns())
        self.spans.append(span)
        return span

    def keep(
        self, span: Span, ring: FilledRing, kernels: Mapping[int, str], clock_offset_ns: int, instance_id: str
    ) -> None:
        """The launches of a span are in this ring."""
        self._kept.append(_Kept(span, ring, kernels, clock_offset_ns, instance_id))

    def finish(self) -> None:
        """Give it to who exports it; nothing may be added then."""
        self._take(self)

    @property
    def span_count(self) -> int:
        """How many spans it becomes, launches and syncs included; until its rings are read."""
        return len(self.spans) + sum(kept.ring.kept_count for kept in self._kept)

    def read_rings(self) -> None:
        """Have each span's launches with it, and give its ring back."""
        for kept in self._kept:
            kept.span.launches = Launches(kept.ring.take(), kept.kernels, kept.clock_offset_ns, kept.instance_id)
        self._kept.clear()

    def drop(self) -> None:
        """Give the rings back; nobody reads them."""
        for kept in self._kept:
            kept.ring.give()
        self._kept.clear()


class Recording:
    """What one guest does during one of its trace's spans: kernels loaded, launches, syncs. Its thread's own."""

    __slots__ = (
        "_clock_offset_ns",
        "_guest",
        "_has_ring",
        "_instance_id",
        "_kernels",
        "_launches_before",
        "span",
        "trace",
    )

    def __init__(self, guest: Guest, trace: Trace, span: Span, instance_id: str) -> None:
        self.trace = trace
        self.span = span
        self._guest = guest
        self._instance_id = instance_id
        self._kernels: dict[int, str] = {}
        self._clock_offset_ns = 0
        self._has_ring = False
        self._launches_before = guest.slot.dispatches
        if guest.gate is not None:
            self.note_gate()

    def note_gate(self) -> None:
        """The guest has a gate, from now on or from before: it is to note launches."""
        gate, services, slot = self._guest.gate, self._guest.services, self._guest.slot
        if gate is not None and self._take_ring():
            self._clock_offset_ns = gate.begin_trace(services.ledger, slot)

    def note_sync(self, code: int, entered_ns: int) -> None:
        """A sync that has just ended."""
        if self._take_ring():
            self._guest.services.ledger.note_sync(self._guest.slot, code, entered_ns, time.monotonic_ns())

    def note_kernel(self, kernel_id: int, name: str) -> None:
        """A kernel that is about to be unloaded: it may have been launched."""
        if len(self._kernels) < SPANS_MAX:
            self._kernels[kernel_id] = name[:_NAME_SHOWN]

    def open_load(self, ptx_bytes: int, entry: str) -> Span | None:
        """A kernel is about to be loaded."""
        span = self.trace.open(LOAD, self.span)
        if span is not None:
            span.attributes |= {
                "instance_id": self._instance_id,
                "ptx_bytes": ptx_bytes,
                "entry": entry[:_NAME_SHOWN],
            }
        return span

    def close(self) -> None:
        """The span is about to end: the guest runs no more."""
        guest = self._guest
        if not self._has_ring:
            # All rings were lent: how much is not there can be told all the same.
            launches = guest.slot.dispatches - self._launches_before
            if launches:
                self.span.attributes |= {"launches": launches, "launches_dropped": launches}
            return
        if guest.gate is not None:
            guest.gate.end_trace()
            for number, identity in guest.gate.kernel_ids().items():
                self.note_kernel(identity, guest.kernels[number].loaded.compiled.name)
        self._has_ring = False
        ring = guest.services.ledger.end_trace(guest.slot)
        self.trace.keep(self.span, ring, self._kernels, self._clock_offset_ns, self._instance_id)

    def _take_ring(self) -> bool:
        if not self._has_ring:
            self._has_ring = self._guest.services.ledger.begin_trace(self._guest.slot)
        return self._has_ring
