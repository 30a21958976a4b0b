"""Tokens in the database: their hashes, never the tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tensor_wasm.store.database import Database

_COLUMNS = "id, name, scope, hash, created_at, last_used_at"
_INSERT = f"INSERT INTO tokens ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)"  # noqa: S608 - only this file's own text


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """A token without its secret.

    ``id`` is a UUID, ``scope`` what it allows, as text, ``hash`` the BLAKE3 of the whole token; times in seconds since
    1970, ``last_used_at`` None for one that never was.
    """

    id: str
    name: str
    scope: str
    hash: bytes = field(repr=False)
    created_at: float
    last_used_at: float | None


class TokenStore:
    """The tokens of a node's database. Safe to use from several threads.

    Raises :class:`~tensor_wasm.errors.StoreError` when the database is damaged or cannot be used.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        database.rows(f"SELECT {_COLUMNS}, position FROM tokens LIMIT 0")  # noqa: S608

    def add(self, record: TokenRecord) -> None:
        """Keep a token; it is on the disk when this returns.

        Raises :class:`~tensor_wasm.errors.StoreError` when its id or hash is taken.
        """
        row = (record.id, record.name, record.scope, record.hash, record.created_at, record.last_used_at)
        with self._database.transaction(taken="a token of that id or hash is already there") as connection:
            connection.execute(_INSERT, row)

    def all(self) -> list[TokenRecord]:
        """Every token, oldest first."""
        rows = self._database.rows(f"SELECT {_COLUMNS} FROM tokens ORDER BY position")  # noqa: S608
        return [TokenRecord(*row) for row in rows]

    def delete(self, id: str) -> bool:  # noqa: A002 - the field's word
        """Forget a token; whether there was one. On the disk when this returns."""
        with self._database.transaction() as connection:
            found = connection.execute("DELETE FROM tokens WHERE id = ?", (id,))
        return found.rowcount == 1

    def touch(self, last_used_at: Mapping[str, float]) -> None:
        """Note when tokens were last used, by their ids; those that are not there any more are passed over."""
        with self._database.transaction() as connection:
            connection.executemany(
                "UPDATE tokens SET last_used_at = ? WHERE id = ?",
                [(used_at, token_id) for token_id, used_at in last_used_at.items()],
            )
