"""The threads that run calls: how many at once, for whom, and that none is lost."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time

import pytest

from tensor_wasm.errors import CapacityExhausted, DeadlineExceeded
from tensor_wasm.node.workers import Workers
from tensor_wasm.runtime import asleep, let_others_first, priority

FAR_NS = 1 << 62


def even(_tenant: int) -> int:
    return 1


class Gate:
    """Calls that wait until they are let go."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.entered = threading.Semaphore(0)

    def call(self) -> str:
        self.entered.release()
        assert self.opened.wait(20)
        return "done"


def run(work) -> None:
    """Run a test that gets workers; they must end with it."""

    async def main() -> None:
        workers = Workers(2, 3, even)
        try:
            await asyncio.wait_for(work(workers), 30)
        finally:
            await asyncio.to_thread(workers.close)
        assert workers.queued == 0
        assert not [t for t in threading.enumerate() if t.name.startswith("worker-")]

    asyncio.run(main())


async def begun(gate: Gate, count: int) -> None:
    for _ in range(count):
        assert await asyncio.to_thread(gate.entered.acquire, timeout=10)


def test_a_call_gives_its_result_or_its_error() -> None:
    async def work(workers: Workers) -> None:
        assert await workers.run(1, lambda: 42, FAR_NS) == 42
        with pytest.raises(ZeroDivisionError):
            await workers.run(1, lambda: 1 // 0, FAR_NS)

    run(work)


def test_so_many_run_at_once_and_the_next_waits() -> None:
    async def work(workers: Workers) -> None:
        gate = Gate()
        tasks = [asyncio.create_task(workers.run(1, gate.call, FAR_NS)) for _ in range(4)]
        await begun(gate, 2)
        assert workers.waiting() == {1: 2}
        assert not gate.entered.acquire(blocking=False)
        gate.opened.set()
        assert await asyncio.gather(*tasks) == ["done"] * 4

    run(work)


def test_a_tenant_of_which_nothing_runs_does_not_wait_for_others() -> None:
    async def work(workers: Workers) -> None:
        gate = Gate()
        tasks = [asyncio.create_task(workers.run(1, gate.call, FAR_NS)) for _ in range(4)]
        await begun(gate, 2)
        for tenant in (2, 3):
            assert await workers.run(tenant, lambda: "at once", FAR_NS) == "at once"
        second = Gate()
        tasks.append(asyncio.create_task(workers.run(2, second.call, FAR_NS)))
        await begun(second, 1)
        tasks.append(asyncio.create_task(workers.run(2, second.call, FAR_NS)))
        await asyncio.sleep(0.05)
        assert workers.waiting() == {1: 2, 2: 1}, "a second call of the tenant waits like the others'"
        gate.opened.set()
        second.opened.set()
        await asyncio.gather(*tasks)

    run(work)


def test_a_tenants_queue_is_bounded_and_another_tenants_is_not_full() -> None:
    async def work(workers: Workers) -> None:
        gate = Gate()
        tasks = [asyncio.create_task(workers.run(1, gate.call, FAR_NS)) for _ in range(5)]
        await begun(gate, 2)
        with pytest.raises(CapacityExhausted):
            await workers.run(1, gate.call, FAR_NS)
        assert await workers.run(2, lambda: 1, FAR_NS) == 1
        gate.opened.set()
        await asyncio.gather(*tasks)

    run(work)


def test_a_call_that_waits_too_long_or_is_cancelled_leaves_the_queue() -> None:
    async def work(workers: Workers) -> None:
        gate = Gate()
        tasks = [asyncio.create_task(workers.run(1, gate.call, FAR_NS)) for _ in range(2)]
        await begun(gate, 2)
        ran: list[int] = []
        with pytest.raises(DeadlineExceeded):
            await workers.run(1, lambda: ran.append(1), time.monotonic_ns() + 50_000_000)
        cancelled = asyncio.create_task(workers.run(1, lambda: ran.append(2), FAR_NS))
        await asyncio.sleep(0.02)
        assert workers.queued == 1
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert workers.queued == 0
        gate.opened.set()
        await asyncio.gather(*tasks)
        assert ran == []

    run(work)


def test_threads_that_were_needed_for_a_while_end() -> None:
    async def work(workers: Workers) -> None:
        gate = Gate()
        tasks = [asyncio.create_task(workers.run(tenant, gate.call, FAR_NS)) for tenant in range(6)]
        await begun(gate, 6)
        gate.opened.set()
        await asyncio.gather(*tasks)
        await asyncio.sleep(0.05)
        workers.trim()
        workers.trim()
        assert await workers.run(1, lambda: 1, FAR_NS) == 1
        until = time.monotonic() + 10
        while len([t for t in threading.enumerate() if t.name.startswith("worker-")]) != 2:
            assert time.monotonic() < until
            await asyncio.sleep(0.01)
        gate = Gate()
        tasks = [asyncio.create_task(workers.run(tenant, gate.call, FAR_NS)) for tenant in range(4)]
        await begun(gate, 4)
        gate.opened.set()
        await asyncio.gather(*tasks)

    run(work)


def test_threads_whose_guests_ran_long_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(priority, "LONG_NS", 0)

    async def work(_: Workers) -> None:
        workers = Workers(2, 50, even, "spent", (1, 2))

        def long_call(number: int) -> int:
            let_others_first()
            return number

        try:
            for _round in range(20):
                calls = (workers.run(n % 3, lambda n=n: long_call(n), FAR_NS) for n in range(20))
                assert await asyncio.gather(*calls) == list(range(20))
        finally:
            await asyncio.to_thread(workers.close)
        assert workers.queued == 0
        assert not [t for t in threading.enumerate() if t.name.startswith("spent-")]

    run(work)


def test_no_more_calls_run_than_cores_unless_they_sleep_or_are_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(priority, "LONG_NS", 0)

    async def work(_: Workers) -> None:
        workers = Workers(4, 50, even, "cores", (1, 2), cores=2)
        asleep_gate, awake, long, last = (Gate() for _ in range(4))

        def sleep_then_run() -> str:
            with asleep():
                asleep_gate.call()
            return awake.call()

        def become_long() -> str:
            let_others_first()
            return long.call()

        async def start(call) -> asyncio.Task[str]:
            task = asyncio.create_task(workers.run(1, call, FAR_NS))
            await asyncio.sleep(0.02)
            return task

        try:
            tasks = [await start(sleep_then_run), await start(become_long)]
            await begun(asleep_gate, 1)
            await begun(long, 1)
            tasks += [await start(last.call) for _ in range(3)]
            await begun(last, 2)  # four run, two of which want a core
            assert workers.waiting() == {1: 1}, "no more run than there may be at once"
            asleep_gate.opened.set()
            await begun(awake, 1)  # three want one
            long.opened.set()
            await tasks[1]
            await asyncio.sleep(0.05)
            assert workers.waiting() == {1: 1}, "there is no core for it"
            assert await workers.run(2, lambda: "at once", FAR_NS) == "at once", "but for another's only one there is"
            assert workers.waiting() == {1: 1}
            awake.opened.set()
            await tasks[0]
            await asyncio.sleep(0.05)
            assert workers.waiting() == {1: 1}, "two want a core still"
            last.opened.set()
            assert await asyncio.gather(*tasks) == ["done"] * 5
        finally:
            await asyncio.to_thread(workers.close)

    run(work)


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux only")
def test_a_tenants_further_calls_step_back_more_than_its_first() -> None:
    async def work(_: Workers) -> None:
        workers = Workers(4, 50, even, "stepping", (3, 6))
        base = os.getpriority(os.PRIO_PROCESS, os.getpid())
        gate = Gate()

        def niceness() -> int:
            gate.call()
            return os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) - base

        try:
            tasks = [asyncio.create_task(workers.run(tenant, niceness, FAR_NS)) for tenant in (1, 1, 1, 2)]
            await begun(gate, 4)
            gate.opened.set()
            assert await asyncio.gather(*tasks) == [3, 6, 6, 3]

            def one_that_takes(cpu_s: float) -> int:
                until = time.thread_time() + cpu_s
                while time.thread_time() < until:
                    pass
                time.sleep(0.06)  # a guest that sleeps takes no core from others
                let_others_first()
                return niceness()

            assert await workers.run(1, lambda: one_that_takes(0.0), FAR_NS) == 3
            assert await workers.run(1, lambda: one_that_takes(0.06), FAR_NS) == priority.LONG_NICENESS
        finally:
            await asyncio.to_thread(workers.close)

    run(work)
