"""Keys, and the commands of the registry: what they send, what they believe, and the whole way on a real node."""

from __future__ import annotations

import base64
import json
import stat

import pytest
from blake3 import blake3

from administered import administered
from tensor_wasm.store.manifest import Manifest, decode_manifest
from tensor_wasm.store.signing import SigningKey, load_key_file, load_public_key, read_public_key

PTX = b"""
.version 7.0
.target sm_75
.address_size 64
.visible .entry first() { ret; }
.visible .entry second() { ret; }
"""


@pytest.fixture
def key(cli, tmp_path):
    """A key that the command made: its file."""
    file = tmp_path / "key.pem"
    result = cli("kernel", "keygen", file)
    assert result.code == 0
    return file


@pytest.fixture
def ptx_file(tmp_path):
    file = tmp_path / "scale.ptx"
    file.write_bytes(PTX)
    return file


def answer_of(key, ptx=PTX, signer=None, **changes):
    """What a node answers about a kernel."""
    fields = {
        "name": "scale",
        "version": "1.0",
        "sm": "sm_75",
        "entry_points": ("first",),
        "digest": blake3(ptx).hexdigest(),
        "publisher": key.public,
        "published_at": "2026-01-31T12:00:00Z",
    }
    manifest = Manifest(**fields | changes).encode()
    parts = {"manifest_b64": manifest, "signature_b64": (signer or key).sign(manifest), "ptx_b64": ptx}
    return {name: base64.b64encode(data).decode() for name, data in parts.items()} | {"verified": True}


def test_a_key_is_made_once_and_its_owner_alone_can_read_it(cli, tmp_path):
    file = tmp_path / "key.pem"
    result = cli("kernel", "keygen", file)
    assert result.code == 0
    public = read_public_key(result.out.strip())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert load_key_file(file).public == public == load_public_key(f"{file}.pub")
    assert "PRIVATE" not in result.out + result.err
    before = file.read_bytes()
    again = cli("kernel", "keygen", file)
    assert again.code == 2
    assert "never overwritten" in again.err
    file.unlink()
    assert cli("kernel", "keygen", file).code == 2  # the public key of the old one is still there
    assert not file.exists()
    file.with_name("key.pem.pub").unlink()
    assert cli("kernel", "keygen", file, "--json").json["public_key"] != public.text
    assert file.read_bytes() != before
    assert cli("kernel", "keygen", tmp_path / "none" / "key").code == 1
    assert cli("kernel", "keygen", "").code == 2


def test_publishing_sends_what_was_signed(cli, node, key, ptx_file):
    node.answer("POST /kernels", {"name": "scale", "version": "1.0", "digest": "d"}, 201)
    result = cli("--server", node.url, "kernel", "publish", ptx_file, "--key", key, "--version", "1.0")
    assert (result.code, result.out) == (0, "scale 1.0 d\n")
    body = {name: base64.b64decode(text) for name, text in json.loads(node.asked[0].body).items()}
    manifest = decode_manifest(body["manifest_b64"])
    assert (manifest.name, manifest.version, manifest.sm) == ("scale", "1.0", "sm_75")
    assert manifest.entry_points == ("first", "second")
    assert manifest.digest == blake3(PTX).hexdigest()
    assert manifest.publisher.verify(body["signature_b64"], body["manifest_b64"])
    assert manifest.publisher == load_key_file(key).public
    assert body["ptx_b64"] == PTX
    one = ("--name", "other", "--entry", "second", "--entry", "second")
    assert cli("--server", node.url, "kernel", "publish", ptx_file, "--key", key, "--version", "2", *one).code == 0
    manifest = decode_manifest(base64.b64decode(json.loads(node.asked[1].body)["manifest_b64"]))
    assert (manifest.name, manifest.entry_points) == ("other", ("second",))


def test_what_cannot_be_published_is_not_sent(cli, node, key, ptx_file, tmp_path):
    def publish(file=ptx_file, key_file=key, version="1", *more):
        return cli("--server", node.url, "kernel", "publish", file, "--key", key_file, "--version", version, *more)

    (tmp_path / "empty.ptx").write_bytes(b".version 7.0\n.target sm_70\n.address_size 64\n")
    assert "no kernel" in publish(tmp_path / "empty.ptx").err
    assert publish(ptx_file, key, "1", "--entry", "third").err.startswith("error: invalid_ptx")
    assert publish(ptx_file, key, "a/b").err.startswith("error: invalid_name")
    assert publish(ptx_file, key, "1", "--name", "..").err.startswith("error: invalid_name")
    assert "kernel keygen" in publish(key_file=tmp_path / "no.pem").err
    assert "PEM" in publish(key_file=ptx_file).err or "chmod" in publish(key_file=ptx_file).err
    key.chmod(0o640)
    assert "chmod 600" in publish().err
    assert node.asked == []


def test_a_kernel_is_verified_here(cli, node, tmp_path):
    key = SigningKey.generate()
    public = tmp_path / "key.pub"
    public.write_text(f"{key.public.text}\n")
    node.answer("GET /kernels/scale/1.0", answer_of(key))

    def verify(*more):
        return cli("--server", node.url, "kernel", "verify", "scale", "1.0", *more)

    result = verify()
    assert result.code == 0
    assert key.public.text in result.out
    assert key.public.fingerprint in result.out
    assert verify("--publisher", key.public.text).code == 0
    assert verify("--publisher", public, "--json").json["verified"] is True
    other = verify("--publisher", SigningKey.generate().public.text)
    assert other.code == 4
    assert "another publisher" in other.err
    for wrong in ("ed25519:", "ed25519:AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", tmp_path / "none", tmp_path):
        assert verify("--publisher", wrong).code == 2


def test_a_node_that_lies_is_not_believed(cli, node):
    key, other = SigningKey.generate(), SigningKey.generate()
    good = answer_of(key)
    lies = [
        (answer_of(key, signer=other), 4),
        (answer_of(key, name="other"), 4),
        (answer_of(key, version="1.1"), 4),
        (good | {"ptx_b64": base64.b64encode(PTX + b" ").decode()}, 1),
        (good | {"ptx_b64": ""}, 1),
        ({name: text for name, text in good.items() if name != "ptx_b64"}, 1),
        (good | {"manifest_b64": base64.b64encode(b"{}").decode()}, 1),
        (good | {"manifest_b64": "%"}, 4),
        (good | {"signature_b64": 7}, 4),
        (good | {"signature_b64": ""}, 4),
        ({}, 1),
    ]
    for lie, code in lies:
        node.answers["GET /kernels/scale/1.0"] = [(200, lie)]
        result = cli("--server", node.url, "kernel", "verify", "scale", "1.0")
        assert result.code == code, (lie, result)
        assert result.out == ""


def test_what_a_node_does_not_trust_is_told(cli, node):
    node.answer("GET /kernels/scale/1.0", answer_of(SigningKey.generate()) | {"verified": False, "reason": "a\x1bb"})
    result = cli("--server", node.url, "kernel", "verify", "scale", "1.0")
    assert result.code == 0
    assert "does not let guests load it: a\\x1bb" in result.err


def test_the_whole_way_on_a_node(cli, key, ptx_file, tmp_path):
    public = (tmp_path / "key.pem.pub").read_text().strip()
    with administered(tmp_path / "home", kernel_publishers=public) as server:
        session = ("--server", f"http://{server.host}:{server.port}", "--token", "one")
        assert cli(*session, "kernel", "publish", ptx_file, "--key", key, "--version", "1.0").code == 0
        again = cli(*session, "kernel", "publish", ptx_file, "--key", key, "--version", "1.0")
        assert again.err.startswith("error: already_registered")
        listed = cli(*session, "kernel", "list").out.splitlines()
        assert listed[0].split() == ["NAME", "VERSION", "BYTES", "PUBLISHED", "PUBLISHER"]
        assert listed[1].split()[:2] == ["scale", "1.0"]
        assert [item["name"] for item in cli(*session, "kernel", "list", "--json").json["kernels"]] == ["scale"]
        verified = cli(*session, "kernel", "verify", "scale", "1.0", "--publisher", f"{key}.pub", "--json").json
        assert verified["node_verified"] is True
        assert verified["entry_points"] == ["first", "second"]
        assert cli(*session[:2], "--token", "two", "kernel", "verify", "scale", "1.0").code == 5
        assert cli(*session, "kernel", "delete", "scale", "1.0").out == "deleted scale 1.0\n"
        assert cli(*session, "kernel", "delete", "scale", "1.0").code == 5
        stranger = tmp_path / "stranger.pem"
        cli("kernel", "keygen", stranger)
        denied = cli(*session, "kernel", "publish", ptx_file, "--key", stranger, "--version", "1.0")
        assert denied.code == 4
        assert denied.err.startswith("error: bad_signature")
