from __future__ import annotations

import dataclasses
import threading
import time
import uuid

import pytest

from tensor_wasm.errors import CapacityExhausted, IdempotencyConflict, NotFound, StoreError
from tensor_wasm.store import (
    Changes,
    FunctionRecord,
    Group,
    IdempotencyKey,
    IdempotencyStore,
    JobEnd,
    JobRequest,
    JobStatus,
    JobStore,
    NewJob,
    Registry,
    idempotency,
)
from tensor_wasm.store.jobs import ROW_BYTES

DAY_S = 86_400.0


def new_job(tenant=1, key=None, **fields):
    request = JobRequest(**({"export": "run", "arguments": "[1]", "input": b"\0\xff", "deadline_s": 2.5} | fields))
    return NewJob(str(uuid.uuid4()), tenant, "function", "request", request, 1000.5, key)


def key(text="k", tenant=1, request=b"same"):
    return IdempotencyKey(tenant, text, request.ljust(32))


def completed(position, size_bytes=600, finished_at=1002.0):
    return JobEnd(position, JobStatus.COMPLETED, 1001.25, finished_at, size_bytes, '{"results":[]}')


@pytest.fixture
def keys(database):
    return IdempotencyStore(database)


@pytest.fixture
def store(database, keys):
    return JobStore(database, keys)


def test_what_was_written_is_there(store):
    job = new_job()
    assert store.write(Changes([job])) == [1]
    record = store.get(job.id, 1)
    assert (record.status, record.created_at, record.started_at, record.export) == (
        JobStatus.PENDING, 1000.5, None, "run",
    )  # fmt: skip
    assert store.request(1) == job.request
    assert [(row.position, row.id, row.size_bytes) for row in store.pending()] == [(1, job.id, job.request.size_bytes)]
    assert store.get(job.id, 2) is None
    assert store.request(2) is None


def test_a_job_begins_and_ends_and_its_request_goes(store):
    job = new_job()
    store.write(Changes([job]))
    store.write(Changes(starts=[(1, 1001.0)]))
    assert (store.get(job.id, 1).status, store.get(job.id, 1).started_at) == (JobStatus.RUNNING, 1001.0)
    store.write(Changes(returns=[1]))
    assert (store.get(job.id, 1).status, store.get(job.id, 1).started_at) == (JobStatus.PENDING, None)
    store.write(Changes(starts=[(1, 1001.0)]))
    store.write(Changes(ends=[completed(1)]))
    record = store.get(job.id, 1)
    assert (record.status, record.started_at, record.finished_at) == (JobStatus.COMPLETED, 1001.25, 1002.0)
    assert record.result == '{"results":[]}'
    assert (store.request(1).input, store.request(1).arguments) == (b"", "[]")
    assert store.pending() == []
    assert store.sizes() == {1: (0, 600)}


def test_many_changes_share_a_transaction_or_none_is_made(store, database):
    jobs = [new_job() for _ in range(150)]  # more than one statement takes
    assert store.write(Changes(jobs)) == list(range(1, 151))
    ends = [completed(position) for position in range(1, 100)]
    broken = dataclasses.replace(ends[-1], size_bytes="not a number")
    with pytest.raises(StoreError):
        store.write(Changes([new_job()], [(120, 1.0)], [], [*ends[:-1], broken]))
    assert len(store.pending()) == 150
    more = new_job()
    assert store.write(Changes([more], [(120, 1.0)], [], ends)) == [151]  # the failed one's position was free again
    found = {status: len(store.list(1, 1000, None, status)) for status in JobStatus}
    assert [found[status] for status in JobStatus] == [51, 1, 99, 0, 0]


def test_lists_are_oldest_first_and_go_page_by_page(store):
    jobs = [new_job(), new_job(2), new_job(), new_job()]
    store.write(Changes(jobs))
    mine = [job.id for job in jobs if job.tenant == 1]
    assert [job.id for job in store.list(1, 2)] == mine[:2]
    assert [job.id for job in store.list(1, 2, mine[1])] == mine[2:]
    with pytest.raises(NotFound):
        store.list(1, 2, jobs[1].id)


def test_jobs_that_ran_when_the_node_ended_have_failed(store, database, keys):
    jobs = [new_job(), new_job(2), new_job()]
    store.write(Changes(jobs, []))
    store.write(Changes(starts=[(1, 1.0), (2, 1.0)]))
    again = JobStore(database, keys)
    ended = again.fail_running(1005.0)
    assert {(job.id, job.tenant, job.status, job.error_kind, job.finished_at) for job in ended} == {
        (job.id, job.tenant, JobStatus.FAILED, "node_restarted", 1005.0) for job in jobs[:2]
    }
    assert [job.id for job in again.pending()] == [jobs[2].id]
    assert again.fail_running(1006.0) == []
    assert again.write(Changes([new_job()])) == [4]


def test_of_the_oldest_jobs_as_few_go_as_have_the_bytes(store):
    store.write(Changes([new_job() for _ in range(6)]))
    store.write(Changes(ends=[completed(position, 700, 10.0) for position in range(1, 6)]))
    assert store.forget_oldest(1, 10, 700) == {1: (1, 700)}
    assert store.forget_oldest(1, 10, 701) == {1: (2, 1400)}
    assert store.forget_oldest(1, 1, 5000) == {1: (1, 700)}
    assert store.forget_oldest(1, 10, 5000) == {1: (1, 700)}
    assert store.forget_oldest(1, 10, 5000) == {}


def test_old_jobs_are_forgotten_and_say_what_they_counted_for(store):
    store.write(Changes([new_job(), new_job(), new_job(2), new_job()]))
    store.write(Changes(ends=[completed(1, 700, 10.0), completed(2, 800, 20.0), completed(3, 900, 5.0)]))
    assert store.sizes()[1] == (new_job().request.size_bytes, 1500)
    assert store.forget_before(15.0, 10) == {1: (1, 700), 2: (1, 900)}
    assert store.forget_before(15.0, 10) == {}
    assert store.forget_oldest(1, 10, 1) == {1: (1, 800)}
    assert len(store.list(1, 10)) == 1


def test_a_key_makes_one_job_also_within_a_transaction(store, keys):
    first, second, third = (new_job(key=key()) for _ in range(3))
    assert store.write(Changes([first, second])) == [1, first.id]
    assert store.write(Changes([third, new_job(2, key=key(tenant=2)), new_job()])) == [first.id, 2, 3]
    assert keys.find(key()) == first.id
    assert keys.find(key("other")) is None


def test_a_key_of_another_request_is_a_conflict(store, keys):
    other = key(request=b"another")
    kept = store.write(Changes([new_job(key=key()), new_job(key=other)]))
    assert kept[0] == 1
    assert isinstance(kept[1], IdempotencyConflict)
    (kept,) = store.write(Changes([new_job(key=other)]))
    assert isinstance(kept, IdempotencyConflict)
    with pytest.raises(IdempotencyConflict):
        keys.find(other)
    assert len(store.list(1, 10)) == 1


def test_a_key_is_kept_with_its_job_or_not_at_all(store, keys):
    broken = dataclasses.replace(new_job(key=key()), created_at="no time")
    with pytest.raises(StoreError):
        store.write(Changes([broken]))
    assert keys.find(key()) is None
    job = new_job(key=key())
    store.write(Changes([job]))
    assert keys.find(key()) == job.id


def test_a_key_is_forgotten_after_a_day(store, keys, monkeypatch):
    store.write(Changes([new_job(key=key(f"k{number}")) for number in range(700)]))
    now = time.time()
    assert keys.sweep(now + DAY_S - 60) == 0
    monkeypatch.setattr(idempotency.time, "time", lambda: now + DAY_S + 60)
    assert keys.find(key("k1", request=b"another")) is None  # also before it was swept
    job = new_job(key=key("k1", request=b"another"))
    store.write(Changes([job]))
    assert keys.sweep(now + DAY_S + 60) == 699
    assert keys.find(key("k1", request=b"another")) == job.id


def test_a_tenant_s_keys_are_bounded_and_known_ones_still_found(store, keys, database, monkeypatch):
    monkeypatch.setattr(idempotency, "KEYS_MAX", 2)
    first = new_job(key=key("a"))
    store.write(Changes([first, new_job(key=key("b"))]))
    for known in (keys, IdempotencyStore(database)):
        with pytest.raises(CapacityExhausted):
            known.find(key("c"))
        assert known.find(key("a")) == first.id
        assert known.find(key("c", tenant=2)) is None
    keys.sweep(time.time() + DAY_S + 60)
    assert keys.find(key("c")) is None


def test_a_key_makes_one_function(database, keys):
    registry = Registry(database, keys)
    first, second = (FunctionRecord(str(uuid.uuid4()), 1, "f", "ab" * 32, 8, 1.0) for _ in range(2))
    assert registry.add(first, key()) == first.id
    assert registry.add(second, key()) == first.id
    with pytest.raises(IdempotencyConflict):
        registry.add(second, key(request=b"another"))
    assert [record.id for record in registry.all()] == [first.id]
    assert registry.add(second) == second.id


@pytest.mark.parametrize(
    "query",
    [
        "SELECT id FROM jobs WHERE tenant = '1' AND position > 5 AND status = 'failed' ORDER BY position LIMIT 5",
        "SELECT id FROM jobs WHERE tenant = '1' AND position > 5 ORDER BY position LIMIT 5",
        "SELECT id FROM jobs WHERE status IN ('pending', 'running') AND +status = 'pending' ORDER BY position",
        "SELECT position FROM jobs WHERE finished_at < 5 LIMIT 5",
        (
            "WITH e (position, a) AS (VALUES (1, 2), (3, 4)) UPDATE jobs SET started_at = e.a FROM e"
            " WHERE jobs.position = e.position"
        ),
        (
            "WITH asked (tenant, key) AS (VALUES ('1', 'a'), ('1', 'b')) SELECT k.resource FROM asked CROSS JOIN"
            " idempotency k ON k.tenant = asked.tenant AND k.key = asked.key"
        ),
    ],
)
def test_no_query_reads_through_all_jobs(store, database, query):
    plan = [row[3] for row in database.rows(f"EXPLAIN QUERY PLAN {query}")]
    assert not [step for step in plan if step.startswith(("SCAN jobs", "SCAN k")) and "INDEX" not in step], plan
    assert not [step for step in plan if "TEMP B-TREE" in step], plan


def test_a_job_counts_for_more_than_its_texts(store):
    assert new_job(arguments="[]", input=b"", export=None).request.size_bytes == ROW_BYTES + 2


def test_what_waits_is_written_together_in_its_order_and_all_of_it_at_the_end():
    written, may_write = [], threading.Event()

    def write(items):
        assert may_write.wait(20)
        written.append(items)
        if 0 in items:
            group.put(["more"])

    group = Group(write, "test")
    group.put([0])
    for number in range(1, 100):
        group.put([number])
    may_write.set()
    group.close()
    flat = [item for items in written for item in items]
    assert flat == [*range(100), "more"]
    assert len(written) < 10


def test_many_are_forgotten_in_bounded_pieces(store):
    store.write(Changes([new_job(tenant) for tenant in (1, 2) for _ in range(300)]))
    store.write(Changes(ends=[completed(position, 600, 10.0) for position in range(1, 601)]))
    counts = []
    while gone := store.forget_before(20.0, 250):
        counts.append(sum(count for count, _ in gone.values()))
    assert counts == [250, 250, 100]
    assert store.sizes() == {}
