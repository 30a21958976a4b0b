"""What `serve` makes of its flags, with a stand-in for the node; ``tests/system`` runs real ones."""

from __future__ import annotations

import signal
from types import SimpleNamespace

import pytest


@pytest.fixture
def served(cli, monkeypatch, tmp_path):
    """Run `serve`; its result and the settings that the server got."""
    found = []

    class Node:
        def __init__(self, config, *_, **__):
            self.config, self.device = config, SimpleNamespace(name="cpu")

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    class Server:
        def __init__(self, node, config, on_started, *_, **__):
            found.append(config)
            on_started("::1", 8443)

        def run(self):
            return 0

    monkeypatch.setattr("tensor_wasm.http.server.Server", Server)
    monkeypatch.setattr("tensor_wasm.node.Node", Node)
    before = signal.getsignal(signal.SIGTERM)
    yield lambda *arguments: (cli("serve", "--home", tmp_path, *arguments), found.pop())
    signal.signal(signal.SIGTERM, before)


def test_the_announced_address_is_https_with_a_certificate_only(served):
    result, _ = served()
    assert result.out.startswith("listening on http://[::1]:8443 ")
    result, _ = served("--tls-cert", "node.pem", "--tls-key", "node.key")
    assert result.out.startswith("listening on https://[::1]:8443 ")
    result, _ = served("--tls-cert", "node.pem", "--tls-key", "node.key", "--json")
    assert result.json["url"] == "https://[::1]:8443"


def test_flags_of_tls_and_of_the_audit_log_are_settings(served, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TENSOR_WASM_AUDIT", "stdout")
    flags = ["--tls-cert", "a.pem", "--tls-key", "b.key", "--tls-client-ca", "c.pem", "--audit", "file:d.log"]
    _, config = served(*flags)
    assert (config.tls_cert, config.tls_key) == (tmp_path / "a.pem", tmp_path / "b.key")
    assert (config.tls_client_ca, config.audit) == (tmp_path / "c.pem", f"file:{tmp_path / 'd.log'}")


def test_an_audit_log_that_is_none_is_refused(cli):
    result = cli("serve", "--audit", "file:")
    assert result.code == 2
    assert "TENSOR_WASM_AUDIT" in result.err
