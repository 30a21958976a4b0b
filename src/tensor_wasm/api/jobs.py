"""A background job in the caller's hands, plain and for an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Protocol

from tensor_wasm.api.model import JobDescription, Result
from tensor_wasm.api.refusals import Kinds
from tensor_wasm.api.requests import STATUSES
from tensor_wasm.errors import InternalError

_UNFINISHED = STATUSES[:2]
#: Pauses between two looks at a job: the first, by how much they grow, the longest.
_FIRST_POLL_S = 0.005
_POLL_GROWTH = 1.5
_LONGEST_POLL_S = 1.0


class Watcher(Protocol):
    """A :class:`Node` or :class:`Client`, as far as a job needs it."""

    def describe_job(self, id: str, *, tenant: int | None = None) -> JobDescription:  # noqa: A002 - the field's word
        """How it is."""
        ...

    def cancel_job(self, id: str, *, tenant: int | None = None) -> str:  # noqa: A002
        """Cancel it."""
        ...


class AsyncWatcher(Protocol):
    """As :class:`Watcher`, for an event loop."""

    async def describe_job(self, id: str, *, tenant: int | None = None) -> JobDescription:  # noqa: A002
        """How it is."""
        ...

    async def cancel_job(self, id: str, *, tenant: int | None = None) -> str:  # noqa: A002
        """Cancel it."""
        ...


class Job:
    """A background job. ``status`` is what it was when somebody last looked: at its making, or by a method here."""

    __slots__ = ("_tenant", "_watcher", "id", "status")

    def __init__(self, watcher: Watcher, id: str, status: str, tenant: int | None) -> None:  # noqa: A002
        self._watcher = watcher
        self._tenant = tenant
        self.id = id
        self.status = status

    def describe(self) -> JobDescription:
        """How it is now. Raises :class:`~tensor_wasm.errors.NotFound` when it is kept no longer."""
        found = self._watcher.describe_job(self.id, tenant=self._tenant)
        self.status = found.status
        return found

    def wait(self, timeout: float | None = None) -> Result:
        """Wait for its end; its result.

        Raises what the call came to, as ``invoke`` does, and TimeoutError when it has not ended after ``timeout``
        seconds; it then goes on.
        """
        for pause_s in _pauses(timeout):
            found = self.describe()
            if found.status not in _UNFINISHED:
                return _result(found)
            time.sleep(pause_s)
        raise TimeoutError(f"the job {self.id} has not ended")

    def cancel(self) -> str:
        """Cancel it, at once while it waits, soon while it runs; where it stands. One that has ended stays as it is."""
        self.status = self._watcher.cancel_job(self.id, tenant=self._tenant)
        return self.status

    def __repr__(self) -> str:
        return f"Job(id={self.id!r}, status={self.status!r})"


class AsyncJob:
    """As :class:`Job`, for an event loop."""

    __slots__ = ("_tenant", "_watcher", "id", "status")

    def __init__(self, watcher: AsyncWatcher, id: str, status: str, tenant: int | None) -> None:  # noqa: A002
        self._watcher = watcher
        self._tenant = tenant
        self.id = id
        self.status = status

    async def describe(self) -> JobDescription:
        """As :meth:`Job.describe`."""
        found = await self._watcher.describe_job(self.id, tenant=self._tenant)
        self.status = found.status
        return found

    async def wait(self, timeout: float | None = None) -> Result:
        """As :meth:`Job.wait`."""
        for pause_s in _pauses(timeout):
            found = await self.describe()
            if found.status not in _UNFINISHED:
                return _result(found)
            await asyncio.sleep(pause_s)
        raise TimeoutError(f"the job {self.id} has not ended")

    async def cancel(self) -> str:
        """As :meth:`Job.cancel`."""
        self.status = await self._watcher.cancel_job(self.id, tenant=self._tenant)
        return self.status

    def __repr__(self) -> str:
        return f"AsyncJob(id={self.id!r}, status={self.status!r})"


def _pauses(timeout: float | None) -> Iterator[float]:
    """How long to wait after each look; the last look is when the time is over."""
    end_s = None if timeout is None else time.monotonic() + timeout
    pause_s = _FIRST_POLL_S
    while end_s is None or (left_s := end_s - time.monotonic()) > pause_s:
        yield pause_s
        pause_s = min(pause_s * _POLL_GROWTH, _LONGEST_POLL_S)
    yield max(left_s, 0.0)
    yield 0.0


def _result(found: JobDescription) -> Result:
    if found.result is not None:
        return found.result
    if found.error_kind is None:
        raise InternalError(f"the job ended as {found.status}, without a result")
    raise Kinds().error(found.error_kind, found.error_message or "")
