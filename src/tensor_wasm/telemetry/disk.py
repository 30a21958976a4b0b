"""How busy a disk is, from the kernel's own counters (Linux, ``/proc/diskstats``)."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

_STATS = Path("/proc/diskstats")
_MOUNTS = Path("/proc/self/mountinfo")
#: The counters' unit, whatever the disk's own sectors are (Linux, Documentation/admin-guide/iostats.rst).
_SECTOR_BYTES = 512
#: Fields of a row: numbers of the device, its name, then what was counted.
_NUMBERS, _READ_SECTORS, _WRITTEN_SECTORS, _BUSY_MS = 2, 5, 9, 12


@dataclass(frozen=True, slots=True)
class DiskCounters:
    """A disk since the system started; None for what the system does not say. ``free_bytes`` is of now."""

    busy_ms: int | None
    read_bytes: int | None
    write_bytes: int | None
    free_bytes: int | None


class Disk:
    """The disk that a directory is on. The directory, or one above it, must be there when it is read."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def read(self) -> DiskCounters:
        """Its counters. Asks the file system, which may not answer when the disk is gone."""
        place = nearest(self._directory)
        row = _row(place.stat().st_dev)
        free_bytes = None
        with contextlib.suppress(OSError):
            status = os.statvfs(place)
            free_bytes = status.f_bavail * status.f_frsize
        if row is None:
            return DiskCounters(None, None, None, free_bytes)
        read_bytes, write_bytes = (int(row[at]) * _SECTOR_BYTES for at in (_READ_SECTORS, _WRITTEN_SECTORS))
        return DiskCounters(int(row[_BUSY_MS]), read_bytes, write_bytes, free_bytes)


def share_a_disk(one: Path, other: Path) -> bool:
    """Whether two directories, or what there is above them, are on one file system."""
    return nearest(one).stat().st_dev == nearest(other).stat().st_dev


def nearest(path: Path) -> Path:
    """The path, or the first above it that is there."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _row(device: int) -> list[str] | None:
    """The row of a device; for a file system with a number of its own, as overlays and btrfs have, of what it is on."""
    numbers = f"{os.major(device)}:{os.minor(device)}"
    with contextlib.suppress(OSError, ValueError, IndexError):
        found = _row_of(numbers)
        if found is not None:
            return found
        for line in _MOUNTS.read_text("utf-8", "surrogateescape").splitlines():
            mount, _, source = line.partition(" - ")
            if mount.split()[2] == numbers:
                status = Path(source.split()[1]).stat()
                return _row_of(f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}")
    return None


def _row_of(numbers: str) -> list[str] | None:
    for line in _STATS.read_text("ascii", "replace").splitlines():
        row = line.split()
        if len(row) > _BUSY_MS and ":".join(row[:_NUMBERS]) == numbers:
            return row
    return None
