"""Which tenants get series of their own: a flood of tenants must not flood the operator's Prometheus."""

from __future__ import annotations

from collections.abc import Mapping

Tenant = int | None

#: The label of all that have none of their own.
OTHER = "other"
SHOWN_MAX = 200

#: A tenant takes another's place only when it is this many times as busy: a series that comes and goes looks like a
#: counter's reset to every query.
_DISPLACE_RATIO = 2


class TenantLabels:
    """Chooses at most ``SHOWN_MAX`` tenants, the busiest; remembers its choice between scrapes."""

    def __init__(self) -> None:
        self._shown: set[int] = set()

    def choose(self, busy: Mapping[Tenant, int]) -> dict[Tenant, str]:
        """Label by tenant, from how busy each was since the start. None, and who is not chosen, is ``other``."""
        known = {tenant: count for tenant, count in busy.items() if tenant is not None}
        if len(known) <= SHOWN_MAX:
            shown = set(known)
        else:
            shown = self._shown & known.keys()
            waiting = sorted(known.keys() - shown, key=lambda tenant: (-known[tenant], tenant))
            free = SHOWN_MAX - len(shown)
            shown.update(waiting[:free])
            for tenant in waiting[free:]:
                least = min(shown, key=lambda other: (known[other], -other))
                if known[tenant] <= _DISPLACE_RATIO * known[least]:
                    break
                shown.remove(least)
                shown.add(tenant)
        self._shown = shown
        return {tenant: str(tenant) if tenant in shown else OTHER for tenant in busy}
