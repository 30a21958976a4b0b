"""Bearer tokens by their hashes, and those of ``TENSOR_WASM_API_TOKENS``."""

from __future__ import annotations

import hmac
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from blake3 import blake3

from tensor_wasm.errors import ConfigurationError
from tensor_wasm.tenancy.scopes import Principal, Scope, parse_scope

VARIABLE = "TENSOR_WASM_API_TOKENS"


@dataclass(slots=True)
class Token:
    """A token without its secret. Times in seconds since 1970; ``last_used_at`` follows its use."""

    id: str
    name: str
    scope: Scope
    hash: bytes = field(repr=False)
    created_at: float | None = None
    last_used_at: float | None = None
    principal: Principal = field(init=False)

    def __post_init__(self) -> None:
        self.principal = Principal(self.scope.tenants, self.scope.is_admin, self.id)


class Tokens:
    """The tokens that are valid. Looking for one needs no lock while others come and go."""

    def __init__(self, tokens: Iterable[Token] = ()) -> None:
        self._by_hash = {token.hash: token for token in tokens}

    def __iter__(self) -> Iterator[Token]:
        return iter(self._by_hash.copy().values())

    def __contains__(self, hash: bytes) -> bool:  # noqa: A002 - the field's word
        return hash in self._by_hash

    def add(self, token: Token) -> None:
        """Make a token valid."""
        self._by_hash[token.hash] = token

    def remove(self, token: Token) -> None:
        """Make a token invalid, if it is valid."""
        self._by_hash.pop(token.hash, None)

    def find(self, token: bytes) -> Principal | None:
        """Whose token it is; notes that it was used."""
        # What the look-up takes depends on Python's hash of BLAKE3's hash, and bytes are compared only where the
        # former are the same: no time tells how much of a token was right.
        presented = hash_of(token)
        found = self._by_hash.get(presented)
        if found is None or not hmac.compare_digest(found.hash, presented):
            return None
        found.last_used_at = time.time()
        return found.principal


def hash_of(token: bytes) -> bytes:
    """What is kept of a token."""
    return blake3(token).digest()


def parse_tokens(text: str) -> Tokens:
    """The tokens of ``TOKEN:tenant=*``, ``TOKEN:tenant=1,2`` and ``TOKEN:role=admin``, with ``;`` between them.

    Their ids are ``settings-1`` and so on, by the numbers of the entries. Raises :class:`ConfigurationError` which
    names the entry by its number: its text holds the secret.
    """
    tokens = Tokens()
    entries = [(number, entry.strip()) for number, entry in enumerate(text.split(";"), 1)]
    for number, entry in entries:
        if not entry:
            continue
        secret, separator, scope_text = entry.rpartition(":")
        scope = parse_scope(scope_text) if separator else None
        if scope is None or not secret or not secret.isascii() or any(c.isspace() for c in secret):
            raise ConfigurationError(
                f"{VARIABLE}: entry {number} (not shown) must be TOKEN:tenant=*, TOKEN:tenant=1,2 or TOKEN:role=admin;"
                " a token has ASCII characters without spaces or ;"
            )
        token = Token(f"settings-{number}", "", scope, hash_of(secret.encode()))
        if token.hash in tokens:
            raise ConfigurationError(f"{VARIABLE}: entry {number} (not shown) repeats the token of an entry before it")
        tokens.add(token)
    if not any(entry for _, entry in entries):
        raise ConfigurationError(f"{VARIABLE} has no entry: unset it, or give TOKEN:tenant=1")
    return tokens
