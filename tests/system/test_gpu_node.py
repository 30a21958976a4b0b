"""A node whose device is a GPU, through the front door: the real process, and its worker with an emulated driver."""

from __future__ import annotations

import base64
import json
import os
import signal
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from collector import Collector
from device.ptx_texts import HEAD
from host.rig import imports, passthrough
from system.front_door import VECTOR_ADD, Served
from system.guests import INPUT, guest
from tensor_wasm.abi import CUDA_3_MODULE, Tag, pack

pytestmark = pytest.mark.slow

PATIENCE_S = 120.0
PROGRAM = (str(Path(__file__).with_name("emulated_node.py")),)
SETTINGS = {
    "TENSOR_WASM_DEVICE": "cuda:0",
    "TENSOR_WASM_CUDA_PARTITION_MIB": "16",
    "TENSOR_WASM_CUDA_STAGING_MIB": "32",
}
ADD = (Path(__file__).parents[1] / "corpus" / "vector_add.ptx").read_bytes()
ENDLESS = HEAD.encode() + b".visible .entry endless()\n{\nagain:\n  bra again;\n}\n"
#: What the caller of a traced request sends.
TRACED = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
TRAP = HEAD.encode() + b".visible .entry breaks()\n{\n  trap;\n}\n"
NOT_AVAILABLE = -1


class GpuNode:
    """A served node, as tenants see it by HTTP."""

    def __init__(self, served: Served, audit: Path) -> None:
        self.served = served
        self._audit = audit
        self._http = httpx.Client(base_url=served.url, timeout=PATIENCE_S)

    def close(self) -> None:
        self._http.close()

    def post(self, path: str, tenant: int, body: dict[str, Any] | None = None, **headers: str) -> httpx.Response:
        return self._http.post(path, json=body or {}, headers={"X-TensorWasm-Tenant": str(tenant)} | headers)

    def get(self, path: str) -> httpx.Response:
        return self._http.get(path)

    def deploy(self, module: bytes, tenant: int = 0, **settings: str) -> str:
        body = {"name": "guest", "wasm_b64": base64.b64encode(module).decode()}
        answer = self.post("/functions", tenant, body | ({"settings": settings} if settings else {}))
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def invoke(self, function: str, tenant: int = 0, **body: Any) -> httpx.Response:
        return self.post(f"/functions/{function}/invoke", tenant, body)

    def launch(self, function: str, tenant: int, ptx: bytes, entry: str, **body: Any) -> httpx.Response:
        """Have the tests' guest load a kernel without parameters and launch it."""
        given = base64.b64encode(ptx + entry.encode()).decode()
        shape = [1, 1, 1, 1, 1, 1, 0, INPUT, 0, len(ptx), len(entry)]
        return self.invoke(function, tenant, export="launch", args=shape, input_b64=given, **body)

    def audited(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self._audit.read_text().splitlines()]
        return [line for line in lines if line["event"] == event]

    def metric(self, name: str) -> float:
        (line,) = [line for line in self.get("/metrics").text.splitlines() if line.startswith(f"tensor_wasm_{name} ")]
        return float(line.rpartition(" ")[2])

    @property
    def worker(self) -> int | None:
        """The process of the GPU's worker."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    parent = int(entry.joinpath("stat").read_text().rpartition(")")[2].split()[1])
                    command = entry.joinpath("cmdline").read_bytes()
                except OSError:
                    continue
                if parent == self.served.process.pid and b"emulated_worker" in command:
                    return int(entry.name)
        return None

    def wait_until_ready(self) -> None:
        wait_until(lambda: self.get("/readyz").status_code == 200)


def wait_until(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.05)


@pytest.fixture
def serve_gpu(serve: Callable[..., Served], tmp_path: Path) -> Iterator[Callable[..., GpuNode]]:
    started: list[GpuNode] = []

    def start(emulate: str = "", **settings: str) -> GpuNode:
        audit = tmp_path / "audit"
        more = {"EMULATE": emulate, "TENSOR_WASM_AUDIT": f"file:{audit}"}
        started.append(GpuNode(serve(program=PROGRAM, **SETTINGS | more | settings), audit))
        return started[-1]

    yield start
    for node in started:
        node.close()
        if node.served.process.poll() is None:
            assert node.served.stop() == 0, node.served.log
        assert "Traceback" not in node.served.log


class Neighbour:
    """A tenant that invokes one after the other, until it is told to end; what it was answered."""

    def __init__(self, node: GpuNode, function: str, tenant: int) -> None:
        self.answers: Counter[tuple[int, str]] = Counter()
        self._node, self._function, self._tenant = node, function, tenant
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._is_over.is_set():
            answer = self._node.invoke(self._function, self._tenant, export="run", args=[1000])
            kind = "" if answer.status_code == 200 else answer.json()["error"]["kind"]
            self.answers[answer.status_code, kind] += 1
            if answer.status_code == 503:
                assert int(answer.headers["Retry-After"]) >= 1
            time.sleep(0.02)

    def end(self) -> None:
        self._is_over.set()
        self._thread.join()


def test_guests_launch_on_the_gpu_and_the_node_says_so(serve_gpu: Callable[..., GpuNode]) -> None:
    node = serve_gpu()
    assert "device cuda:0" in node.served.first_line
    function = node.deploy(VECTOR_ADD.read_bytes(), 3)
    for count in (1, 1000, 100_000):
        answer = node.invoke(function, 3, export="run", args=[count])
        assert (answer.status_code, answer.json()["result"]) == (200, [count]), answer.text
    assert node.metric('kernel_dispatches_total{tenant="3",device="cuda:0"}') == 3
    assert node.metric('gpu_memory_used_bytes{tenant="3",device="cuda:0"}') == 0
    assert node.metric('device_restarts_total{device="cuda:0"}') == 0
    faulting = node.launch(node.deploy(guest(), 3), 3, TRAP, "breaks")
    assert (faulting.status_code, faulting.json()["error"]["kind"]) == (500, "trap")
    assert "kernel breaks faulted: trap instruction; PTX line" in faulting.json()["error"]["message"]
    assert node.served.stop() == 0


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


def test_a_traced_launch_says_how_long_the_gpu_took(serve_gpu: Callable[..., GpuNode], collector: Collector) -> None:
    node = serve_gpu("slow:0.02", TENSOR_WASM_OTLP_ENDPOINT=collector.url, OTEL_TRACES_SAMPLER="parentbased_always_off")
    function = node.deploy(VECTOR_ADD.read_bytes(), 3)
    body = {"export": "run", "args": [1000]}
    for _ in range(2):
        answer = node.post(f"/functions/{function}/invoke", 3, body, **TRACED)
        assert (answer.status_code, answer.json()["result"]) == (200, [1000]), answer.text
    launches = collector.trace("a" * 32, 10).named("wasi_cuda.launch")
    assert len(launches) == 2
    for launch in launches:
        spent_us = [launch.attributes[f"device_{what}_us"] for what in ("copy_in", "kernel", "copy_out")]
        assert spent_us[1] >= 20_000
        assert min(spent_us) > 0
        assert sum(spent_us) <= launch.attributes["execution_us"]
    faulting = node.deploy(guest(), 3)
    assert node.launch(faulting, 3, TRAP, "breaks").status_code == 500  # it is not traced


def test_launches_that_are_not_traced_ask_for_no_times_and_a_gpu_lost_by_a_traced_one_is_the_calls_end(
    serve_gpu: Callable[..., GpuNode], collector: Collector
) -> None:
    node = serve_gpu(
        "fail:record:214", TENSOR_WASM_OTLP_ENDPOINT=collector.url, OTEL_TRACES_SAMPLER="parentbased_always_off"
    )
    function = node.deploy(VECTOR_ADD.read_bytes(), 3)
    for _ in range(5):
        assert node.invoke(function, 3, export="run", args=[1000]).status_code == 200
    assert node.metric('device_restarts_total{device="cuda:0"}') == 0
    traced = node.post(f"/functions/{function}/invoke", 3, {"export": "run", "args": [1000]}, **TRACED)
    assert (traced.status_code, traced.json()["error"]["kind"]) == (503, "device_restarting"), traced.text
    launch = collector.trace("a" * 32, 5).one("wasi_cuda.launch")
    assert (launch.is_error, launch.status) == (True, "not_completed")
    assert not [name for name in launch.attributes if name.startswith("device_")]
    wait_until(lambda: node.metric('device_restarts_total{device="cuda:0"}') == 1)
    node.wait_until_ready()
    assert node.invoke(function, 3, export="run", args=[1000]).status_code == 200


def test_an_instance_keeps_its_memory_on_the_gpu_and_cannot_be_captured(serve_gpu: Callable[..., GpuNode]) -> None:
    node = serve_gpu()
    linked = imports(CUDA_3_MODULE)
    function = node.deploy(passthrough(linked, 4))
    spawned = node.post("/instances", 0, {"function_id": function})
    assert spawned.status_code < 300, spawned.text
    instance = spawned.json()["id"]

    def call(export: str, *args: int, data: bytes = b"") -> int:
        body = {"export": export, "args": list(args), "input_b64": base64.b64encode(data).decode()}
        answer = node.post(f"/instances/{instance}/invoke", 0, body)
        assert answer.status_code == 200, answer.text
        return int((answer.json()["result"] or [0])[0])

    assert call("read-input", 1000, len(ADD), data=ADD) == len(ADD)
    assert call("read-input", 500, 10, data=b"vector_add") == 10
    kernel = call("wasi_cuda_load_ptx", 1000, len(ADD), 500, 10)
    handle = call("wasi_cuda_alloc", 400, 0)
    assert (kernel, handle) == (0, 1)
    # Output is text: floats whose bytes are letters.
    before, after = (np.frombuffer(letters * 400, "<f4") for letters in (b"A", b"B"))
    call("read-input", 1000, 400, data=before.tobytes())
    assert call("wasi_cuda_memcpy", handle, 0, 1000, 400, 0) == 0
    place = (Tag.DEVICE_POINTER, handle, 0)
    argv = pack([place, (Tag.POINTER, 1000, 400), place, (Tag.I32, 100)])
    call("read-input", 1000, 400, data=(after - before).tobytes())
    call("read-input", 2000, len(argv), data=argv)
    assert call("wasi_cuda_launch", kernel, 4, 1, 1, 32, 1, 1, 0, 2000, len(argv)) == 0
    assert call("wasi_cuda_memcpy", handle, 0, 3000, 400, 1) == 0
    call("read-input", 100, 8, data=struct.pack("<2I", 3000, 400))  # what fd_write is to write
    answer = node.post(f"/instances/{instance}/invoke", 0, {"export": "fd_write", "args": [1, 100, 1, 200]})
    assert answer.json()["stdout"] == "B" * 400

    refused = node.post(f"/instances/{instance}/snapshot", 0)
    assert (refused.status_code, refused.json()["error"]["kind"]) == (400, "invalid_snapshot"), refused.text
    assert "kernels or memory on a GPU" in refused.json()["error"]["message"]
    worker = node.worker
    assert worker is not None
    os.kill(worker, signal.SIGKILL)
    lost = node.post(f"/instances/{instance}/invoke", 0, {"export": "wasi_cuda_alloc", "args": [400, 0]})
    assert (lost.status_code, lost.json()["error"]["kind"]) == (503, "device_restarting")
    assert int(lost.headers["Retry-After"]) >= 1
    gone = node.post(f"/instances/{instance}/invoke", 0, {"export": "wasi_cuda_sync"})
    assert gone.status_code == 404


def test_an_endless_kernel_ends_with_its_deadline_and_the_audit_log_says_whom_it_hit(
    serve_gpu: Callable[..., GpuNode],
) -> None:
    node = serve_gpu()
    offender, victim = node.deploy(guest(), 1), node.deploy(VECTOR_ADD.read_bytes(), 2)
    neighbour = Neighbour(node, victim, 2)
    wait_until(lambda: neighbour.answers[200, ""] > 3)
    answer = node.launch(offender, 1, ENDLESS, "endless", deadline_ms=1000)
    assert (answer.status_code, answer.json()["error"]["kind"]) == (504, "invoke_timeout"), answer.text
    wait_until(lambda: bool(node.audited("device.restart")))
    node.wait_until_ready()
    done = neighbour.answers[200, ""]
    wait_until(lambda: neighbour.answers[200, ""] > done + 3)
    neighbour.end()
    assert neighbour.answers.keys() <= {(200, ""), (503, "device_restarting")}
    (line,) = node.audited("device.restart")
    assert (line["tenant"], line["resource"], line["outcome"]) == (1, "cuda:0", "device_restarting")
    assert (line["detail"]["kernel"], line["detail"]["victims"]) == ("endless", "2")
    assert node.metric('device_restarts_total{device="cuda:0"}') == 1
    assert "cuda:0 starts anew: a kernel does not end; caused by kernel endless of tenant 1" in node.served.log


def test_a_worker_that_is_killed_under_load_costs_the_node_no_more_than_calls(
    serve_gpu: Callable[..., GpuNode],
) -> None:
    node = serve_gpu()
    tenants = [Neighbour(node, node.deploy(VECTOR_ADD.read_bytes(), tenant), tenant) for tenant in (1, 2, 3)]
    for restarts in (1, 2, 3):
        before = [tenant.answers[200, ""] for tenant in tenants]
        wait_until(lambda before=before: all(t.answers[200, ""] > n for t, n in zip(tenants, before, strict=True)))
        worker = node.worker
        assert worker is not None
        os.kill(worker, signal.SIGKILL)
        assert node.get("/healthz").status_code == 200
        wait_until(lambda restarts=restarts: node.metric('device_restarts_total{device="cuda:0"}') == restarts)
        node.wait_until_ready()
    done = [tenant.answers[200, ""] for tenant in tenants]
    wait_until(lambda: all(t.answers[200, ""] > n + 3 for t, n in zip(tenants, done, strict=True)))
    for tenant in tenants:
        tenant.end()
        assert tenant.answers.keys() <= {(200, ""), (503, "device_restarting")}
    assert [line["tenant"] for line in node.audited("device.restart")] == [None] * 3
    assert node.served.stop() == 0


def test_a_tenant_that_keeps_breaking_the_gpu_is_refused_and_others_are_not(serve_gpu: Callable[..., GpuNode]) -> None:
    node = serve_gpu()
    offender, other = node.deploy(guest(), 1), node.deploy(VECTOR_ADD.read_bytes(), 2)
    for restarts in (1, 2, 3):
        node.wait_until_ready()
        assert node.launch(offender, 1, ENDLESS, "endless", deadline_ms=500).status_code == 504
        wait_until(lambda restarts=restarts: len(node.audited("device.restart")) == restarts)
    node.wait_until_ready()
    answer = node.launch(offender, 1, TRAP, "breaks")
    assert (answer.status_code, answer.json()["result"]) == (200, [NOT_AVAILABLE]), answer.text
    assert node.invoke(other, 2, export="run", args=[100]).status_code == 200


def test_a_snapshot_with_kernels_of_the_cpu_is_not_restored_on_a_gpu(
    serve: Callable[..., Served], serve_gpu: Callable[..., GpuNode]
) -> None:
    served = serve(TENSOR_WASM_DEVICE="cpu", TENSOR_WASM_AUDIT="none")
    client = served.client
    plain, used = (client.deploy("guest", passthrough(imports(CUDA_3_MODULE)))["id"] for _ in range(2))
    snapshots = []
    for function, allocates in ((plain, False), (used, True)):
        instance = client.spawn(function, None, None)["id"]
        if allocates:
            client.call(instance, {"export": "wasi_cuda_alloc", "args": [64, 0]}, None)
        snapshots.append(client.capture(instance)["snapshot_id"])
    assert served.stop() == 0
    node = serve_gpu()
    assert node.post(f"/snapshots/{snapshots[0]}/restore", 0).status_code == 200
    refused = node.post(f"/snapshots/{snapshots[1]}/restore", 0)
    assert (refused.status_code, refused.json()["error"]["kind"]) == (400, "invalid_snapshot"), refused.text
    assert "this node's device is a GPU" in refused.json()["error"]["message"]


def test_a_node_stops_in_order_while_a_kernel_does_not_end(serve_gpu: Callable[..., GpuNode]) -> None:
    node = serve_gpu(TENSOR_WASM_DRAIN_S="1")
    function = node.deploy(guest(), 1)
    answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answers.append(node.launch(function, 1, ENDLESS, "endless")))
    thread.start()
    wait_until(lambda: node.metric("dispatch_permits_used") == 1)
    assert node.served.stop() == 0, node.served.log
    thread.join()
    assert answers[0].status_code in (409, 503)
    assert node.worker is None
