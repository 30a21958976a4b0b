"""Tenants, kernels, lanes and requests in flight, as a worker's engine knows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tensor_wasm.device.cuda.board import (
    BODIES,
    BODY_BYTES,
    DONE,
    DOORBELL_BYTES,
    ENDED,
    FAULT_LINE,
    PARAMETERS,
    Result,
)
from tensor_wasm.device.partition import Partition

if TYPE_CHECKING:
    from tensor_wasm.device.cuda.timing import Timing

#: Bytes of a word of a doorbell.
WORD_BYTES: Final = 4


class Tenant:
    """A tenant with a partition: images of its kernels, windows and copies lie inside."""

    __slots__ = (
        "is_closing",
        "kernels",
        "lanes",
        "number",
        "partition",
    )

    def __init__(self, number: int, partition: Partition) -> None:
        self.number = number
        self.partition = partition
        self.kernels: set[Kernel] = set()
        self.lanes: set[Lane] = set()
        self.is_closing = False


@dataclass(slots=True)
class Assembled:
    """A module before a kernel is taken from it.

    ``wide`` is another module of the same text, 0 where there is none: its kernel takes few enough registers for the
    largest blocks, and is slower for it.
    """

    wide: int = 0


class Kernel:
    """A kernel of a tenant. ``fault`` is where on the device its fault line is, 0 for one that leaves none.

    Blocks of up to ``fast_threads`` run ``function``, those of up to ``max_threads`` the one of the wide module.
    """

    __slots__ = (
        "fast_threads",
        "fault",
        "function",
        "lane",
        "max_threads",
        "modules",
        "name",
        "number",
        "parameter_bytes",
        "shared_bytes",
        "tenant",
        "wide_function",
    )

    def __init__(
        self,
        *,
        number: int,
        tenant: Tenant,
        modules: list[int],
        function: int,
        fast_threads: int,
        wide_function: int,
        name: str,
        parameter_bytes: int,
        max_threads: int,
        fault: int,
    ) -> None:
        self.number = number
        self.tenant = tenant
        self.modules = modules
        self.function = function
        self.fast_threads = fast_threads
        self.wide_function = wide_function
        self.name = name
        self.parameter_bytes = parameter_bytes
        self.max_threads = max_threads
        self.fault = fault
        #: Dynamic shared memory that the driver was told of.
        self.shared_bytes = 0
        #: Which ran it last, where it leaves faults.
        self.lane: Lane | None = None


class Lane:
    """A lane that is open, or not yet closed because it is busy."""

    __slots__ = (
        "accepted_ns",
        "base",
        "body",
        "done_address",
        "end",
        "ended_address",
        "fault_address",
        "is_closed",
        "is_closing",
        "kernel",
        "number",
        "parameters",
        "result",
        "started",
        "stream",
        "tenant",
        "timing",
        "trusted",
        "word",
    )

    def __init__(self, number: int, tenant: Tenant, stream: int, host_address: int, device_address: int) -> None:
        self.number = number
        self.tenant = tenant
        self.stream = stream
        self.base = tenant.partition.base
        self.end = self.base + tenant.partition.size_bytes
        doorbell = number * DOORBELL_BYTES
        self.word = doorbell // WORD_BYTES
        self.body = BODIES + number * BODY_BYTES
        self.parameters = host_address + self.body + PARAMETERS
        self.fault_address = host_address + doorbell + FAULT_LINE
        self.done_address = device_address + doorbell + DONE
        self.ended_address = device_address + doorbell + ENDED
        #: Number of the latest request that was begun.
        self.started = 0
        self.kernel: Kernel | None = None
        self.accepted_ns = 0
        #: Of a request that the driver did not take whole: what is written once the stream is done.
        self.result = Result.OK
        #: Of the request in flight, where it is timed.
        self.timing: Timing | None = None
        self.trusted = 0
        self.is_closing = self.is_closed = False


@dataclass(frozen=True, slots=True)
class Running:
    """A request in flight. ``since_s`` is of :func:`time.monotonic`."""

    lane: int
    tenant: int
    kernel: str
    since_s: float
