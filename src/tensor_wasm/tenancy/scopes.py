"""What a token allows: the grammar of scopes, and who calls."""

from __future__ import annotations

import re
from dataclasses import dataclass

TENANT_MAX = (1 << 64) - 1
_NUMBER = re.compile(r"[0-9]{1,20}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Scope:
    """``tenants`` that a token may act for, None for any; whether it may administer the node."""

    tenants: frozenset[int] | None
    is_admin: bool

    @property
    def text(self) -> str:
        """As :func:`parse_scope` reads it, the same for scopes that are the same."""
        if self.is_admin:
            return "role=admin"
        return "tenant=" + ("*" if self.tenants is None else ",".join(map(str, sorted(self.tenants))))


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: ``tenants`` it may act for, None for any; whether it may administer the node; by which token."""

    tenants: frozenset[int] | None
    is_admin: bool
    token_id: str

    @property
    def default_tenant(self) -> int:
        """Whom it acts for when it names nobody: its only tenant, else 0."""
        if self.tenants is not None and len(self.tenants) == 1:
            return next(iter(self.tenants))
        return 0


#: Every caller of a node that has no tokens.
ANYBODY = Principal(tenants=None, is_admin=True, token_id="")


def parse_scope(text: str) -> Scope | None:
    """The scope of ``tenant=*``, ``tenant=1,2`` or ``role=admin``; None for anything else."""
    if text == "role=admin":
        return Scope(tenants=None, is_admin=True)
    if text == "tenant=*":
        return Scope(tenants=None, is_admin=False)
    if not text.startswith("tenant="):
        return None
    tenants = [parse_tenant(part.strip()) for part in text.removeprefix("tenant=").split(",")]
    known = frozenset(tenant for tenant in tenants if tenant is not None)
    return Scope(known, is_admin=False) if len(known) == len(tenants) else None


def parse_tenant(text: str) -> int | None:
    """An unsigned 64-bit decimal number, None for anything else."""
    if not _NUMBER.fullmatch(text) or int(text) > TENANT_MAX:
        return None
    return int(text)
