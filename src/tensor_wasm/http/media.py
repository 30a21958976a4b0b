"""Media types of request bodies."""

from __future__ import annotations

from collections.abc import Mapping

from tensor_wasm.errors import UnsupportedMediaType

JSON = "application/json"
WASM = "application/wasm"


def media_type(headers: Mapping[bytes, bytes], *accepted: str) -> str:
    """What the body is, among ``accepted``; the first when the request does not say.

    Raises :class:`UnsupportedMediaType`.
    """
    value = headers.get(b"content-type")
    if value is None or value == b"application/json":
        return accepted[0]
    name = value.partition(b";")[0].strip().lower().decode("latin-1")
    if name in accepted:
        return name
    raise UnsupportedMediaType(f"send the body as Content-Type: {' or '.join(accepted)}")
