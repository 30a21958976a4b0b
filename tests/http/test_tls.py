"""TLS and client certificates, through the socket. The certificates are made here."""

from __future__ import annotations

import contextlib
import datetime as dt
import http.client
import logging
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from serving import running
from tensor_wasm.errors import ConfigurationError
from tensor_wasm.http import acceptor, protocol

BOTH_VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
WITH_OPENSSL = pytest.mark.skipif(shutil.which("openssl") is None, reason="this machine has no openssl command")
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def other_authority():
    return trustme.CA(organization_name="somebody else")


def node_certificate(authority, **more):
    return authority.issue_cert("127.0.0.1", "localhost", **more)


class Files:
    """The three files of the settings."""

    def __init__(self, folder):
        self.cert, self.key, self.client_ca = (folder / name for name in ("cert.pem", "key.pem", "clients.pem"))

    def certify(self, certificate):
        self.cert.write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
        self.key.write_bytes(certificate.private_key_pem.bytes())

    def trust(self, *authorities):
        self.client_ca.write_bytes(b"".join(authority.cert_pem.bytes() for authority in authorities))

    @property
    def settings(self):
        return {
            name: path
            for name, path in (("tls_cert", self.cert), ("tls_key", self.key), ("tls_client_ca", self.client_ca))
            if path.exists()
        }


@pytest.fixture
def files(tmp_path, authority):
    """Files with a certificate of the authority."""
    made = Files(tmp_path)
    made.certify(node_certificate(authority))
    return made


def client_context(authority=None, client=None, version=None):
    """A client that trusts the authority, or anybody, and shows the certificate ``client``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if authority is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        authority.configure_trust(context)
    if client is not None:
        client.configure_cert(context)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def connect(server, context, name=None, session=None):
    """A connection with its handshake done. Without a name the client says none (SNI)."""
    connection = socket.create_connection((server.host, server.port), timeout=5)
    try:
        return context.wrap_socket(connection, server_hostname=name or server.host, session=session)
    except BaseException:
        connection.close()
        raise


def ask(connection):
    """A request and its answer. Raises ConnectionError when the connection ends instead."""
    connection.sendall(HEALTH)
    answer = b""
    while not answer.endswith(b'{"status":"ok"}'):
        piece = connection.recv(65_536)
        if not piece:
            raise ConnectionError("the end instead of an answer")
        answer += piece
    assert answer.startswith(b"HTTP/1.1 200"), answer


def is_served(server, context, name=None, session=None):
    """Whether the client gets an answer. With TLS 1.3 a client hears of its refusal only when it reads."""
    try:
        with connect(server, context, name, session) as connection:
            ask(connection)
    except (ssl.SSLError, ConnectionError):
        return False
    return True


def shown_certificate(server, name=None):
    with connect(server, client_context(), name) as connection:
        return connection.getpeercert(binary_form=True)


def der(certificate):
    return ssl.PEM_cert_to_DER_cert(certificate.cert_chain_pems[0].bytes().decode())


def hang_up(server):
    """What SIGHUP does (``test_server.py`` has the signal itself)."""
    for callback in server.server.on_hangup:
        callback()


def closes_within(connection, timeout_s):
    """Whether the server ends the connection in time. What it sends before is dropped."""
    connection.settimeout(timeout_s)
    try:
        while connection.recv(65_536):
            pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


def errors(caplog):
    return [record for record in caplog.records if record.levelno >= logging.ERROR or record.exc_info]


# --- serving ------------------------------------------------------------------------------------------------------


def test_the_node_serves_https_with_tls_1_3(serve, files, authority):
    server = serve(**files.settings)
    with connect(server, client_context(authority)) as connection:
        assert connection.version() == "TLSv1.3"
        ask(connection)
        ask(connection)
    connection = http.client.HTTPSConnection("localhost", server.port, timeout=5, context=client_context(authority))
    connection.request("POST", "/functions/abc/invoke", b'{"args":[1,2]}', {"Content-Type": "application/json"})
    response = connection.getresponse()
    assert (response.status, b'"result":[1,2]' in response.read()) == (200, True)
    connection.close()


def test_a_large_body_goes_both_ways(serve, files, authority):
    server = serve(**files.settings)
    server.node.invocations.behaviour = lambda export, args, input: args
    values = list(range(200_000))
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=20, context=client_context(authority))
    body = b'{"args":[' + b",".join(b"%d" % value for value in values[:16]) + b"]" + b" " * 3_000_000 + b"}"
    connection.request("POST", "/functions/abc/invoke", body, {"Content-Type": "application/json"})
    assert connection.getresponse().status == 200
    connection.close()


def test_http_1_1_is_what_is_agreed_on(serve, files):
    context = client_context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with connect(serve(**files.settings), context) as connection:
        assert connection.selected_alpn_protocol() == "http/1.1"


def test_tls_1_2_is_served_with_forward_secrecy_and_authenticated_encryption_only(serve, files):
    server = serve(**files.settings)
    context = client_context(version=ssl.TLSVersion.TLSv1_2)
    with connect(server, context) as connection:
        name = connection.cipher()[0]
        assert name.startswith("ECDHE-")
        assert "GCM" in name or "CHACHA20" in name
    for weak in ("ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES256-SHA", "AES128-GCM-SHA256"):
        context.set_ciphers(f"{weak}:@SECLEVEL=0")
        assert not is_served(server, context), weak


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_older_versions_are_refused(serve, files, caplog):
    server = serve(**files.settings)
    context = client_context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = version
        assert not is_served(server, context)
    assert not errors(caplog)


def test_intermediate_authorities_are_sent_along(serve, files, authority):
    files.certify(node_certificate(authority.create_child_ca()))
    assert is_served(serve(**files.settings), client_context(authority))


@pytest.mark.parametrize("sent", [HEALTH, b"\0" * 100, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 600])
def test_what_is_no_tls_gets_a_closed_connection_and_no_line_of_the_log(serve, files, caplog, sent):
    server = serve(**files.settings)
    with socket.create_connection((server.host, server.port), timeout=5) as connection:
        connection.sendall(sent)
        assert closes_within(connection, 2)
    time.sleep(0.1)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING and "TLS" in record.message]
    assert not errors(caplog)
    assert is_served(server, client_context())
    assert server.server._limit.metrics.open <= 1


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"])
def test_a_handshake_that_does_not_come_is_given_up(serve, files, monkeypatch, caplog, sent):
    monkeypatch.setattr(protocol, "HEAD_S", 0.3)
    server = serve(**files.settings)
    started = time.monotonic()
    with socket.create_connection((server.host, server.port), timeout=5) as connection:
        connection.sendall(sent)
        assert closes_within(connection, 3)
    assert 0.2 < time.monotonic() - started < 2
    assert not errors(caplog)


def test_a_handshake_that_comes_byte_by_byte_is_given_up(serve, files, monkeypatch):
    monkeypatch.setattr(protocol, "HEAD_S", 0.3)
    server = serve(**files.settings)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        client_context().wrap_bio(incoming, outgoing).do_handshake()
    started = time.monotonic()
    with socket.create_connection((server.host, server.port), timeout=5) as connection:
        for byte in outgoing.read():
            try:
                connection.sendall(bytes([byte]))
            except ConnectionError:
                break
            time.sleep(0.02)
        assert time.monotonic() - started < 2
        assert closes_within(connection, 1)


def test_a_client_that_shakes_hands_and_asks_nothing_is_given_up(serve, files, monkeypatch):
    monkeypatch.setattr(protocol, "HEAD_S", 0.3)
    with connect(serve(**files.settings), client_context()) as connection:
        assert closes_within(connection, 3)


def test_a_stop_waits_for_no_handshake_and_no_idle_client(tmp_path, files, caplog):
    with running(tmp_path / "home", **files.settings) as server:
        silent = socket.create_connection((server.host, server.port), timeout=5)
        idle = connect(server, client_context())
        ask(idle)
        started = time.monotonic()
        server.server.stop()
        assert time.monotonic() - started < 4
        assert closes_within(silent, 1)
        assert closes_within(idle, 1)
        silent.close()
        idle.close()
    assert not errors(caplog)


@pytest.mark.parametrize("secure", [True, False], ids=["TLS", "plain"])
def test_a_stop_waits_for_no_client_that_does_not_read_its_answer(tmp_path, files, secure):
    with running(tmp_path / "home", **(files.settings if secure else {})) as server:
        server.node.invocations.output = (b"x" * 8_000_000, b"", 0)
        with contextlib.ExitStack() as stack:
            deaf = socket.create_connection((server.host, server.port), timeout=5)
            if secure:
                deaf = client_context().wrap_socket(deaf)
            stack.enter_context(deaf)
            deaf.sendall(b"POST /functions/abc/invoke HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n")
            assert deaf.recv(12) == b"HTTP/1.1 200"
            time.sleep(0.2)
            started = time.monotonic()
            server.server.stop()
            assert time.monotonic() - started < 5
    assert server.server._limit.metrics.open == 0


def test_a_client_that_leaves_in_the_handshake_leaves_nothing_behind(serve, files, caplog):
    server = serve(**files.settings)
    for sent in (b"", b"\x16\x03\x01") * 10:
        connection = socket.create_connection((server.host, server.port), timeout=5)
        connection.sendall(sent)
        connection.close()
    assert is_served(server, client_context())
    until = time.monotonic() + 5
    while server.server._limit.metrics.open and time.monotonic() < until:
        time.sleep(0.02)
    assert server.server._limit.metrics.open == 0
    assert not errors(caplog)


def test_handshakes_count_as_connections_and_the_oldest_makes_room(serve, files, monkeypatch):
    monkeypatch.setattr(protocol, "CONNECTIONS_MAX", 3)
    server = serve(**files.settings)
    silent = [socket.create_connection((server.host, server.port), timeout=5) for _ in range(3)]
    time.sleep(0.1)
    assert server.server._limit.metrics.open == 3
    with connect(server, client_context()) as connection:
        ask(connection)
        assert closes_within(silent[0], 2)
        assert not closes_within(silent[1], 0.1)
        assert not closes_within(silent[2], 0.1)
        metrics = server.server._limit.metrics
        assert (metrics.open, metrics.silent, metrics.refused) == (3, 1, 0)
        ask(connection)
    for one in silent:
        one.close()


def test_a_connection_over_the_limit_gets_no_handshake(serve, files, monkeypatch):
    monkeypatch.setattr(protocol, "CONNECTIONS_MAX", 1)
    server = serve(**files.settings)
    server.node.invocations.slow_s = 5
    with connect(server, client_context()) as busy:
        busy.sendall(b"POST /functions/abc/invoke HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n")
        time.sleep(0.1)
        assert not is_served(server, client_context())
        assert server.server._limit.metrics.refused == 1


def test_origins_of_https_are_the_node_s_own(serve, files):
    server = serve(**files.settings)
    for origin, status in (
        (f"https://127.0.0.1:{server.port}", 200),
        (f"https://localhost:{server.port}", 421),
        ("https://evil.example", 421),
    ):
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=5, context=client_context())
        connection.request("GET", "/functions", headers={"Origin": origin})
        assert connection.getresponse().status == status, origin
        connection.close()
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=5, context=client_context())
    connection.request("GET", "/functions", headers={"Host": f"evil.example:{server.port}"})
    assert connection.getresponse().status == 421
    connection.close()


# --- settings -----------------------------------------------------------------------------------------------------


def refused(tmp_path, **settings):
    """The error that stops the start."""
    with pytest.raises(ConfigurationError) as caught, running(tmp_path / "home", **settings):
        pass
    return caught.value.message


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["tls_cert"], "TENSOR_WASM_TLS_CERT is set and TENSOR_WASM_TLS_KEY is not"),
        (["tls_key"], "TENSOR_WASM_TLS_KEY is set and TENSOR_WASM_TLS_CERT is not"),
        (["tls_client_ca"], "TENSOR_WASM_TLS_CLIENT_CA is set and TENSOR_WASM_TLS_CERT is not"),
        (["tls_key", "tls_client_ca"], "TENSOR_WASM_TLS_KEY is set and TENSOR_WASM_TLS_CERT is not"),
        (["tls_cert", "tls_client_ca"], "TENSOR_WASM_TLS_CERT is set and TENSOR_WASM_TLS_KEY is not"),
    ],
)
def test_settings_that_do_not_fit_together_stop_the_start(tmp_path, files, authority, given, said):
    files.trust(authority)
    assert said in refused(tmp_path, **{name: files.settings[name] for name in given})


@pytest.mark.parametrize("name", ["tls_cert", "tls_key", "tls_client_ca"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file or directory; name a file that the node can read"),
        ("folder", "Is a directory; name a file that the node can read"),
        (b"", "PEM form"),
        (b"no certificate", "PEM form"),
        (b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "PEM form"),
        (b"-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n", "PEM form"),
    ],
)
def test_a_file_that_cannot_be_used_stops_the_start(tmp_path, files, authority, name, content, said):
    files.trust(authority)
    path = tmp_path / "bad.pem"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    message = refused(tmp_path, **(files.settings | {name: path}))
    assert message.startswith(f"TENSOR_WASM_{name.upper()}={path}: ")
    assert said in message


def test_a_key_of_another_certificate_stops_the_start(tmp_path, files, authority):
    files.key.write_bytes(node_certificate(authority).private_key_pem.bytes())
    assert "TENSOR_WASM_TLS_KEY" in (message := refused(tmp_path, **files.settings))
    assert "is not the key of the first certificate in TENSOR_WASM_TLS_CERT" in message
    files.key.write_bytes(node_certificate(authority, key_type=trustme.KeyType.RSA).private_key_pem.bytes())
    assert refused(tmp_path, **files.settings) == message


def test_a_chain_in_the_wrong_order_stops_the_start(tmp_path, files, authority):
    files.cert.write_bytes(authority.cert_pem.bytes() + files.cert.read_bytes())
    assert "in a chain the node's own certificate first" in refused(tmp_path, **files.settings)


def test_a_key_with_a_passphrase_stops_the_start(tmp_path, files):
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    message = refused(tmp_path, **files.settings)
    assert message.startswith(f"TENSOR_WASM_TLS_KEY={files.key}: has a passphrase")


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ({"not_before": NOW - 30 * DAY, "not_after": NOW - DAY}, "certificate has expired"),
        ({"not_before": NOW + DAY, "not_after": NOW + 30 * DAY}, "certificate is not yet valid"),
    ],
)
def test_a_certificate_out_of_its_time_is_served_with_a_warning(serve, files, authority, caplog, times, said):
    files.certify(node_certificate(authority, **times))
    server = serve(**files.settings)
    (warning,) = [r.message for r in caplog.records if r.levelno == logging.WARNING and "TLS" in r.message]
    assert warning.startswith(f"TENSOR_WASM_TLS_CERT={files.cert}: ")
    assert said in warning
    assert is_served(server, client_context())
    assert not is_served(server, client_context(authority))


def test_a_good_certificate_is_no_warning(serve, files, authority, caplog):
    caplog.set_level(logging.INFO)
    until = (NOW + 30 * DAY).replace(microsecond=0)
    files.certify(node_certificate(authority, not_after=until))
    files.trust(authority)
    serve(**files.settings)
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING and "TLS" in r.message]
    assert any(f"valid until {until:%Y-%m-%d %H:%M} UTC; clients need a certificate" in m for m in caplog.messages)


# --- client certificates ------------------------------------------------------------------------------------------


@BOTH_VERSIONS
def test_a_client_needs_a_certificate_of_the_authority(
    serve, files, authority, other_authority, caplog, monkeypatch, version
):
    monkeypatch.setattr(protocol, "HEAD_S", 3)
    files.trust(authority)
    server = serve(**files.settings)
    assert is_served(server, client_context(authority, authority.issue_cert("client"), version))
    assert not is_served(server, client_context(authority, None, version))
    assert not is_served(server, client_context(authority, other_authority.issue_cert("client"), version))
    expired = authority.issue_cert("client", not_before=NOW - 30 * DAY, not_after=NOW - DAY)
    assert not is_served(server, client_context(authority, expired, version))
    assert is_served(server, client_context(authority, authority.issue_cert("client"), version))
    assert not errors(caplog)


@BOTH_VERSIONS
def test_a_client_that_is_refused_is_told_why_at_once(serve, files, authority, other_authority, version):
    files.trust(authority)
    server = serve(**files.settings)
    expired = authority.issue_cert("client", not_before=NOW - 30 * DAY, not_after=NOW - DAY)
    missing = "handshake failure" if version is ssl.TLSVersion.TLSv1_2 else "certificate required"
    for client, said in ((None, missing), (other_authority.issue_cert("client"), "unknown ca"), (expired, "expired")):
        started = time.monotonic()
        with (
            pytest.raises(ssl.SSLError, match=said),
            connect(server, client_context(authority, client, version)) as connection,
        ):
            ask(connection)
        assert time.monotonic() - started < 4


@pytest.mark.parametrize(("more", "pause_s"), [(b"", 0.05), (b"x" * 100_000, 0.0), (b"x", 0.02)])
def test_a_client_that_is_refused_and_stays_is_cut_off(serve, files, monkeypatch, more, pause_s):
    monkeypatch.setattr(acceptor, "_LINGER_S", 0.3)
    server = serve(**files.settings)
    metrics = server.server._limit.metrics
    with socket.create_connection((server.host, server.port), timeout=0.1) as connection:
        connection.sendall(b"x" * 1000)
        started = time.monotonic()
        time.sleep(0.05)
        while metrics.open and time.monotonic() - started < 5:
            with contextlib.suppress(OSError):
                connection.sendall(more)
            time.sleep(pause_s)
        assert time.monotonic() - started < 2


def test_a_token_is_needed_all_the_same(serve, files, authority):
    files.trust(authority)
    server = serve(**files.settings, api_tokens="t:tenant=1")
    context = client_context(authority, authority.issue_cert("client"))
    for headers, status in (({}, 401), ({"Authorization": "Bearer t"}, 200)):
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=5, context=context)
        connection.request("GET", "/functions", headers=headers)
        assert connection.getresponse().status == status
        connection.close()


def test_an_authority_may_be_one_that_another_signed(serve, files, authority):
    lower, sister = authority.create_child_ca(), authority.create_child_ca()
    files.trust(lower)
    server = serve(**files.settings)
    assert is_served(server, client_context(authority, lower.issue_cert("client")))
    assert not is_served(server, client_context(authority, sister.issue_cert("client")))
    assert not is_served(server, client_context(authority, authority.issue_cert("client")))


def revocation_list(authority, *certificates):
    """A list (PEM) by which the authority takes certificates back."""
    builder = x509.CertificateRevocationListBuilder(
        issuer_name=x509.load_pem_x509_certificate(authority.cert_pem.bytes()).subject,
        last_update=NOW - DAY,
        next_update=NOW + DAY,
    )
    for certificate in certificates:
        serial = x509.load_pem_x509_certificate(certificate.cert_chain_pems[0].bytes()).serial_number
        revoked = x509.RevokedCertificateBuilder(serial_number=serial, revocation_date=NOW - DAY).build()
        builder = builder.add_revoked_certificate(revoked)
    key = serialization.load_pem_private_key(authority.private_key_pem.bytes(), None)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_a_certificate_on_the_authority_s_revocation_list_is_refused(serve, files, authority):
    good, bad = authority.issue_cert("good"), authority.issue_cert("bad")
    files.trust(authority)
    server = serve(**files.settings)
    assert is_served(server, client_context(authority, bad))
    files.client_ca.write_bytes(files.client_ca.read_bytes() + revocation_list(authority, bad))
    hang_up(server)
    assert is_served(server, client_context(authority, good))
    assert not is_served(server, client_context(authority, bad))


def test_a_file_of_a_revocation_list_alone_stops_the_start(tmp_path, files, authority):
    files.client_ca.write_bytes(revocation_list(authority))
    assert "has no certificates in PEM form" in refused(tmp_path, **files.settings)


@WITH_OPENSSL
def test_the_certificates_of_the_documentation_are_good(serve, tmp_path, caplog):
    page = (Path(__file__).parents[2] / "docs" / "tls.md").read_text("utf-8")
    commands = page.partition("```sh\n")[2].partition("```")[0]
    subprocess.run(["sh", "-euc", commands], cwd=tmp_path, check=True, capture_output=True)
    server = serve(
        tls_cert=tmp_path / "node.pem", tls_key=tmp_path / "node.key", tls_client_ca=tmp_path / "authority.pem"
    )
    assert "clients will refuse" not in caplog.text
    context = ssl.create_default_context(cafile=tmp_path / "authority.pem")
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    assert not is_served(server, context, "localhost")
    context.load_cert_chain(tmp_path / "node.pem", tmp_path / "node.key")
    assert not is_served(server, context, "localhost")  # it is for servers
    context.load_cert_chain(tmp_path / "client.pem", tmp_path / "client.key")
    assert is_served(server, context, "localhost")
    assert is_served(server, context, "127.0.0.1")


# --- reading again ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [None, "localhost"], ids=["by address", "by name"])
def test_a_new_certificate_and_key_are_shown_to_new_connections(serve, files, authority, name):
    before, after = (
        node_certificate(authority, key_type=kind) for kind in (trustme.KeyType.ECDSA, trustme.KeyType.RSA)
    )
    files.certify(before)
    server = serve(**files.settings)
    assert shown_certificate(server, name) == der(before)
    with connect(server, client_context(authority), name) as standing:
        ask(standing)
        files.certify(after)
        assert shown_certificate(server, name) == der(before)
        hang_up(server)
        assert shown_certificate(server, name) == der(after)
        assert is_served(server, client_context(authority), name)
        ask(standing)


@BOTH_VERSIONS
@pytest.mark.parametrize("name", [None, "localhost"], ids=["by address", "by name"])
def test_a_removed_authority_is_not_trusted_any_more(serve, files, authority, other_authority, name, version):
    old = client_context(authority, authority.issue_cert("client"), version)
    new = client_context(authority, other_authority.issue_cert("client"), version)
    files.trust(authority)
    server = serve(**files.settings)
    assert (is_served(server, old, name), is_served(server, new, name)) == (True, False)
    with connect(server, old, name) as standing:
        ask(standing)
        files.trust(authority, other_authority)
        hang_up(server)
        assert (is_served(server, old, name), is_served(server, new, name)) == (True, True)
        files.trust(other_authority)
        hang_up(server)
        assert (is_served(server, old, name), is_served(server, new, name)) == (False, True)
        ask(standing)


def kept_session(server, context):
    """The session of a connection that had an answer: with TLS 1.3 tickets come after the handshake."""
    with connect(server, context) as connection:
        ask(connection)
        connection.settimeout(0.1)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        return connection.session


def test_a_session_does_not_outlive_the_authority_it_was_made_under(serve, files, authority, other_authority):
    context = client_context(authority, authority.issue_cert("client"), ssl.TLSVersion.TLSv1_2)
    files.trust(authority)
    server = serve(**files.settings)
    session = kept_session(server, context)
    with connect(server, context, session=session) as connection:
        ask(connection)
        assert connection.session_reused  # or else the rest would show nothing
    files.trust(authority, other_authority)
    hang_up(server)
    with connect(server, context, session=session) as connection:
        ask(connection)
        assert not connection.session_reused
        session = connection.session
    files.trust(other_authority)
    hang_up(server)
    assert not is_served(server, context, session=session)


def test_tls_1_3_gives_no_tickets(serve, files, authority, other_authority):
    context = client_context(authority, authority.issue_cert("client"), ssl.TLSVersion.TLSv1_3)
    files.trust(authority)
    server = serve(**files.settings)
    session = kept_session(server, context)
    assert session is None or not session.has_ticket
    with connect(server, context, session=session) as connection:
        ask(connection)
        assert not connection.session_reused
    files.trust(other_authority)
    hang_up(server)
    assert not is_served(server, context, session=session)


@WITH_OPENSSL
@BOTH_VERSIONS
def test_openssl_s_own_client_cannot_resume_what_was_begun_before(
    serve, files, authority, other_authority, tmp_path, version
):
    """Python's client may be kind. This one keeps and shows whatever the server gave."""
    client = authority.issue_cert("client")
    client.private_key_and_cert_chain_pem.write_to_path(tmp_path / "client.pem")
    saved = tmp_path / "session"

    def s_client(*arguments):
        protocol = "-tls1_2" if version is ssl.TLSVersion.TLSv1_2 else "-tls1_3"
        address = f"{server.host}:{server.port}"
        command = ["openssl", "s_client", "-connect", address, "-cert", tmp_path / "client.pem", protocol, "-ign_eof"]
        return subprocess.run(
            [*command, *arguments],
            check=False,
            input=HEALTH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
            capture_output=True,
            timeout=10,
        ).stdout

    files.trust(authority)
    server = serve(**files.settings)
    assert b"200 OK" in s_client("-sess_out", saved)
    files.trust(other_authority)
    hang_up(server)
    resuming = ["-sess_in", saved] if saved.exists() and saved.stat().st_size else []
    assert bool(resuming) is (version is ssl.TLSVersion.TLSv1_2)
    output = s_client(*resuming)
    assert b"200 OK" not in output
    assert b"Reused" not in output


@pytest.mark.parametrize("damage", ["key", "cert", "client_ca", "gone"])
def test_a_reload_that_fails_keeps_what_was_read_before(serve, files, authority, other_authority, damage):
    before = node_certificate(authority)
    files.certify(before)
    files.trust(authority)
    server = serve(**files.settings)
    if damage == "gone":
        files.key.unlink()
    else:
        files.trust(other_authority)
        files.certify(node_certificate(authority))
        {"key": files.key, "cert": files.cert, "client_ca": files.client_ca}[damage].write_text("not any more")
    with pytest.raises(ConfigurationError, match=r"TENSOR_WASM_TLS_.*what was read before stays in use"):
        hang_up(server)
    context = client_context(authority, authority.issue_cert("client"))
    with connect(server, context) as connection:
        ask(connection)
        assert connection.getpeercert(binary_form=True) == der(before)
    assert not is_served(server, client_context(authority, other_authority.issue_cert("client")))


def test_connections_survive_many_reloads(serve, files, authority):
    server = serve(**files.settings)
    for _ in range(10):
        files.certify(certificate := node_certificate(authority))
        hang_up(server)
        assert shown_certificate(server) == der(certificate)
    assert Path(files.cert).exists()


def test_a_node_without_tls_has_nothing_to_read_again(serve):
    assert serve().server.on_hangup == []
