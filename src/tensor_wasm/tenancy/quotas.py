"""Quotas: how much of the node a tenant may have; the table that the API, the CLI and the pages are made of."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from tensor_wasm.errors import RequestError
from tensor_wasm.tenancy.rates import Rate

QuotaValue = int | float | bool

_BYTES_MAX = 1 << 50


@dataclass(frozen=True, slots=True)
class Quotas:
    """The quotas of a tenant; None where it has no limit of its own. :data:`QUOTA_FIELDS` says what each is."""

    weight: int = 1
    permits: int | None = None
    instances: int | None = None
    guest_memory_bytes: int | None = None
    gpu_memory_bytes: int | None = None
    functions: int | None = None
    stored_bytes: int | None = None
    rate_qps: float | None = None
    rate_burst: int | None = None
    cuda: bool = True

    @property
    def rate(self) -> Rate | None:
        """The rate limit, None for none."""
        return Rate.of(self.rate_qps, self.rate_burst)


@dataclass(frozen=True, slots=True)
class QuotaField:
    """A row of :data:`QUOTA_FIELDS`. ``low`` and ``high`` bound the value and belong to it; a boolean has no bounds."""

    name: str
    type: Literal["integer", "bytes", "number", "boolean"]
    low: float
    high: float
    description: str

    @property
    def range(self) -> str:
        """The range in words."""
        if self.type == "boolean":
            return "true or false"
        high = f"{self.high:g}" if self.type == "number" else str(int(self.high))
        unit = " bytes" if self.type == "bytes" else ""
        return f"{self.low:g} to {high}{unit}"

    def check(self, value: object) -> QuotaValue:
        """The value, of the field's type. Raises :class:`RequestError` naming the field and its range."""
        if self.type == "boolean":
            if isinstance(value, bool):
                return value
        elif isinstance(value, int) and not isinstance(value, bool):
            if self.low <= value <= self.high:  # compared as it is: an integer may be too large for a float
                return float(value) if self.type == "number" else value
        elif self.type == "number" and isinstance(value, float) and self.low <= value <= self.high:
            return value
        kind = "" if self.type == "boolean" else "a number, " if self.type == "number" else "a whole number, "
        raise RequestError(f"{self.name} must be {kind}{self.range}")


_ROWS = (
    QuotaField("weight", "integer", 1, 1000, "Share of permits and workers when tenants compete."),
    QuotaField("permits", "integer", 1, 1_000_000, "Kernel launches in flight at once."),
    QuotaField("instances", "integer", 0, 1_000_000, "Live instances at once."),
    QuotaField("guest_memory_bytes", "bytes", 0, _BYTES_MAX, "Memory of all its live instances together."),
    QuotaField("gpu_memory_bytes", "bytes", 0, _BYTES_MAX, "Device memory that its guests have allocated."),
    QuotaField("functions", "integer", 0, 1_000_000, "Deployed functions."),
    QuotaField("stored_bytes", "bytes", 0, _BYTES_MAX, "Modules, kernels and snapshots on the node's disk, together."),
    QuotaField("rate_qps", "number", 0.001, 1_000_000, "Requests a second, on average, by all its tokens together."),
    QuotaField("rate_burst", "integer", 1, 1_000_000, "Requests at once after a pause; else one second's worth."),
    QuotaField("cuda", "boolean", 0, 1, "Whether its guests may use the device."),
)

#: What can be set of a tenant, by name, in the order of the documentation. A field of :class:`Quotas` each.
QUOTA_FIELDS: dict[str, QuotaField] = {row.name: row for row in _ROWS}

assert list(QUOTA_FIELDS) == [field.name for field in fields(Quotas)]
