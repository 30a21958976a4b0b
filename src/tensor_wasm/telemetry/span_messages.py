"""What a node and its exporting process tell each other over pipes: traces there, counts back."""

from __future__ import annotations

import struct
from collections.abc import Callable

import msgspec

from tensor_wasm.host.trace import Span, Trace

#: Before each message: its bytes.
LENGTH = struct.Struct("<I")


class TraceMessage(msgspec.Struct, frozen=True, array_like=True):
    """A :class:`~tensor_wasm.host.trace.Trace` that is over."""

    trace_id: str
    parent_id: str
    root_id: str
    state: str
    wall_offset_ns: int
    dropped_spans: int
    spans: list[Span]


class ExportMessage(msgspec.Struct, frozen=True):
    """What became of spans: ``exported`` were taken by the collector, ``failed`` were not, for ``reason``."""

    exported: int = 0
    failed: int = 0
    reason: str = ""


def encode(trace: Trace) -> bytes:
    """A trace's message, with its length before it. Its rings are free then."""
    trace.read_rings()
    message = TraceMessage(
        trace.trace_id,
        trace.parent_id,
        trace.root_id,
        trace.state,
        trace.wall_offset_ns,
        trace.dropped_spans,
        trace.spans,
    )
    body = msgspec.msgpack.encode(message)
    return LENGTH.pack(len(body)) + body


def decoder() -> Callable[[bytes], TraceMessage]:
    """What reads the bodies of traces' messages."""
    return msgspec.msgpack.Decoder(TraceMessage).decode
