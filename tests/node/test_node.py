"""The node's use cases: deploy, describe, invoke with every ending, delete, restart, drain."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from administered import guest
from node import guests
from tensor_wasm.abi import Code
from tensor_wasm.config import load
from tensor_wasm.dispatch.layout import INSTANCE_SLOTS
from tensor_wasm.errors import (
    CapacityExhausted,
    DeadlineExceeded,
    GuestTrap,
    InvalidDeadline,
    InvalidName,
    InvalidWasm,
    MissingExport,
    NotFound,
    NotReady,
    QuotaExceeded,
    StoreError,
    TensorWasmError,
    Terminated,
)
from tensor_wasm.node import Node
from tensor_wasm.node.instances import LiveInstance
from tensor_wasm.store import ArtifactStore


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_a_deployed_function_can_be_described_and_called(node: Node) -> None:
    function = node.functions.deploy("adder", guests.add(), tenant=3)
    assert uuid.UUID(function.id).version == 4
    assert [(e.name, e.parameters, e.results) for e in function.exports] == [
        ("add", ("i32", "i32"), ("i32",)),
        ("run", (), ("i32",)),
    ]
    assert node.functions.show(function.id, 3) == function
    result = node.invocations.invoke(function.id, "add", [40, 2], tenant=3)
    assert result.results == [42]
    assert result.launches == 0
    assert node.invocations.invoke(function.id, tenant=3).results == [42]


def test_each_invocation_starts_from_nothing(node: Node) -> None:
    function = node.functions.deploy("counter", guests.troublesome())
    assert [node.invocations.invoke(function.id, "count").results for _ in range(3)] == [[1]] * 3


def test_output_is_given_back(node: Node) -> None:
    assert node.invocations.invoke(node.functions.deploy("printer", guests.printer()).id).stdout == b"hello"


@pytest.mark.parametrize("name", ["", "a b", "../x", "é", "x" * 129, "a\n", "a/b"])
def test_a_bad_name_is_refused(node: Node, name: str) -> None:
    with pytest.raises(InvalidName):
        node.functions.deploy(name, guests.add())


@pytest.mark.parametrize(
    "wasm",
    [
        b"",
        b"hello",
        b"\0asm",
        b"\0asm\x02\0\0\0",
        b"\0asm\x0d\0\x01\0",
        guests.add()[:-3],
        guests.add() + b"\xff",
        guests.importing("env", "missing"),
        guests.importing("wasi:cuda/host@0.2.0", "wasi_cuda_launch"),
        guests.importing("wasi:cuda/host@0.2.0", "wasi_cuda_nothing"),
        guests.importing("wasi:cuda/host@9.9.9", "wasi_cuda_sync"),
        guests.importing("wasi:cuda/host@0.2.0", "wasi_cuda_sync", memory=False),
        guests.importing("tensor_wasm", "bind_gate"),
        guests.started_with(1025),
    ],
)
def test_what_cannot_run_is_refused_at_deploy(node: Node, wasm: bytes) -> None:
    with pytest.raises(InvalidWasm):
        node.functions.deploy("bad", wasm)
    assert node.functions.list().items == []
    assert node.invocations.invoke(node.functions.deploy("good", guests.add()).id).results == [42]


@pytest.mark.parametrize(
    ("export", "args", "error", "text"),
    [
        ("spin", [], DeadlineExceeded, "deadline"),
        ("trap", [], GuestTrap, "unreachable"),
        ("recurse", [], GuestTrap, "call stack exhausted"),
        ("div", [1, 0], GuestTrap, "integer division by zero"),
        ("div", [-(2**31), -1], GuestTrap, "integer overflow"),
        ("missing", [], MissingExport, "its exported functions are: spin, trap"),
        ("not_a_function", [], MissingExport, "not_a_function"),
        (None, [], MissingExport, "run or _start"),
    ],
)
def test_each_ending_is_its_own_error_and_the_next_call_works(
    node: Node, export: str | None, args: list[int], error: type[TensorWasmError], text: str
) -> None:
    function = node.functions.deploy("troublesome", guests.troublesome())
    with pytest.raises(error, match=text):
        node.invocations.invoke(function.id, export, args, deadline_s=0.2)
    assert node.invocations.invoke(function.id, "count").results == [1]
    assert node.statistics.read().active[0] == 0


def test_memory_beyond_the_limit_is_minus_one_and_the_node_is_unharmed(node: Node) -> None:
    function = node.functions.deploy("grower", guests.troublesome())
    assert node.invocations.invoke(function.id, "grow", [1023]).results == [1]
    assert node.invocations.invoke(function.id, "grow", [1024]).results == [-1]
    assert node.invocations.invoke(function.id, "grow", [65_535]).results == [-1]


def test_a_start_function_that_spins_ends_at_the_deadline(node: Node) -> None:
    function = node.functions.deploy("spinner", guests.spinning_start())
    with pytest.raises(DeadlineExceeded):
        node.invocations.invoke(function.id, deadline_s=0.1)


@pytest.mark.parametrize("deadline_s", [0, -1, 5.1, float("nan"), float("inf")])
def test_a_deadline_outside_the_nodes_is_refused(node: Node, deadline_s: float) -> None:
    with pytest.raises(InvalidDeadline):
        node.invocations.invoke(node.functions.deploy("adder", guests.add()).id, deadline_s=deadline_s)


def test_a_function_belongs_to_its_tenant(node: Node) -> None:
    function = node.functions.deploy("adder", guests.add(), tenant=1)
    for call in (node.functions.show, node.functions.delete, lambda i, t: node.invocations.invoke(i, tenant=t)):
        with pytest.raises(NotFound):
            call(function.id, 2)
    assert node.functions.list(2).items == []
    assert [f.id for f in node.functions.list(1).items] == [function.id]


def test_lists_come_in_pages(node: Node) -> None:
    ids = [node.functions.deploy(f"f{n}", guests.add()).id for n in range(5)]
    found: list[str] = []
    after: str | None = None
    while True:
        page = node.functions.list(limit=2, after=after)
        found += [f.id for f in page.items]
        after = page.next
        if after is None:
            break
    assert found == ids


def test_a_deleted_function_is_gone_and_its_bytes_with_the_last_that_had_them(node: Node, tmp_path: Path) -> None:
    first, second = node.functions.deploy("a", guests.add()), node.functions.deploy("b", guests.add())
    node.functions.delete(first.id)
    with pytest.raises(NotFound):
        node.invocations.invoke(first.id)
    assert node.invocations.invoke(second.id).results == [42]
    assert any(first.digest in path.name for path in (tmp_path / "artifacts").rglob("*"))
    node.functions.delete(second.id)
    assert not any(first.digest in path.name for path in (tmp_path / "artifacts").rglob("*"))


def test_functions_survive_a_restart(tmp_path: Path) -> None:
    config = load({}, {"home": tmp_path}).config
    with Node(config) as node:
        function = node.functions.deploy("adder", guests.add(), tenant=9)
    with Node(config) as node:
        assert node.functions.show(function.id, 9) == function
        assert node.invocations.invoke(function.id, "add", [1, 2], tenant=9).results == [3]


def test_a_damaged_artifact_is_an_error_of_the_store_not_a_wrong_program(tmp_path: Path) -> None:
    config = load({}, {"home": tmp_path}).config
    with Node(config) as node:
        function = node.functions.deploy("adder", guests.add())
    (file,) = [p for p in (tmp_path / "artifacts").rglob("*") if p.is_file()]
    file.chmod(0o600)
    file.write_bytes(guests.troublesome())
    with Node(config) as node, pytest.raises(StoreError):
        node.invocations.invoke(function.id)


def test_many_threads_get_their_own_answers(node: Node) -> None:
    function = node.functions.deploy("adder", guests.add())
    trouble = node.functions.deploy("troublesome", guests.troublesome())
    wrong: list[object] = []

    def work(base: int) -> None:
        for n in range(200):
            if node.invocations.invoke(function.id, "add", [base, n]).results != [base + n]:
                wrong.append((base, n))
            try:
                node.invocations.invoke(trouble.id, "div", [1, 0])
            except GuestTrap as error:
                if "division by zero" not in str(error):
                    wrong.append(error)

    threads = [threading.Thread(target=work, args=(1000 * n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    view = node.statistics.read()
    assert view.terminations == {(0, "returned"): 1200, (0, "trapped"): 1200}
    assert view.guest_memory_bytes == {0: 0}


def test_invocations_from_an_event_loop_run_on_the_nodes_threads(node: Node) -> None:
    function = node.functions.deploy("adder", guests.add())

    async def ask() -> list[list[int | float]]:
        calls = [node.invocations.invoke_async(function.id, "add", [n, n]) for n in range(100)]
        return [result.results for result in await asyncio.gather(*calls)]

    assert asyncio.run(ask()) == [[2 * n] for n in range(100)]


def test_a_full_queue_says_so(tmp_path: Path) -> None:
    config = load({}, {"home": tmp_path, "workers": 1, "queue_depth": 2}).config
    with Node(config) as node:
        function = node.functions.deploy("troublesome", guests.troublesome())

        async def flood() -> list[object]:
            calls = [node.invocations.invoke_async(function.id, "spin", deadline_s=0.2) for _ in range(10)]
            return await asyncio.gather(*calls, return_exceptions=True)

        kinds = {type(outcome) for outcome in asyncio.run(flood())}
    assert kinds == {CapacityExhausted, DeadlineExceeded}


def test_cancelling_a_task_ends_its_guest(node: Node) -> None:
    function = node.functions.deploy("troublesome", guests.troublesome())

    async def start_and_cancel() -> None:
        task = asyncio.ensure_future(node.invocations.invoke_async(function.id, "spin"))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(start_and_cancel())
    wait_for(lambda: node.statistics.active_count == 0)
    assert node.statistics.read().terminations == {(0, "cancelled"): 1}


def test_draining_lets_work_finish_and_takes_no_more(node: Node) -> None:
    function = node.functions.deploy("troublesome", guests.troublesome())
    outcomes: list[type[BaseException]] = []

    def spin() -> None:
        try:
            node.invocations.invoke(function.id, "spin", deadline_s=0.5)
        except TensorWasmError as error:
            outcomes.append(type(error))

    thread = threading.Thread(target=spin)
    thread.start()
    wait_for(lambda: node.statistics.active_count == 1)
    assert node.drain.finish(5) == 0
    thread.join()
    assert outcomes == [DeadlineExceeded]
    assert node.health.readiness() == ["draining"]
    with pytest.raises(NotReady):
        node.invocations.invoke(function.id, "count")
    with pytest.raises(NotReady):
        node.functions.deploy("more", guests.add())


def test_draining_ends_what_does_not_finish_in_time(node: Node) -> None:
    function = node.functions.deploy("troublesome", guests.troublesome())
    outcomes: list[type[BaseException]] = []

    def spin() -> None:
        try:
            node.invocations.invoke(function.id, "spin")
        except TensorWasmError as error:
            outcomes.append(type(error))

    thread = threading.Thread(target=spin)
    thread.start()
    wait_for(lambda: node.statistics.active_count == 1)
    assert node.drain.finish(0.1) > 0
    thread.join(2)
    assert outcomes == [Terminated]


def test_an_instance_that_starts_too_large_for_its_kernel_memory_is_a_quota_error(tmp_path: Path) -> None:
    config = load({}, {"home": tmp_path, "instance_memory_bytes": 1 << 26}).config
    with Node(config) as node:
        function = node.functions.deploy("large", guests.started_with(1024))
        assert node.invocations.invoke(function.id).results == []
    smaller = load({}, {"home": tmp_path, "instance_memory_bytes": 1 << 25}).config
    with Node(smaller) as node, pytest.raises((QuotaExceeded, InvalidWasm)):
        node.invocations.invoke(function.id)


def test_a_home_belongs_to_one_node(tmp_path: Path) -> None:
    config = load({}, {"home": tmp_path}).config
    with Node(config), pytest.raises(StoreError, match="another node uses"):
        Node(config)
    Node(config).close()


def test_leftovers_of_a_crash_are_removed_at_the_start(tmp_path: Path) -> None:
    config = load({}, {"home": tmp_path}).config
    with Node(config) as node:
        function = node.functions.deploy("adder", guests.add())
    ArtifactStore(tmp_path / "artifacts").put(b"never registered")
    with Node(config) as node:
        files = [path for path in (tmp_path / "artifacts").rglob("*") if path.is_file()]
        assert [path.name for path in files] == [function.digest]
        assert node.invocations.invoke(function.id).results == [42]


def test_a_node_whose_store_is_gone_is_not_ready(node: Node, tmp_path: Path) -> None:
    assert node.health.readiness() == []
    with sqlite3.connect(tmp_path / "node.db") as database:
        database.execute("DROP TABLE functions")
    database.close()
    assert node.health.readiness() == ["the store cannot be read"]


def test_a_refusal_for_quota_is_counted_for_its_own_tenant(node: Node) -> None:
    """An instance without a gate leaves its place in the ledger to another tenant's: its counts must not stay there."""
    node.tenants.change(1, {"gpu_memory_bytes": 1000})
    one, two = node.functions.deploy("one", guest(), tenant=1).id, node.functions.deploy("two", guest(), tenant=2).id
    assert node.invocations.invoke(one, "alloc", [1001], tenant=1).results == [Code.QUOTA_EXCEEDED]
    # The slots are taken in turn.
    for _ in range(INSTANCE_SLOTS):
        node.invocations.invoke(two, "nothing", tenant=2)
    assert node.invocations.invoke(two, "launch", tenant=2).results == [0]
    assert {row.tenant: row.rejected_quota for row in node.ledger.read().tenants} == {1: 1, 2: 0}


def test_an_order_to_end_an_instance_needs_no_tick_of_the_engine(node: Node) -> None:
    function = node.functions.deploy("spin", guests.troublesome())

    def spin() -> None:
        with pytest.raises(Terminated):
            node.invocations.invoke(function.id, "spin")

    thread = threading.Thread(target=spin)
    thread.start()
    while not (found := node.administration.instances()):
        time.sleep(0.005)
    node.administration._instances._engine._stop.set()
    node.administration._instances._engine._ticker.join()
    node.administration._instances.terminate(found[0].id)
    thread.join(20)
    assert not thread.is_alive()


@pytest.mark.parametrize("look", ["sample", "list", "terminate_all", "allow_device"])
def test_instances_may_come_while_all_are_looked_at(node: Node, look: str) -> None:
    instances, record = (
        node.administration._instances,
        node.functions.find(node.functions.deploy("add", guests.add()).id, 0),
    )
    opened = [instances.open(record, "run", None, 1 << 20) for _ in range(2)]

    class Arriving(dict[str, LiveInstance]):
        """Another instance comes with each that is looked at."""

        def values(self) -> Iterator[LiveInstance]:  # type: ignore[override]
            for live in super().values():
                opened.append(instances.open(record, "run", None, 1 << 20))
                yield live

    instances._live = Arriving(instances._live)
    getattr(instances, look)(*([0, True] if look == "allow_device" else []))
    for live in opened:
        instances.close(live)
    assert node.administration.instances(None) == []
