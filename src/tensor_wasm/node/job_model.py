"""What the node's callers see of background jobs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tensor_wasm.store import JobRecord


@dataclass(frozen=True, slots=True)
class JobLimits:
    """Bounds of each tenant's jobs.

    ``queue_depth`` may wait; ``stored_bytes`` is what all count for on the disk; ``at_once`` run.
    """

    queue_depth: int
    stored_bytes: int
    at_once: int


@dataclass(frozen=True, slots=True)
class Submission:
    """A job that was accepted. ``is_replay``: by an earlier request with the same key."""

    job_id: str
    is_replay: bool


@dataclass(frozen=True, slots=True)
class JobPage:
    """A page of a list; ``next`` is what to pass as ``after`` for the following one, None at the end."""

    items: list[JobRecord]
    next: str | None


@dataclass(frozen=True, slots=True)
class EndedJob:
    """A job that has ended, for the audit log. ``error_kind`` None when it completed; None elsewhere: not known."""

    id: str
    tenant: int
    function_id: str
    request_id: str
    export: str | None
    error_kind: str | None
    duration_s: float | None
    launches: int | None


OnEnd = Callable[[EndedJob], None]
