"""Kept instances: state between calls, one call at a time, and that everything they held comes back."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from tensor_wasm.config import load
from tensor_wasm.errors import (
    Busy,
    DeadlineExceeded,
    GuestTrap,
    MissingExport,
    NotFound,
    QuotaExceeded,
    RequestError,
    Terminated,
)
from tensor_wasm.node import Node
from tensor_wasm.wasm import Module, ValType

I32 = ValType.I32


def counter() -> bytes:
    """``step`` counts in memory and gives the count; ``spin`` never returns; ``trap`` traps; ``size`` grows memory."""
    module = Module()
    module.memory(1, export="memory")
    step = module.function([], [I32], export="step").code
    step.i32_const(0)
    step.i32_const(0)
    step.memory("i32.load")
    step.i32_const(1)
    step.op("i32.add")
    step.memory("i32.store")
    step.i32_const(0)
    step.memory("i32.load")
    spin = module.function([], [], export="spin").code
    with spin.loop() as again:
        spin.br(again)
    module.function([], [], export="trap").code.op("unreachable")
    grow = module.function([I32], [I32], export="grow")
    grow.code.get(grow.parameters[0])
    grow.code.memory_grow()
    return module.encode().wasm


@pytest.fixture
def node(tmp_path):
    with Node(load({}, {"home": tmp_path, "instance_idle_s": 60.0}).config) as node:
        yield node


@pytest.fixture
def function(node):
    return node.functions.deploy("counter", counter(), 1)


def idle(node):
    return node.statistics.active_count == 0


def test_state_stays_between_calls_and_is_each_instances_own(node, function):
    first, second = (node.spawner.spawn(function.id, tenant=1) for _ in range(2))
    assert [node.kept.call(first.id, "step", tenant=1).results for _ in range(3)] == [[1], [2], [3]]
    assert node.kept.call(second.id, "step", tenant=1).results == [1]
    assert node.invocations.invoke(function.id, "step", tenant=1).results == [1]
    assert [(one.id, one.calls, one.state) for one in node.kept.list(1)] == [
        (first.id, 3, "idle"),
        (second.id, 1, "idle"),
    ]
    for one in (first, second):
        node.kept.delete(one.id, 1)
    assert node.kept.list(1) == []
    assert idle(node)


def test_a_mistake_of_the_caller_does_no_harm_to_the_instance(node, function):
    kept = node.spawner.spawn(function.id, tenant=1)
    with pytest.raises(MissingExport):
        node.kept.call(kept.id, "nothing", tenant=1)
    with pytest.raises(RequestError):
        node.kept.call(kept.id, "grow", ["x"], tenant=1)
    assert node.kept.call(kept.id, "step", tenant=1).results == [1]


def test_an_instance_that_trapped_or_passed_its_deadline_is_gone(node, function):
    for export, error in (("trap", GuestTrap), ("spin", DeadlineExceeded)):
        kept = node.spawner.spawn(function.id, tenant=1)
        with pytest.raises(error):
            node.kept.call(kept.id, export, tenant=1, deadline_s=0.2)
        with pytest.raises(NotFound):
            node.kept.call(kept.id, "step", tenant=1)
        assert idle(node)


def test_another_tenants_instance_does_not_exist(node, function):
    kept = node.spawner.spawn(function.id, tenant=1)
    assert node.kept.list(2) == []
    for act in (node.kept.show, node.kept.delete):
        with pytest.raises(NotFound):
            act(kept.id, 2)
    with pytest.raises(NotFound):
        node.kept.call(kept.id, "step", tenant=2)
    with pytest.raises(NotFound):
        node.spawner.spawn(function.id, tenant=2)


def test_one_call_at_a_time(node, function):
    kept = node.spawner.spawn(function.id, tenant=1)
    errors: list[BaseException] = []

    def spin():
        try:
            node.kept.call(kept.id, "spin", tenant=1)
        except Terminated as error:
            errors.append(error)

    thread = threading.Thread(target=spin)
    thread.start()
    while node.kept.show(kept.id, 1).state != "busy":
        time.sleep(0.005)
    with pytest.raises(Busy):
        node.kept.call(kept.id, "step", tenant=1)
    node.kept.delete(kept.id, 1)
    thread.join(20)
    assert len(errors) == 1
    assert node.kept.list(1) == []
    assert idle(node)


def test_an_operator_ends_an_idle_one_at_once(node, function):
    kept = node.spawner.spawn(function.id, tenant=1)
    (view,) = node.administration.instances(1)
    assert (view.state, view.deadline_left_s) == ("idle", None)
    done = asyncio.run(node.administration.terminate(kept.id))
    assert done.ended
    assert node.kept.list(1) == []
    assert node.statistics.read().terminations[1, "terminated"] == 1


def test_idle_ones_end_by_themselves(node, function):
    short = node.spawner.spawn(function.id, tenant=1, idle_timeout_s=0.05)
    long = node.spawner.spawn(function.id, tenant=1)
    until = time.monotonic() + 20
    while [one.id for one in node.kept.list(1)] != [long.id]:
        assert time.monotonic() < until
        time.sleep(0.02)
    with pytest.raises(NotFound):
        node.kept.call(short.id, "step", tenant=1)
    for wrong in (0, -1, 61):
        with pytest.raises(RequestError, match="idle_timeout_s"):
            node.spawner.spawn(function.id, tenant=1, idle_timeout_s=wrong)


def test_they_count_against_the_quota_of_instances_and_their_memory_comes_back(node, function):
    node.administration.change_tenant(1, {"instances": 1, "guest_memory_bytes": 4 << 16})
    kept = node.spawner.spawn(function.id, tenant=1)
    with pytest.raises(QuotaExceeded):
        node.spawner.spawn(function.id, tenant=1)
    assert node.kept.call(kept.id, "grow", [3], tenant=1).results == [1]
    assert node.kept.call(kept.id, "grow", [1], tenant=1).results == [-1]
    assert node.administration.tenant(1).usage.guest_memory_bytes == 4 << 16
    node.kept.delete(kept.id, 1)
    assert node.administration.tenant(1).usage.guest_memory_bytes == 0
    node.kept.delete(node.spawner.spawn(function.id, tenant=1).id, 1)


def test_a_drain_ends_idle_ones_and_waits_for_the_call_of_a_busy_one(node, function):
    node.spawner.spawn(function.id, tenant=1)
    assert node.drain.finish(5) == 0
    assert idle(node)


def test_a_call_that_is_cancelled_ends_the_instance_and_one_that_never_began_does_not(tmp_path):
    async def main(node):
        function = node.functions.deploy("counter", counter(), 1)
        kept, other = [await node.spawner.spawn_async(function.id, tenant=1) for _ in range(2)]
        task = asyncio.create_task(node.kept.call_async(kept.id, "spin", tenant=1))
        while not any(view.state == "running" for view in node.administration.instances(1)):
            await asyncio.sleep(0.005)
        # The only worker is taken; that of another call of the tenant waits in the queue.
        waiting = asyncio.create_task(node.kept.call_async(other.id, "step", tenant=1))
        await asyncio.sleep(0.02)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        until = time.monotonic() + 20
        while [one.id for one in node.kept.list(1)] != [other.id]:
            assert time.monotonic() < until
            await asyncio.sleep(0.01)
        assert (await node.kept.call_async(other.id, "step", tenant=1)).results == [1]

    with Node(load({}, {"home": tmp_path, "workers": 1}).config) as node:
        asyncio.run(main(node))


def test_an_instance_that_nobody_waits_for_any_more_is_not_kept(node, function, monkeypatch):
    made, go_on = threading.Event(), threading.Event()
    keep = node.kept.keep

    def slowly(*arguments):
        kept = keep(*arguments)
        made.set()
        assert go_on.wait(20)
        return kept

    monkeypatch.setattr(node.kept, "keep", slowly)

    async def main():
        task = asyncio.create_task(node.spawner.spawn_async(function.id, tenant=1))
        assert await asyncio.to_thread(made.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(node.kept.list(1)) == 1
        go_on.set()
        until = time.monotonic() + 20
        while node.kept.list(1):
            assert time.monotonic() < until
            await asyncio.sleep(0.01)

    asyncio.run(main())
    assert idle(node)
