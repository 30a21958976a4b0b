"""W3C trace context: what the headers ``traceparent`` and ``tracestate`` of a request say.

Read as strictly as the recommendation allows (https://www.w3.org/TR/trace-context/): what is malformed counts as not
sent, and then its ``tracestate`` does too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
#: A ``traceparent`` of a later version may be longer than today's; more than this is none.
_PARENT_BYTES_MAX = 256
_INVALID_VERSION = b"ff"
_SAMPLED = 1

#: The recommendation's own bounds.
STATE_BYTES_MAX = 512
STATE_MEMBERS_MAX = 32
_KEY = rb"[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13}"
_VALUE = rb"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_MEMBER = re.compile(rb"(?:" + _KEY + rb")=" + _VALUE)


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Where a request stands in its caller's trace. Ids are hexadecimal; ``state`` is the ``tracestate``, or empty."""

    trace_id: str
    span_id: str
    is_sampled: bool
    state: str = ""


def read(headers: Sequence[tuple[bytes, bytes]]) -> TraceContext | None:
    """The context in a request's headers (names in lower case); None without a well-formed ``traceparent``."""
    parents = [value for name, value in headers if name == b"traceparent"]
    if len(parents) != 1 or len(parents[0]) > _PARENT_BYTES_MAX:
        return None
    match = _PARENT.fullmatch(parents[0].strip(b" \t"))
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == _INVALID_VERSION or (version == b"00" and rest is not None):
        return None
    if not trace_id.strip(b"0") or not span_id.strip(b"0"):
        return None
    state = _state([value for name, value in headers if name == b"tracestate"])
    return TraceContext(trace_id.decode(), span_id.decode(), bool(int(flags, 16) & _SAMPLED), state)


def _state(values: Sequence[bytes]) -> str:
    """The ``tracestate``, empty when it is malformed or too long: a part of one would say something else."""
    if not values or sum(map(len, values)) > STATE_BYTES_MAX:
        return ""
    members = [member for value in values for part in value.split(b",") if (member := part.strip(b" \t"))]
    if len(members) > STATE_MEMBERS_MAX or not all(map(_MEMBER.fullmatch, members)):
        return ""
    keys = {member.partition(b"=")[0] for member in members}
    return b",".join(members).decode() if len(keys) == len(members) else ""
