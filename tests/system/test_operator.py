"""An operator's day through the front door: TLS, tokens, quotas, instances, drain, and the audit log of it."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import trustme

from administered import guest
from system.front_door import ROOT, Result, Served, run_cli

#: Each starts a node or two, of other settings.
pytestmark = pytest.mark.slow

SCHEMA = json.loads((ROOT / "docs" / "audit.schema.json").read_text())
PATIENCE_S = 20.0


def wait_for(is_so: Callable[[], Any], what: str) -> Any:
    until = time.monotonic() + PATIENCE_S
    while not (found := is_so()):
        assert time.monotonic() < until, what
        time.sleep(0.02)
    return found


def lines(path: Path) -> list[dict[str, Any]]:
    """The audit log's lines, each held to the schema."""
    text = path.read_text() if path.exists() else ""
    assert not text or text.endswith("\n")
    found = [json.loads(line) for line in text.splitlines()]
    for line in found:
        jsonschema.validate(line, SCHEMA, format_checker=jsonschema.FormatChecker())
    return found


@pytest.fixture
def module(tmp_path: Path) -> Path:
    path = tmp_path / "guest.wasm"
    path.write_bytes(guest())
    return path


@pytest.mark.slow
def test_the_audit_log_tells_of_all_that_changes_or_is_refused(
    serve: Callable[..., Served], tmp_path: Path, module: Path
) -> None:
    log = tmp_path / "audit" / "node.log"
    log.parent.mkdir()
    served = serve(TENSOR_WASM_AUDIT=f"file:{log}", TENSOR_WASM_API_TOKENS="boss:role=admin;one:tenant=1")

    def cli(*arguments: object, token: str = "boss") -> Result:
        return served.cli(*arguments, TENSOR_WASM_TOKEN=token)

    made = cli("admin", "token", "create", "--scope", "tenant=1,2", "--name", "for \u2028 two")
    assert made.code != 0
    made = cli("admin", "token", "create", "--scope", "tenant=1,2", "--name", "for two", "--json")
    assert made.code == 0, made.err
    assert cli("admin", "tenant", "set", "1", "--weight", "3", "--rate-qps", "1000").code == 0
    deployed = cli("deploy", module, "--json", token="one")
    assert deployed.code == 0, deployed.err
    function = deployed.json["id"]
    assert cli("invoke", function, "--export", "nothing", token="one").code == 0
    assert cli("function", "list", token="stranger").code == 4
    assert cli("admin", "instance", "list", token="one").code == 4
    thread = threading.Thread(target=cli, args=("invoke", function, "--export", "spin"), kwargs={"token": "one"})
    thread.start()
    (instance,) = wait_for(lambda: cli("admin", "instance", "list", "--json").json["instances"], "no instance")
    assert cli("admin", "instance", "terminate", instance["id"]).code == 0
    thread.join(PATIENCE_S)
    assert cli("admin", "token", "revoke", made.json["id"]).code == 0
    assert cli("function", "delete", function, token="one").code == 0
    log.rename(log.with_suffix(".1"))
    served.process.send_signal(signal.SIGHUP)
    wait_for(log.exists, "the log was not opened again")
    assert cli("admin", "drain", "--timeout", "1").code == 0
    assert served.stop() == 0
    before, after = lines(log.with_suffix(".1")), lines(log)
    assert [(line["event"], line["outcome"]) for line in before] == [
        ("token.create", "invalid_request"),
        ("token.create", "ok"),
        ("tenant.change", "ok"),
        ("function.deploy", "ok"),
        ("request", "unauthorized"),
        ("request", "forbidden"),
        ("instance.terminate", "ok"),
        ("token.revoke", "ok"),
        ("function.delete", "ok"),
    ]
    assert [line["event"] for line in after] == ["node.drain"]
    by_event = {line["event"]: line for line in before if line["outcome"] == "ok"}
    assert by_event["tenant.change"]["detail"] == {"weight": 3, "rate_qps": 1000.0}
    assert (by_event["tenant.change"]["tenant"], by_event["tenant.change"]["resource"]) == (1, "1")
    assert by_event["function.deploy"]["tenant"] == 1
    assert by_event["function.deploy"]["resource"] == function
    assert by_event["instance.terminate"]["tenant"] == 1
    assert by_event["instance.terminate"]["resource"] == instance["id"]
    assert by_event["token.create"]["resource"] == by_event["token.revoke"]["resource"] == made.json["id"]
    assert {line["token"] for line in before} == {"settings-1", "settings-2", None}
    assert all(line["client"] == "127.0.0.1" for line in before)
    everything = log.with_suffix(".1").read_text() + log.read_text() + served.log
    assert made.json["token"] not in everything
    assert "boss" not in everything
    assert log.stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_invocations_are_audited_when_the_operator_wants_it(
    serve: Callable[..., Served], tmp_path: Path, module: Path
) -> None:
    log = tmp_path / "audit.log"
    served = serve(TENSOR_WASM_AUDIT=f"file:{log}", TENSOR_WASM_AUDIT_INVOCATIONS="1")
    function = served.cli("deploy", module, "--json").json["id"]
    assert served.cli("invoke", function, "--export", "launch").code == 0
    assert served.cli("invoke", function, "--export", "no-such").code == 1
    served.stop()
    called = [line for line in lines(log) if line["event"] == "function.invoke"]
    assert [line["outcome"] for line in called] == ["ok", "missing_export"]
    assert called[0]["detail"]["launches"] == 1
    assert called[0]["token"] == ""


def test_the_audit_log_on_stdout_follows_the_announcement(serve: Callable[..., Served], module: Path) -> None:
    served = serve()
    assert served.cli("deploy", module).code == 0
    assert served.process.stdout is not None
    line = json.loads(served.process.stdout.readline())
    jsonschema.validate(line, SCHEMA)
    assert line["event"] == "function.deploy"


def test_an_audit_log_that_cannot_be_opened_stops_the_start(tmp_path: Path) -> None:
    started = run_cli(
        "serve", "--listen", "127.0.0.1:0", "--home", tmp_path / "home", TENSOR_WASM_AUDIT="file:/no/such/folder/log"
    )
    assert started.code == 2
    assert "TENSOR_WASM_AUDIT" in started.err


def test_the_command_line_talks_tls_to_a_node_that_wants_certificates(tmp_path: Path, module: Path) -> None:
    authority = trustme.CA()
    ca, cert, key, client = (tmp_path / name for name in ("ca.pem", "cert.pem", "key.pem", "client.pem"))
    ca.write_bytes(authority.cert_pem.bytes())
    certificate = authority.issue_cert("127.0.0.1")
    cert.write_bytes(certificate.cert_chain_pems[0].bytes())
    key.write_bytes(certificate.private_key_pem.bytes())
    client.write_bytes(authority.issue_cert("somebody@example.org").private_key_and_cert_chain_pem.bytes())
    served = Served(tmp_path / "home", "--tls-cert", str(cert), "--tls-key", str(key), "--tls-client-ca", str(ca))
    try:
        trusted = {"TENSOR_WASM_CA_CERT": str(ca)}
        assert served.url.startswith("https://")
        assert served.cli("function", "list").code == 3
        refused = served.cli("function", "list", **trusted)
        assert refused.code == 3
        assert "certificate" in refused.err
        trusted["TENSOR_WASM_CLIENT_CERT"] = str(client)
        assert served.cli("deploy", module, **trusted).code == 0
        certificate = authority.issue_cert("127.0.0.1")
        serial = certificate.cert_chain_pems[0].bytes()
        key.write_bytes(certificate.private_key_pem.bytes())
        cert.write_bytes(serial)
        served.process.send_signal(signal.SIGHUP)
        wait_for(lambda: served.cli("function", "list", **trusted).code == 0, "the new certificate does not serve")
    finally:
        assert served.stop() == 0
    assert "Traceback" not in served.log


def test_the_first_token_is_made_on_an_open_node_and_closes_it(serve: Callable[..., Served]) -> None:
    served = serve()
    refused = served.cli("admin", "token", "create", "--scope", "tenant=1")
    assert refused.code == 1
    assert "role=admin" in refused.err
    made = served.cli("admin", "token", "create", "--scope", "role=admin")
    secret = made.out.strip()
    assert secret.startswith("tw_")
    assert secret not in made.err
    assert served.cli("function", "list").code == 4
    assert served.cli("function", "list", TENSOR_WASM_TOKEN=secret).code == 0
    served.kill()
    again = serve()
    assert again.cli("function", "list").code == 4
    assert again.cli("admin", "token", "list", TENSOR_WASM_TOKEN=secret).code == 0
