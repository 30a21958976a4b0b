"""One node a home: two would delete each other's unfinished work."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tensor_wasm.errors import StoreError
from tensor_wasm.store.files import make_directory, unusable

_NAME = "node.lock"


class HomeLock:
    """Holds a home for this process. The system lets go of it when the process ends, however it ends.

    Raises :class:`StoreError` when another process holds it.
    """

    def __init__(self, home: Path) -> None:
        make_directory(home)
        path = home / _NAME
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise unusable(path, error) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._descriptor)
            raise StoreError(
                f"another node uses {home}: stop it, or set TENSOR_WASM_HOME to another directory"
            ) from None

    def close(self) -> None:
        """Let go."""
        os.close(self._descriptor)


@contextmanager
def passing_lock(home: Path) -> Iterator[bool]:
    """Whether no node holds a home; none can start while the block runs if so. Changes nothing in the home."""
    try:
        descriptor = os.open(home / _NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield True
        return
    except OSError as error:
        raise unusable(home / _NAME, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            is_free = False
        else:
            is_free = True
        yield is_free
    finally:
        os.close(descriptor)
