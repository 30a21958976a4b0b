"""The book of a node's tokens: those of the settings and those of the database."""

from __future__ import annotations

import logging
import secrets
import threading
import time
import uuid
from dataclasses import dataclass
from typing import Literal

from tensor_wasm.errors import ConfigurationError, Conflict, NotFound, RequestError, StoreError
from tensor_wasm.store import TokenRecord, TokenStore
from tensor_wasm.tenancy.scopes import Principal, Scope, parse_scope
from tensor_wasm.tenancy.tokens import VARIABLE, Token, Tokens, hash_of, parse_tokens

NAME_MAX = 128
SCOPE_TEXT_MAX = 4096
#: Tokens that the database may hold: all are in memory.
TOKENS_MAX = 10_000

_PREFIX = "tw_"
_SECRET_BYTES = 32
#: How much newer a last use is than the stored one before it is written.
_LAST_USE_STEP_S = 60.0

_log = logging.getLogger("tensor_wasm.tenancy")


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """What may be told of a token.

    Times in seconds since 1970: ``created_at`` None for one of the settings, ``last_used_at`` None for one that was not
    used, as far as the node knows.
    """

    id: str
    name: str
    scope: str
    source: Literal["settings", "database"]
    created_at: float | None
    last_used_at: float | None


class TokenBook:
    """The tokens of one node. Safe to use from several threads; what only reads waits neither for a lock nor the disk.

    Raises :class:`ConfigurationError` for settings that cannot be used, :class:`StoreError` for a damaged database.
    """

    def __init__(self, settings_text: str | None, store: TokenStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._valid = Tokens() if settings_text is None else parse_tokens(settings_text)
        self._of_settings = tuple(self._valid)
        self._of_database: dict[str, Token] = {}
        self._stored_use: dict[str, float | None] = {}
        for record in store.all():
            self._open(record)

    @property
    def is_empty(self) -> bool:
        """Whether there is no token at all, so that whoever reaches the node may do everything."""
        return not self._of_settings and not self._of_database

    def find(self, token: bytes) -> Principal | None:
        """Whose token it is, None when it is not valid; notes in memory that it was used."""
        return self._valid.find(token)

    def create(self, name: str, scope_text: str) -> tuple[TokenRecord, str]:
        """Make a token: what is kept of it, and itself, which is shown this once. On the disk when this returns.

        ``name``, which may be empty, is for people. Raises :class:`RequestError` for a name or scope that is none,
        :class:`Conflict` when the first token is not an admin's or there are too many.
        """
        if len(name) > NAME_MAX or not name.isprintable():
            raise RequestError(f"a token's name has up to {NAME_MAX} printable characters")
        scope = parse_scope(scope_text) if len(scope_text) <= SCOPE_TEXT_MAX else None
        if scope is None:
            raise RequestError(
                "a token's scope is `tenant=*`, `tenant=1,2` or `role=admin`,"
                f" of up to {SCOPE_TEXT_MAX} characters, each tenant once"
            )
        secret = _PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
        record = TokenRecord(str(uuid.uuid4()), name, scope.text, hash_of(secret.encode()), time.time(), None)
        with self._lock:
            if self.is_empty and not scope.is_admin:
                # It would close the node to everybody who could make a second one.
                raise Conflict("the first token must be role=admin")
            if len(self._of_database) >= TOKENS_MAX:
                raise Conflict(f"the node has {TOKENS_MAX} tokens: revoke some first")
            self._store.add(record)
            self._keep(record, scope)
        return record, secret

    def revoke(self, id: str) -> None:  # noqa: A002 - the field's word
        """Make a token invalid, at once; also on the disk when this returns.

        Raises :class:`NotFound`, :class:`Conflict` for one of the settings and for the last that is an admin's. When it
        raises :class:`StoreError` the token is invalid all the same, until the node starts again: revoke it once more.
        """
        with self._lock:
            if any(token.id == id for token in self._of_settings):
                raise Conflict(f"the token is one of the settings: take it out of {VARIABLE}, and start the node again")
            token = self._of_database.get(id)
            if token is None:
                raise NotFound("no token of that id")
            if token.scope.is_admin and not any(t.scope.is_admin and t is not token for t in self._valid):
                raise Conflict("this is the last token with role=admin: create another one first")
            self._valid.remove(token)
            self._store.delete(id)
            del self._of_database[id], self._stored_use[id]

    def list(self) -> list[TokenInfo]:
        """All tokens, those of the settings first, then oldest first."""
        kept = self._of_database.copy().values()  # the copy is one step of the interpreter's: nobody changes it midway
        return [_info(token, "settings") for token in self._of_settings] + [_info(token, "database") for token in kept]

    def flush(self) -> None:
        """Write when tokens were last used, where that is a minute off what is stored. Raises :class:`StoreError`."""
        self._write_last_use(_LAST_USE_STEP_S)

    def close(self) -> None:
        """Write when tokens were last used. That this fails is logged: it must not keep a node from ending."""
        try:
            self._write_last_use(0.0)
        except StoreError:
            _log.exception("when tokens were last used could not be written")

    def _write_last_use(self, step_s: float) -> None:
        with self._lock:
            used = {
                token.id: token.last_used_at
                for token in self._of_database.values()
                if token.last_used_at is not None and _is_off(token.last_used_at, self._stored_use[token.id], step_s)
            }
            if used:
                self._store.touch(used)
                self._stored_use.update(used)

    def _open(self, record: TokenRecord) -> None:
        scope = parse_scope(record.scope)
        if scope is None:
            raise StoreError(
                f"the token {record.id} in the database has a scope that is none: restore the database from a backup,"
                " or delete this row of its table `tokens`"
            )
        if record.hash in self._valid:
            raise ConfigurationError(
                f"{VARIABLE} repeats a token of the database, {record.id}: what is revoked there would stay valid here."
                " Take it out"
            )
        self._keep(record, scope)

    def _keep(self, record: TokenRecord, scope: Scope) -> None:
        token = Token(record.id, record.name, scope, record.hash, record.created_at, record.last_used_at)
        self._of_database[token.id] = token
        self._stored_use[token.id] = record.last_used_at
        self._valid.add(token)


def _is_off(used_at: float, stored_at: float | None, step_s: float) -> bool:
    # Either way: a clock that was ahead once must not keep a wrong time for ever.
    return stored_at is None or (used_at != stored_at and abs(used_at - stored_at) >= step_s)


def _info(token: Token, source: Literal["settings", "database"]) -> TokenInfo:
    return TokenInfo(token.id, token.name, token.scope.text, source, token.created_at, token.last_used_at)
