"""A node in this process and one over HTTP, plain and for event loops, do the same, and fail the same."""

from __future__ import annotations

import inspect
import io
import math
import os
import threading
import time
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest

import tensor_wasm as tw
from api.guests import emitter
from api.kernels import PTX, publisher, signed
from api.ways import WAYS, opened

NOBODY = "00000000-0000-4000-8000-000000000000"
LETTERS = b"abcdefghijklmnopqrstuvwxyz"


@pytest.fixture
def function(node):
    return node.deploy("guest", emitter())


def until(is_so):
    end = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_function_is_described_listed_and_deleted(node):
    function = node.deploy("guest", emitter())
    assert (function.name, function.tenant, function.size_bytes) == ("guest", 1, len(emitter()))
    assert tw.Export("half", ("f64",), ("f64",)) in function.exports
    assert tw.Import("wasi_snapshot_preview1", "fd_write") in function.imports
    assert node.function(function.id) == function
    others = [node.deploy(f"other-{number}", emitter(), tenant=2) for number in range(3)]
    assert list(node.functions()) == [function]
    assert list(node.functions(tenant=2)) == others
    node.delete(function.id)
    assert list(node.functions()) == []
    with pytest.raises(tw.errors.NotFound):
        node.function(function.id)


def test_a_function_is_warmed_up_and_deployed_once_for_its_key(node):
    first, again = (node.deploy("guest", emitter(), prewarm="step", idempotency_key="k") for _ in range(2))
    assert first == again
    assert first.prewarm == "step"
    assert node.invoke(first.id, "step").results == [2]
    with pytest.raises(tw.errors.IdempotencyConflict):
        node.deploy("guest", emitter(), idempotency_key="k")
    with pytest.raises(tw.errors.MissingExport):
        node.deploy("guest", emitter(), prewarm="nope")
    assert list(node.functions()) == [first]


@pytest.mark.slow
def test_a_list_is_longer_than_a_page(node):
    made = [node.deploy(f"f-{number}", emitter()).id for number in range(103)]
    assert [function.id for function in node.functions()] == made


def test_a_call_gives_values_exactly(node, function):
    assert node.invoke(function.id, "add", [1, 2]).results == [3]
    assert node.invoke(function.id, "add", [np.int8(-1), np.uint32(4_000_000_000)]).results == [-294_967_297]
    assert node.invoke(function.id, "same", [(1 << 63) - 1]).results == [(1 << 63) - 1]
    assert node.invoke(function.id, "half", [np.float32(0.5)]).results == [0.25]
    assert node.invoke(function.id, "half", [3]).results == [1.5]
    for given in (math.inf, -math.inf, "Infinity", "-Infinity"):
        assert node.invoke(function.id, "half", [given]).results == [float(given)]
    (nothing,) = node.invoke(function.id, "half", [math.nan]).results
    assert math.isnan(nothing)


def test_a_call_tells_what_the_guest_wrote(node, function):
    result = node.invoke(function.id, "hello", deadline=5.0)
    assert (result.results, result.stdout, result.stderr) == ([], "hi\N{REPLACEMENT CHARACTER}", "")
    assert result.function_id == function.id
    assert result.instance_id != function.id
    assert result.duration > 0
    assert result.launches == 0


@pytest.mark.parametrize(
    ("error", "call"),
    [
        ("NotFound", lambda node, id: node.invoke(NOBODY, "add", [1, 2])),
        ("NotFound", lambda node, id: node.invoke("", "add", [1, 2])),
        ("NotFound", lambda node, id: node.invoke("../" + id, "add", [1, 2])),
        ("NotFound", lambda node, id: node.invoke(id, "add", [1, 2], tenant=2)),
        ("NotFound", lambda node, id: node.stream(id, "emit", [1, 2], tenant=2)),
        ("NotFound", lambda node, id: node.spawn(id, tenant=2)),
        ("NotFound", lambda node, id: node.spawn("")),
        ("NotFound", lambda node, id: node.delete(id, tenant=2)),
        ("NotFound", lambda node, id: node.instance(NOBODY)),
        ("NotFound", lambda node, id: node.call(id, "add", [1, 2])),
        ("NotFound", lambda node, id: node.delete_instance(NOBODY)),
        ("MissingExport", lambda node, id: node.invoke(id, "nope")),
        ("MissingExport", lambda node, id: node.invoke(id)),
        ("MissingExport", lambda node, id: node.stream(id, "nope")),
        ("InvalidArguments", lambda node, id: node.invoke(id, "add", [1])),
        ("InvalidArguments", lambda node, id: node.invoke(id, "add", [1, 1.5])),
        ("InvalidArguments", lambda node, id: node.invoke(id, "add", [1, 1 << 32])),
        ("InvalidArguments", lambda node, id: node.invoke(id, "add", [1, True])),
        ("InvalidArguments", lambda node, id: node.invoke(id, "add", [1, "2"])),
        ("InvalidArguments", lambda node, id: node.invoke(id, "add", [1, None])),
        ("TooManyArguments", lambda node, id: node.invoke(id, "add", [1, 2, 3])),
        ("TooManyArguments", lambda node, id: node.invoke(id, "add", [1] * 3000)),
        ("InvalidDeadline", lambda node, id: node.invoke(id, "add", [1, 2], deadline=0)),
        ("InvalidDeadline", lambda node, id: node.invoke(id, "add", [1, 2], deadline=math.nan)),
        ("InvalidDeadline", lambda node, id: node.invoke(id, "add", [1, 2], deadline=1e6)),
        ("InvalidTenant", lambda node, id: node.invoke(id, "add", [1, 2], tenant=-1)),
        ("InvalidTenant", lambda node, id: node.functions(tenant=1 << 64).__next__()),
        ("InvalidName", lambda node, id: node.deploy("a b", emitter())),
        ("InvalidName", lambda node, id: node.deploy("\ud800", emitter())),
        ("InvalidWasm", lambda node, id: node.deploy("a", b"\0asm")),
        ("RequestError", lambda node, id: node.spawn(id, idle_timeout=-1)),
        ("RequestError", lambda node, id: node.spawn(id, idle_timeout=math.inf)),
        ("GuestTrap", lambda node, id: node.invoke(id, "fail", [0, 0])),
        ("GuestTrap", lambda node, id: node.stream(id, "fail", [0, 0])),
        ("DeadlineExceeded", lambda node, id: node.invoke(id, "spin", deadline=0.05)),
        ("NotFound", lambda node, id: node.submit(NOBODY, "add", [1, 2])),
        ("NotFound", lambda node, id: node.submit(id, "add", [1, 2], tenant=2)),
        ("MissingExport", lambda node, id: node.submit(id, "nope")),
        ("InvalidArguments", lambda node, id: node.submit(id, "add", [1])),
        ("InvalidDeadline", lambda node, id: node.submit(id, "add", [1, 2], deadline=1e8)),
        ("RequestError", lambda node, id: node.submit(id, "add", [1, 2], idempotency_key="a\r\nb: c")),
        ("RequestError", lambda node, id: list(node.jobs(status="lost"))),
        ("NotFound", lambda node, id: node.job(NOBODY)),
        ("NotFound", lambda node, id: node.cancel_job("no/job")),
        ("GuestTrap", lambda node, id: node.submit(id, "fail", [0, 0]).wait(30)),
        ("DeadlineExceeded", lambda node, id: node.submit(id, "spin", deadline=0.05).wait(30)),
        ("NotFound", lambda node, id: node.snapshot(NOBODY)),
        ("NotFound", lambda node, id: node.restore(NOBODY)),
        ("NotFound", lambda node, id: node.delete_snapshot(NOBODY)),
        ("NotFound", lambda node, id: node.export_snapshot(NOBODY, io.BytesIO())),
        ("SnapshotTruncated", lambda node, id: node.import_snapshot(io.BytesIO(b""))),
        ("SnapshotDamaged", lambda node, id: node.import_snapshot(io.BytesIO(b"x" * 1000))),
        ("NotFound", lambda node, id: node.kernel("no", "1")),
        ("NotFound", lambda node, id: node.kernel("..", "1")),
        ("NotFound", lambda node, id: node.delete_kernel("no", "../1")),
        ("DigestMismatch", lambda node, id: node.publish_kernel(replace(signed(), ptx=PTX.encode() + b" "))),
        ("BadSignature", lambda node, id: node.publish_kernel(replace(signed(), signature=bytes(64)))),
        ("InvalidManifest", lambda node, id: node.publish_kernel(replace(signed(), manifest=b"{}"))),
    ],
)
def test_a_failure_is_of_the_same_class_in_every_way(ways, error, call):
    for node, function in ways:
        with pytest.raises(tw.errors.TensorWasmError) as caught:
            call(node, function.id)
        assert type(caught.value).__name__ == error, caught.value
        assert caught.value.message


@pytest.fixture(scope="module")
def ways(tmp_path_factory):
    """All ways, each with a function: for what leaves nothing behind."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("TENSOR_WASM_"):
                patch.delenv(name)
        nodes = [
            stack.enter_context(opened(way, tmp_path_factory.mktemp(way), kernel_publishers=publisher()))
            for way in WAYS
        ]
        yield [(node, node.deploy("guest", emitter())) for node in nodes]


def test_a_stream_gives_chunks_and_then_the_result(node, function):
    stream = node.stream(function.id, "emit", [3, 5])
    with pytest.raises(RuntimeError):
        _ = stream.result
    assert list(stream) == [b"abcde"] * 3
    assert stream.result.results == [0]
    assert list(stream) == []
    stream.close()
    with node.stream(function.id, "echo", input=bytes(range(256)) * 200) as stream:
        assert b"".join(stream) == bytes(range(256)) * 200
    with node.stream(function.id, "add", [1, 2]) as stream:
        assert list(stream) == []
        assert stream.result.results == [3]


def test_a_stream_that_fails_is_never_taken_for_a_whole_one(node, function):
    stream = node.stream(function.id, "fail", [2, 26])
    taken = []
    with pytest.raises(tw.errors.GuestTrap):
        taken.extend(stream)
    with pytest.raises(RuntimeError):
        _ = stream.result
    assert node.invoke(function.id, "add", [1, 2]).results == [3]


def test_who_leaves_a_stream_ends_its_guest(node, function):
    kept = node.spawn(function.id)
    with kept.stream("emit", [1_000_000_000, 1000]) as stream:
        assert len(next(iter(stream))) == 1000
    # Either the guest saw it and returned, or it was ended, and its instance with it.
    until(lambda: all(found.state == "idle" for found in node.instances()))
    kept.close()
    assert node.instances() == []


def test_a_kept_instance_has_its_state_until_it_is_closed(node, function):
    with node.spawn(function.id, idle_timeout=60.0) as instance:
        assert [instance.call("step").results for _ in range(3)] == [[1], [2], [3]]
        assert node.call(instance.id, "step").results == [4]
        assert list(instance.stream("emit", [1, 2])) == [b"ab"]
        found = instance.describe()
        assert (found.calls, found.state, found.function_id, found.tenant) == (5, "idle", function.id, 1)
        assert found.idle_timeout == 60.0
        assert 0 < found.idle_left <= 60.0
        assert [kept.id for kept in node.instances()] == [instance.id]
        assert node.instances(tenant=2) == []
        assert node.instance(instance.id).call("step").results == [5]
        assert node.spawn(function.id).call("step").results == [1]
        for error, args in ((tw.errors.NotFound, {"tenant": 2}), (tw.errors.MissingExport, {})):
            with pytest.raises(error):
                node.call(instance.id, "nope", **args)
    with pytest.raises(tw.errors.NotFound):
        instance.describe()
    instance.close()


def test_an_instance_whose_guest_failed_is_gone(node, function):
    instance = node.spawn(function.id)
    with pytest.raises(tw.errors.GuestTrap):
        instance.call("fail", [0, 0])
    with pytest.raises(tw.errors.NotFound):
        instance.call("step")


def test_a_job_is_waited_for_and_listed(node, function):
    job = node.submit(function.id, "add", [20, 22])
    assert job.status == "pending"
    assert job.wait(60).results == [42]
    assert job.status == "completed"
    found = job.describe()
    assert (found.id, found.function_id, found.export, found.error_kind) == (job.id, function.id, "add", None)
    assert found.result.results == [42]
    assert found.created_at <= found.started_at <= found.finished_at
    assert node.job(job.id).wait(60).results == [42]
    assert [listed.id for listed in node.jobs()] == [job.id]
    assert list(node.jobs(status="failed")) == []
    assert list(node.jobs(tenant=2)) == []
    assert job.cancel() == "completed"


def test_a_job_that_runs_is_cancelled(node, function):
    job = node.submit(function.id, "spin")
    with pytest.raises(TimeoutError):
        job.wait(0.05)
    assert job.cancel() in ("pending", "running", "cancelled")
    with pytest.raises(tw.errors.Cancelled):
        job.wait(60)
    assert job.status == "cancelled"


def test_a_submission_is_made_once_for_its_key(node, function):
    first, again = (node.submit(function.id, "add", [1, 2], idempotency_key="once", input=b"x") for _ in range(2))
    assert first.id == again.id
    assert node.submit(function.id, "add", [1, 2], idempotency_key="twice").id != first.id
    with pytest.raises(tw.errors.IdempotencyConflict):
        node.submit(function.id, "add", [1, 3], idempotency_key="once", input=b"x")
    with pytest.raises(tw.errors.IdempotencyConflict):
        node.submit(function.id, "add", [1, 2], idempotency_key="once", input=b"y")


def test_a_snapshot_is_restored_carried_as_a_file_and_deleted(node, function, tmp_path):
    with node.spawn(function.id) as instance:
        assert [instance.call("step").results for _ in range(2)] == [[1], [2]]
        captured = instance.snapshot()
        assert instance.call("step").results == [3]
    assert captured.size_bytes > 0
    (listed,) = node.snapshots()
    assert (listed.id, listed.size_bytes, listed.sha) == (captured.id, captured.size_bytes, captured.sha)
    assert (listed.tenant, listed.function_id, listed.function_name) == (1, function.id, "guest")
    assert node.snapshots(tenant=2) == []
    with node.restore(captured.id, idle_timeout=9.0) as restored:
        assert restored.call("step").results == [3]
        assert restored.describe().idle_timeout == 9.0
    path, memory = tmp_path / "counter.snapshot", io.BytesIO()
    size_bytes = node.export_snapshot(captured.id, path)
    assert size_bytes == path.stat().st_size
    assert node.export_snapshot(captured.id, memory) == len(memory.getvalue())
    node.delete_snapshot(captured.id)
    with pytest.raises(tw.errors.NotFound):
        node.restore(captured.id)
    memory.seek(0)
    imported = [node.import_snapshot(path), node.import_snapshot(memory)]
    assert [found.sha for found in imported] == [captured.sha] * 2
    assert node.snapshots() == imported
    for found in imported:
        assert node.restore(found.id).call("step").results == [3]
    assert [each.name for each in tmp_path.iterdir() if "snapshot" in each.name and each.is_file()] == [path.name]


@pytest.mark.parametrize(
    ("error", "damage"),
    [("SnapshotTruncated", lambda data: data[:-9]), ("InvalidSnapshot", lambda data: data[:99] + b"?" + data[100:])],
)
def test_a_snapshot_s_file_that_is_damaged_is_refused(node, function, error, damage):
    memory = io.BytesIO()
    node.export_snapshot(node.spawn(function.id).snapshot().id, memory)
    with pytest.raises(getattr(tw.errors, error)):
        node.import_snapshot(io.BytesIO(damage(memory.getvalue())))
    assert len(node.snapshots()) == 1


def test_kernels_are_published_listed_verified_and_deleted(node):
    published = node.publish_kernel(signed())
    assert (published.name, published.version, published.size_bytes) == ("nothing", "1.0", len(PTX))
    assert list(node.kernels()) == [published]
    assert list(node.kernels(tenant=2)) == []
    found = node.kernel("nothing", "1.0")
    assert (found.is_verified, found.reason, found.sm, found.entry_points) == (True, "", "sm_70", ("nothing",))
    assert (found.manifest, found.signature, found.tenant) == (signed().manifest, signed().signature, 1)
    with pytest.raises(tw.errors.AlreadyRegistered):
        node.publish_kernel(signed())
    node.delete_kernel("nothing", "1.0")
    assert list(node.kernels()) == []


def methods(way):
    """Public methods with what they take: names, kinds and defaults."""
    found = {}
    for name, method in inspect.getmembers(getattr(tw, way), callable):
        if not name.startswith("_") and name not in ("open", "interruptible"):
            parameters = inspect.signature(method).parameters.values()
            found[name] = [(one.name, one.kind, one.default, one.annotation) for one in parameters]
    return found


def test_all_ways_have_the_same_methods_and_parameters():
    expected = methods("Node")
    assert {"deploy", "functions", "invoke", "stream", "spawn", "call", "close"} <= expected.keys()
    for way in WAYS:
        assert methods(way) == expected, way


PAIRS = (("Node", "AsyncNode"), ("Client", "AsyncClient"), ("Instance", "AsyncInstance"), ("Job", "AsyncJob"))


def test_what_they_give_has_the_same_type():
    for plain, event_loop in PAIRS:
        for name in methods(plain):
            given, awaited = (
                str(inspect.signature(getattr(getattr(tw, way), name)).return_annotation) for way in (plain, event_loop)
            )
            for shown in ("Iterator", "Instance", "Job", "Stream"):
                awaited = awaited.replace(f"Async{shown}", shown)
            assert given == awaited, name
    for name in methods("Node"):
        given = [inspect.signature(getattr(getattr(tw, way), name)).return_annotation for way in ("Node", "Client")]
        assert given[0] == given[1], name


@pytest.mark.parametrize("way", [*WAYS, "Instance", "AsyncInstance", "Job", "AsyncJob", "Stream", "AsyncStream"])
def test_everything_public_is_described(way):
    for name, member in inspect.getmembers(getattr(tw, way)):
        if not name.startswith("_") and callable(member):
            assert inspect.getdoc(member), name


def test_many_threads_share_one(node, function):
    if type(node).__name__ == "Awaited":
        pytest.skip("one event loop is one thread's")
    found = []

    def work(number):
        found.extend(node.invoke(function.id, "add", [number, each]).results[0] - number for each in range(20))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted(list(range(20)) * 8)
