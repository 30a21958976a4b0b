"""The client's connections: kept, given up when they are of no use, cut answers told from whole ones."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

import tensor_wasm as tw
from administered import administered
from api.guests import emitter
from cli.conftest import fake_node

ID = "00000000-0000-4000-8000-000000000000"
DONE = {"result": [3], "function_id": ID, "instance_id": ID, "duration_ms": 1.0, "launches": 0}


def answer(body, status="200 OK", headers=""):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(raw)}\r\n{headers}\r\n".encode() + raw


class Scripted:
    """A server that answers each connection's requests with what was told for it, and then closes it."""

    def __init__(self, *connections):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.asked = []
        self._go_on = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(connections,))
        self._thread.start()

    def close(self):
        self._listener.close()
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _serve(self, connections):
        for answers in connections:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                for each in answers:
                    request = self._request(connection)
                    if not request:
                        break
                    self.asked.append(request)
                    connection.sendall(each)

    @staticmethod
    def _request(connection):
        data = b""
        while b"\r\n\r\n" not in data:
            piece = connection.recv(65_536)
            if not piece:
                return b""
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(
            (int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-length")), 0
        )
        while len(body) < length:
            body += connection.recv(65_536)
        return head


@contextmanager
def scripted(*connections):
    server = Scripted(*connections)
    try:
        with tw.Client(server.url, token="t", tenant=1) as client:
            yield client, server
    finally:
        server.close()


def test_one_connection_serves_many_requests():
    with scripted([answer(DONE)] * 3) as (client, server):
        for _ in range(3):
            assert client.invoke(ID, "add", [1, 2]).results == [3]
        client.close()
    assert len(server.asked) == 3


def test_a_connection_that_was_closed_meanwhile_is_replaced():
    with scripted([answer({"instances": []})], [answer({"instances": []})], [answer(DONE)]) as (client, server):
        assert client.instances() == []
        time.sleep(0.05)
        assert client.instances() == []
        assert client.invoke(ID, "add", [1, 2]).results == [3]
    assert len(server.asked) == 3


def test_a_call_is_never_sent_twice():
    with scripted([answer(DONE), b""], [answer(DONE)]) as (client, server):
        assert client.invoke(ID, "add", [1, 2]).results == [3]
        with pytest.raises(tw.Unreachable):
            client.invoke(ID, "add", [1, 2])
        assert client.invoke(ID, "add", [1, 2]).results == [3]
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"SSH-2.0-x\r\n",
        answer(DONE)[:-5],
        answer(b"<html>"),
        answer({"result": {}}),
        answer({**DONE, "result": ["what"]}),
        answer({**DONE, "function_id": 7}),
        answer({"error": "gone"}, "404 Not Found"),
        answer(b"{}", "302 Found", "Location: http://elsewhere/\r\n"),
        answer(b"[" * 100_000),
        b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n",
    ],
)
def test_what_is_no_whole_answer_of_a_node_is_never_a_result(broken):
    with scripted([broken]) as (client, _), pytest.raises(tw.Unreachable):
        client.invoke(ID, "add", [1, 2])


def chunked(*parts, is_whole=True):
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + (b"0\r\n\r\n" if is_whole else b"")
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body


def test_a_download_that_is_cut_leaves_no_file(tmp_path):
    path = tmp_path / "x.snapshot"
    ends = [
        chunked(b"abc", is_whole=False),
        chunked(b"abc")[:-7],
        answer(b"abcdef")[:-1],
        b"HTTP/1.1 200 OK\r\n\r\nabc",  # whether this is whole cannot be told
    ]
    for end in ends:
        with scripted([end]) as (client, _), pytest.raises(tw.Unreachable):
            client.export_snapshot(ID, path)
        assert list(tmp_path.iterdir()) == []
    for whole in (chunked(b"abc", b"def"), answer(b"abcdef")):
        with scripted([whole]) as (client, _):
            assert client.export_snapshot(ID, path) == 6
        assert path.read_bytes() == b"abcdef"
        path.unlink()


def event(name, value):
    return f"event: {name}\ndata: {json.dumps(value)}\n\n".encode()


CHUNK = event("chunk", {"chunk_b64": base64.b64encode(b"abc").decode()})


@pytest.mark.parametrize(
    "end",
    [b"", CHUNK[:-1], event("done", {}), event("chunk", {"chunk_b64": "%"}), event("error", {}), b"nonsense\n\n"],
)
def test_a_stream_that_is_cut_is_never_a_whole_one(end):
    for is_whole in (True, False):
        with scripted([chunked(CHUNK, end, is_whole=is_whole) if end else chunked(CHUNK, is_whole=is_whole)]) as (
            client,
            _,
        ):
            stream = client.stream(ID, "run")
            assert next(stream) == b"abc"
            with pytest.raises(tw.Unreachable):
                next(stream)
            with pytest.raises(RuntimeError):
                _ = stream.result


def test_an_error_keeps_its_kind_its_request_and_when_to_try_again():
    def refused(kind, status):
        error = {"error": {"kind": kind, "message": "why", "request_id": "r-1"}}
        return answer(error, status, "Retry-After: 7\r\n")

    answers = [
        refused("rate_limited", "429 Too Many"),
        refused("from_the_future", "418 Teapot"),
        refused("trap", "500 No"),
    ]
    with scripted(answers) as (client, _):
        with pytest.raises(tw.errors.RateLimited) as limited:
            client.invoke(ID)
        with pytest.raises(tw.RemoteError) as unknown:
            client.invoke(ID)
        with pytest.raises(tw.errors.GuestTrap) as trapped:
            client.invoke(ID)
    assert (limited.value.retry_after_s, limited.value.request_id) == (7, "r-1")
    assert (unknown.value.kind, unknown.value.http_status, str(unknown.value)) == ("from_the_future", 418, "why")
    assert trapped.value.request_id == "r-1"


def test_a_refusal_before_the_whole_body_was_taken_is_told(tmp_path):
    with (
        administered(tmp_path, max_body_bytes=1 << 20, api_tokens="t:tenant=1") as server,
        tw.Client(f"http://{server.host}:{server.port}", token="t") as client,
    ):
        for _ in range(2):
            with pytest.raises(tw.errors.BodyTooLarge):
                client.deploy("large", bytes(8 << 20))
        assert list(client.functions()) == []


CERTIFICATES = Path(__file__).parents[1] / "cli" / "certificates"


def test_a_node_s_certificate_is_looked_at_and_one_s_own_shown():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "node.pem")
    context.load_verify_locations(CERTIFICATES / "authority.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    with fake_node(context) as node:
        node.answer("GET /instances", {"instances": []})
        trusting = {"ca_cert": CERTIFICATES / "authority.pem"}
        with tw.Client(node.url, **trusting, client_cert=CERTIFICATES / "client.pem") as client:
            assert client.instances() == []
        for refused in ({}, trusting):
            with tw.Client(node.url, token="secret", **refused) as client, pytest.raises(tw.Unreachable):
                client.instances()
        assert len(node.asked) == 1


@pytest.mark.parametrize(
    ("url", "more"),
    [
        ("127.0.0.1:8080", {}),
        ("http://", {}),
        ("http://u:p@h", {}),
        ("http://h:99999", {}),
        ("http://h/\r\nx", {}),
        ("http://h", {"token": "a\r\nb"}),
        ("https://h", {"ca_cert": "/no/such/file"}),
        ("https://h", {"client_key": "k"}),
    ],
)
def test_what_cannot_be_used_is_refused_at_once(url, more):
    with pytest.raises(tw.errors.ConfigurationError):
        tw.Client(url, **more)


def test_nobody_there_is_unreachable():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with tw.Client(f"http://127.0.0.1:{taken.getsockname()[1]}") as client, pytest.raises(tw.Unreachable):
            client.instances()


def test_a_task_that_is_cancelled_ends_its_guest(tmp_path):
    async def over_http():
        async with tw.AsyncClient(f"http://{server.host}:{server.port}", token="one") as client:
            function = await client.deploy("guest", emitter())
            await cancelled(client.invoke(function.id, "spin"))
            stream = await client.stream(function.id, "emit", [1, 1])
            assert [chunk async for chunk in stream] == [b"a"]

    async def cancelled(call):
        task = asyncio.ensure_future(call)
        while not any(found["state"] == "running" for found in await asyncio.to_thread(server.instances)):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with administered(tmp_path) as server:
        asyncio.run(over_http())
        server.wait_for(lambda: server.instances() == [], "the guest goes on")


def test_a_task_that_is_cancelled_ends_its_guest_in_this_process(tmp_path):
    async def here():
        async with tw.AsyncNode(tmp_path, "cpu") as node:
            function = await node.deploy("guest", emitter())
            instance = await node.spawn(function.id)
            task = asyncio.ensure_future(instance.call("spin"))
            async with asyncio.timeout(60):
                while (await instance.describe()).state != "busy":
                    assert not task.done(), task.exception()
                    await asyncio.sleep(0.01)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                while await node.instances():
                    await asyncio.sleep(0.01)
            assert (await node.invoke(function.id, "add", [1, 2])).results == [3]

    asyncio.run(here())


def test_a_node_of_this_process_finds_things_whosever_they_are(tmp_path):
    with tw.Node(tmp_path, "cpu") as node:
        function = node.deploy("guest", emitter(), tenant=7)
        assert node.invoke(function.id, "add", [1, 2]).results == [3]
        with node.spawn(function.id) as instance:
            instance.call("step")
            captured = instance.snapshot()
        assert node.restore(captured.id).call("step").results == [2]
        assert node.job(node.submit(function.id, "add", [1, 2]).id).wait(60).results == [3]
        for tenant in (0, 8):
            with pytest.raises(tw.errors.NotFound):
                node.invoke(function.id, "add", [1, 2], tenant=tenant)
    with tw.Node(tmp_path, "cpu", tenant=8) as node, pytest.raises(tw.errors.NotFound):
        node.function(function.id)


def test_a_node_that_is_closed_says_so(tmp_path):
    node = tw.Node(tmp_path, "cpu")
    function = node.deploy("guest", emitter())
    ended = []

    def spin():
        try:
            node.invoke(function.id, "spin")
        except tw.errors.EndingError as error:
            ended.append(error.kind)

    thread = threading.Thread(target=spin)
    thread.start()
    instance = node.spawn(function.id)
    assert node.instance(instance.id).describe().state == "idle"
    node.close()
    thread.join(30)
    assert not thread.is_alive()
    node.close()
    with pytest.raises(RuntimeError, match="closed"):
        node.invoke(function.id)
