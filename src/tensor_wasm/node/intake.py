"""The way of work into a node: whether any is taken, until when it may last, and the threads it runs on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from tensor_wasm.errors import CapacityExhausted, InvalidDeadline, NotReady
from tensor_wasm.node.accounts import Refused
from tensor_wasm.node.origin import carried
from tensor_wasm.node.workers import Workers

_Result = TypeVar("_Result")

#: Longest that work off the event loop waits for its turn.
_BACKGROUND_WAIT_NS = 60_000_000_000


class Intake:
    """What all work of tenants goes through. Safe for threads.

    ``workers`` run guests and ``background`` what else must not stop an event loop. A call lasts at most ``longest_s``,
    which is also what one gets that asks for nothing. ``look_soon`` has running guests see their cancellation;
    ``refused`` is told (tenant, "queue") of what finds no place.
    """

    def __init__(
        self, workers: Workers, background: Workers, longest_s: float, look_soon: Callable[[], None], refused: Refused
    ) -> None:
        self._workers = workers
        self._background = background
        self._longest_s = longest_s
        self._look_soon = look_soon
        self._refused = refused
        self._is_open = True

    @property
    def is_open(self) -> bool:
        """Whether the node takes work."""
        return self._is_open

    @property
    def running(self) -> int:
        """Calls that run on workers. Asks no lock, as :attr:`waiting` does not."""
        return self._workers.running

    @property
    def waiting(self) -> int:
        """Calls that wait for a worker."""
        return self._workers.queued

    def queued(self) -> dict[int, int]:
        """How many calls of each tenant wait for a worker; without those that have none."""
        return self._workers.waiting()

    def stop(self) -> None:
        """Take no more work."""
        self._is_open = False

    def check_open(self) -> None:
        """Raises :class:`NotReady` when the node takes no more work."""
        if not self._is_open:
            raise NotReady("the node is draining and takes no more work")

    def deadline_ns(self, deadline_s: float | None) -> int:
        """When a call must be over that begins now, on :func:`time.monotonic_ns`'s clock.

        Raises as :meth:`check_deadline`.
        """
        if deadline_s is None:
            deadline_s = self._longest_s
        self.check_deadline(deadline_s)
        return time.monotonic_ns() + int(deadline_s * 1e9)

    def check_deadline(self, deadline_s: float) -> None:
        """Raises :class:`InvalidDeadline` for a call that is to last longer than one may, or no time."""
        if not 0 < deadline_s <= self._longest_s:
            raise InvalidDeadline(f"the deadline must be above 0 and at most {self._longest_s:g} seconds")

    async def on_worker(
        self, tenant: int, deadline_ns: int, work: Callable[[], _Result], cancelled: list[bool]
    ) -> _Result:
        """Run what calls a guest on a worker; the call sees its cancellation in ``cancelled``.

        Raises :class:`CapacityExhausted` when too many calls of the tenant wait, and
        :class:`~tensor_wasm.errors.DeadlineExceeded` when its turn does not come.
        """
        try:
            return await self._workers.run(tenant, carried(work), deadline_ns)
        except asyncio.CancelledError:
            cancelled.append(True)
            self._look_soon()
            raise
        except CapacityExhausted:
            self._refused(tenant, "queue")
            raise

    async def in_background(self, tenant: int, function: Callable[..., _Result], *args: object) -> _Result:
        """Run a blocking use case (a deploy, a list) of a tenant off the event loop; tenants take turns.

        Raises as :meth:`on_worker` does.
        """
        deadline_ns = time.monotonic_ns() + _BACKGROUND_WAIT_NS
        try:
            return await self._background.run(tenant, carried(lambda: function(*args)), deadline_ns)
        except CapacityExhausted:
            self._refused(tenant, "queue")
            raise
