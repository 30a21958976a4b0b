"""Files of snapshots: a path, or a file that the caller has opened."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

SnapshotFile = str | os.PathLike[str] | BinaryIO


def write_snapshot(file: SnapshotFile, parts: Iterable[bytes]) -> int:
    """Write a snapshot's parts; how many bytes. A path is there only once it is whole, and on the disk."""
    if not isinstance(file, str | os.PathLike):
        return _copy(parts, file)
    path = Path(file)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as target:  # noqa: PTH123 - a descriptor
            size_bytes = _copy(parts, target)
            target.flush()
            os.fsync(descriptor)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise
    return size_bytes


@contextlib.contextmanager
def opened_snapshot(file: SnapshotFile) -> Iterator[BinaryIO]:
    """The file, to be read. One that the caller has opened stays open."""
    if isinstance(file, str | os.PathLike):
        with Path(file).open("rb") as source:
            yield cast("BinaryIO", source)
    else:
        yield file


def left_bytes(file: BinaryIO) -> int:
    """How much there is from where the file stands. It must be one that can be sought in."""
    here = file.tell()
    end = file.seek(0, os.SEEK_END)
    file.seek(here)
    return end - here


def _copy(parts: Iterable[bytes], target: BinaryIO) -> int:
    size_bytes = 0
    for part in parts:
        target.write(part)
        size_bytes += len(part)
    return size_bytes
