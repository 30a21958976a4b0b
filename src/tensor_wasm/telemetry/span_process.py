"""The process that makes spans of a node's traces and exports them by OTLP over HTTP, with OpenTelemetry's SDK.

``python -m tensor_wasm.telemetry.span_process ENDPOINT``: traces come on standard input, counts go to standard output.
It ends when its input does, once all it has is exported.
"""

from __future__ import annotations

import logging
import os
import random
import select
import socket
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.trace.status import Status, StatusCode

from tensor_wasm import __version__
from tensor_wasm.abi import Code
from tensor_wasm.dispatch import Event, layout
from tensor_wasm.host.trace import Launches, Span
from tensor_wasm.telemetry.span_messages import LENGTH, ExportMessage, TraceMessage, decoder

#: Spans of one request to the collector at most, and how long the first one waits for more.
BATCH_MAX = 512
_DELAY_S = 1.0
_READ_BYTES = 1 << 20
_MESSAGE_BYTES_MAX = 64 << 20
#: Of the scheduler's priorities the lowest: traces are never more urgent than what is traced.
_NICENESS = 19

_SCOPE = InstrumentationScope("tensor_wasm", __version__)
_NOT_SAID = Status()


class Exporter(Protocol):
    """What spans are exported by."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans; whether the collector took them."""


# --- spans ------------------------------------------------------------------------------------------------


class Spans:
    """Makes a trace's spans for one resource."""

    def __init__(self, resource: Resource) -> None:
        self._resource = resource

    def of(self, trace: TraceMessage) -> Iterator[ReadableSpan]:
        """The spans of a trace, each with its launches behind it."""
        state = TraceState.from_header([trace.state]) if trace.state else None
        trace_id = int(trace.trace_id, 16)

        def context(span_id: int, *, is_remote: bool = False) -> SpanContext:
            return SpanContext(trace_id, span_id, is_remote, TraceFlags(TraceFlags.SAMPLED), state)

        above = context(int(trace.parent_id, 16), is_remote=True) if trace.parent_id else None
        contexts = [context(_new_span_id()) for _ in trace.spans]
        if trace.root_id and contexts:
            contexts[0] = context(int(trace.root_id, 16))
            if trace.dropped_spans:
                trace.spans[0].attributes["spans_dropped"] = trace.dropped_spans
        for span, own in zip(trace.spans, contexts, strict=True):
            is_root = bool(trace.root_id) and span.position == 0
            launches = span.launches
            if launches is not None:
                span.attributes |= _counts(launches)
            yield ReadableSpan(
                name=span.name,
                context=own,
                parent=above if span.parent < 0 else contexts[span.parent],
                resource=self._resource,
                attributes=span.attributes,
                kind=SpanKind.SERVER if is_root else SpanKind.INTERNAL,
                status=_NOT_SAID if span.failure is None else Status(StatusCode.ERROR, span.failure),
                start_time=span.started_ns + trace.wall_offset_ns,
                end_time=span.ended_ns + trace.wall_offset_ns,
                instrumentation_scope=_SCOPE,
            )
            if launches is not None:
                for event in launches.events:
                    start_ns, end_ns = _times(event, launches, span)
                    is_sync = event.kind == layout.KIND_SYNC
                    yield ReadableSpan(
                        name="wasi_cuda.sync" if is_sync else "wasi_cuda.launch",
                        context=context(_new_span_id()),
                        parent=own,
                        resource=self._resource,
                        attributes=_of_sync(launches) if is_sync else _of_launch(event, launches, end_ns - start_ns),
                        status=_NOT_SAID if event.code == Code.OK else Status(StatusCode.ERROR, _code_name(event.code)),
                        start_time=start_ns + trace.wall_offset_ns,
                        end_time=end_ns + trace.wall_offset_ns,
                        instrumentation_scope=_SCOPE,
                    )


def _counts(launches: Launches) -> dict[str, int]:
    """How many launches and syncs a call made, and how many of them are no spans."""
    events = launches.events
    kept_syncs = sum(event.kind == layout.KIND_SYNC for event in events)
    kept_launches = events.kept_count - kept_syncs
    made = events.count - events.syncs
    return {
        "launches": made,
        "launches_dropped": made - kept_launches,
        "syncs": events.syncs,
        "syncs_dropped": events.syncs - kept_syncs,
    }


def _times(event: Event, launches: Launches, span: Span) -> tuple[int, int]:
    """When an event began and ended, within its span: the clocks are compared to a microsecond only."""
    offset_ns = 0 if event.kind == layout.KIND_SYNC else launches.clock_offset_ns
    start_ns = min(max(event.entered_ns + offset_ns, span.started_ns), span.ended_ns)
    end_ns = span.ended_ns if event.ended_ns == 0 else min(max(event.ended_ns + offset_ns, start_ns), span.ended_ns)
    return start_ns, end_ns


def _of_launch(event: Event, launches: Launches, duration_ns: int) -> dict[str, str | int | float]:
    execution_ns = 0
    if event.started_ns:
        execution_ns = event.ended_ns - event.started_ns if event.ended_ns else duration_ns
    attributes: dict[str, str | int | float] = {
        "instance_id": launches.instance_id,
        "kernel": launches.kernels.get(event.kernel, f"kernel {event.kernel}"),
        "grid_x": event.grid_x,
        "grid_y": event.grid_y,
        "grid_z": event.grid_z,
        "block_x": event.block_x,
        "block_y": event.block_y,
        "block_z": event.block_z,
        "shared_mem": event.shared_bytes,
        "permit_wait_us": event.waited_ns / 1e3,
        "execution_us": execution_ns / 1e3,
    }
    device_times = {
        "device_kernel_us": event.kernel_ns,
        "device_copy_in_us": event.copy_in_ns,
        "device_copy_out_us": event.copy_out_ns,
    }
    # What is not known is left out: of the CPU, and of a launch that did not come to its end.
    attributes |= {name: time_ns / 1e3 for name, time_ns in device_times.items() if time_ns > 0}
    return attributes


def _of_sync(launches: Launches) -> dict[str, str]:
    return {"instance_id": launches.instance_id}


def _code_name(code: int) -> str:
    """What a launch or sync came to that did not succeed."""
    return "not_completed" if code == layout.EVENT_OPEN else Code(code).name.lower()


def _new_span_id() -> int:
    return random.getrandbits(64) or 1


# --- the way through --------------------------------------------------------------------------------------


class Pump:
    """Exports what comes on a descriptor; tells of it on another one."""

    def __init__(self, exporter: Exporter, spans: Spans, source: int, told: int) -> None:
        self._exporter = exporter
        self._spans = spans
        self._source = source
        self._told = told
        self._last_words = _LastWords()
        self._decode = decoder()
        self._buffer = bytearray()
        self._waiting: list[ReadableSpan] = []
        self._due_s = 0.0
        logging.getLogger("opentelemetry").addHandler(self._last_words)

    def run(self) -> None:
        """Until the input ends."""
        poll = select.poll()
        poll.register(self._source, select.POLLIN)
        while True:
            left_s = self._due_s - time.monotonic() if self._waiting else None
            if left_s is None or poll.poll(max(left_s, 0.0) * 1000):
                piece = os.read(self._source, _READ_BYTES)
                if not piece:
                    break
                self._take(piece)
            else:
                self._export(1)
        self._export(1)

    def _take(self, piece: bytes) -> None:
        self._buffer += piece
        while len(self._buffer) >= LENGTH.size:
            (size,) = LENGTH.unpack_from(self._buffer)
            if size > _MESSAGE_BYTES_MAX:
                raise ValueError("not a node's message")
            end = LENGTH.size + size
            if len(self._buffer) < end:
                return
            trace = self._decode(bytes(self._buffer[LENGTH.size : end]))
            del self._buffer[:end]
            if not self._waiting:
                self._due_s = time.monotonic() + _DELAY_S
            self._waiting += self._spans.of(trace)
            self._export(BATCH_MAX)

    def _export(self, least: int) -> None:
        """Export what waits in batches, as long as there are ``least`` spans."""
        while len(self._waiting) >= least:
            batch, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
            try:
                is_taken = self._exporter.export(batch) is SpanExportResult.SUCCESS
                reason = self._last_words.text
            except Exception as error:  # whatever it was: the next batch may fare better
                is_taken, reason = False, type(error).__name__
            if is_taken:
                self._tell(ExportMessage(exported=len(batch)))
            else:
                self._tell(ExportMessage(failed=len(batch), reason=reason))

    def _tell(self, message: ExportMessage) -> None:
        os.write(self._told, msgspec.json.encode(message) + b"\n")


class _LastWords(logging.Handler):
    """Keeps what the exporter logged last: why it failed."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()


def resource() -> Resource:
    """What the spans are of: ``OTEL_SERVICE_NAME`` and ``OTEL_RESOURCE_ATTRIBUTES`` go before what is here."""
    own = Resource(
        {
            "service.name": "tensor-wasm",
            "service.version": __version__,
            "service.instance.id": str(uuid.uuid4()),
            "host.name": socket.gethostname(),
        }
    )
    found = own.merge(Resource.create())
    # The SDK fills in a name of its own where none is given.
    if str(found.attributes["service.name"]).startswith("unknown_service"):
        found = found.merge(Resource({"service.name": own.attributes["service.name"]}))
    return found


def main() -> None:
    """Run until standard input ends."""
    os.nice(_NICENESS)
    Pump(OTLPSpanExporter(endpoint=sys.argv[1]), Spans(resource()), sys.stdin.fileno(), sys.stdout.fileno()).run()


if __name__ == "__main__":
    main()
