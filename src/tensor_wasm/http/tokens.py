"""Bearer tokens of ``TENSOR_WASM_API_TOKENS`` and what each may do."""

from __future__ import annotations

import hmac
import os
import re
from dataclasses import dataclass

from blake3 import blake3

from tensor_wasm.errors import ConfigurationError

TENANT_MAX = (1 << 64) - 1
_VARIABLE = "TENSOR_WASM_API_TOKENS"
_NUMBER = re.compile(r"[0-9]{1,20}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: ``tenants`` it may act for, None for any; whether it may administer the node."""

    tenants: frozenset[int] | None
    is_admin: bool

    @property
    def default_tenant(self) -> int:
        """Whom it acts for when it names nobody: its only tenant, else 0."""
        if self.tenants is not None and len(self.tenants) == 1:
            return next(iter(self.tenants))
        return 0


#: Every caller of a node that has no tokens.
ANYBODY = Principal(tenants=None, is_admin=True)


class Tokens:
    """The tokens of a node, kept as keyed BLAKE3 hashes: neither the memory nor the time of a look tells a token."""

    def __init__(self, principals: dict[str, Principal]) -> None:
        self._key = os.urandom(32)
        self._principals = {self._hash(token.encode()): principal for token, principal in principals.items()}

    def find(self, token: bytes) -> Principal | None:
        """Whose token it is."""
        presented = self._hash(token)
        # The key is random and secret, so where the look-up of a hash stops says nothing about a token.
        for known, principal in self._principals.items():
            if hmac.compare_digest(known, presented):
                return principal
        return None

    def _hash(self, token: bytes) -> bytes:
        return blake3(token, key=self._key).digest()


def parse_tokens(text: str) -> Tokens:
    """The tokens of ``TOKEN:tenant=*``, ``TOKEN:tenant=1,2`` and ``TOKEN:role=admin``, with ``;`` between them.

    Raises :class:`ConfigurationError` which names the entry by its number: its text holds the secret.
    """
    principals: dict[str, Principal] = {}
    entries = [(number, entry.strip()) for number, entry in enumerate(text.split(";"), 1)]
    for number, entry in entries:
        if not entry:
            continue
        token, separator, scope = entry.rpartition(":")
        principal = _principal(scope) if separator else None
        if principal is None or not token or not token.isascii() or any(c.isspace() for c in token):
            raise ConfigurationError(
                f"{_VARIABLE}: entry {number} (not shown) must be TOKEN:tenant=*, TOKEN:tenant=1,2 or TOKEN:role=admin;"
                " a token has ASCII characters without spaces or ;"
            )
        if token in principals:
            raise ConfigurationError(f"{_VARIABLE}: entry {number} (not shown) repeats the token of an entry before it")
        principals[token] = principal
    if not principals:
        raise ConfigurationError(f"{_VARIABLE} has no entry: unset it, or give TOKEN:tenant=1")
    return Tokens(principals)


def parse_tenant(text: str) -> int | None:
    """An unsigned 64-bit decimal number, None for anything else."""
    if not _NUMBER.fullmatch(text) or int(text) > TENANT_MAX:
        return None
    return int(text)


def _principal(scope: str) -> Principal | None:
    if scope == "role=admin":
        return Principal(tenants=None, is_admin=True)
    if scope == "tenant=*":
        return Principal(tenants=None, is_admin=False)
    if not scope.startswith("tenant="):
        return None
    tenants = [parse_tenant(part.strip()) for part in scope.removeprefix("tenant=").split(",")]
    known = frozenset(tenant for tenant in tenants if tenant is not None)
    return Principal(known, is_admin=False) if len(known) == len(tenants) else None
