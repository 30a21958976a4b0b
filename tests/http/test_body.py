from __future__ import annotations

import socket
import time

import httpx
import pytest

from tensor_wasm.http import body as body_module

HEAD = b"POST /functions/abc/invoke HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


def test_a_body_of_the_limit_is_taken_and_one_byte_more_is_not(server):
    exact = b" " * (4096 - 2) + b"{}"
    assert server.invoke(exact).status == 200
    answer = server.invoke(b" " + exact)
    assert (answer.status, answer.kind) == (413, "body_too_large")
    assert "4096" in answer.message
    assert "TENSOR_WASM_MAX_BODY_BYTES" in answer.message


def test_an_announced_length_is_refused_before_the_body_comes(server):
    with socket.create_connection((server.host, server.port), timeout=5) as connection:
        connection.sendall(HEAD + b"Content-Length: 99999999999\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 413")


def test_a_body_of_unknown_length_is_refused_as_it_grows(server):
    def pieces():
        for _ in range(400):
            yield b" " * 100

    answer = httpx.post(
        f"http://{server.host}:{server.port}/functions/abc/invoke",
        content=pieces(),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 413
    assert answer.json()["error"]["kind"] == "body_too_large"
    assert server.node.invocations.calls == []


def test_a_client_that_asks_first_is_told_before_it_sends(server):
    with socket.create_connection((server.host, server.port), timeout=5) as connection:
        connection.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 99999\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 413")
    with socket.create_connection((server.host, server.port), timeout=5) as connection:
        connection.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert connection.recv(65_536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"{}")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")


def test_a_body_in_pieces_is_put_together(server):
    with socket.create_connection((server.host, server.port), timeout=5) as connection:
        connection.sendall(HEAD + b"Content-Length: 12\r\n\r\n")
        for piece in (b'{"ar', b'gs":', b"[7]}"):
            time.sleep(0.02)
            connection.sendall(piece)
        assert b'"result":[7]' in connection.recv(65_536)


@pytest.mark.parametrize("trickle", [False, True])
def test_a_body_that_does_not_come_is_given_up(server, monkeypatch, trickle):
    monkeypatch.setattr(body_module, "PAUSE_S", 0.2)
    monkeypatch.setattr(body_module, "_GRACE_S", 0.3)
    started = time.monotonic()
    with socket.create_connection((server.host, server.port), timeout=5) as connection:
        connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n{")
        received = b""
        connection.settimeout(0.05)
        while time.monotonic() < started + 5:
            try:
                if trickle:
                    connection.sendall(b" ")
                piece = connection.recv(65_536)
                if not piece:
                    break
                received += piece
            except TimeoutError:
                continue
            except (ConnectionResetError, BrokenPipeError):
                break
    assert time.monotonic() - started < 2
    assert received.startswith(b"HTTP/1.1 408")
    assert b"too slowly" in received
    assert b"connection: close" in received
    assert server.node.invocations.calls == []


def test_a_client_that_goes_away_within_the_body_leaves_no_trace(server, caplog):
    with socket.create_connection((server.host, server.port), timeout=5) as connection:
        connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n{")
    time.sleep(0.1)
    assert server.counted()["/functions/:id/invoke", "POST", "499"] >= 1
    assert caplog.records == []
    assert server.node.invocations.calls == []
