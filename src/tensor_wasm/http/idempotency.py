"""The ``Idempotency-Key`` header: the same request twice makes one thing."""

from __future__ import annotations

import re

from blake3 import blake3

from tensor_wasm.errors import RequestError
from tensor_wasm.http.operations import Call, Parameter
from tensor_wasm.node import IdempotencyKey

_KEY = re.compile(rb"[\x20-\x7e]{1,255}")
#: Says that an answer is of an earlier request with the same key.
REPLAYED = (b"idempotent-replayed", b"true")

KEY_HEADER = Parameter(
    "Idempotency-Key",
    "A key of your own: for a day the same request with it is answered as before, and nothing is made again.",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[\\x20-\\x7e]+$"},
)
REPLAYED_HEADER = Parameter(
    "Idempotent-Replayed",
    "There when an earlier request with the same `Idempotency-Key` made it.",
    {"type": "string", "const": "true"},
    is_optional=True,
)


def read_key(call: Call) -> bytes | None:
    """The request's key, None when it has none. Raises :class:`RequestError`."""
    given = call.headers.get(b"idempotency-key")
    if given is not None and not _KEY.fullmatch(given):
        raise RequestError("Idempotency-Key must be 1 to 255 printable ASCII characters")
    return given


def bind_key(key: bytes, call: Call, body: bytes) -> IdempotencyKey:
    """The key with the hash of its request: method, path, query and body. Slow for a large body."""
    scope = call.scope
    request = blake3(b"%b %b?%b\n" % (scope["method"].encode(), scope["raw_path"], scope["query_string"]))
    request.update(body)
    return IdempotencyKey(call.tenant, key.decode("ascii"), request.digest())
