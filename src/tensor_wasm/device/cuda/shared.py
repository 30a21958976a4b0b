"""The file in memory that a client and its workers share: the board, and the staging area after it."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from typing import Final

from tensor_wasm.device.cuda import board

#: Sizes of the staging area, and of what is taken of it, are multiples of this: a page of WebAssembly's memories.
STAGING_GRAIN_BYTES: Final = 1 << 16


class SharedFile:
    """The file, mapped into this process. Zeroed at first; nobody can shrink it, or make it longer.

    The mapping stays as long as anything refers to its ``content``.
    """

    def __init__(self, descriptor: int, size_bytes: int) -> None:
        """Map the file of a descriptor, which is this object's from now on. Raises OSError, ValueError."""
        if os.fstat(descriptor).st_size != size_bytes or size_bytes <= board.BYTES:
            raise ValueError("the shared file has another size than it should")
        self.descriptor = descriptor
        self.content = memoryview(mmap.mmap(descriptor, size_bytes))
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.content))

    @classmethod
    def create(cls, staging_bytes: int) -> SharedFile:
        """A new one. Raises OSError when the system has no memory for it."""
        if staging_bytes <= 0 or staging_bytes % STAGING_GRAIN_BYTES:
            raise ValueError(f"staging_bytes must be a multiple of {STAGING_GRAIN_BYTES:,}, not {staging_bytes:,}")
        descriptor = os.memfd_create("gpu-board", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, board.BYTES + staging_bytes)
            # Whoever maps it may touch all of it for as long as it likes.
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            return cls(descriptor, board.BYTES + staging_bytes)
        except BaseException:
            os.close(descriptor)
            raise

    @property
    def staging_bytes(self) -> int:
        """The staging area's size."""
        return len(self.content) - board.BYTES

    def close(self) -> None:
        """Close the descriptor. Safe to call twice."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
