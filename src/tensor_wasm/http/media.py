"""Media types of requests and answers."""

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


def accepts(headers: Mapping[bytes, bytes], usual: bytes, other: bytes) -> bytes:
    """Which of two forms an answer should have: ``other`` when the request's ``Accept`` names it and not ``usual``."""
    value = headers.get(b"accept", b"").lower()
    return other if other in value and usual not in value else usual
