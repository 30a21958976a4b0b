"""Commands that talk to a node, against a stand-in that answers as it is told."""

from __future__ import annotations

import base64
import json
import socket
import threading

import pytest

ID = "00000000-0000-4000-8000-000000000000"
FUNCTION = {
    "id": ID,
    "name": "adder",
    "tenant": 7,
    "digest": "ab" * 32,
    "size_bytes": 12345,
    "created_at": 1_700_000_000.25,
    "exports": [{"name": "add", "parameters": ["i32", "i32"], "results": ["i32"]}],
    "imports": [{"module": "wasi:cuda/host@0.2.0", "name": "wasi_cuda_launch"}],
    "memory_pages": 2,
}


def test_deploy_sends_the_bytes_and_prints_the_id(remote, node, tmp_path):
    path = tmp_path / "adder.wasm"
    path.write_bytes(b"\0asm\x01\0\0\0")
    node.answer("POST /functions", {"id": ID}, 201)
    result = remote("deploy", path)
    assert (result.code, result.out) == (0, f"{ID}\n")
    (asked,) = node.asked
    assert asked.path == "/functions?name=adder"
    assert asked.headers["Content-Type"] == "application/wasm"
    assert asked.body == b"\0asm\x01\0\0\0"


def test_a_name_is_escaped_not_trusted(remote, node, tmp_path):
    path = tmp_path / "x.wasm"
    path.write_bytes(b"x")
    node.answer("POST /functions", {"id": "\x1b[2J"}, 201)
    result = remote("deploy", path, "--name", "a&b=c\r\nX: y")
    assert node.asked[0].path == "/functions?name=a%26b%3Dc%0D%0AX%3A+y"
    assert result.out == "\\x1b[2J\n"


def test_invoke_sends_what_was_said_and_prints_each_result(remote, node, tmp_path):
    data = tmp_path / "input"
    data.write_bytes(b"\xff\x00")
    node.answer(f"POST /functions/{ID}/invoke", {"result": [3, "NaN", 0.5], "stdout": "hello\n", "launches": 1})
    arguments = ["--export", "add", "--args", "[9007199254740993, 1.5]", "--input", data, "--deadline", "0.25"]
    result = remote("invoke", ID, *arguments)
    assert (result.code, result.out) == (0, "hello\n3\nNaN\n0.5\n")
    assert json.loads(node.asked[0].body) == {
        "export": "add",
        "args": [9007199254740993, 1.5],
        "input_b64": base64.b64encode(b"\xff\x00").decode(),
        "deadline_ms": 250,
    }


def test_invoke_with_json_prints_the_answer_as_it_came(remote, node):
    answer = {"result": "ok", "function_id": ID, "instance_id": ID, "duration_ms": 0.5, "launches": 0, "new": {"a": 1}}
    node.answer(f"POST /functions/{ID}/invoke", answer)
    assert remote("invoke", ID, "--json").json == answer
    assert remote("--json", "invoke", ID).json == answer


def test_an_id_cannot_leave_its_place_in_the_path(remote, node):
    assert remote("function", "delete", "../admin/drain?x#y").code == 5
    assert node.asked[0].path == "/functions/..%2Fadmin%2Fdrain%3Fx%23y"


def test_who_asks_is_said_in_headers(cli, node, monkeypatch):
    node.answer(f"GET /functions/{ID}", FUNCTION)
    monkeypatch.setenv("TENSOR_WASM_SERVER", node.url)
    monkeypatch.setenv("TENSOR_WASM_TOKEN", "from-environment")
    monkeypatch.setenv("TENSOR_WASM_TENANT", "1")
    assert cli("function", "show", ID).code == 0
    assert cli("--tenant", "2", "function", "show", ID, "--token", "flag").code == 0
    assert cli("--tenant", "2", "function", "show", ID, "--tenant", "18446744073709551615").code == 0
    found = [(a.headers["Authorization"], a.headers["X-TensorWasm-Tenant"]) for a in node.asked]
    assert found == [
        ("Bearer from-environment", "1"),
        ("Bearer flag", "2"),
        ("Bearer from-environment", "18446744073709551615"),
    ]


def test_the_server_flag_goes_before_the_environment(cli, node, monkeypatch):
    node.answer(f"GET /functions/{ID}", FUNCTION)
    monkeypatch.setenv("TENSOR_WASM_SERVER", "http://127.0.0.1:1")
    assert cli("function", "show", ID).code == 3
    assert cli("function", "show", ID, "--server", f"{node.url}/").code == 0


def test_a_list_is_followed_over_its_pages(remote, node):
    first, second = {**FUNCTION, "id": "first"}, {**FUNCTION, "id": "second"}
    node.answer("GET /functions", {"functions": [first], "next": "first"})
    node.answer("GET /functions", {"functions": [second], "next": None})
    assert [item["id"] for item in remote("function", "list", "--json").json["functions"]] == ["first", "second"]
    assert [a.path for a in node.asked] == ["/functions?limit=100", "/functions?limit=100&after=first"]


def test_a_list_that_never_ends_is_cut_by_limit_or_by_repeating_itself(remote, node):
    node.answer("GET /functions", {"functions": [FUNCTION] * 3, "next": "same"})
    assert len(remote("function", "list", "--json", "--limit", "5").json["functions"]) == 5
    assert len(remote("function", "list", "--json").json["functions"]) == 6


def test_a_list_for_people_is_a_table_that_obeys_nobody(remote, node):
    node.answer("GET /functions", {"functions": [{**FUNCTION, "name": "\x1b]0;x\x07", "created_at": "1e400"}]})
    result = remote("function", "list")
    assert result.out.splitlines()[0].split() == ["ID", "NAME", "BYTES", "DEPLOYED"]
    assert "\\x1b]0;x\\x07" in result.out
    assert "12,345" in result.out
    assert "1e400" in result.out


def test_a_list_says_when_functions_were_deployed(remote, node):
    node.answer("GET /functions", {"functions": [FUNCTION]})
    assert "2023-11-14 22:13:20 UTC" in remote("function", "list").out


def test_show_writes_exports_with_their_types(remote, node):
    node.answer(f"GET /functions/{ID}", FUNCTION)
    lines = remote("function", "show", ID).out.splitlines()
    assert "export    add(i32, i32) -> i32" in lines
    assert "import    wasi:cuda/host@0.2.0 wasi_cuda_launch" in lines
    assert "deployed  2023-11-14 22:13:20 UTC" in lines


def test_show_survives_an_answer_of_another_shape(remote, node):
    node.answer(f"GET /functions/{ID}", {"exports": [1, {"name": None}], "imports": {}, "created_at": {}})
    assert remote("function", "show", ID).code == 0


def test_delete_says_so(remote, node):
    node.answer(f"DELETE /functions/{ID}", b"", 204)
    assert remote("function", "delete", ID).out == f"deleted {ID}\n"
    assert remote("function", "delete", ID, "--json").json == {"deleted": ID}


METRICS = """# HELP tensor_wasm_functions Functions.
# TYPE tensor_wasm_functions gauge
tensor_wasm_functions 2.0
# HELP tensor_wasm_other kernels
# TYPE tensor_wasm_other gauge
tensor_wasm_other{name="kernel x"} 1.0
"""


def test_metrics_are_filtered_by_name_alone(remote, node):
    node.answer("GET /metrics", METRICS.encode())
    assert remote("metrics").out == METRICS
    assert remote("metrics", "--filter", "functions").out == "".join(METRICS.splitlines(keepends=True)[:3])
    assert remote("metrics", "--filter", "kernel").out == ""
    assert remote("metrics", "--json").json == {
        "metrics": [
            {"series": "tensor_wasm_functions", "value": "2.0"},
            {"series": 'tensor_wasm_other{name="kernel x"}', "value": "1.0"},
        ]
    }


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, "invalid_wasm", 1),
        (401, "unauthorized", 4),
        (403, "forbidden", 4),
        (404, "not_found", 5),
        (421, "misdirected", 4),
        (429, "saturated", 1),
        (500, "trap", 1),
        (503, "capacity_exhausted", 1),
        (504, "invoke_timeout", 124),
    ],
)
def test_a_refusal_is_its_kind_its_message_and_an_exit_code(remote, node, status, kind, code):
    error = {"kind": kind, "message": "why \x1b[2J", "request_id": "req-1"}
    node.answer(f"POST /functions/{ID}/invoke", {"error": error}, status)
    result = remote("invoke", ID, "--json")
    assert result.code == code
    assert result.err == f"error: {kind}: why \\x1b[2J\n"
    assert result.json == {"error": error}
    assert remote("invoke", ID).out == ""


def test_a_defect_of_the_node_names_the_request_to_look_for(remote, node):
    error = {"kind": "internal", "message": "see the log", "request_id": "req-9"}
    node.answer(f"GET /functions/{ID}", {"error": error}, 500)
    assert remote("function", "show", ID).err == "error: internal: see the log (request req-9 in the node's log)\n"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>hello"),
        (200, b"[1, 2]"),
        (200, b"\xff\xfe"),
        (200, b"[" * 100_000),
        (500, b"oops"),
        (302, b"{}"),
        (404, b'{"error": "gone"}'),
    ],
)
def test_what_is_no_node_is_said_to_be_none(remote, node, status, body):
    node.answer(f"GET /functions/{ID}", body, status)
    result = remote("function", "show", ID)
    assert result.code == 3
    assert "is not a TensorWasm node" in result.err


def test_no_server_is_exit_code_3_and_says_how_to_start_one(cli):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    result = cli("--server", url, "function", "list", "--json")
    assert result.code == 3
    assert "tensor-wasm serve" in result.err
    assert result.json["error"]["kind"] == "server_unreachable"
    assert cli("--server", "http://no-such-host.invalid:1", "function", "list").code == 3


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"])
def test_a_connection_that_breaks_is_exit_code_3(cli, answer):
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    result = cli("--server", f"http://127.0.0.1:{listener.getsockname()[1]}", "function", "show", ID)
    thread.join()
    listener.close()
    assert result.code == 3
    assert "Traceback" not in result.err


def test_an_answer_that_does_not_come_is_exit_code_124(cli, monkeypatch):
    monkeypatch.setattr("tensor_wasm.cli.client.ANSWER_TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        result = cli("--server", url, "invoke", ID, "--deadline", "0.05")
    assert result.code == 124
    assert result.err.startswith("error: timeout: ")


def test_a_bad_file_or_argument_never_reaches_the_node(remote, node, tmp_path):
    assert remote("deploy", tmp_path).code == 2
    assert remote("deploy", tmp_path / "missing").code == 2
    assert remote("invoke", ID, "--args", '{"n": 1}').code == 2
    assert remote("invoke", ID, "--input", tmp_path / "missing").code == 2
    assert remote("invoke", ID, "--deadline", "0").code == 2
    assert node.asked == []
