from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from fake_node import FakeNode
from tensor_wasm.config import load
from tensor_wasm.errors import ConfigurationError, InternalError
from tensor_wasm.http import Server

TESTS = Path(__file__).parents[1]
JSON = {"Content-Type": "application/json"}


@contextmanager
def process(home, slow_s=0.0, drain_s=5.0, **settings):
    """A server in a process of its own; gives the process and its port."""
    settings = {"home": str(home), "listen_addr": "127.0.0.1:0", "drain_s": drain_s, **settings}
    script = (
        "import sys\n"
        "from fake_node import FakeNode\n"
        "from tensor_wasm.config import load\n"
        "from tensor_wasm.http import serve\n"
        "from tensor_wasm.telemetry import logs\n"
        "logs.configure('info', 'text')\n"
        f"config = load({{}}, {settings!r}).config\n"
        "node = FakeNode(config)\n"
        f"node.invocations.slow_s = {slow_s}\n"
        "sys.exit(serve(node, config, lambda host, port: print(port, flush=True)))\n"
    )
    paths = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    child = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": paths},
    )
    try:
        port = int(child.stdout.readline())
        yield child, port
    finally:
        child.kill()
        child.communicate()


def request(port, method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, body, JSON)
    response = connection.getresponse()
    answer = response.status, json.loads(response.read())
    connection.close()
    return answer


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_an_idle_server_with_0(tmp_path, number):
    with process(tmp_path) as (child, port):
        kept = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        kept.request("GET", "/healthz")
        kept.getresponse().read()
        child.send_signal(number)
        output, log = child.communicate(timeout=10)
        assert child.returncode == 0
        assert output == ""
        assert "Traceback" not in log
        assert kept.sock.recv(1) == b""
        kept.close()


def test_running_invocations_finish_while_the_node_refuses_new_ones(tmp_path):
    with process(tmp_path, slow_s=1.0) as (child, port):
        answers = []
        invocation = threading.Thread(
            target=lambda: answers.append(request(port, "POST", "/functions/a/invoke", b'{"args":[4]}'))
        )
        invocation.start()
        time.sleep(0.3)
        child.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        status, body = request(port, "GET", "/readyz")
        assert (status, body["error"]["kind"]) == (503, "not_ready")
        assert "draining" in body["error"]["message"]
        status, body = request(port, "POST", "/functions/a/invoke", b"{}")
        assert (status, body["error"]["kind"]) == (503, "not_ready")
        assert request(port, "GET", "/healthz")[0] == 200
        invocation.join()
        assert answers[0][0] == 200
        assert answers[0][1]["result"] == [4]
        _, log = child.communicate(timeout=10)
        assert child.returncode == 0
        assert "draining: 1 requests in flight" in log
        assert "Traceback" not in log


def test_draining_is_bounded(tmp_path):
    with process(tmp_path, slow_s=60, drain_s=0.3) as (child, port):
        stuck = socket.create_connection(("127.0.0.1", port))
        stuck.sendall(b"POST /functions/a/invoke HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n")
        time.sleep(0.2)
        started = time.monotonic()
        child.send_signal(signal.SIGTERM)
        _, log = child.communicate(timeout=20)
        assert time.monotonic() - started < 8
        assert child.returncode == 0
        assert "did not finish in time" in log
        assert stuck.recv(65_536).startswith(b"HTTP/1.1 409")
        stuck.close()


def test_a_second_signal_ends_at_once(tmp_path):
    with process(tmp_path, slow_s=60, drain_s=60) as (child, port):
        stuck = socket.create_connection(("127.0.0.1", port))
        stuck.sendall(b"POST /functions/a/invoke HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n")
        time.sleep(0.2)
        child.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert child.poll() is None
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=2)
        assert child.returncode == -signal.SIGTERM
        stuck.close()


# --- SIGHUP -----------------------------------------------------------------------------------------------------


def test_a_node_without_tls_survives_a_hangup(tmp_path):
    with process(tmp_path, slow_s=0.5) as (child, port):
        answers = []
        invocation = threading.Thread(
            target=lambda: answers.append(request(port, "POST", "/functions/a/invoke", b'{"args":[4]}'))
        )
        invocation.start()
        for _ in range(3):
            child.send_signal(signal.SIGHUP)
            time.sleep(0.1)
        invocation.join()
        assert answers[0][0] == 200
        assert request(port, "GET", "/readyz")[0] == 200
        child.send_signal(signal.SIGTERM)
        _, log = child.communicate(timeout=10)
        assert child.returncode == 0
        assert "Traceback" not in log
        assert "SIGHUP" not in log


def write_certificate(authority, cert, key):
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(cert)
    certificate.private_key_pem.write_to_path(key)
    return certificate.cert_chain_pems[0].bytes().decode()


def test_a_hangup_makes_the_node_read_certificate_and_authorities_again(tmp_path):
    authority, mine, yours = trustme.CA(), trustme.CA(), trustme.CA()
    cert, key, clients = (tmp_path / name for name in ("cert.pem", "key.pem", "clients.pem"))

    def shown(client):
        """The certificate that the node shows to a client with a certificate of this authority; None to a refused."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        authority.configure_trust(context)
        client.issue_cert("client").configure_cert(context)
        try:
            with (
                socket.create_connection(("127.0.0.1", port), timeout=5) as connection,
                context.wrap_socket(connection, server_hostname="127.0.0.1") as secure,
            ):
                secure.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                if not secure.recv(1):
                    return None
                return ssl.DER_cert_to_PEM_cert(secure.getpeercert(binary_form=True))
        except (ssl.SSLError, ConnectionError):
            return None

    def becomes(client, expected):
        until = time.monotonic() + 5
        while shown(client) != expected and time.monotonic() < until:
            time.sleep(0.02)
        return shown(client) == expected

    first = write_certificate(authority, cert, key)
    mine.cert_pem.write_to_path(clients)
    files = {"tls_cert": str(cert), "tls_key": str(key), "tls_client_ca": str(clients)}
    with process(tmp_path / "home", **files) as (child, port):
        assert (shown(mine), shown(yours)) == (first, None)
        second = write_certificate(authority, cert, key)
        yours.cert_pem.write_to_path(clients)
        assert shown(mine) == first
        child.send_signal(signal.SIGHUP)
        assert becomes(yours, second)
        assert shown(mine) is None
        key.write_text("no key")
        child.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        assert (shown(mine), shown(yours)) == (None, second)
        third = write_certificate(authority, cert, key)
        child.send_signal(signal.SIGHUP)
        assert becomes(yours, third)
        child.send_signal(signal.SIGTERM)
        output, log = child.communicate(timeout=10)
        assert (child.returncode, output) == (0, "")
        (failed,) = [line for line in log.splitlines() if "SIGHUP" in line]
        assert f"TENSOR_WASM_TLS_KEY={key}" in failed
        assert "what was read before stays in use" in failed
        assert "listening on 127.0.0.1 port" in log
        assert "Traceback" not in log


def test_what_is_called_on_a_hangup_runs_beside_the_event_loop_and_a_failure_stops_nothing(tmp_path, caplog):
    config = load({}, {"home": tmp_path, "listen_addr": "127.0.0.1:0"}).config
    called = []
    done = threading.Event()

    def slow():
        called.append(("slow", threading.current_thread() is threading.main_thread()))
        started = time.monotonic()
        called.append(("answered", request(server.address[1], "GET", "/healthz")[0]))
        assert time.monotonic() - started < 2

    def fails():
        called.append("fails")
        raise OSError("the disk is gone")

    def refuses():
        called.append("refuses")
        raise ConfigurationError("TENSOR_WASM_AUDIT: cannot be written")

    def last():
        called.append("last")
        done.set()

    def signals():
        os.kill(os.getpid(), signal.SIGHUP)
        done.wait(5)
        done.clear()
        os.kill(os.getpid(), signal.SIGHUP)
        done.wait(5)
        server.stop()

    helper = threading.Thread(target=signals)
    server = Server(FakeNode(config), config, on_started=lambda *_: helper.start())
    server.on_hangup += [slow, fails, refuses, last]
    before = signal.getsignal(signal.SIGHUP)
    assert server.run() == 0
    helper.join()
    assert called == [("slow", False), ("answered", 200), "fails", "refuses", "last"] * 2
    assert signal.getsignal(signal.SIGHUP) == before
    assert [record.exc_info[1].args for record in caplog.records if record.exc_info] == [("the disk is gone",)] * 2
    assert caplog.messages.count("SIGHUP: TENSOR_WASM_AUDIT: cannot be written") == 2


# --- in a thread ------------------------------------------------------------------------------------------------


def new_server(home, **overrides):
    config = load({}, {"home": home, "listen_addr": "127.0.0.1:0", "drain_s": 1, **overrides}).config
    return Server(FakeNode(config), config)


def test_a_server_in_a_thread_starts_serves_and_stops(tmp_path):
    started = []
    config = load({}, {"home": tmp_path, "listen_addr": "127.0.0.1:0"}).config
    server = Server(FakeNode(config), config, on_started=lambda *address: started.append(address))
    with pytest.raises(InternalError):
        _ = server.address
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    host, port = server.start_in_thread()
    assert started == [(host, port)] == [server.address]
    assert {number: signal.getsignal(number) for number in before} == before
    assert request(port, "GET", "/healthz")[0] == 200
    server.stop()
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, port), timeout=1)
    assert not [thread for thread in threading.enumerate() if thread.name == "http"]


def test_an_address_that_is_taken_says_so(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        server = new_server(tmp_path, listen_addr=address)
        with pytest.raises(ConfigurationError, match=r"TENSOR_WASM_LISTEN_ADDR.*in use") as caught:
            server.start_in_thread()
        assert address in caught.value.message
        with pytest.raises(ConfigurationError):
            server.run()


def test_a_name_that_is_none_says_so(tmp_path):
    server = new_server(tmp_path, listen_addr="no-such-host.invalid:0", dev_mode=True)
    with pytest.raises(ConfigurationError, match="TENSOR_WASM_LISTEN_ADDR"):
        server.run()


@pytest.mark.parametrize(
    "settings", [{"listen_addr": "0.0.0.0:0"}, {"api_tokens": "hunter2"}, {"api_tokens": "a:tenant=1;hunter2:x"}]
)
def test_settings_that_would_open_the_node_stop_before_it_listens(tmp_path, settings):
    with pytest.raises(ConfigurationError) as caught:
        new_server(tmp_path, **settings)
    assert "hunter2" not in caught.value.message


def test_an_exposed_node_warns(tmp_path, caplog):
    server = new_server(tmp_path, listen_addr="0.0.0.0:0", dev_mode=True)
    server.start_in_thread()
    time.sleep(0.05)
    server.stop()
    assert any("TENSOR_WASM_DEV_MODE" in record.message for record in caplog.records)


def test_an_open_node_says_so_and_one_with_tokens_does_not(tmp_path, caplog):
    for tokens, said in ((None, True), ("t:tenant=1", False)):
        caplog.clear()
        server = new_server(tmp_path, api_tokens=tokens)
        server.start_in_thread()
        server.stop()
        assert any("no tokens are set" in record.message for record in caplog.records) is said


def test_ipv6_is_served(tmp_path):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    server = new_server(tmp_path, listen_addr="[::1]:0")
    host, port = server.start_in_thread()
    connection = http.client.HTTPConnection(host, port, timeout=5)
    connection.request("GET", "/readyz")
    assert connection.getresponse().status == 200
    connection.close()
    server.stop()
