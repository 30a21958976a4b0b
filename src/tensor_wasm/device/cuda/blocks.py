"""What a kernel's text says of its blocks, and the same text for a kernel that the largest blocks can have."""

from __future__ import annotations

import re
from typing import Final

from tensor_wasm.abi.limits import BLOCK_THREADS_MAX

#: A kernel's head, with its name.
_ENTRY: Final = re.compile(rb"\.entry\s+([^\s(]+)\s*\([^)]*\)")
#: What bounds its blocks.
_BOUNDS: Final = re.compile(rb"^\s*\.(?:maxntid|reqntid)\b", re.MULTILINE)
_WIDE: Final = rb"\g<0>\n.maxntid %d, 1, 1" % BLOCK_THREADS_MAX


def entries(ptx: bytes) -> list[str]:
    """The names of a text's kernels."""
    return [name.decode("utf-8", "replace") for name in _ENTRY.findall(ptx)]


def is_bounded(ptx: bytes) -> bool:
    """Whether a text says how large blocks can be: no thread then gets more registers than there are for those."""
    return _BOUNDS.search(ptx) is not None


def widened(ptx: bytes) -> bytes:
    """A text that is not bounded, for kernels with few enough registers for the largest blocks; slower for it."""
    return _ENTRY.sub(_WIDE, ptx)
