"""What each tenant keeps on the node's disk, against its quota of bytes."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from tensor_wasm.errors import QuotaExceeded
from tensor_wasm.node.accounts import Refused
from tensor_wasm.tenancy import Tenants


class Storage:
    """The bytes of every kind of thing that tenants keep, in one count. Safe for threads.

    ``refused`` is told (tenant, quota) of what does not fit.
    """

    def __init__(self, tenants: Tenants, refused: Refused) -> None:
        self._tenants = tenants
        self._refused = refused
        self._used_bytes: Counter[int] = Counter()
        self._lock = threading.Lock()

    @property
    def tenants(self) -> list[int]:
        """Who keeps something."""
        with self._lock:
            return list(self._used_bytes)

    def used_bytes(self, tenant: int) -> int:
        """What a tenant keeps."""
        return self._used_bytes.get(tenant, 0)

    def check(self, tenant: int, more_bytes: int) -> None:
        """Raises :class:`QuotaExceeded` when ``more_bytes`` do not fit now."""
        most_bytes, used_bytes = self._tenants.quotas(tenant).stored_bytes, self.used_bytes(tenant)
        if most_bytes is not None and used_bytes + more_bytes > most_bytes:
            self._refused(tenant, "stored_bytes")
            raise QuotaExceeded(
                f"the tenant may store {most_bytes} bytes and has {used_bytes}: {more_bytes} more do not fit"
            )

    @contextmanager
    def taking(self, tenant: int, more_bytes: int) -> Iterator[None]:
        """Count what a block puts on the disk; not when it raises. Raises :class:`QuotaExceeded` before it begins."""
        with self._lock:
            self.check(tenant, more_bytes)
            self._used_bytes[tenant] += more_bytes
        try:
            yield
        except BaseException:
            self.give(tenant, more_bytes)
            raise

    def count(self, tenant: int, more_bytes: int) -> None:
        """Count what is there at the start, whether it fits or not."""
        with self._lock:
            self._used_bytes[tenant] += more_bytes

    def give(self, tenant: int, fewer_bytes: int) -> None:
        """Count what is not kept any more."""
        with self._lock:
            self._used_bytes[tenant] -= fewer_bytes
            if self._used_bytes[tenant] <= 0:
                del self._used_bytes[tenant]
