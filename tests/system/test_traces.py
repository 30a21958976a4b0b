"""Traces through the front door: the real command, and a collector's stand-in that decodes what it exports."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from collector import PATIENCE_S, Collector, Tree
from system.front_door import VECTOR_ADD, Served, run_cli
from tensor_wasm.dispatch.layout import RING_FIRST, RING_LAST
from traced_guest import PTX, guest

pytestmark = pytest.mark.slow

PARENT_TRACE, PARENT_SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{PARENT_TRACE}-{PARENT_SPAN}-01"}
TOKENS = "boss-secret:role=admin;one-secret:tenant=1"
_ID = re.compile(r"[0-9a-f]{32}")


class Answered:
    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def trace(self) -> str:
        found: str = self.headers["x-trace-id"]
        assert _ID.fullmatch(found)
        return found


def ask(served: Served, method: str, path: str, value: Any = None, **headers: str) -> Answered:
    data = None if value is None else json.dumps(value).encode()
    headers = {"Content-Type": "application/json", "Authorization": "Bearer one-secret"} | headers
    request = urllib.request.Request(served.url + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return Answered(answer.status, answer.headers, answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answered(error.code, error.headers, error.read())


def deploy(served: Served, wasm: bytes | None = None) -> str:
    value = {"name": "traced", "wasm_b64": base64.b64encode(wasm or guest()).decode()}
    answer = ask(served, "POST", "/functions", value)
    assert answer.status == 201, answer.body
    return str(answer.json["id"])


def invoke(served: Served, function: str, export: str, *args: object, **headers: str) -> Answered:
    return ask(served, "POST", f"/functions/{function}/invoke", {"export": export, "args": list(args)}, **headers)


def counted(served: Served) -> dict[str, int]:
    text = urllib.request.urlopen(f"{served.url}/metrics", timeout=PATIENCE_S).read().decode()
    found = re.findall(r'^tensor_wasm_trace_spans_total\{outcome="(\w+)"\} (\d+)$', text, re.MULTILINE)
    return {outcome: int(count) for outcome, count in found}


def wait_for(is_so: Callable[[], Any], what: str) -> Any:
    until = time.monotonic() + PATIENCE_S
    while not (found := is_so()):
        assert time.monotonic() < until, what
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Served]:
    """A node that traces everything."""
    served = Served(
        tmp_path_factory.mktemp("traced") / "home",
        TENSOR_WASM_OTLP_ENDPOINT=collector.url,
        TENSOR_WASM_API_TOKENS=TOKENS,
        TENSOR_WASM_LOG_FORMAT="json",
        OTEL_TRACES_SAMPLER="parentbased_always_on",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment=test,host.name=somewhere",
        OTEL_EXPORTER_OTLP_HEADERS="x-collector-key=collector-secret",
    )
    yield served
    code = served.stop()
    assert code == 0, served.log
    assert "Traceback" not in served.log


@pytest.fixture(scope="module")
def function(node: Served) -> str:
    return deploy(node)


def test_an_invocation_becomes_a_tree_of_spans(node: Served, collector: Collector) -> None:
    vector_add = deploy(node, VECTOR_ADD.read_bytes())
    before = time.time_ns()
    answer = invoke(node, vector_add, "run", 1000)
    after = time.time_ns()
    assert answer.json["result"] == [1000]
    tree = collector.trace(answer.trace, 5)
    tree.check_nesting()
    root, spawn, call = (
        tree.one(name) for name in ("http.request", "tensor_wasm.spawn_instance", "tensor_wasm.call_export")
    )
    load, launch = tree.one("wasi_cuda.load_ptx"), tree.one("wasi_cuda.launch")
    assert [root.parent, spawn.parent, call.parent, load.parent, launch.parent] == [
        "",
        root.id,
        root.id,
        call.id,
        call.id,
    ]
    assert (
        before <= root.start <= spawn.start <= spawn.end <= call.start <= load.end <= launch.start < root.end <= after
    )
    assert call.end - call.start <= answer.json["duration_ms"] * 1e6
    instance = {"instance_id": answer.json["instance_id"]}
    assert root.attributes == {
        "http.request.method": "POST",
        "http.route": "/functions/:id/invoke",
        "http.response.status_code": 200,
        "request_id": answer.headers["x-request-id"],
        "tenant": "1",
    }
    assert root.kind == 2
    assert spawn.attributes == instance | {"tenant": "1", "wasm_bytes": VECTOR_ADD.stat().st_size}
    counts = {"launches": 1, "launches_dropped": 0, "syncs": 0, "syncs_dropped": 0}
    assert call.attributes == instance | counts | {"export": "run", "outcome": "returned"}
    ptx_bytes = load.attributes.pop("ptx_bytes")
    assert load.attributes == instance | {"entry": "vector_add", "cached": False}
    assert 500 < ptx_bytes < 5000
    execution_us = launch.attributes.pop("execution_us")
    assert 0 < execution_us * 1e3 <= launch.end - launch.start
    shape = {"grid_x": 4, "grid_y": 1, "grid_z": 1, "block_x": 256, "block_y": 1, "block_z": 1, "shared_mem": 0}
    assert launch.attributes == instance | shape | {"kernel": "vector_add", "permit_wait_us": 0.0}
    assert root.resource["service.name"] == "tensor-wasm"
    assert root.resource["deployment.environment"] == "test"
    assert root.resource["host.name"] == "somewhere"
    assert collector.paths == {"/v1/traces"}
    again = collector.trace(invoke(node, vector_add, "run", 1000).trace, 5)
    assert again.one("wasi_cuda.load_ptx").attributes["cached"] is True


def test_of_many_launches_the_first_and_the_last_are_kept_and_the_rest_is_counted(
    node: Served, function: str, collector: Collector
) -> None:
    answer = invoke(node, function, "run", 1000)
    kept = RING_FIRST + RING_LAST
    tree = collector.trace(answer.trace, 4 + kept)
    tree.check_nesting()
    launches, call = tree.named("wasi_cuda.launch"), tree.one("tensor_wasm.call_export")
    # The sync is the last event of all: of the last ones it takes the place of a launch.
    numbers = [launch.attributes["shared_mem"] for launch in launches]
    assert numbers == [*range(RING_FIRST), *range(1000 - RING_LAST + 1, 1000)]
    assert call.attributes["launches"] == 1000
    assert call.attributes["launches_dropped"] == 1000 - len(launches) == 1000 - kept + 1
    assert (call.attributes["syncs"], call.attributes["syncs_dropped"]) == (1, 0)
    assert tree.one("wasi_cuda.sync").start >= launches[-1].end
    assert all(before.end <= after.start for before, after in itertools.pairwise(launches))
    assert {launch.attributes["kernel"] for launch in launches} == {"nothing"}
    assert {launch.attributes["grid_x"] for launch in launches} == {2}
    sum_us = sum(launch.attributes["execution_us"] + launch.attributes["permit_wait_us"] for launch in launches)
    assert 0 < sum_us * 1e3 <= sum(launch.end - launch.start for launch in launches) <= call.end - call.start


def test_syncs_are_kept_and_dropped_as_launches_are(node: Served, function: str, collector: Collector) -> None:
    tree = collector.trace(invoke(node, function, "each", 400).trace, 4 + RING_FIRST + RING_LAST)
    call = tree.one("tensor_wasm.call_export")
    kept = (RING_FIRST + RING_LAST) // 2
    assert len(tree.named("wasi_cuda.sync")) == len(tree.named("wasi_cuda.launch")) == kept
    wanted = {"launches": 400, "launches_dropped": 400 - kept, "syncs": 400, "syncs_dropped": 400 - kept}
    assert call.attributes.items() >= wanted.items()
    tree.check_nesting()


def test_what_fails_says_so(node: Served, function: str, collector: Collector) -> None:
    tree = collector.trace(invoke(node, function, "refused").trace, 4)
    launch = tree.one("wasi_cuda.launch")
    assert (launch.is_error, launch.status, launch.attributes["execution_us"]) == (True, "unknown_kernel", 0.0)
    assert not tree.one("tensor_wasm.call_export").is_error
    answer = invoke(node, function, "fault")
    assert answer.status == 500
    tree = collector.trace(answer.trace, 5)
    tree.check_nesting()
    launch, call, root = (tree.one(name) for name in ("wasi_cuda.launch", "tensor_wasm.call_export", "http.request"))
    assert (launch.attributes["kernel"], launch.is_error, launch.status) == ("trap_it", True, "not_completed")
    assert (call.attributes["outcome"], call.is_error) == ("trapped", True)
    assert (root.is_error, root.attributes["http.response.status_code"], root.attributes["error.type"]) == (
        True,
        500,
        "trap",
    )
    missing = collector.trace(invoke(node, function, "no-such").trace)
    assert [span.name for span in missing.spans] == ["http.request"]
    assert not missing.spans[0].is_error  # the caller's mistake
    assert missing.spans[0].attributes["error.type"] == "missing_export"


def test_a_trace_goes_on_where_its_caller_stands(node: Served, function: str, collector: Collector) -> None:
    answer = invoke(node, function, "run", 1, **SAMPLED, tracestate="rojo=1,congo=2")
    assert answer.trace == PARENT_TRACE
    root = collector.trace(PARENT_TRACE, 5).one("http.request")
    assert (root.parent, root.state) == (PARENT_SPAN, "rojo=1,congo=2")
    unsampled = invoke(node, function, "run", 1, traceparent=f"00-{'b' * 32}-{PARENT_SPAN}-00")
    assert unsampled.headers["x-trace-id"] is None
    malformed = invoke(node, function, "run", 1, traceparent=f"00-{'c' * 32}-{PARENT_SPAN}-01-")
    assert malformed.trace != "c" * 32
    collector.trace(malformed.trace, 5)
    assert not any(span.trace == "b" * 32 for span in collector.spans)


def test_what_is_refused_before_it_is_known_who_asks_is_not_traced(node: Served, collector: Collector) -> None:
    stranger = ask(node, "GET", "/functions", Authorization="Bearer stranger", **SAMPLED)
    assert stranger.status == 401
    assert ask(node, "GET", "/no/such").headers["x-trace-id"] is None
    assert ask(node, "GET", "/healthz").headers["x-trace-id"] is None
    listed = ask(node, "GET", "/functions")
    assert collector.trace(listed.trace).one("http.request").attributes["http.route"] == "/functions"
    identity = stranger.headers["x-request-id"]
    assert not any(span.attributes.get("request_id") == identity for span in collector.spans)


def names(tree: Tree) -> list[str]:
    return sorted(span.name.rpartition(".")[2] for span in tree.spans)


def test_streams_kept_instances_jobs_and_models_are_traced_too(
    node: Served, function: str, collector: Collector
) -> None:
    streamed = ask(node, "POST", f"/functions/{function}/invoke-stream", {"export": "emit"})
    assert b"chunk" in streamed.body
    assert names(collector.trace(streamed.trace, 3)) == ["call_export", "request", "spawn_instance"]
    kept = ask(node, "POST", "/instances", {"function_id": function})
    assert names(collector.trace(kept.trace, 2)) == ["request", "spawn_instance"]
    path = f"/instances/{kept.json['id']}/invoke"
    for _ in range(2):
        called = ask(node, "POST", path, {"export": "run", "args": [2]})
        tree = collector.trace(called.trace, 6)
        assert names(tree) == ["call_export", "launch", "launch", "load_ptx", "request", "sync"]
        assert tree.one("tensor_wasm.call_export").attributes["instance_id"] == kept.json["id"]
        tree.check_nesting()
    submitted = ask(node, "POST", f"/functions/{function}/invoke-async", {"export": "run", "args": [1]})
    assert submitted.status == 202
    tree = collector.trace(submitted.trace, 6)
    assert names(tree) == ["call_export", "launch", "load_ptx", "request", "spawn_instance", "sync"]
    assert tree.one("tensor_wasm.call_export").parent == tree.one("http.request").id
    model = ("worder", "--function", function, "--export", "emit", "--tenant", "1")
    bound = node.cli("admin", "model", "set", *model, TENSOR_WASM_TOKEN="boss-secret")
    assert bound.code == 0, bound.err
    said = ask(node, "POST", "/v1/completions", {"model": "worder", "prompt": "x"})
    assert said.status == 200, said.body
    assert names(collector.trace(said.trace, 3)) == ["call_export", "request", "spawn_instance"]


def test_no_secret_is_in_spans_or_in_the_log(node: Served, function: str, collector: Collector) -> None:
    parts = [
        "one-secret",
        "boss-secret",
        "collector-secret",
        "query-zqzq",
        "input-zqzq",
        "header-zqzq",
        "argument-zqzq",
    ]
    value = {"export": "run", "args": [-736107361], "input_b64": base64.b64encode(b"input-zqzq").decode()}
    path = f"/functions/{function}/invoke"
    answer = ask(node, "POST", f"{path}?key=query-zqzq", value, **{"X-Note": "header-zqzq"})
    assert answer.status == 200
    refused = ask(node, "POST", path, {"export": "run", "args": ["argument-zqzq"]})
    assert refused.status == 400
    collector.trace(answer.trace, 5)
    collector.trace(refused.trace)
    told = b"".join(collector.bodies) + node.log.encode()
    for part in (*parts, "736107361", str(value["input_b64"]), "sm_70"):
        assert part.encode() not in told, part
    assert "sm_70" in PTX.decode()
    assert all(headers["x-collector-key"] == "collector-secret" for headers in collector.headers)


# --- nodes of their own -----------------------------------------------------------------------------------


def test_what_clients_ask_for_beyond_their_bound_is_not_traced(
    serve: Callable[..., Served], collector: Collector
) -> None:
    served = serve(
        TENSOR_WASM_OTLP_ENDPOINT=collector.url,
        TENSOR_WASM_API_TOKENS=TOKENS,
        TENSOR_WASM_TRACE_QPS="0.001",
        OTEL_TRACES_SAMPLER="parentbased_always_off",
    )
    traces = [f"{number:032x}" for number in range(1, 6)]
    for trace in traces:
        answer = ask(served, "GET", "/functions", traceparent=f"00-{trace}-{PARENT_SPAN}-01")
        assert answer.trace == trace  # of its caller's trace it is all the same
    assert ask(served, "GET", "/functions").headers["x-trace-id"] is None
    collector.trace(traces[0])
    assert served.stop() == 0
    assert {span.trace for span in collector.spans if span.trace in traces} == {traces[0]}


def test_a_dead_collector_costs_requests_nothing_and_what_is_lost_is_counted(serve: Callable[..., Served]) -> None:
    dead = Collector(status=400)
    try:
        served = serve(TENSOR_WASM_OTLP_ENDPOINT=dead.url + "/", OTEL_TRACES_SAMPLER="always_on")
        function = deploy(served)
        for _ in range(20):
            assert invoke(served, function, "run", 1).status == 200
        wait_for(lambda: counted(served)["failed"] >= 21, "nothing was given up")
        assert counted(served)["exported"] == 0
        assert served.stop() == 0
        assert served.log.count("spans could not be exported") == 1
    finally:
        dead.close()


def test_a_collector_that_never_answers_holds_nobody_up(serve: Callable[..., Served]) -> None:
    slow = Collector(delay_s=3600)
    try:
        served = serve(TENSOR_WASM_OTLP_ENDPOINT=slow.url, OTEL_TRACES_SAMPLER="always_on")
        function = deploy(served)
        wait_for(lambda: slow.bodies, "nothing came")
        times = []
        for _ in range(400):  # more than there are rings
            started = time.monotonic()
            assert invoke(served, function, "run", 1000).status == 200
            times.append(time.monotonic() - started)
        assert sorted(times)[len(times) // 2] < 1
        started = time.monotonic()
        assert served.stop() == 0
        assert time.monotonic() - started < 25
    finally:
        slow.close()


def test_the_exporting_process_is_started_again(serve: Callable[..., Served], collector: Collector) -> None:
    served = serve(TENSOR_WASM_OTLP_ENDPOINT=collector.url, OTEL_TRACES_SAMPLER="always_on")
    children = Path(f"/proc/{served.process.pid}/task")

    def exporter() -> int | None:
        for child in {int(c) for task in children.iterdir() for c in (task / "children").read_text().split()}:
            if b"span_process" in Path(f"/proc/{child}/cmdline").read_bytes():
                return child
        return None

    first = wait_for(exporter, "there is no exporting process")
    assert b"TENSOR_WASM" not in Path(f"/proc/{first}/environ").read_bytes()
    os.kill(first, signal.SIGKILL)

    def is_traced() -> bool:
        trace = ask(served, "GET", "/functions").trace
        time.sleep(1.5)
        return any(span.trace == trace for span in collector.spans)

    wait_for(is_traced, "nothing comes any more")
    assert exporter() != first
    assert served.stop() == 0
    assert "it is started again" in served.log


@pytest.fixture
def without_opentelemetry(tmp_path: Path) -> str:
    """A path on which OpenTelemetry is not installed, whatever the interpreter has."""
    empty = tmp_path / "hides" / "opentelemetry"
    empty.mkdir(parents=True)
    (empty / "__init__.py").write_text("")
    return str(empty.parent)


def test_an_endpoint_without_the_packages_stops_the_start(tmp_path: Path, without_opentelemetry: str) -> None:
    started = run_cli(
        *("serve", "--listen", "127.0.0.1:0", "--home", tmp_path / "home"),
        TENSOR_WASM_OTLP_ENDPOINT="http://127.0.0.1:4318",
        PYTHONPATH=without_opentelemetry,
    )
    assert started.code == 2
    assert "tensor-wasm[otlp]" in started.err


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"OTEL_TRACES_SAMPLER": "now_and_then"}, "OTEL_TRACES_SAMPLER"),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "7"}, "OTEL_TRACES_SAMPLER_ARG"),
        ({"TENSOR_WASM_OTLP_ENDPOINT": "http://user:password@host"}, "TENSOR_WASM_OTLP_ENDPOINT"),
        ({"TENSOR_WASM_TRACE_QPS": "-1"}, "TENSOR_WASM_TRACE_QPS"),
    ],
)
def test_a_bad_variable_stops_the_start(tmp_path: Path, settings: dict[str, str], said: str) -> None:
    given = {"TENSOR_WASM_OTLP_ENDPOINT": "http://127.0.0.1:4318"} | settings
    started = run_cli("serve", "--listen", "127.0.0.1:0", "--home", tmp_path / "home", **given)
    assert started.code == 2
    assert said in started.err


def test_without_an_endpoint_a_sampled_trace_is_passed_through(
    serve: Callable[..., Served], without_opentelemetry: str
) -> None:
    served = serve(PYTHONPATH=without_opentelemetry, OTEL_TRACES_SAMPLER="always_on")
    function = deploy(served)
    assert invoke(served, function, "run", 3, **SAMPLED).trace == PARENT_TRACE
    assert invoke(served, function, "run", 3).headers["x-trace-id"] is None
    assert counted(served) == {"exported": 0, "failed": 0, "dropped": 0}
    assert served.stop() == 0
