"""Whose compilation is next."""

from __future__ import annotations

import pytest

from tensor_wasm.device.compiler_jobs import SMALL_BYTES, Job
from tensor_wasm.device.compiler_messages import Kind
from tensor_wasm.device.compiler_queue import JobQueue
from tensor_wasm.errors import CapacityExhausted, PtxError


def job(caller: int | None, name: str = "", *, is_small: bool = True) -> Job:
    text = name.encode() if is_small else bytes(SMALL_BYTES + 1)
    return Job(Kind.KERNEL, (text,), "kernel", PtxError, lambda _fields, _seconds: None, caller=caller)


def taken(queue: JobQueue, count: int) -> list[Job]:
    found = [queue.take(small_only=False) for _ in range(count)]
    return [one for one in found if one is not None]


def test_callers_take_turns_however_many_one_of_them_has_waiting() -> None:
    queue = JobQueue(64)
    for _ in range(5):
        queue.push(job(1))
    for _ in range(2):
        queue.push(job(2))
    served = []
    for _ in range(4):
        (one,) = taken(queue, 1)
        served.append(one.caller)
        queue.done(one)
    assert served == [1, 2, 1, 2]


def test_who_has_one_running_lets_another_go_first() -> None:
    queue = JobQueue(64)
    for caller in (1, 1, 2):
        queue.push(job(caller))
    assert [one.caller for one in taken(queue, 3)] == [1, 2, 1]


def test_who_has_one_running_waits_also_when_it_was_served_before_the_other() -> None:
    queue = JobQueue(64)
    for caller in (1, 2, 1, 2):
        queue.push(job(caller))
    first, second = taken(queue, 2)
    assert (first.caller, second.caller) == (1, 2)
    queue.done(second)
    assert [one.caller for one in taken(queue, 1)] == [2]


def test_jobs_of_a_caller_are_served_in_order() -> None:
    queue = JobQueue(64)
    jobs = [job(1, str(number)) for number in range(4)]
    for one in jobs:
        queue.push(one)
    assert taken(queue, 4) == jobs


def test_a_lane_for_small_texts_leaves_large_ones() -> None:
    queue = JobQueue(64)
    large = job(1, is_small=False)
    queue.push(large)
    assert queue.take(small_only=True) is None
    assert queue.take(small_only=False) is large


def test_one_caller_may_fill_half_of_the_queue() -> None:
    queue = JobQueue(8)
    for _ in range(4):
        queue.push(job(1))
    with pytest.raises(CapacityExhausted):
        queue.push(job(1))
    for caller in (2, 3, 4, 5):
        queue.push(job(caller))
    with pytest.raises(CapacityExhausted):
        queue.push(job(6))
    next(iter(queue)).future.cancel()
    queue.push(job(6))
