"""Background jobs of the real command: what was acknowledged survives ``kill -9``."""

from __future__ import annotations

import threading
import time

import pytest
from wasmtime import wat2wasm

from system.front_door import Served
from tensor_wasm.cli.failures import Failure

GUEST = bytes(
    wat2wasm("""
    (module
      (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
      (func (export "spin") (loop (br 0))))
    """)
)
PATIENCE_S = 60.0
CLIENTS = 4


class Submitting:
    """Clients that make jobs until the node is gone; ``jobs`` is what was acknowledged, by number."""

    def __init__(self, node: Served, function: str) -> None:
        self.jobs: dict[int, str] = {}
        self.reasons: list[str] = []
        self._node, self._function = node, function
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
        assert set(self.reasons) == {"server_unreachable"}

    def _run(self, number: int) -> None:
        client = self._node.client
        while True:
            try:
                answer = client.submit(self._function, {"export": "add", "args": [number, 0]})
            except Failure as failure:
                self.reasons.append(failure.kind)
                return
            self.jobs[number] = answer["job_id"]
            number += CLIENTS


def wait_for(is_so, what):
    until = time.monotonic() + PATIENCE_S
    while not (found := is_so()):
        assert time.monotonic() < until, what
        time.sleep(0.02)
    return found


def ended(client, job_id):
    job = wait_for(lambda: (found := client.job(job_id))["finished_at"] is not None and found, "the job does not end")
    return job["status"], job["error"] and job["error"]["kind"]


@pytest.mark.slow
def test_a_killed_node_has_every_job_that_it_acknowledged(tmp_path):
    home = tmp_path / "home"
    settings = {"TENSOR_WASM_INVOKE_DEADLINE_S": "600", "TENSOR_WASM_WORKERS": "2", "TENSOR_WASM_AUDIT": "none"}
    node = Served(home, **settings)
    function = node.client.deploy("guest", GUEST)["id"]
    submitting = Submitting(node, function)
    wait_for(lambda: len(submitting.jobs) >= 200, "no jobs are taken")
    node.kill()
    submitting.join()

    node = Served(home, **settings)
    client = node.client
    found = {job["id"] for job in client.jobs()}
    assert set(submitting.jobs.values()) <= found
    for number, job_id in submitting.jobs.items():
        status, kind = ended(client, job_id)
        assert (status, kind) in (("completed", None), ("failed", "node_restarted")), number
        if status == "completed":
            assert client.job(job_id)["result"]["result"] == [number]
    # The one worker that jobs have is taken: the first runs, the second is about to, the rest waits.
    spinning = [client.submit(function, {"export": "spin"})["job_id"] for _ in range(2)]
    wait_for(lambda: client.job(spinning[0])["status"] == "running", "the first does not run")
    waiting = [client.submit(function, {"export": "add", "args": [1, 1]})["job_id"] for _ in range(300)]
    begun = [job["id"] for job in client.jobs("running")]
    assert spinning[0] in begun
    node.kill()

    node = Served(home, **settings)
    client = node.client
    assert ended(client, spinning[0]) == ("failed", "node_restarted")
    for job_id in begun:
        assert ended(client, job_id) == ("failed", "node_restarted")
    if spinning[1] not in begun:
        client.cancel_job(spinning[1])
    for job_id in waiting:
        if job_id not in begun:
            status, kind = ended(client, job_id)
            assert (status, kind) == ("completed", None)
    assert node.stop() == 0


@pytest.mark.slow
def test_a_stopped_node_lets_jobs_finish_and_keeps_those_that_wait(tmp_path):
    home = tmp_path / "home"
    settings = {"TENSOR_WASM_DRAIN_S": "1", "TENSOR_WASM_WORKERS": "2", "TENSOR_WASM_AUDIT": "none"}
    node = Served(home, **settings)
    function = node.client.deploy("guest", GUEST)["id"]
    spinning = node.client.submit(function, {"export": "spin"})["job_id"]
    wait_for(lambda: node.client.job(spinning)["status"] == "running", "it does not run")
    waiting = [node.client.submit(function, {"export": "add", "args": [1, 1]})["job_id"] for _ in range(50)]
    assert node.stop() == 0

    node = Served(home, **settings)
    assert ended(node.client, spinning) == ("failed", "terminated")
    assert {ended(node.client, job_id) for job_id in waiting} == {("completed", None)}
    assert node.cli("job", "list", "--status", "failed").out.count("terminated") == 1
    done = node.cli("invoke", function, "--async", "--wait", "--export", "add", "--args", "[20, 22]")
    assert (done.code, done.out) == (0, "42\n")
    assert node.stop() == 0
