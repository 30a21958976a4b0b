"""Who may do what and how much of it: tokens, tenants and their quotas, rate limits. Knows no protocol."""

from tensor_wasm.tenancy.book import NAME_MAX, SCOPE_TEXT_MAX, TokenBook, TokenInfo
from tensor_wasm.tenancy.quotas import QUOTA_FIELDS, QuotaField, Quotas, QuotaValue
from tensor_wasm.tenancy.rates import Rate, RateLimiter
from tensor_wasm.tenancy.scopes import ANYBODY, TENANT_MAX, Principal, Scope, parse_scope, parse_tenant
from tensor_wasm.tenancy.tenants import Tenants
from tensor_wasm.tenancy.tokens import Token, Tokens, parse_tokens

__all__ = [
    "ANYBODY",
    "NAME_MAX",
    "QUOTA_FIELDS",
    "SCOPE_TEXT_MAX",
    "TENANT_MAX",
    "Principal",
    "QuotaField",
    "QuotaValue",
    "Quotas",
    "Rate",
    "RateLimiter",
    "Scope",
    "Tenants",
    "Token",
    "TokenBook",
    "TokenInfo",
    "Tokens",
    "parse_scope",
    "parse_tenant",
    "parse_tokens",
]
