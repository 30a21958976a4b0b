"""A newcomer's path through the commands, crashes and stops included."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
import uuid

import pytest

from system.front_door import VECTOR_ADD, environment, run_cli
from tensor_wasm.cli.failures import Failure

ANSWER_FIELDS = {"result", "function_id", "instance_id", "duration_ms", "launches"}


def test_deploy_show_list_invoke_delete(shared_node):
    deployed = shared_node.cli("deploy", VECTOR_ADD, "--json")
    assert deployed.code == 0, deployed.err
    function_id = deployed.json["id"]
    assert uuid.UUID(function_id).version == 4

    shown = shared_node.cli("function", "show", function_id, "--json").json
    assert shown["name"] == "vector_add"
    assert shown["size_bytes"] == VECTOR_ADD.stat().st_size
    assert {"name": "run", "parameters": ["i32"], "results": ["i32"]} in shown["exports"]
    assert {"module": "wasi:cuda/host@0.2.0", "name": "wasi_cuda_launch"} in shown["imports"]
    assert "run(i32) -> i32" in shared_node.cli("function", "show", function_id).out

    listed = shared_node.cli("function", "list", "--json").json["functions"]
    assert function_id in [item["id"] for item in listed]
    assert function_id in shared_node.cli("function", "list").out

    answer = shared_node.cli("invoke", function_id, "--export", "run", "--args", "[1000]", "--json").json
    assert answer.keys() >= ANSWER_FIELDS
    assert (answer["result"], answer["launches"], answer["function_id"]) == ([1000], 1, function_id)
    assert shared_node.cli("invoke", function_id, "--args", "[7]").out == "7\n"

    assert shared_node.cli("function", "delete", function_id).code == 0
    for arguments in (["function", "show"], ["function", "delete"], ["invoke"]):
        gone = shared_node.cli(*arguments, function_id, "--json")
        assert gone.code == 5
        assert gone.json["error"]["kind"] == "not_found"
        assert gone.json["error"]["request_id"]


def test_a_launch_is_seen_in_the_metrics(shared_node):
    def dispatches() -> float:
        lines = shared_node.cli("metrics", "--filter", "kernel_dispatches_total").out.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#"))

    before = dispatches()
    function_id = shared_node.client.deploy("vector_add", VECTOR_ADD.read_bytes())["id"]
    shared_node.client.invoke(function_id, {"args": [64]}, None)
    assert dispatches() == before + 1
    shared_node.client.delete(function_id)


def test_what_a_guest_prints_comes_before_its_result(shared_node, function_id, guest_file):
    expected = "hello\nok\n"
    assert shared_node.cli("invoke", function_id, "--export", "hello").out == expected
    assert run_cli("run", guest_file, "--export", "hello").out == expected
    assert shared_node.cli("invoke", function_id, "--export", "hello", "--json").json["stdout"] == "hello\n"


def test_run_gives_the_right_result_without_a_server():
    result = run_cli("run", VECTOR_ADD, "--export", "run", "--args", "[1000000]")
    assert (result.code, result.out) == (0, "1000000\n"), result.err
    answer = run_cli("run", VECTOR_ADD, "--args", "[10]", "--json").json
    assert answer.keys() >= ANSWER_FIELDS - {"function_id"}
    assert (answer["result"], answer["launches"]) == ([10], 1)


def test_run_leaves_nothing_behind(tmp_path, guest_file):
    result = run_cli("run", guest_file, TMPDIR=str(tmp_path), HOME=str(tmp_path), XDG_DATA_HOME=str(tmp_path / "data"))
    assert (result.code, result.out) == (0, "42\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_endless_run_can_be_ended_and_leaves_nothing(tmp_path, guest_file, number):
    command = [sys.executable, "-m", "tensor_wasm", "run", str(guest_file), "--export", "spin"]
    process = subprocess.Popen(command, env=environment(TMPDIR=str(tmp_path)), stderr=subprocess.PIPE)
    until = time.monotonic() + 30
    while not list(tmp_path.glob("*/node.db")) and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.3)  # the guest runs by now, or the node is just about to run it: both must end
    process.send_signal(number)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 130
    assert b"Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_a_module_may_come_through_a_pipe(shared_node, guest_file):
    piped = run_cli("run", "-", "--export", "add", "--args", "[40, 2]", stdin=guest_file.read_bytes())
    assert piped.out == "42\n"
    deployed = shared_node.cli("deploy", "-", "--name", "piped", stdin=guest_file.read_bytes())
    assert deployed.code == 0
    assert shared_node.cli("function", "delete", deployed.out.strip()).code == 0


def test_a_function_outlives_a_kill(serve):
    node = serve()
    function_id = node.cli("deploy", VECTOR_ADD).out.strip()
    node.kill()  # SIGKILL: nothing is flushed, nothing is closed
    node = serve()
    assert [item["id"] for item in node.client.functions()] == [function_id]
    assert node.cli("invoke", function_id, "--args", "[1000]").out == "1000\n"
    assert node.stop() == 0


@pytest.mark.slow
def test_a_deleted_function_stays_deleted_after_a_kill(serve, guest_file):
    node = serve()
    function_id = node.client.deploy("guest", guest_file.read_bytes())["id"]
    node.client.delete(function_id)
    node.kill()
    node = serve()
    assert list(node.client.functions()) == []
    assert node.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_an_invocation_in_flight_ends_before_the_node_does(serve, guest_file, number):
    node = serve()
    function_id = node.client.deploy("guest", guest_file.read_bytes())["id"]
    answers: list[dict[str, object]] = []

    def invoke() -> None:
        answers.append(node.client.invoke(function_id, {"export": "wait", "args": [1000]}, 10.0))

    thread = threading.Thread(target=invoke)
    thread.start()
    _wait_for_an_instance(node)
    node.process.send_signal(number)
    assert node.wait() == 0, node.log
    thread.join()
    assert answers[0]["result"] == [1000]


@pytest.mark.slow
def test_a_node_told_to_stop_while_it_starts_stops_in_order(tmp_path):
    home = tmp_path / "home"
    command = [sys.executable, "-m", "tensor_wasm", "serve", "--listen", "127.0.0.1:0", "--home", str(home)]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until = time.monotonic() + 30
    while not (home / "node.db").exists() and time.monotonic() < until:
        time.sleep(0.001)
    process.terminate()
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert b"Traceback" not in errors


@pytest.mark.slow
def test_the_drain_is_bounded_and_says_no_to_new_work(serve, guest_file):
    node = serve(TENSOR_WASM_DRAIN_S="0.5")
    function_id = node.client.deploy("guest", guest_file.read_bytes())["id"]
    failures: list[Failure] = []

    def invoke() -> None:
        try:
            node.client.invoke(function_id, {"export": "spin"}, 30.0)
        except Failure as failure:
            failures.append(failure)

    thread = threading.Thread(target=invoke)
    thread.start()
    _wait_for_an_instance(node)
    started = time.monotonic()
    node.process.terminate()
    assert node.wait() == 0, node.log
    assert time.monotonic() - started < 10
    thread.join()
    assert failures[0].kind in {"terminated", "server_unreachable"}


def _wait_for_an_instance(node) -> None:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        lines = re.findall(r"^tensor_wasm_active_instances\{.*\} (\S+)$", node.client.metrics(), re.MULTILINE)
        if any(float(value) >= 1 for value in lines):
            return
        time.sleep(0.01)
    raise AssertionError("no invocation began")


def test_serve_says_where_it_listens_who_is_admin_and_what_is_misspelt(serve):
    node = serve("--json", TENSOR_WASM_PERMITS="3")
    started = json.loads(node.first_line)
    assert started["url"] == node.url
    assert started["device"] == "cpu"
    assert started["pid"] == node.process.pid
    assert node.stop() == 0
    assert "every caller on this machine is admin" in node.log
    assert "warning: TENSOR_WASM_PERMITS" in node.log


def test_serve_with_tokens_denies_those_without(serve):
    node = serve(TENSOR_WASM_API_TOKENS="letmein:tenant=1;boss:role=admin")
    assert node.first_line.startswith(f"listening on {node.url} (device cpu, home ")
    assert "admin" not in node.log
    assert node.cli("function", "list").code == 4
    denied = node.cli("function", "list", "--json", "--token", "wrong")
    assert (denied.code, denied.json["error"]["kind"]) == (4, "unauthorized")
    assert node.cli("--tenant", "1", "function", "list", TENSOR_WASM_TOKEN="letmein").code == 0
    assert node.cli("--tenant", "2", "function", "list", TENSOR_WASM_TOKEN="letmein").code == 4
    assert "letmein" not in node.log
    assert "boss" not in node.log
    assert node.stop() == 0


def test_tenants_do_not_see_each_other(shared_node, function_id):
    assert shared_node.cli("--tenant", "5", "function", "show", function_id).code == 5
    assert shared_node.cli("--tenant", "5", "function", "list", "--json").json == {"functions": []}


@pytest.mark.parametrize(
    ("flags", "settings", "variable"),
    [
        (["--permits", "0"], {}, "TENSOR_WASM_DISPATCH_PERMITS"),
        pytest.param(["--workers", "x"], {}, "TENSOR_WASM_WORKERS", marks=pytest.mark.slow),
        pytest.param(["--listen", "nowhere"], {}, "TENSOR_WASM_LISTEN_ADDR", marks=pytest.mark.slow),
        pytest.param(["--listen", "0.0.0.0:0"], {}, "TENSOR_WASM_LISTEN_ADDR", marks=pytest.mark.slow),
        (["--device", "cuda"], {}, "TENSOR_WASM_DEVICE"),
        pytest.param(
            [], {"TENSOR_WASM_API_TOKENS": "secret-without-form"}, "TENSOR_WASM_API_TOKENS", marks=pytest.mark.slow
        ),
    ],
)
def test_serve_refuses_a_setting_it_cannot_use(tmp_path, flags, settings, variable):
    result = run_cli("serve", "--home", tmp_path / "home", "--json", *flags, **settings)
    assert result.code == 2
    assert result.json["error"]["kind"] == "invalid_configuration"
    assert variable in result.err
    assert "secret-without-form" not in result.err + result.out


def test_serve_refuses_a_gpu_that_there_is_not(tmp_path):
    result = run_cli("serve", "--home", tmp_path / "home", "--json", "--device", "cuda:999")
    assert result.code == 2
    assert result.json["error"]["kind"] == "device_unavailable"
    assert "TENSOR_WASM_DEVICE=cuda:999" in result.err


@pytest.mark.slow
def test_a_taken_address_is_one_line(shared_node, tmp_path):
    address = shared_node.url.removeprefix("http://")
    result = run_cli("serve", "--listen", address, "--home", tmp_path / "home")
    assert result.code == 2
    assert result.err.splitlines()[-1].startswith("error: invalid_configuration: TENSOR_WASM_LISTEN_ADDR")
    assert "Traceback" not in result.err


@pytest.mark.slow
def test_a_home_that_cannot_be_used_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    result = run_cli("serve", "--listen", "127.0.0.1:0", "--home", tmp_path / "file" / "home")
    assert result.code == 1
    assert result.err.startswith("error: store_error: ")
    assert "Traceback" not in result.err


def test_doctor_finds_this_host_fit(tmp_path):
    result = run_cli("doctor", "--json", TENSOR_WASM_HOME=str(tmp_path / "home"), TENSOR_WASM_LISTEN_ADDR="127.0.0.1:0")
    assert result.code == 0, result.out
    assert result.json["ok"] is True
    assert {"settings", "python", "wasmtime", "sandbox and device", "home"} <= {
        c["name"] for c in result.json["checks"]
    }


def test_doctor_sees_a_limited_address_space(tmp_path):
    command = f"ulimit -v 4000000; exec {sys.executable} -m tensor_wasm doctor"
    done = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        env=environment(TENSOR_WASM_HOME=str(tmp_path)),
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert re.search(r"^fail  address space .*\n +raise it \(ulimit -v unlimited\)", done.stdout, re.MULTILINE)
    assert "Traceback" not in done.stderr
