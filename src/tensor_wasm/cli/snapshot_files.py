"""Snapshot files on their way to and from a node: never whole in memory, never half of one under its name."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Self, cast

import click

from tensor_wasm.api.errors import Unreachable
from tensor_wasm.cli.failures import Failure, usage
from tensor_wasm.cli.files import write_file
from tensor_wasm.cli.output import safe
from tensor_wasm.cli.quantities import mebibytes

_STD = "-"
#: The most that is read from a file at once.
_BLOCK_BYTES = 1 << 20
_REFRESH_S = 0.2


def check_target(file: str, is_json: bool) -> None:
    """Raises a usage failure, before anything is asked for, when a snapshot cannot be written there."""
    if file == _STD:
        if is_json:
            raise usage("a snapshot file on stdout is no JSON: name a file, or leave out --json")
        if sys.stdout.isatty():
            raise usage("a snapshot file is nothing for a terminal: name a file, or redirect stdout")
        return
    path = _path(file)
    if path.is_dir():
        raise usage(f"{safe(file)} is a directory; name a file")
    if not path.parent.is_dir():
        raise usage(f"there is no directory {safe(str(path.parent))}")


def write(file: str, pieces: Iterator[bytes], *, shows_progress: bool) -> int:
    """Write a download, ``-`` to stdout; how many bytes it had. Raises ``stream_cut`` when it does not come whole."""
    size_bytes = 0

    def copy(target: BinaryIO) -> None:
        nonlocal size_bytes
        with _Progress(shows_progress) as progress:
            for piece in _uncut(pieces):
                target.write(piece)
                size_bytes += len(piece)
                progress.show(size_bytes)
        target.flush()

    if file == _STD:
        copy(sys.stdout.buffer)
    else:
        write_file(file, copy)
    return size_bytes


@contextlib.contextmanager
def opened(file: str, *, shows_progress: bool) -> Iterator[tuple[BinaryIO, int | None]]:
    """A file to be uploaded, ``-`` for stdin, and how many bytes it has, when that can be known before."""
    with contextlib.ExitStack() as stack:
        source, size_bytes = _open(file, stack)
        progress = stack.enter_context(_Progress(shows_progress))
        yield cast("BinaryIO", _Upload(file, source, size_bytes, progress)), size_bytes


def _open(file: str, stack: contextlib.ExitStack) -> tuple[BinaryIO, int | None]:
    if file == _STD:
        if sys.stdin is None:
            raise usage("there is no stdin to read from")
        return sys.stdin.buffer, None
    try:
        source = stack.enter_context(_path(file).open("rb"))
    except FileNotFoundError:
        raise usage(f"there is no file {safe(file)}") from None
    except IsADirectoryError:
        raise usage(f"{safe(file)} is a directory; name a file") from None
    except OSError as error:
        raise usage(f"{safe(file)} cannot be read: {error.strerror or error}") from None
    found = os.fstat(source.fileno())
    return cast("BinaryIO", source), found.st_size if stat.S_ISREG(found.st_mode) else None


class _Upload:
    """What a transport reads a body from: as many bytes as were announced, a bounded number at once."""

    def __init__(self, file: str, source: BinaryIO, size_bytes: int | None, progress: _Progress) -> None:
        self._name = safe(file)
        self._source = source
        self._left_bytes = size_bytes
        self._progress = progress
        self._sent_bytes = 0

    def read(self, most_bytes: int) -> bytes:
        """The next bytes. Raises a failure: an OSError would be taken for one of the connection."""
        most_bytes = min(most_bytes, _BLOCK_BYTES)
        if self._left_bytes is not None:
            most_bytes = min(most_bytes, self._left_bytes)
        if most_bytes == 0:
            return b""
        try:
            data = self._source.read(most_bytes)
        except OSError as error:
            raise Failure("system", f"{self._name} cannot be read on: {error.strerror or error}") from error
        if self._left_bytes is not None:
            if not data:
                raise Failure("system", f"{self._name} became shorter while it was read")
            self._left_bytes -= len(data)
        self._sent_bytes += len(data)
        self._progress.show(self._sent_bytes)
        return data


def _uncut(pieces: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from pieces
    except Failure as failure:
        if failure.kind != Unreachable.kind:
            raise
        raise Failure("stream_cut", f"the snapshot did not come whole: {failure.message}") from failure


class _Progress:
    """How far it is, on a terminal's stderr; nothing elsewhere, and nothing of what is over at once."""

    def __init__(self, is_wanted: bool) -> None:
        self._is_wanted = is_wanted and sys.stderr is not None and sys.stderr.isatty()
        self._next_s = time.monotonic() + _REFRESH_S
        self._width = 0

    def show(self, done_bytes: int) -> None:
        """Say that so many bytes are through."""
        if not self._is_wanted or time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + _REFRESH_S
        text = mebibytes(done_bytes)
        click.echo(f"\r{text.ljust(self._width)}", nl=False, err=True)
        self._width = len(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._width:
            click.echo(f"\r{' ' * self._width}\r", nl=False, err=True)


def _path(file: str) -> Path:
    if not file or "\0" in file:
        raise usage("the name of a file cannot be empty")
    return Path(file)
