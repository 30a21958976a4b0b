"""Many rows in one statement.

Each statement lets go of the interpreter lock and must get it back, which takes a millisecond while other threads
compute: a batch of rows that are sent one by one would take as many.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TypeVar

_Row = TypeVar("_Row")

#: Rows of one statement. Few sizes, so that SQLite's statements are found prepared; at 12 columns the largest has fewer
#: values than any SQLite takes (999).
_SIZES = (64, 16, 4, 1)


def in_pieces(rows: Sequence[_Row]) -> Iterator[Sequence[_Row]]:
    """The rows in their order, in pieces of these sizes."""
    start = 0
    for size in _SIZES:
        while len(rows) - start >= size:
            yield rows[start : start + size]
            start += size


@lru_cache(maxsize=64)
def placeholders(columns: int, rows: int) -> str:
    """``(?, ?), (?, ?)`` for so many columns and rows."""
    row = f"({', '.join('?' * columns)})"
    return ", ".join([row] * rows)
