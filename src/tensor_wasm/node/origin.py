"""Whose work a thread or task does at the moment: what log lines tell, and where spans go.

A context variable, the one state of this package that belongs to no object: a log line is written wherever something is
worth telling, in rooms that know nothing of requests.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TypeVar

from tensor_wasm.host.trace import Trace

_Result = TypeVar("_Result")


class Origin:
    """A request or a job. What is not known yet is None; ``trace`` is None when it is not traced here."""

    __slots__ = ("instance_id", "request_id", "tenant", "trace", "trace_id")

    def __init__(self, request_id: str, tenant: int | None = None, trace: Trace | None = None) -> None:
        self.request_id = request_id
        self.tenant = tenant
        self.trace = trace
        self.trace_id: str | None = None if trace is None else trace.trace_id
        self.instance_id: str | None = None


#: None where no request is under way.
ORIGIN: ContextVar[Origin | None] = ContextVar("origin", default=None)


def carried(work: Callable[[], _Result]) -> Callable[[], _Result]:
    """The same work for another thread, which then works for whom this one does."""
    origin = ORIGIN.get()
    if origin is None:
        return work

    def run() -> _Result:
        with acting_for(origin):
            return work()

    return run


class acting_for:  # noqa: N801 - reads as the statement that it is
    """A block that is the work of ``origin``."""

    __slots__ = ("_origin", "_token")

    def __init__(self, origin: Origin) -> None:
        self._origin = origin

    def __enter__(self) -> None:
        self._token = ORIGIN.set(self._origin)

    def __exit__(self, *_: object) -> None:
        ORIGIN.reset(self._token)
