"""The query of a request."""

from __future__ import annotations

from urllib.parse import parse_qs

from tensor_wasm.errors import RequestError
from tensor_wasm.http.operations import Call

_FIELDS_MAX = 32
_DIGITS_MAX = 6


def read_query(call: Call, *known: str) -> dict[str, str]:
    """The query's parameters. One that comes twice is refused: which was meant cannot be known.

    With ``known`` names, another one is refused too: an operator who mistypes a filter must not be shown everything.
    Raises :class:`RequestError`.
    """
    return parse_query(call.scope["query_string"], *known)


def parse_query(query: bytes, *known: str) -> dict[str, str]:
    """As :func:`read_query`, of a query that stands alone."""
    try:
        text = query.decode()
        values = parse_qs(text, keep_blank_values=True, max_num_fields=_FIELDS_MAX, errors="strict")
    except (ValueError, UnicodeDecodeError):
        raise RequestError("the query cannot be read: use name=value pairs in percent-encoded UTF-8") from None
    for name, given in values.items():
        if len(given) > 1:
            raise RequestError(f"the query gives {name[:40]!r} more than once")
        if known and name not in known:
            raise RequestError(f"the query has no {name[:40]!r}; it takes {', '.join(known)}")
    return {name: given[0] for name, given in values.items()}


def read_limit(text: str | None, usual: int, most: int) -> int:
    """How many items a page shall have; ``usual`` when the query does not say. Raises :class:`RequestError`."""
    if text is None:
        return usual
    known = text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX
    if not known or not 1 <= int(text) <= most:
        raise RequestError(f"limit must be a whole number from 1 to {most}")
    return int(text)
