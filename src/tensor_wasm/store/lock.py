"""One node a home: two would delete each other's unfinished work."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from tensor_wasm.errors import StoreError
from tensor_wasm.store.files import make_directory, unusable


class HomeLock:
    """Holds a home for this process. The system lets go of it when the process ends, however it ends.

    Raises :class:`StoreError` when another process holds it.
    """

    def __init__(self, home: Path) -> None:
        make_directory(home)
        path = home / "node.lock"
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
