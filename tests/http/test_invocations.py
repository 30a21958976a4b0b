from __future__ import annotations

import base64
import http.client
import json
import logging
import math
import socket
import time

import pytest

from tensor_wasm import errors
from tensor_wasm.errors import TensorWasmError


def test_an_invocation_goes_to_the_node_and_its_values_come_back(server):
    server.node.invocations.output = (b"hello\n", b"", 0)
    request = {"export": "add", "args": [1, 2], "input_b64": "aGk=", "deadline_ms": 1500}
    answer = server.invoke(request, {"X-TensorWasm-Tenant": "9"})
    assert answer.status == 200
    assert server.node.invocations.calls == [("abc", "add", [1, 2], 9, b"hi", 1.5)]
    body = answer.json
    assert body.pop("instance_id")
    assert body == {
        "result": [1, 2],
        "function_id": "abc",
        "duration_ms": 0.013,
        "launches": 3,
        "stdout": "hello\n",
    }


@pytest.mark.parametrize("body", [b"", b"{}", b' {"args": []}\n'])
def test_everything_in_the_request_is_optional(server, body):
    answer = server.invoke(body)
    assert answer.json["result"] == "ok"
    assert server.node.invocations.calls == [("abc", None, [], 0, b"", None)]
    assert "stdout" not in answer.json


def test_output_that_is_not_text_does_not_break_the_answer(server):
    server.node.invocations.output = (b"\xff\x00ok", b"err", 17)
    body = server.invoke().json
    assert (body["stdout"], body["stderr"], body["dropped_output_bytes"]) == ("\ufffd\x00ok", "err", 17)


def test_integers_stay_exact_both_ways(server):
    numbers = [2**53 + 1, 2**63, 2**64 - 1, -(2**63), 2**200, -(10**400), 0, -1]
    answer = server.invoke({"args": numbers})
    assert server.node.invocations.calls[0][2] == numbers
    assert all(type(number) is int for number in server.node.invocations.calls[0][2])
    server.node.invocations.behaviour = lambda export, args, input: [2**53 + 1, -(2**63)]
    assert server.invoke().body.count(b'"result":[9007199254740993,-9223372036854775808]') == 1
    assert answer.status == 200


def test_floats_come_back_as_the_same_double(server):
    numbers = [0.1, -0.0, 5e-324, 1.7976931348623157e308, 1e22, 3.0]
    server.node.invocations.behaviour = lambda export, args, input: numbers
    result = server.invoke({"args": numbers}).json["result"]
    assert [math.copysign(1, x) for x in result] == [math.copysign(1, x) for x in numbers]
    assert result == numbers
    assert server.node.invocations.calls[0][2] == numbers


def test_what_is_no_number_is_a_string_both_ways(server):
    answer = server.invoke({"args": ["NaN", "Infinity", "-Infinity"]})
    assert server.node.invocations.calls[0][2] == ["NaN", "Infinity", "-Infinity"]
    server.node.invocations.behaviour = lambda export, args, input: [math.nan, 1, math.inf, -math.inf, 2.5]
    answer = server.invoke()
    assert answer.json["result"] == ["NaN", 1, "Infinity", "-Infinity", 2.5]


@pytest.mark.parametrize(
    ("body", "kind", "where"),
    [
        (b'{"args": [1, 1e400]}', "invalid_args", "argument 1"),
        (b'{"args": [-1e999]}', "invalid_args", "argument 0"),
        (b'{"args": [true]}', "invalid_json", "$.args[0]"),
        (b'{"args": [null]}', "invalid_json", "$.args[0]"),
        (b'{"args": [[1]]}', "invalid_json", "$.args[0]"),
        (b'{"args": {"a": 1}}', "invalid_json", "$.args"),
        (b'{"args": [NaN]}', "invalid_json", "byte 10"),
        (b'{"args": [1,]}', "invalid_json", "byte"),
        (b'{"args": [01]}', "invalid_json", "byte"),
        (b'{"arg": []}', "invalid_json", "arg"),
        (b'{"export": 3}', "invalid_json", "$.export"),
        (b'{"deadline_ms": "3"}', "invalid_json", "$.deadline_ms"),
        (b'{"deadline_ms": 1.5}', "invalid_json", "$.deadline_ms"),
        (b'{"deadline_ms": 0}', "invalid_deadline", "at least 1"),
        (b'{"deadline_ms": -5}', "invalid_deadline", "at least 1"),
        (b'{"deadline_ms": 1' + b"0" * 400 + b"}", "invalid_deadline", "at least 1"),
        (b'{"input_b64": "*"}', "invalid_base64", "input_b64"),
        (b"\xff", "invalid_json", "byte 0"),
        (b"[", "invalid_json", "object"),
    ],
)
def test_a_bad_request_says_where_and_reaches_no_guest(server, body, kind, where):
    answer = server.invoke(body)
    assert (answer.status, answer.kind) == (400, kind)
    assert where in answer.message
    assert server.node.invocations.calls == []
    assert server.invoke().status == 200


def test_a_body_that_is_not_json_by_its_own_word_is_refused(server):
    answer = server.invoke(b"{}", {"Content-Type": "application/x-www-form-urlencoded"})
    assert (answer.status, answer.kind) == (415, "unsupported_media_type")
    assert "application/json" in answer.message
    assert server.invoke(b"{}", {"Content-Type": "application/json; charset=utf-8"}).status == 200


def test_large_input_arrives_whole(serve):
    running = serve()
    data = bytes(range(256)) * 12_000
    running.invoke({"input_b64": base64.b64encode(data).decode()})
    assert running.node.invocations.calls[0][4] == data


def every_error():
    found = []
    waiting = [TensorWasmError]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if kind.__module__ == errors.__name__ and "kind" in vars(kind):
            found.append(kind)
    return sorted(found, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_each_error_has_its_kind_and_status(server, kind, caplog):
    def fail(export, args, input):
        raise kind("/secret/path said so")

    server.node.invocations.behaviour = fail
    with caplog.at_level(logging.ERROR):
        answer = server.invoke()
    assert answer.status == kind.http_status
    assert answer.kind == kind.kind
    told = (errors.RequestError, errors.EndingError, errors.CapacityError, errors.KernelError)
    private = not issubclass(kind, told)
    assert ("/secret/path" in answer.message) is not private
    if private:
        assert "/secret/path" in caplog.text
        assert caplog.records[0].request_id == answer.headers["x-request-id"]
    if issubclass(kind, errors.CapacityError):
        assert int(answer.headers["retry-after"]) >= 1


def test_a_defect_is_a_plain_500_and_details_are_in_the_log_only(server, caplog):
    def fail(export, args, input):
        raise ZeroDivisionError("/secret/path")

    server.node.invocations.behaviour = fail
    with caplog.at_level(logging.ERROR):
        answer = server.invoke()
    assert (answer.status, answer.kind) == (500, "internal")
    assert "secret" not in answer.body.decode()
    (record,) = caplog.records
    assert record.request_id == answer.headers["x-request-id"]
    assert "ZeroDivisionError: /secret/path" in caplog.text
    server.node.invocations.behaviour = lambda export, args, input: []
    assert server.invoke().status == 200


def test_a_client_that_goes_away_ends_its_invocation_quietly(server, caplog):
    server.node.invocations.slow_s = 30
    before = server.counted().get(("/functions/:id/invoke", "POST", "499"), 0)
    with caplog.at_level(logging.DEBUG, "tensor_wasm"), caplog.at_level(logging.WARNING):
        connection = http.client.HTTPConnection(server.host, server.port, timeout=10)
        connection.request("POST", "/functions/abc/invoke", b"{}", {"Content-Type": "application/json"})
        time.sleep(0.2)
        connection.close()
        until = time.monotonic() + 5
        while not server.node.invocations.cancelled and time.monotonic() < until:
            time.sleep(0.01)
        assert server.node.invocations.cancelled == 1
        assert server.counted()["/functions/:id/invoke", "POST", "499"] == before + 1
    assert caplog.records == []


@pytest.mark.parametrize("behind", [1, 3])
def test_a_client_that_asked_more_behind_it_ends_its_invocation_as_quietly(server, caplog, behind):
    server.node.invocations.slow_s = 30
    request = b"POST /functions/abc/invoke HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    request += b"Content-Length: 2\r\n\r\n{}"
    with caplog.at_level(logging.WARNING):
        with socket.create_connection((server.host, server.port), timeout=10) as connection:
            connection.sendall(request * (1 + behind))
            time.sleep(0.2)
        until = time.monotonic() + 5
        while not server.node.invocations.cancelled and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.1)
        assert server.node.invocations.cancelled == len(server.node.invocations.calls) == 1
    assert caplog.records == []


def test_a_quick_invocation_whose_client_goes_away_leaves_no_trace(server, caplog):
    server.node.invocations.slow_s = 0.05
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            connection = http.client.HTTPConnection(server.host, server.port, timeout=10)
            connection.request("POST", "/functions/abc/invoke", b"{}", {"Content-Type": "application/json"})
            connection.close()
        time.sleep(0.3)
    assert caplog.records == []
    assert server.get("/healthz").status == 200


def test_a_slow_invocation_on_a_connection_that_stays_gets_its_answer(server):
    server.node.invocations.slow_s = 0.4
    connection = http.client.HTTPConnection(server.host, server.port, timeout=10)
    for _ in range(2):
        connection.request("POST", "/functions/abc/invoke", b'{"args":[5]}', {"Content-Type": "application/json"})
        assert json.loads(connection.getresponse().read())["result"] == [5]
    connection.close()
    assert server.node.invocations.cancelled == 0
