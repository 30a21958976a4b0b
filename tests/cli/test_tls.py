"""Commands over https, with the certificates beside this file (``certificates/build.sh`` makes them)."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from cli.conftest import fake_node

CERTIFICATES = Path(__file__).parent / "certificates"
AUTHORITY, CLIENT = CERTIFICATES / "authority.pem", CERTIFICATES / "client.pem"


def _server(certificate: str = "node.pem", asks_for_client: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / certificate)
    if asks_for_client:
        context.load_verify_locations(AUTHORITY)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.fixture
def tls_node():
    with fake_node(_server()) as node:
        node.answer("GET /functions", {"functions": [], "next": None})
        yield node


@pytest.fixture
def strict_node():
    with fake_node(_server(asks_for_client=True)) as node:
        node.answer("GET /functions", {"functions": [], "next": None})
        yield node


def test_a_node_is_trusted_by_the_authority_that_is_named(cli, tls_node, monkeypatch):
    list_functions = ["--server", tls_node.url, "function", "list"]
    assert cli(*list_functions, "--ca-cert", AUTHORITY).code == 0
    assert cli("--ca-cert", AUTHORITY, *list_functions).code == 0
    monkeypatch.setenv("TENSOR_WASM_CA_CERT", str(AUTHORITY))
    assert cli(*list_functions).code == 0
    assert len(tls_node.asked) == 3


def test_a_node_of_an_unknown_authority_gets_no_request(cli, tls_node):
    result = cli("--server", tls_node.url, "--token", "secret", "function", "list")
    assert result.code == 3
    assert "--ca-cert" in result.err
    assert tls_node.asked == []


def test_another_authority_than_the_named_one_is_not_trusted(cli, tls_node):
    result = cli("--server", tls_node.url, "--ca-cert", CLIENT, "function", "list")
    assert result.code == 3
    assert "--ca-cert must have the authority" in result.err
    assert tls_node.asked == []


def test_a_certificate_of_another_name_is_not_trusted(cli):
    with fake_node(_server("other_node.pem")) as node:
        result = cli("--server", node.url, "--ca-cert", AUTHORITY, "function", "list")
        assert result.code == 3
        assert "name the node in --server as its certificate does" in result.err
        assert node.asked == []


def test_a_client_shows_its_certificate(cli, strict_node, tmp_path, monkeypatch):
    trusting = ["--server", strict_node.url, "--ca-cert", AUTHORITY]
    assert cli(*trusting, "--client-cert", CLIENT, "function", "list").code == 0
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    before, marker, after = CLIENT.read_text().partition("-----BEGIN PRIVATE KEY-----")
    certificate.write_text(before)
    key.write_text(marker + after)
    assert cli(*trusting, "function", "list", "--client-cert", certificate, "--client-key", key).code == 0
    monkeypatch.setenv("TENSOR_WASM_CLIENT_CERT", str(certificate))
    monkeypatch.setenv("TENSOR_WASM_CLIENT_KEY", str(key))
    assert cli(*trusting, "function", "list").code == 0
    assert len(strict_node.asked) == 3


def test_a_node_that_asks_for_a_certificate_in_vain_is_exit_code_3_and_says_which_options(cli, strict_node):
    result = cli("--server", strict_node.url, "--ca-cert", AUTHORITY, "function", "list")
    assert result.code == 3
    assert "--client-cert and --client-key" in result.err
    assert strict_node.asked == []


def test_https_to_a_plain_node_and_the_reverse_say_what_to_write(cli, node, tls_node):
    result = cli("--server", node.url.replace("http:", "https:"), "function", "list")
    assert result.code == 3
    assert "write http://" in result.err
    result = cli("--server", tls_node.url.replace("https:", "http:"), "function", "list")
    assert result.code == 3
    assert "write https://" in result.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ca-cert", "no/such/file"], "no/such/file cannot be read as certificates (PEM) (--ca-cert): No such file"),
        (["--ca-cert", __file__], "cannot be read as certificates (PEM) (--ca-cert)"),
        (["--client-cert", "no/such/file"], "(--client-cert, --client-key): No such file"),
        (["--client-cert", AUTHORITY], "cannot be read as a certificate and its private key"),
        (["--client-cert", CLIENT, "--client-key", CERTIFICATES / "node.pem"], "a certificate and its private key"),
        (["--client-cert", CLIENT, "--client-key", CERTIFICATES / "locked.key"], "has a passphrase"),
        (["--client-key", CLIENT], "--client-key needs --client-cert"),
        (["--ca-cert", "a\0b"], "cannot be read as certificates"),
        (["--ca-cert", ""], "cannot be empty"),
    ],
)
def test_a_file_that_cannot_be_used_is_wrong_usage(cli, arguments, said):
    result = cli("--server", "https://127.0.0.1:1", *arguments, "function", "list")
    assert result.code == 2
    assert said in result.err
    assert result.err.count("\n") == 1


def test_the_files_are_left_alone_without_https(remote, node):
    node.answer("GET /functions", {"functions": [], "next": None})
    assert remote("function", "list", "--ca-cert", "no/such/file", "--client-key", "none").code == 0
