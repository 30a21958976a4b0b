"""How often a caller may ask, and how much of its requests the node holds at once."""

from __future__ import annotations

import math
import time

from tensor_wasm.config import Config
from tensor_wasm.errors import CapacityExhausted, RateLimited
from tensor_wasm.node.accounts import Refused
from tensor_wasm.tenancy import Principal, Rate, RateLimiter, Tenants


class RateLimits:
    """Rate limits: of each token for each tenant, from the settings; of each tenant, from its quotas.

    ``refused`` is told (tenant, "rate") of each request that is one too many.
    """

    def __init__(self, config: Config, tenants: Tenants, refused: Refused) -> None:
        self._of_token = Rate.of(config.api_rate_limit_qps, config.api_rate_limit_burst)
        self._tenants = tenants
        self._refused = refused
        self._limiter = RateLimiter()

    def check(self, principal: Principal, tenant: int) -> None:
        """Count a request. Raises :class:`RateLimited` with the seconds after which it would not have been too many."""
        of_tenant = self._tenants.quotas(tenant).rate
        if self._of_token is None and of_tenant is None:
            return
        limits: list[tuple[object, Rate]] = []
        if self._of_token is not None:
            limits.append(((principal.token_id, tenant), self._of_token))
        if of_tenant is not None:
            limits.append((tenant, of_tenant))
        wait_s = self._limiter.check(time.monotonic(), limits)
        if wait_s > 0:
            self._refused(tenant, "rate")
            retry_after_s = math.ceil(wait_s)
            raise RateLimited(f"too many requests: ask again in {retry_after_s} s", retry_after_s)


class HeldBodies:
    """Bytes of request bodies in memory: at most ``limit_bytes`` over all tenants, half of them for one.

    For the event loop's thread only.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._of_tenant: dict[int, int] = {}
        self.held_bytes = 0

    def take(self, tenant: int, size_bytes: int) -> None:
        """Count bytes more. Raises :class:`CapacityExhausted` when they are too many; nothing is counted then."""
        held = self._of_tenant.get(tenant, 0) + size_bytes
        if held > self._limit_bytes // 2 or self.held_bytes + size_bytes > self._limit_bytes:
            raise CapacityExhausted("the node holds as many bytes of requests as it may: try again later")
        self._of_tenant[tenant] = held
        self.held_bytes += size_bytes

    def give(self, tenant: int, size_bytes: int) -> None:
        """Count bytes less."""
        held = self._of_tenant[tenant] - size_bytes
        if held:
            self._of_tenant[tenant] = held
        else:
            del self._of_tenant[tenant]
        self.held_bytes -= size_bytes
