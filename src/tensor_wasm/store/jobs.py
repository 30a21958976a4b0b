"""Background jobs in the database. Changes of many jobs share one transaction: that is what makes them cheap."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from tensor_wasm.errors import IdempotencyConflict, NodeRestarted, NotFound
from tensor_wasm.store.database import Database
from tensor_wasm.store.idempotency import IdempotencyKey, IdempotencyStore, conflict
from tensor_wasm.store.pieces import in_pieces, placeholders

#: What a row counts for besides its texts: its ids, times and places in indexes.
ROW_BYTES = 512

_RECORD = (
    "id, tenant, function_id, request_id, export, status, created_at, started_at, finished_at, error_kind,"
    " error_message"
)
_REQUEST = "export, arguments, input, deadline_s"
_INSERTED = f"position, id, tenant, function_id, request_id, {_REQUEST}, size_bytes, status, created_at"
_ENDED = "position, status, started_at, finished_at, result, error_kind, error_message, size_bytes"


class JobStatus(Enum):
    """Where a job stands: the value is the one in answers and in the database."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


#: What a job is once it has ended.
FINISHED = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What a job is to call: ``arguments`` as a JSON list; None for the export and the deadline that are usual."""

    export: str | None
    arguments: str
    input: bytes
    deadline_s: float | None

    @property
    def size_bytes(self) -> int:
        """What the job counts for while it waits."""
        return ROW_BYTES + len(self.arguments) + len(self.input) + len(self.export or "")


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to keep. ``request_id`` is that of the request that made it; times in seconds since 1970."""

    id: str
    tenant: int
    function_id: str
    request_id: str
    request: JobRequest
    created_at: float
    key: IdempotencyKey | None = None


@dataclass(frozen=True, slots=True)
class JobEnd:
    """The end of the job at ``position``: ``result`` as JSON, or the error's kind and message."""

    position: int
    status: JobStatus
    started_at: float | None
    finished_at: float
    size_bytes: int
    result: str | None = None
    error_kind: str | None = None
    error_message: str | None = None


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as it is on the disk; ``result`` is there only where a single one was asked for."""

    id: str
    tenant: int
    function_id: str
    request_id: str
    export: str | None
    status: JobStatus
    created_at: float
    started_at: float | None
    finished_at: float | None
    error_kind: str | None
    error_message: str | None
    result: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class PendingJob:
    """A job that waits, without its request."""

    position: int
    id: str
    tenant: int
    function_id: str
    request_id: str
    export: str | None
    size_bytes: int


@dataclass(slots=True)
class Changes:
    """What one transaction is to write. ``starts`` are (position, when), ``returns`` positions of jobs that wait again
    since they never began.
    """

    inserts: list[NewJob] = field(default_factory=list)
    starts: list[tuple[int, float]] = field(default_factory=list)
    returns: list[int] = field(default_factory=list)
    ends: list[JobEnd] = field(default_factory=list)


#: What became of a job that was to be kept: its position, or the id of the one that its key made before, or the error.
Kept = int | str | IdempotencyConflict
#: How many jobs were deleted and what they counted for together, by tenant.
Forgotten = dict[int, tuple[int, int]]

_Records = list[JobRecord]
_Pending = list[PendingJob]
_Row = tuple[Any, ...]


class JobStore:
    """The jobs of a node, in its database. Safe to use from several threads.

    Raises :class:`~tensor_wasm.errors.StoreError` when the database is damaged or cannot be used.
    """

    def __init__(self, database: Database, keys: IdempotencyStore) -> None:
        self._database = database
        self._keys = keys
        found = database.rows("SELECT seq FROM sqlite_sequence WHERE name = 'jobs'")
        self._position = int(found[0][0]) if found else 0

    def write(self, changes: Changes) -> list[Kept]:
        """Write all of it or, when it raises, nothing; on the disk when this returns. What became of each insert.

        Not to be called by two threads at once.
        """
        made: dict[IdempotencyKey, str] = {}
        with self._database.transaction() as connection:
            keys = [job.key for job in changes.inserts if job.key is not None]
            known = self._keys.recall(connection, keys) if keys else {}
            kept, rows = self._place(changes.inserts, known, made)
            for piece in in_pieces(rows):
                connection.execute(
                    f"INSERT INTO jobs ({_INSERTED}) VALUES {placeholders(12, len(piece))}",  # noqa: S608 - own text
                    [value for row in piece for value in row],
                )
            if made:
                self._keys.remember(connection, made)
            for starts in in_pieces(changes.starts):
                connection.execute(
                    f"WITH begun (position, started_at) AS (VALUES {placeholders(2, len(starts))})"  # noqa: S608
                    " UPDATE jobs SET status = 'running', started_at = begun.started_at FROM begun"
                    " WHERE jobs.position = begun.position",
                    [value for start in starts for value in start],
                )
            for returns in in_pieces(changes.returns):
                connection.execute(
                    "UPDATE jobs SET status = 'pending', started_at = NULL"  # noqa: S608
                    f" WHERE position IN (VALUES {placeholders(1, len(returns))})",
                    returns,
                )
            for ends in in_pieces(changes.ends):
                connection.execute(
                    f"WITH ended ({_ENDED}) AS (VALUES {placeholders(8, len(ends))})"  # noqa: S608
                    " UPDATE jobs SET status = ended.status, started_at = ended.started_at,"
                    " finished_at = ended.finished_at, result = ended.result, error_kind = ended.error_kind,"
                    " error_message = ended.error_message, size_bytes = ended.size_bytes, input = x'', arguments = '[]'"
                    " FROM ended WHERE jobs.position = ended.position",
                    [value for end in ends for value in _end_row(end)],
                )
        if rows:
            self._position = rows[-1][0]
        self._keys.count(made)
        return kept

    def _place(
        self,
        jobs: Iterable[NewJob],
        known: dict[IdempotencyKey, str | IdempotencyConflict],
        made: dict[IdempotencyKey, str],
    ) -> tuple[list[Kept], list[_Row]]:
        """What becomes of each job, and the rows of those that are new. Notes in ``made`` what new keys made."""
        kept: list[Kept] = []
        rows: list[_Row] = []
        hashes: dict[tuple[int, str], IdempotencyKey] = {}
        position = self._position
        for job in jobs:
            key = job.key
            if key is not None:
                earlier = hashes.setdefault((key.tenant, key.key), key)
                before = known.get(key) or made.get(earlier)
                if before is not None:
                    kept.append(before if earlier == key else conflict())
                    continue
                made[key] = job.id
            position += 1
            kept.append(position)
            rows.append(_insert_row(position, job))
        return kept, rows

    def get(self, id: str, tenant: int) -> JobRecord | None:  # noqa: A002 - the field's word
        """A tenant's job with its result, None when it has none of that id."""
        found = self._records(f"SELECT {_RECORD}, result FROM jobs WHERE id = ? AND tenant = ?", (id, str(tenant)))  # noqa: S608
        return found[0] if found else None

    def owner_of(self, id: str) -> int | None:  # noqa: A002
        """The tenant whose job this is; None when there is none."""
        found = self._database.rows("SELECT tenant FROM jobs WHERE id = ?", (id,))
        return self._tenant(found[0][0]) if found else None

    def list(self, tenant: int, limit: int, after: str | None = None, status: JobStatus | None = None) -> _Records:
        """At most ``limit`` jobs of a tenant, oldest first, those after the job of id ``after``; without results.

        Raises :class:`NotFound` when the tenant has no job ``after``.
        """
        position = 0 if after is None else self._position_of(tenant, after)
        wanted, values = "tenant = ? AND position > ?", [str(tenant), position]
        if status is not None:
            wanted, values = f"{wanted} AND status = ?", [*values, status.value]
        sql = f"SELECT {_RECORD} FROM jobs WHERE {wanted} ORDER BY position LIMIT ?"  # noqa: S608
        return self._records(sql, (*values, limit))

    def request(self, position: int) -> JobRequest | None:
        """What the job at a position is to call; None when there is no such job."""
        found = self._database.rows(f"SELECT {_REQUEST} FROM jobs WHERE position = ?", (position,))  # noqa: S608
        return JobRequest(*found[0]) if found else None

    def pending(self) -> _Pending:
        """Every job that waits, oldest first."""
        rows = self._database.rows(
            "SELECT position, id, tenant, function_id, request_id, export, size_bytes FROM jobs"
            " WHERE status IN ('pending', 'running') AND +status = 'pending' ORDER BY position"
        )
        return [PendingJob(row[0], row[1], self._tenant(row[2]), *row[3:]) for row in rows]

    def fail_running(self, now: float) -> _Records:
        """End jobs that ran when the last node on this database ended, and give them; for the start."""
        error = NodeRestarted("the node ended while the job ran; whether its work had its effects is not known")
        with self._database.transaction() as connection:
            ids = connection.execute(
                "SELECT id FROM jobs WHERE status IN ('pending', 'running') AND +status = 'running' ORDER BY position"
            ).fetchall()
            connection.execute(
                "UPDATE jobs SET status = 'failed', finished_at = ?, error_kind = ?, error_message = ?, input = x'',"
                " arguments = '[]', size_bytes = ? WHERE status IN ('pending', 'running') AND +status = 'running'",
                (now, error.kind, error.message, ROW_BYTES + len(error.message)),
            )
        ended = []
        for piece in in_pieces([row[0] for row in ids]):
            marks = placeholders(1, len(piece))
            ended += self._records(f"SELECT {_RECORD} FROM jobs WHERE id IN (VALUES {marks})", piece)  # noqa: S608
        return ended

    def sizes(self) -> dict[int, tuple[int, int]]:
        """The bytes that each tenant's jobs count for: of those that have not ended, and of those that have."""
        rows = self._database.rows(
            "SELECT tenant, finished_at IS NOT NULL, sum(size_bytes) FROM jobs GROUP BY tenant, finished_at IS NOT NULL"
        )
        sizes: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0])
        for tenant, is_finished, size_bytes in rows:
            sizes[self._tenant(tenant)][is_finished] = size_bytes
        return {tenant: (unfinished, finished) for tenant, (unfinished, finished) in sizes.items()}

    def forget_before(self, finished_at: float, limit: int) -> Forgotten:
        """Delete at most ``limit`` jobs that ended before a time."""
        return self._forget("finished_at < ? LIMIT ?", (finished_at, limit))

    def forget_oldest(self, tenant: int, limit: int, size_bytes: int) -> Forgotten:
        """Delete a tenant's oldest jobs that have ended: as few as have ``size_bytes``, at most ``limit``."""
        oldest = (
            "SELECT position, tenant, size_bytes, sum(size_bytes) OVER (ORDER BY position) - size_bytes AS before_bytes"
            " FROM (SELECT position, tenant, size_bytes FROM jobs WHERE tenant = ? AND finished_at IS NOT NULL"
            " ORDER BY position LIMIT ?)"
        )
        return self._forget("before_bytes < ?", (str(tenant), limit, size_bytes), f"({oldest})")

    def _forget(self, where: str, values: Sequence[object], jobs: str = "jobs") -> Forgotten:
        gone: Forgotten = {}
        with self._database.transaction() as connection:
            # A row for each tenant: each that is read costs a turn of the interpreter lock, while others wait for the
            # database.
            found = connection.execute(
                "SELECT tenant, count(*), sum(size_bytes), json_group_array(position)"  # noqa: S608 - own text
                f" FROM (SELECT position, tenant, size_bytes FROM {jobs} WHERE {where}) GROUP BY tenant",
                values,
            )
            for tenant, count, size_bytes, positions in found.fetchall():
                gone[self._tenant(tenant)] = count, size_bytes
                connection.execute("DELETE FROM jobs WHERE position IN (SELECT value FROM json_each(?))", (positions,))
        return gone

    def _position_of(self, tenant: int, id: str) -> int:  # noqa: A002
        found = self._database.rows("SELECT position FROM jobs WHERE id = ? AND tenant = ?", (id, str(tenant)))
        if not found:
            raise NotFound("`after` names no job of this tenant, or one that is kept no longer: start again without it")
        return int(found[0][0])

    def _records(self, sql: str, values: Sequence[object]) -> _Records:
        rows = self._database.rows(sql, values)
        try:
            return [_record(*row) for row in rows]
        except ValueError:
            raise self._database.damaged() from None

    def _tenant(self, text: str) -> int:
        try:
            return int(text)
        except ValueError:
            raise self._database.damaged() from None


def _record(id: str, tenant: str, *more: Any) -> JobRecord:  # noqa: A002
    function_id, request_id, export, status, *rest = more
    return JobRecord(id, int(tenant), function_id, request_id, export, JobStatus(status), *rest)


def _insert_row(position: int, job: NewJob) -> tuple[Any, ...]:
    request = job.request
    return (
        position, job.id, str(job.tenant), job.function_id, job.request_id, request.export, request.arguments,
        request.input, request.deadline_s, request.size_bytes, JobStatus.PENDING.value, job.created_at,
    )  # fmt: skip


def _end_row(end: JobEnd) -> tuple[Any, ...]:
    return (
        end.position, end.status.value, end.started_at, end.finished_at, end.result, end.error_kind, end.error_message,
        end.size_bytes,
    )  # fmt: skip
