"""The key that seals a directory of compiled kernels: loading compiled code is running it."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

from tensor_wasm.errors import StoreError

_NAME = "cache.key"
_KEY_BYTES = 32


def directory_key(directory: Path) -> bytes:
    """The 32 random bytes in ``directory/cache.key``; directory and key are made at the first use.

    Raises :class:`StoreError` when it cannot be used, and when others than this user could have written there: they
    could then have code of theirs run.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        _refuse_others(directory, 0o022)
        path = directory / _NAME
        if not path.exists():
            _make(path)
        _refuse_others(path, 0o077)
        key = path.read_bytes()
    except OSError as error:
        raise StoreError(f"the kernel cache cannot be used: {error.strerror}: {error.filename}") from error
    if len(key) != _KEY_BYTES:
        raise StoreError(f"{path} is damaged: remove it, and kernels are compiled anew")
    return key


def _make(path: Path) -> None:
    """Write a new key; of two processes that do it at once both find the same one afterwards."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(os.urandom(_KEY_BYTES))
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(temporary)
    finally:
        Path(temporary).unlink()


def _refuse_others(path: Path, forbidden: int) -> None:
    found = path.stat()
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid != os.geteuid():
        raise StoreError(f"{path} belongs to another user: name a directory of your own")
    if mode & forbidden:
        raise StoreError(f"{path} is open to other users (mode {mode:04o}): run `chmod go-rwx` on it")
