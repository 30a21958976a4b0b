"""Kept instances and streams on the command line: against a stand-in, and through a real server."""

from __future__ import annotations

import base64
import http.server
import json
import threading
from contextlib import contextmanager

import pytest

from administered import administered
from api.guests import emitter
from tensor_wasm.cli import main

ID = "00000000-0000-4000-8000-000000000000"
KEPT = {
    "id": ID,
    "tenant": 7,
    "function_id": ID,
    "function_name": "counter\x1b[2J",
    "state": "idle",
    "created_at": 1_700_000_000.25,
    "calls": 3,
    "idle_timeout_s": 300.0,
    "idle_left_s": 299.5,
    "memory_bytes": 131_072,
    "gpu_memory_bytes": 0,
}
DONE = {"result": [0], "function_id": ID, "instance_id": ID, "duration_ms": 1.0, "launches": 0}


def test_spawn_says_what_was_asked_and_prints_the_id(remote, node):
    node.answer("POST /instances", {"id": ID})
    result = remote("instance", "spawn", ID, "--idle-timeout", "2.5", "--deadline", "0.25")
    assert (result.code, result.out) == (0, f"{ID}\n")
    assert json.loads(node.asked[0].body) == {"function_id": ID, "idle_timeout_s": 2.5, "deadline_ms": 250}
    assert remote("instance", "spawn", ID, "--json").json == {"id": ID}
    assert json.loads(node.asked[1].body) == {"function_id": ID}


def test_a_list_is_a_table_that_obeys_nobody(remote, node):
    node.answer("GET /instances", {"instances": [KEPT, {**KEPT, "state": "busy", "idle_left_s": None}]})
    lines = remote("instance", "list").out.splitlines()
    assert lines[0].split() == ["ID", "FUNCTION", "STATE", "SINCE", "CALLS", "IDLE", "LEFT", "MEMORY", "GPU", "MEMORY"]
    assert "counter\\x1b[2J" in lines[1]
    assert "4m 59s" in lines[1]
    assert "busy" in lines[2]
    assert remote("instance", "list", "--json").json["instances"][0] == KEPT


def test_invoke_sends_what_a_call_of_a_function_would(remote, node, tmp_path):
    data = tmp_path / "input"
    data.write_bytes(b"\xff")
    node.answer(f"POST /instances/{ID}/invoke", {**DONE, "result": [3]})
    result = remote("instance", "invoke", ID, "--export", "f", "--args", "[1]", "--input", data, "--deadline", "2")
    assert (result.code, result.out) == (0, "3\n")
    assert json.loads(node.asked[0].body) == {
        "export": "f",
        "args": [1],
        "input_b64": base64.b64encode(b"\xff").decode(),
        "deadline_ms": 2000,
    }


def test_an_instance_that_is_busy_is_exit_code_1_and_one_that_is_gone_5(remote, node):
    node.answer(f"POST /instances/{ID}/invoke", {"error": {"kind": "busy", "message": "m", "request_id": "r"}}, 409)
    assert remote("instance", "invoke", ID).code == 1
    error = {"error": {"kind": "not_found", "message": "m", "request_id": "r"}}
    node.answer(f"DELETE /instances/{ID}", error, 404)
    assert remote("instance", "delete", ID).code == 5
    assert remote("instance", "delete", "../x").code == 5
    assert node.asked[-1].path == "/instances/..%2Fx"


@contextmanager
def streaming(*parts, is_whole=True):
    """A node that answers with these pieces of an event stream, and may leave before its end."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for part in parts:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
            if is_whole:
                self.wfile.write(b"0\r\n\r\n")
            self.close_connection = True

        def log_message(self, *args):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def event(name, value):
    return f"event: {name}\ndata: {json.dumps(value)}\n\n".encode()


def chunk(data):
    return event("chunk", {"chunk_b64": base64.b64encode(data).decode()})


def test_a_stream_is_the_very_bytes_and_its_result_is_on_stderr(capfdbinary):
    whole = chunk(b"\xff\x00") + chunk(b"two\n") + event("later", {}) + event("done", {**DONE, "stderr": "warned\n"})
    with streaming(*(whole[at : at + 7] for at in range(0, len(whole), 7))) as url:
        assert main(["--server", url, "invoke", ID, "--stream"]) == 0
    captured = capfdbinary.readouterr()
    assert captured.out == b"\xff\x00two\n"
    assert captured.err == b"warned\nreturned 0\n"


@pytest.mark.parametrize("is_whole", [True, False])
@pytest.mark.parametrize("command", [["invoke"], ["instance", "invoke"]])
def test_a_stream_without_its_end_is_exit_code_1(cli, is_whole, command):
    with streaming(chunk(b"one"), b"event: do", is_whole=is_whole) as url:
        result = cli("--server", url, *command, ID, "--stream")
    assert (result.code, result.out) == (1, "one")
    assert result.err.startswith("error: stream_cut: the stream is not whole")


def test_a_stream_that_is_none_is_told_from_a_node_s(cli):
    for nonsense in (event("chunk", {"chunk_b64": "%"}), event("error", {}), event("chunk", 1) + b"x" * 9 + b"\n\n"):
        with streaming(nonsense) as url:
            assert cli("--server", url, "invoke", ID, "--stream").code in (1, 3)


def test_a_stream_has_no_other_form(remote, node):
    assert remote("invoke", ID, "--stream", "--json").code == 2
    assert remote("invoke", ID, "--stream", "--async").code == 2
    assert remote("instance", "invoke", ID, "--stream", "--json").code == 2
    assert node.asked == []


def test_kept_instances_and_streams_of_a_real_node(cli, tmp_path):
    with administered(tmp_path, api_tokens="t:tenant=1") as server:
        at = ["--server", f"http://{server.host}:{server.port}", "--token", "t"]
        path = tmp_path / "guest.wasm"
        path.write_bytes(emitter())
        function = cli(*at, "deploy", path).out.strip()
        kept = cli(*at, "instance", "spawn", function).out.strip()
        for count in (1, 2):
            assert cli(*at, "instance", "invoke", kept, "--export", "step").out == f"{count}\n"
        assert cli(*at, "instance", "list", "--json").json["instances"][0]["calls"] == 2
        streamed = cli(*at, "instance", "invoke", kept, "--export", "emit", "--args", "[2, 3]", "--stream")
        assert (streamed.code, streamed.out, streamed.err) == (0, "abcabc", "returned 0\n")
        assert cli(*at, "instance", "delete", kept).out == f"deleted {kept}\n"
        assert cli(*at, "instance", "invoke", kept).code == 5
        assert cli(*at, "invoke", function, "--export", "emit", "--args", "[3, 1]", "--stream").out == "aaa"
        failed = cli(*at, "invoke", function, "--export", "fail", "--args", "[2, 1]", "--stream")
        assert (failed.code, failed.out) == (1, "aa")
        assert failed.err.startswith("error: trap: ")
        late = cli(*at, "invoke", function, "--export", "spin", "--stream", "--deadline", "0.2")
        assert (late.code, late.out) == (124, "")
