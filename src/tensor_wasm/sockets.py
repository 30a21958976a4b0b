"""The operator's socket in a node's home: where it is, and how to name it to the system however long its path is."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

#: Its name in the home.
OPERATOR_SOCKET = "operator.sock"
#: What an address has room for, with its end (Linux, ``sockaddr_un``).
_ADDRESS_BYTES_MAX = 107


@contextlib.contextmanager
def address_of(path: Path) -> Iterator[str]:
    """The address of a socket, to bind or connect within the block. Raises OSError when its directory is not there."""
    if len(os.fsencode(path)) <= _ADDRESS_BYTES_MAX:
        yield str(path)
        return
    # The same directory under a short name.
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
