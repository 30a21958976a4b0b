"""Files that commands write."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_file(path: str, write: Callable[[BinaryIO], object]) -> None:
    """Have ``write`` write a file: all of it, or what was there stays. Raises :class:`OSError`."""
    target = Path(path)
    if target.exists() and not target.is_file():  # a device, a pipe: there is nothing to put in its place
        with target.open("wb") as stream:
            write(stream)
        return
    temporary = target.with_name(f".{uuid.uuid4().hex}.new")
    try:
        with temporary.open("xb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())  # else a crash could leave the new name with an empty file
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
