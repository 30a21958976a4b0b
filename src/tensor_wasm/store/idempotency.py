"""Idempotency keys: what a request with a key made, so that the same request again makes nothing new."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tensor_wasm.errors import CapacityExhausted, IdempotencyConflict
from tensor_wasm.store.database import Database
from tensor_wasm.store.pieces import in_pieces, placeholders

#: How long a key is remembered.
KEY_LIFE_S = 86_400.0
#: Keys remembered of one tenant; its next is refused, for to forget one early would break the promise.
KEYS_MAX = 1_000_000
#: Keys forgotten in one transaction: nobody else gets at the database meanwhile.
_SWEPT_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A tenant's key, and the hash of the request that it came with: method, path, query and body."""

    tenant: int
    key: str
    request_hash: bytes


class IdempotencyStore:
    """The keys of a node's database, each with the id of what it made. Safe to use from several threads.

    A key is kept in the transaction that makes the thing, so that neither is ever there without the other:
    :meth:`recall` and :meth:`remember` with that transaction's connection, :meth:`count` once it has ended well.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        rows = database.rows("SELECT tenant, count(*) FROM idempotency GROUP BY tenant")
        self._counts: Counter[str] = Counter(dict(rows))

    def find(self, key: IdempotencyKey) -> str | None:
        """What the key made; None when it is a new one.

        Raises :class:`IdempotencyConflict` when it came with another request, :class:`CapacityExhausted` when it is new
        and the tenant has as many as it may.
        """
        found = self._database.rows(
            "SELECT request_hash, resource, created_at FROM idempotency WHERE tenant = ? AND key = ?",
            (str(key.tenant), key.key),
        )
        if found and (resource := _resource(key, found[0])) is not None:
            return resource
        if self._counts[str(key.tenant)] >= KEYS_MAX:
            raise CapacityExhausted(
                f"{KEYS_MAX} idempotency keys of the tenant are remembered, as many as may be: try again later,"
                " or without a key"
            )
        return None

    def recall(
        self, connection: sqlite3.Connection, keys: Sequence[IdempotencyKey]
    ) -> dict[IdempotencyKey, str | IdempotencyConflict]:
        """Of these keys the known ones: what each made, or the error when it came with another request."""
        rows: dict[tuple[str, str], tuple[bytes, str, float]] = {}
        for piece in in_pieces(keys):
            sql = (
                f"WITH asked (tenant, key) AS (VALUES {placeholders(2, len(piece))})"  # noqa: S608 - marks only
                " SELECT k.tenant, k.key, k.request_hash, k.resource, k.created_at FROM asked CROSS JOIN idempotency k"
                " ON k.tenant = asked.tenant AND k.key = asked.key"
            )
            values = [value for key in piece for value in (str(key.tenant), key.key)]
            rows |= {(row[0], row[1]): row[2:] for row in connection.execute(sql, values)}
        known: dict[IdempotencyKey, str | IdempotencyConflict] = {}
        for key in keys:
            row = rows.get((str(key.tenant), key.key))
            try:
                resource = None if row is None else _resource(key, row)
            except IdempotencyConflict as error:
                known[key] = error
            else:
                if resource is not None:
                    known[key] = resource
        return known

    def remember(self, connection: sqlite3.Connection, made: Mapping[IdempotencyKey, str]) -> None:
        """Keep what new keys made."""
        now = time.time()
        for piece in in_pieces(list(made.items())):
            connection.execute(
                "INSERT OR REPLACE INTO idempotency (tenant, key, request_hash, resource, created_at)"  # noqa: S608
                f" VALUES {placeholders(5, len(piece))}",
                [v for key, resource in piece for v in (str(key.tenant), key.key, key.request_hash, resource, now)],
            )

    def count(self, made: Mapping[IdempotencyKey, str]) -> None:
        """Count keys that are on the disk by now."""
        with self._lock:
            self._counts.update(str(key.tenant) for key in made)

    def sweep(self, now: float) -> int:
        """Forget keys whose time is over at ``now``; how many there were."""
        total = 0
        while True:
            with self._database.transaction() as connection:
                ((newest,),) = connection.execute(
                    "SELECT max(created_at) FROM (SELECT created_at FROM idempotency WHERE created_at < ?"
                    " ORDER BY created_at LIMIT ?)",
                    (now - KEY_LIFE_S, _SWEPT_AT_ONCE),
                )
                found = connection.execute(
                    "SELECT tenant, count(*) FROM idempotency WHERE created_at <= ? GROUP BY tenant", (newest,)
                ).fetchall()
                connection.execute("DELETE FROM idempotency WHERE created_at <= ?", (newest,))
            with self._lock:
                self._counts.subtract(dict(found))
                self._counts = +self._counts
            count: int = sum(number for _, number in found)
            total += count
            if count < _SWEPT_AT_ONCE:
                return total


def conflict() -> IdempotencyConflict:
    """The error of a key that came with another request."""
    return IdempotencyConflict("this Idempotency-Key was used for another request in the last day: take a new key")


def _resource(key: IdempotencyKey, row: tuple[bytes, str, float]) -> str | None:
    request_hash, resource, created_at = row
    if created_at < time.time() - KEY_LIFE_S:
        return None
    if request_hash != key.request_hash:
        raise conflict()
    return resource
