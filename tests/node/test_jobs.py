"""Background jobs: that each runs once and is told as it was, that they wait their turn, and what a restart finds."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from contextlib import contextmanager

import pytest

from node.guests import add, printer, troublesome
from tensor_wasm.config import load
from tensor_wasm.errors import (
    CapacityExhausted,
    InvalidArguments,
    InvalidDeadline,
    MissingExport,
    NotFound,
    NotReady,
    StoreError,
    Terminated,
)
from tensor_wasm.node import IdempotencyKey, JobStatus, Node, read_result
from tensor_wasm.store import Changes, Database, IdempotencyStore, JobRequest, JobStore, NewJob
from tensor_wasm.wasm import Module, ValType

PATIENCE_S = 30.0
I64, F32, F64 = ValType.I64, ValType.F32, ValType.F64


def same() -> bytes:
    """``same(i64, f32, f64)`` gives what it takes."""
    module = Module()
    function = module.function([I64, F32, F64], [I64, F32, F64], export="same")
    for parameter in function.parameters:
        function.code.get(parameter)
    return module.encode().wasm


@contextmanager
def opened(home, **overrides):
    settings = {"home": home, "instance_memory_bytes": 1 << 26, "invoke_deadline_s": 30.0, "workers": 4}
    with Node(load({}, settings | overrides).config) as node:
        yield node


@pytest.fixture
def node(tmp_path):
    with opened(tmp_path) as node:
        yield node


def submit(node, *args, **more):
    return asyncio.run(node.jobs.submit(*args, **more)).job_id


def cancel(node, *args):
    return asyncio.run(node.jobs.cancel(*args))


def wait_for(is_so, what):
    until = time.monotonic() + PATIENCE_S
    while not (found := is_so()):
        assert time.monotonic() < until, what
        time.sleep(0.005)
    return found


def end_of(node, job_id, tenant=0):
    """The job once it has ended."""

    def ended():
        job = node.jobs.show(job_id, tenant)
        return job if job.finished_at is not None else None

    return wait_for(ended, "the job does not end")


def running(node, count=1, tenant=None):
    """Wait for so many live instances."""

    def found():
        views = node.administration.instances(tenant)
        return views if len(views) >= count else None

    return wait_for(found, f"no {count} instances run")


def start(node):
    ended = []
    node.job_queue.start(ended.append)
    return ended


def test_a_job_is_kept_runs_and_says_what_it_came_to(node):
    function = node.functions.deploy("adder", add()).id
    job_id = submit(node, function, "add", [2, 40], request_id="r-1")
    before = node.jobs.show(job_id)
    assert (before.status, before.started_at, before.result) == (JobStatus.PENDING, None, None)
    ended = start(node)
    job = end_of(node, job_id)
    assert (job.status, job.function_id, job.export, job.error_kind) == (JobStatus.COMPLETED, function, "add", None)
    assert job.created_at <= job.started_at <= job.finished_at
    result = read_result(job.result)
    assert (result.results, result.launches, result.function_id) == ([42], 0, function)
    wait_for(lambda: ended, "nobody was told")
    (told,) = ended
    assert (told.id, told.request_id, told.error_kind, told.export) == (job_id, "r-1", None, "add")
    assert told.duration_s == result.duration_s
    wait_for(lambda: not node.job_queue.busy, "it is still counted")
    assert node.job_queue.waiting == 0


def test_numbers_come_back_as_they_were(node):
    function = node.functions.deploy("same", same()).id
    start(node)
    job = end_of(node, submit(node, function, "same", [(1 << 63) - 1, "-Infinity", "NaN"]))
    whole, single, double = read_result(job.result).results
    assert (whole, single) == ((1 << 63) - 1, -math.inf)
    assert math.isnan(double)
    job = end_of(node, submit(node, function, "same", [-1, 0.1, 10**300]))
    assert read_result(job.result).results == [-1, 0.10000000149011612, 1e300]


def test_what_could_never_run_is_refused_at_once(node):
    function = node.functions.deploy("adder", add()).id
    for error, arguments, more in (
        (NotFound, ("11111111-1111-4111-8111-111111111111",), {}),
        (NotFound, (function,), {"tenant": 7}),
        (MissingExport, (function, "sub"), {}),
        (InvalidArguments, (function, "add", [1]), {}),
        (InvalidDeadline, (function,), {"deadline_s": 31.0}),
    ):
        with pytest.raises(error):
            submit(node, *arguments, **more)
    assert node.job_queue.waiting == 0
    assert node.jobs.list().items == []


def test_a_job_that_does_not_return_has_failed_and_says_why(node):
    function = node.functions.deploy("troublesome", troublesome()).id
    start(node)
    job = end_of(node, submit(node, function, "trap"))
    assert (job.status, job.error_kind, job.result) == (JobStatus.FAILED, "trap", None)
    assert "unreachable" in job.error_message


def test_a_deadline_counts_from_the_start_of_the_job(node):
    function = node.functions.deploy("troublesome", troublesome()).id
    late = submit(node, function, "count", deadline_s=0.2)
    spinning = submit(node, function, "spin", deadline_s=0.2)
    time.sleep(0.3)
    start(node)
    assert end_of(node, late).status is JobStatus.COMPLETED
    job = end_of(node, spinning)
    assert (job.status, job.error_kind) == (JobStatus.FAILED, "invoke_timeout")


def test_a_job_that_waits_is_cancelled_at_once_and_never_runs(node):
    function = node.functions.deploy("troublesome", troublesome()).id
    job_id = submit(node, function, "spin")
    with pytest.raises(NotFound):
        cancel(node, job_id, 7)
    assert cancel(node, job_id).status is JobStatus.CANCELLED
    start(node)
    assert end_of(node, submit(node, function, "count")).status is JobStatus.COMPLETED
    job = cancel(node, job_id)  # again: it stays as it is
    assert (job.status, job.started_at, job.error_kind) == (JobStatus.CANCELLED, None, "cancelled")
    with pytest.raises(NotFound):
        cancel(node, "11111111-1111-4111-8111-111111111111")


def test_a_job_that_runs_is_ended_when_it_is_cancelled(node):
    function = node.functions.deploy("troublesome", troublesome()).id
    start(node)
    job_id = submit(node, function, "spin")
    running(node)
    assert cancel(node, job_id).status in (JobStatus.RUNNING, JobStatus.CANCELLED)  # it may have ended by then
    job = end_of(node, job_id)
    assert (job.status, job.error_kind) == (JobStatus.CANCELLED, "cancelled")


def test_a_job_that_an_operator_ends_has_failed(node):
    function = node.functions.deploy("troublesome", troublesome()).id
    start(node)
    job_id = submit(node, function, "spin")
    (instance,) = running(node)
    asyncio.run(node.administration.terminate(instance.id))
    job = end_of(node, job_id)
    assert (job.status, job.error_kind) == (JobStatus.FAILED, "terminated")


def test_jobs_of_a_deleted_function_fail(node):
    function = node.functions.deploy("adder", add()).id
    job_id = submit(node, function)
    node.functions.delete(function)
    start(node)
    job = end_of(node, job_id)
    assert (job.status, job.error_kind) == (JobStatus.FAILED, "not_found")


def test_an_error_of_the_node_s_own_keeps_its_words_to_the_log(node, monkeypatch, caplog):
    function = node.functions.deploy("adder", add()).id
    job_id = submit(node, function, request_id="r-9")

    def broken(_call):
        raise StoreError("/secret/path cannot be read")

    monkeypatch.setattr(node.job_queue._runner, "_invoke", broken)
    start(node)
    job = end_of(node, job_id)
    assert (job.error_kind, "/secret" in job.error_message) == ("store_error", False)
    assert "/secret/path" in caplog.text


def test_output_is_kept_up_to_its_bound(tmp_path, monkeypatch):
    monkeypatch.setattr("tensor_wasm.node.job_results.OUTPUT_KEPT_BYTES", 3)
    with opened(tmp_path) as node:
        start(node)
        result = read_result(end_of(node, submit(node, node.functions.deploy("printer", printer()).id)).result)
    assert (result.stdout, result.dropped_output_bytes) == (b"hel", 2)


def test_a_tenant_s_waiting_jobs_are_bounded_and_another_s_are_not(tmp_path):
    with opened(tmp_path, job_queue_depth=3) as node:
        functions = {tenant: node.functions.deploy("adder", add(), tenant).id for tenant in (1, 2)}
        for _ in range(3):
            submit(node, functions[1], tenant=1)
        with pytest.raises(CapacityExhausted):
            submit(node, functions[1], tenant=1)
        other = submit(node, functions[2], tenant=2)
        assert node.statistics.read().refusals[1, "queue"] == 1
        cancel(node, node.jobs.list(1).items[0].id, 1)
        last = submit(node, functions[1], tenant=1)
        start(node)
        assert end_of(node, last, 1).status is JobStatus.COMPLETED
        assert end_of(node, other, 2).status is JobStatus.COMPLETED
        submit(node, functions[1], tenant=1)


def test_what_jobs_take_on_the_disk_is_bounded(tmp_path):
    with opened(tmp_path, job_stored_bytes=1 << 20) as node:
        function = node.functions.deploy("adder", add()).id
        large = submit(node, function, input=b"x" * 600_000)
        with pytest.raises(CapacityExhausted):
            submit(node, function, input=b"x" * 600_000)
        start(node)
        end_of(node, large)  # its input is gone from the disk with that
        wait_for(lambda: not node.job_queue.busy, "it is still counted")
        end_of(node, submit(node, function, input=b"x" * 600_000))


def test_the_oldest_results_go_when_all_take_too_much(tmp_path):
    with opened(tmp_path, job_stored_bytes=1 << 20) as node:
        function = node.functions.deploy("adder", add()).id
        start(node)

        async def many():
            found = []
            for _ in range(18):
                found += await asyncio.gather(*(node.jobs.submit(function) for _ in range(100)))
            return found  # of some 700 bytes each

        jobs = [submission.job_id for submission in asyncio.run(many())]
        end_of(node, jobs[-1])

        def is_gone():
            try:
                node.jobs.show(jobs[0])
            except NotFound:
                return True
            return False

        wait_for(is_gone, "the oldest is still there")
        assert end_of(node, jobs[-1]).status is JobStatus.COMPLETED


def test_jobs_that_last_leave_threads_to_calls_and_to_others(node):
    functions = {tenant: node.functions.deploy("troublesome", troublesome(), tenant).id for tenant in (1, 2)}
    start(node)
    spinning = [submit(node, functions[1], "spin", tenant=1) for _ in range(20)]
    running(node, 1, 1)
    assert asyncio.run(node.invocations.invoke_async(functions[1], "count", tenant=1)).results == [1]
    assert end_of(node, submit(node, functions[2], "count", tenant=2), 2).status is JobStatus.COMPLETED
    assert len(node.administration.instances(1)) <= 2
    begun = [job for job in node.jobs.list(1).items if job.status is JobStatus.RUNNING]
    assert 1 <= len(begun) <= 4  # what has begun on the disk is what runs, and a little ahead
    for job_id in reversed(spinning):
        cancel(node, job_id, 1)
    for job_id in spinning:
        assert end_of(node, job_id, 1).status is JobStatus.CANCELLED


def test_jobs_wait_for_an_instance_that_the_quota_has_no_room_for(node):
    function = node.functions.deploy("troublesome", troublesome(), 1).id
    node.administration.change_tenant(1, {"instances": 1})

    def block():
        with pytest.raises(Terminated):
            node.invocations.invoke(function, "spin", tenant=1)

    blocker = threading.Thread(target=block)
    blocker.start()
    (instance,) = running(node, 1, 1)
    start(node)
    jobs = [submit(node, function, "count", tenant=1) for _ in range(3)]
    wait_for(lambda: node.statistics.read().refusals[1, "instances"] >= 2, "no place is looked for again")
    # They wait as before: none has begun, or would count as begun if the node ended now.
    pending = JobStatus.PENDING
    wait_for(lambda: [job.id for job in node.jobs.list(1, status=pending).items] == jobs, "they are not left waiting")
    asyncio.run(node.administration.terminate(instance.id))
    blocker.join()
    for job_id in jobs:
        assert end_of(node, job_id, 1).status is JobStatus.COMPLETED


def test_a_key_makes_one_job_however_many_ask_at_once(node):
    function = node.functions.deploy("adder", add()).id
    key = IdempotencyKey(0, "k", b"h" * 32)

    async def many():
        return await asyncio.gather(*(node.jobs.submit(function, key=key) for _ in range(20)))

    found = asyncio.run(many())
    assert len({submission.job_id for submission in found}) == 1
    assert sum(not submission.is_replay for submission in found) == 1
    assert node.job_queue.waiting == 1
    node.functions.delete(function)
    again = asyncio.run(node.jobs.submit(function, key=key))  # the answer is the same, whatever has become of it
    assert (again.job_id, again.is_replay) == (found[0].job_id, True)


def test_what_is_swept_is_old_enough(node):
    function = node.functions.deploy("adder", add()).id
    start(node)
    job = end_of(node, submit(node, function))
    node.jobs.sweep(job.finished_at + node.config.job_retention_s - 1)
    assert node.jobs.show(job.id) == job
    node.jobs.sweep(job.finished_at + node.config.job_retention_s + 1)
    with pytest.raises(NotFound):
        node.jobs.show(job.id)


def test_a_node_that_drains_takes_no_jobs_and_leaves_those_that_wait(tmp_path):
    with opened(tmp_path) as node:
        function = node.functions.deploy("troublesome", troublesome()).id
        start(node)
        jobs = [submit(node, function, "spin") for _ in range(20)]
        running(node)
        assert node.drain.finish(0.0) >= 1
        with pytest.raises(NotReady):
            submit(node, function, "count")
    with opened(tmp_path) as node:
        found = {job.id: job.status for job in node.jobs.list().items}
        assert list(found) == jobs
        assert set(found.values()) == {JobStatus.PENDING, JobStatus.FAILED}
        assert 1 <= list(found.values()).count(JobStatus.FAILED) <= 2
        assert all(job.error_kind in (None, "terminated") for job in node.jobs.list().items)


def test_a_job_that_is_cancelled_while_it_is_about_to_begin_stays_so_after_a_restart(tmp_path):
    with opened(tmp_path, workers=1) as node:
        function = node.functions.deploy("troublesome", troublesome()).id
        start(node)
        spinning, next_one = (submit(node, function, "spin") for _ in range(2))
        running(node)
        wait_for(lambda: node.job_queue.busy == 2, "the next one is not claimed")
        cancel(node, next_one)
    with opened(tmp_path) as node:
        assert node.jobs.show(next_one).status is JobStatus.CANCELLED
        assert node.jobs.show(spinning).error_kind == "terminated"


def test_a_restart_fails_what_ran_and_runs_what_waited(tmp_path):
    with opened(tmp_path) as node:
        function = node.functions.deploy("adder", add()).id
    database = Database(tmp_path / "node.db")
    store = JobStore(database, IdempotencyStore(database))
    request = JobRequest("add", "[2, 3]", b"x" * 100_000, None)
    jobs = [NewJob(f"0000000{n}-0000-4000-8000-000000000000", 0, function, "r", request, 1.0) for n in range(2)]
    store.write(Changes(jobs))
    store.write(Changes(starts=[(1, 2.0)]))
    database.close()
    with opened(tmp_path) as node:
        ended = start(node)
        ran = node.jobs.show(jobs[0].id)
        assert (ran.status, ran.error_kind) == (JobStatus.FAILED, "node_restarted")
        waited = end_of(node, jobs[1].id)
        assert read_result(waited.result).results == [5]
        wait_for(lambda: len(ended) == 2, "not both were told")
        assert {(job.id, job.error_kind) for job in ended} == {(jobs[0].id, "node_restarted"), (jobs[1].id, None)}


def test_a_disk_that_fails_loses_nothing_that_was_acknowledged(node, monkeypatch):
    function = node.functions.deploy("adder", add()).id
    write = node.jobs._store.write
    failures = threading.Semaphore(0)
    kept = [submit(node, function) for _ in range(5)]

    def sometimes(changes):
        if failures.acquire(blocking=False):
            raise StoreError("the disk is full")
        return write(changes)

    monkeypatch.setattr(node.jobs._store, "write", sometimes)
    failures.release()
    with pytest.raises(StoreError):
        submit(node, function)
    failures.release()
    with pytest.raises(StoreError):
        cancel(node, kept[0])
    failures.release()  # the first starts, then ends
    start(node)
    wait_for(lambda: not failures._value, "nothing was written")
    failures.release()
    for job_id in kept:
        assert end_of(node, job_id).status is JobStatus.COMPLETED
    assert len(node.jobs.list().items) == 5
