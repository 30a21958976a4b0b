"""The bytes of memories in files: written with holes for zeros, hashed on the way."""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np
from blake3 import blake3

#: Zeros of so many bytes are not written.
_BLOCK_BYTES = 256 << 10


class ImageWriter:
    """Writes a file from its start on; ``size_bytes`` so far. Each method lets go of the GIL for what takes long."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._hash = blake3()
        self.size_bytes = 0

    def write(self, data: memoryview | bytes) -> None:
        """Append bytes."""
        view = memoryview(data).cast("B")
        for start in range(0, len(view), _BLOCK_BYTES):
            block = view[start : start + _BLOCK_BYTES]
            self._hash.update(block)
            if np.frombuffer(block, np.uint8).any():
                self._put(block)
            self.size_bytes += len(block)
        os.ftruncate(self._descriptor, self.size_bytes)

    def digest(self) -> str:
        """BLAKE3 (hex) of all there is."""
        return self._hash.hexdigest()

    def _put(self, block: memoryview) -> None:
        done = 0
        while done < len(block):
            done += os.pwrite(self._descriptor, block[done:], self.size_bytes + done)


def read_exactly(descriptor: int, offset: int, size_bytes: int) -> bytes:
    """Bytes of a file. Raises :class:`OSError` when it ends before."""
    pieces: list[bytes] = []
    left = size_bytes
    while left:
        piece = os.pread(descriptor, min(left, 16 << 20), offset + size_bytes - left)
        if not piece:
            raise OSError(0, "the file ends too early")
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def blocks(descriptor: int, size_bytes: int, block_bytes: int = 1 << 20) -> Iterable[bytes]:
    """The first ``size_bytes`` of a file, piece by piece."""
    for start in range(0, size_bytes, block_bytes):
        yield read_exactly(descriptor, start, min(block_bytes, size_bytes - start))
