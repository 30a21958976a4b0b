"""What ran on a home before: a small file that tells a release from the one it replaced, and how fast that was.

The file is a convenience: one that is gone or cannot be read is begun anew, and no backup has it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from tensor_wasm.dispatch.ledger import LATENCY_BUCKETS_S
from tensor_wasm.store.files import write_durably
from tensor_wasm.telemetry.build import Build
from tensor_wasm.telemetry.observation import PreviousRelease, Release
from tensor_wasm.telemetry.quantiles import figure, quantile

FILE = "releases.json"
_FILE_BYTES_MAX = 16_384
_FORMAT = 1
_BUCKETS = len(LATENCY_BUCKETS_S) + 1
_Text = Annotated[str, msgspec.Meta(max_length=100)]
_MOMENT = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$"


def moment(seconds: float) -> str:
    """Seconds since 1970 as RFC 3339 writes them: UTC, with milliseconds."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _Run(msgspec.Struct, kw_only=True):
    """A release: from when to when it ran, and how long its launches took, all its starts together."""

    version: _Text
    git_sha: _Text
    started_at: Annotated[str, msgspec.Meta(pattern=_MOMENT)]
    until: Annotated[str, msgspec.Meta(pattern=_MOMENT)]
    dispatch_counts: list[Annotated[int, msgspec.Meta(ge=0)]]


class _File(msgspec.Struct, kw_only=True):
    format: int
    current: _Run
    previous: _Run | None


class Releases:
    """The releases that ran on a home. ``now_s`` is in seconds since 1970.

    For one thread; only :meth:`save` writes.
    """

    def __init__(self, home: Path, build: Build, now_s: float) -> None:
        self._path = home / FILE
        found = _read(self._path)
        at = moment(now_s)
        self._previous = None if found is None else found.previous
        self._current = _Run(
            version=build.version, git_sha=build.git_sha, started_at=at, until=at, dispatch_counts=[0] * _BUCKETS
        )
        if found is not None:
            if (found.current.version, found.current.git_sha) == (build.version, build.git_sha):
                self._current = found.current
            else:
                self._previous = found.current
        #: Of earlier starts: the ledger counts from this one's.
        self._before = tuple(self._current.dispatch_counts)

    def describe(self) -> Release:
        """This release, and the one before."""
        previous = self._previous
        return Release(
            version=self._current.version,
            git_sha=self._current.git_sha,
            started_at=self._current.started_at,
            previous=None
            if previous is None
            else PreviousRelease(
                version=previous.version,
                git_sha=previous.git_sha,
                until=previous.until,
                dispatch_p95_s=figure(quantile(LATENCY_BUCKETS_S, previous.dispatch_counts, 0.95)),
            ),
        )

    def save(self, dispatch_counts: Sequence[int], now_s: float) -> None:
        """Write what there is: this release is known to have run until now, with these counts since the start.

        Raises :class:`~tensor_wasm.errors.StoreError`.
        """
        self._current.until = moment(now_s)
        if len(dispatch_counts) == _BUCKETS:
            self._current.dispatch_counts = [
                before + count for before, count in zip(self._before, dispatch_counts, strict=True)
            ]
        data = msgspec.json.encode(_File(format=_FORMAT, current=self._current, previous=self._previous))
        write_durably(self._path, data, replace=True)


def _read(path: Path) -> _File | None:
    with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            found = msgspec.json.decode(file.read(_FILE_BYTES_MAX), type=_File)
        runs = [run for run in (found.current, found.previous) if run is not None]
        if found.format == _FORMAT and all(len(run.dispatch_counts) == _BUCKETS for run in runs):
            return found
    return None
