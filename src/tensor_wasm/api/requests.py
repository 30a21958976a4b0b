"""What a caller gives, checked in one way for a node in this process and for one over HTTP."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real

from tensor_wasm.errors import InvalidArguments, InvalidDeadline, InvalidTenant, RequestError

#: As JSON writes what it has no number for.
_SPECIAL = frozenset({"NaN", "Infinity", "-Infinity"})
#: Where a job may stand; the first two are those of a job that has not ended.
STATUSES = ("pending", "running", "completed", "failed", "cancelled")
_TENANT_MAX = (1 << 64) - 1
#: Beyond any deadline that a node allows.
_DEADLINE_MAX_S = 1e9

_KEY = re.compile(r"[\x20-\x7e]{1,255}", re.ASCII)

Argument = int | float | str


@dataclass(frozen=True, slots=True)
class CallRequest:
    """A call: its arguments are ints, floats and the strings "NaN", "Infinity", "-Infinity"."""

    export: str | None
    args: list[Argument]
    input: bytes
    deadline_s: float | None


def call_request(
    export: str | None,
    args: Sequence[object],
    input: bytes | bytearray | memoryview,  # noqa: A002 - the field's word
    deadline: float | None,
) -> CallRequest:
    """Raises :class:`InvalidArguments` for what is no number, :class:`InvalidDeadline`."""
    values = [_argument(position, value) for position, value in enumerate(args)]
    return CallRequest(export, values, bytes(input), check_deadline(deadline))


def check_deadline(deadline: float | None) -> float | None:
    """A deadline in seconds from now. Raises :class:`InvalidDeadline` when it is none."""
    if deadline is None or (math.isfinite(deadline) and 0 < deadline <= _DEADLINE_MAX_S):
        return deadline
    raise InvalidDeadline("the deadline must be above 0 seconds, and at most what the node allows")


def check_tenant(tenant: int | None) -> int | None:
    """Raises :class:`InvalidTenant` for what is no unsigned 64-bit number."""
    if tenant is None or (isinstance(tenant, int) and not isinstance(tenant, bool) and 0 <= tenant <= _TENANT_MAX):
        return tenant
    raise InvalidTenant(f"a tenant is a number from 0 to {_TENANT_MAX}")


def check_key(key: str | None) -> str | None:
    """An idempotency key. Raises :class:`RequestError`."""
    if key is None or (isinstance(key, str) and _KEY.fullmatch(key)):
        return key
    raise RequestError("an idempotency key has 1 to 255 printable ASCII characters")


def check_status(status: str | None) -> str | None:
    """Where a job stands. Raises :class:`RequestError`."""
    if status is None or status in STATUSES:
        return status
    raise RequestError(f"status must be one of {', '.join(STATUSES)}")


def _argument(position: int, value: object) -> Argument:
    """NumPy's scalars are numbers here too."""
    if isinstance(value, str) and value in _SPECIAL:
        return value
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InvalidArguments(f"argument {position} must be a number, or one of the strings {', '.join(_SPECIAL)}")
    if isinstance(value, Integral):
        return int(value)
    number = float(value)
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
