"""Files that are there whole or not at all, also after a crash."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from tensor_wasm.errors import StoreError

#: How the names of files begin that were not finished.
UNFINISHED = ".new-"
#: Below this a disk counts as full: a deploy, and what the database writes with it, take some.
_LEAST_FREE_BYTES = 1 << 20


def make_directory(directory: Path) -> None:
    """Make a directory that only its owner may enter, with what is missing above it. Raises :class:`StoreError`.

    One that is there keeps its mode: it may be another's to decide (a mounted volume, a shared parent).
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise unusable(directory, error) from error


def write_durably(path: Path, data: bytes, *, replace: bool) -> bool:
    """Put ``data`` at ``path`` with mode 0600; it is on the disk when this returns.

    Without ``replace`` a file that is already there stays, and the answer is False. Raises :class:`StoreError`.
    """
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=UNFINISHED)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if replace:
                Path(temporary).replace(path)
            else:
                os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            with contextlib.suppress(FileNotFoundError):
                Path(temporary).unlink()
        sync_directory(path.parent)
    except OSError as error:
        raise unusable(path, error) from error
    return True


def concerns(home: Path) -> list[str]:
    """What keeps a home from being written to, as far as the system says without a write. Empty when nothing does."""
    try:
        status = os.statvfs(home)
    except OSError:
        return ["the store cannot be reached"]
    found = ["the store is read-only"] if status.f_flag & os.ST_RDONLY else []
    if status.f_bavail * status.f_frsize < _LEAST_FREE_BYTES:
        found.append("the store's disk is full")
    return found


def sync_directory(directory: Path) -> None:
    """Put a directory's entries on the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unusable(path: Path, error: OSError) -> StoreError:
    """The error for a path of the home that the system refuses."""
    reason = error.strerror or type(error).__name__
    return StoreError(
        f"{path}: {reason}. Make the home writable for this user and its disk not full,"
        " or set TENSOR_WASM_HOME to another directory"
    )
