from __future__ import annotations

import json
import socket
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from tensor_wasm.cli.board import board
from tensor_wasm.cli.failures import unreachable
from tensor_wasm.cli.observation import WHOLE_S, Source, is_local
from tensor_wasm.cli.quantities import duration, part
from tensor_wasm.telemetry import observation
from tensor_wasm.telemetry.observe_example import EXAMPLE

DOCUMENT = json.loads(observation.encode(EXAMPLE))
PATIENCE_S = 20.0


def drawn(document, **more):
    console = Console(width=150, record=True, color_system=None, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(board(document, **more))
    console.file.close()
    return console.export_text()


@pytest.fixture
def operator(tmp_path):
    """A socket that answers with ``answers``, one after another; None: never."""
    path = tmp_path / "operator.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    answers: list[bytes | None] = []
    held = []

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.recv(65_536)
            body = answers.pop(0) if len(answers) > 1 else answers[0]
            if body is None:
                held.append(connection)
                continue
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield path, answers
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()
    for connection in held:
        connection.close()


def test_once_prints_the_api_s_document(remote, node):
    node.answer("GET /admin/observe", DOCUMENT)
    for arguments in (("observe", "--once"), ("observe", "--json"), ("observe",)):
        result = remote(*arguments, "--home", "/nowhere")
        assert (result.code, result.json) == (0, DOCUMENT)
    assert all("X-TensorWasm-Tenant" not in asked.headers for asked in node.asked)


def test_a_token_that_may_not_look_leads_to_the_socket(remote, node, operator):
    path, answers = operator
    answers.append(json.dumps(DOCUMENT).encode())
    error = {"error": {"kind": "forbidden", "message": "this needs a token with role=admin", "request_id": "r"}}
    node.answer("GET /admin/observe", error, 403)
    result = remote("observe", "--once", "--home", path.parent)
    assert result.code == 0
    assert result.json["unread"] == ["the API: this needs a token with role=admin"]


def test_the_socket_alone_can_be_asked(remote, node, operator):
    path, answers = operator
    answers.append(json.dumps(DOCUMENT).encode())
    assert remote("observe", "--socket", path).json == DOCUMENT
    assert node.asked == []


@pytest.mark.parametrize("answer", [b"hello", b"[1]", b"\xff", b"[" * 100_000])
def test_what_answers_on_the_socket_may_be_no_node(cli, operator, answer):
    path, answers = operator
    answers.append(answer)
    result = cli("observe", "--once", "--socket", path)
    assert (result.code, result.out) == (3, "")


def test_without_an_answer_there_is_no_document_and_no_long_wait(operator):
    path, answers = operator
    answers.append(None)
    source = Source(None, path)
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(Exception, match=r"no answer within|timed out"):
            source.document()
        assert time.monotonic() - began < WHOLE_S + PATIENCE_S / 2


def test_the_socket_of_a_home_is_not_asked_for_a_node_elsewhere(cli, operator, monkeypatch):
    path, answers = operator
    answers.append(json.dumps(DOCUMENT).encode())
    monkeypatch.setenv("TENSOR_WASM_HOME", str(path.parent))
    assert cli("--server", "http://192.0.2.1:9", "observe", "--once").code == 3
    assert cli("--server", "http://127.0.0.1:1", "observe", "--once").code == 0
    assert cli("--server", "http://192.0.2.1:9", "observe", "--once", "--home", path.parent).code == 0


@pytest.mark.parametrize(
    ("server", "local"),
    [
        ("http://127.0.0.1:8080", True),
        ("http://127.1.2.3", True),
        ("https://[::1]:80", True),
        ("http://localhost:1", True),
        ("http://localhost.example", False),
        ("http://10.0.0.1", False),
        ("nonsense", False),
    ],
)
def test_a_server_is_on_this_machine_or_is_not(server, local):
    assert is_local(server) is local


@pytest.mark.parametrize("interval", ["0", "-1", "nan", "soon"])
def test_an_interval_is_a_number_of_seconds(remote, interval):
    assert remote("observe", "--interval", interval).code == 2


def test_the_board_shows_what_matters():
    text = drawn(DOCUMENT)
    for words in (
        "TensorWasm 0.2.0", "before: 0.1.0, dispatch P95 790 ns", "820 ns", "1 of 64, 1% used",
        "latency_dispatch_serial_P95", "50.0 µs", "train", "in kernel", "1 of 8 busy",
    ):  # fmt: skip
        assert words in text, words
    assert "STALLED" not in text
    assert "HELD WITHOUT" not in text


def test_the_board_shouts_what_is_wrong():
    wrong = DOCUMENT | {
        "permits": DOCUMENT["permits"] | {"held_without_launch": 2},
        "event_loop": DOCUMENT["event_loop"] | {"stalled_s": 12.0},
        "node": DOCUMENT["node"] | {"draining": True},
        "slo": [DOCUMENT["slo"][3] | {"state": "breached", "value": 0.002}],
        "gpus": [
            {
                "device": "cuda:0",
                "temperature_celsius": 91,
                "utilization_ratio": 1.0,
                "throttle_reasons": ["hw_slowdown"],
                "ecc_errors": 3,
            }
        ],
        "unread": ["dispatch: not readable in time"],
    }
    text = drawn(wrong)
    for words in (
        "2 HELD WITHOUT A LAUNCH", "STALLED FOR 12s", "DRAINING", "breached", "dispatch-latency-spike",
        "slowed by hw_slowdown", "3 memory errors", "unread dispatch: not readable in time",
    ):  # fmt: skip
        assert words in text, words


def test_the_board_says_since_when_there_is_no_answer():
    assert "no answer for 5.0s: the API: gone" in drawn(DOCUMENT, failure=unreachable("the API: gone"), age_s=5.0)


def test_names_of_tenants_cannot_move_the_terminal():
    evil = "\x1b[2J\x1b]0;owned\x07[bold]\r\n\u202e"

    def spoiled(value):
        if isinstance(value, dict):
            return {name: spoiled(one) for name, one in value.items()}
        if isinstance(value, list):
            return [spoiled(one) for one in value]
        return evil if isinstance(value, str) else value

    text = drawn(spoiled(DOCUMENT) | {"unread": [evil]})
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\u202e" not in text
    assert "\\x1b[2J" in text


@pytest.mark.parametrize("junk", [None, 1, "x", [], [1], [None], {}, {"a": {}}, True, 1e308])
def test_a_document_of_another_form_is_drawn_as_far_as_it_goes(junk):
    drawn({})
    for name in DOCUMENT:
        drawn(DOCUMENT | {name: junk})
    drawn(dict.fromkeys(DOCUMENT, junk))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 ns"), (3.1e-7, "310 ns"), (9.999e-7, "1.0 µs"), (8.2e-6, "8.2 µs"), (0.00012, "120 µs"),
        (0.0031, "3.1 ms"), (0.25, "250 ms"), (0.9999, "1.0 s"), (1.25, "1.2 s"), (4000, "4,000.0 s"),
        (None, ""), ("?", "?"), (float("nan"), "nan"),
    ],
)  # fmt: skip
def test_short_times_are_in_their_own_unit(seconds, text):
    assert duration(seconds) == text


def test_parts_are_in_per_cent():
    assert (part(0.126), part(0.9951, 2), part(None)) == ("13%", "99.51%", "")


def test_the_command_has_a_manual_page(cli):
    page = cli("man", "observe").out
    assert "\\-\\-once" in page
    assert Path(__file__).parents[2].joinpath("docs/cli.md").read_text().count("| `observe` |") == 1
