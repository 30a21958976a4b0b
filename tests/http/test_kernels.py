"""The registry of signed kernels over HTTP, on a real node; and what attackers send to it."""

from __future__ import annotations

import base64
import json
import sqlite3
from contextlib import closing

import pytest
from blake3 import blake3

from administered import administered
from tensor_wasm.http import kernel_example
from tensor_wasm.store.manifest import Manifest
from tensor_wasm.store.signing import SigningKey, read_public_key

PTX = b"""
.version 7.0
.target sm_70
.address_size 64
.visible .entry first() { ret; }
.visible .entry second() { ret; }
"""
KEY, OTHER_KEY = SigningKey.generate(), SigningKey.generate()


def fields_of(ptx=PTX, key=KEY, **changes):
    fields = {
        "name": "scale",
        "version": "1.0",
        "sm": "sm_70",
        "entry_points": ["first", "second"],
        "digest": blake3(ptx).hexdigest(),
        "publisher": key.public.text,
        "published_at": "2026-01-31T12:00:00Z",
        "format": 1,
    }
    return fields | changes


def body(manifest, signature, ptx=PTX):
    parts = {"manifest_b64": manifest, "signature_b64": signature, "ptx_b64": ptx}
    return {name: base64.b64encode(data).decode() for name, data in parts.items()}


def signed(ptx=PTX, key=KEY, **changes):
    """A request to publish, signed as it should be over whatever manifest that is."""
    manifest = json.dumps(fields_of(ptx, key, **changes)).encode()
    return body(manifest, key.sign(manifest), ptx)


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    with administered(tmp_path_factory.mktemp("home"), kernel_publishers=KEY.public.text) as server:
        yield server


def publish(node, value, who="one", **more):
    return node.call("POST", "/kernels", value, who=who, **more)


def stored_bytes(node, tenant=1):
    return node.call("GET", f"/admin/tenants/{tenant}").json["usage"]["stored_bytes"]


def refused(node, value, status, kind, who="one"):
    answer = publish(node, value, who)
    assert (answer.status, answer.kind) == (status, kind), answer.body
    return answer.message


def test_a_kernel_is_published_listed_shown_and_deleted(node):
    request = signed(name="life", version="1.0.0-rc_1")
    answer = publish(node, request)
    assert answer.status == 201, answer.body
    digest = blake3(PTX).hexdigest()
    assert answer.json == {"name": "life", "version": "1.0.0-rc_1", "digest": digest}
    assert answer.headers["location"] == "/kernels/life/1.0.0-rc_1"
    listed = node.call("GET", "/kernels", who="one").json
    assert [(one["name"], one["digest"], one["publisher"]) for one in listed["kernels"]] == [
        ("life", digest, KEY.public.text)
    ]
    assert listed["next"] is None
    shown = node.call("GET", answer.headers["location"], who="one").json
    assert shown["verified"] is True
    assert "reason" not in shown
    assert shown["entry_points"] == ["first", "second"]
    assert shown["sm"] == "sm_70"
    assert shown["published_at"] == "2026-01-31T12:00:00Z"
    assert shown["manifest_b64"] == request["manifest_b64"]
    assert shown["signature_b64"] == request["signature_b64"]
    assert "ptx_b64" not in shown
    with_text = node.call("GET", answer.headers["location"] + "?text=1", who="one").json
    assert base64.b64decode(with_text["ptx_b64"]) == PTX
    assert stored_bytes(node) == len(PTX) + len(base64.b64decode(request["manifest_b64"]))
    assert node.call("DELETE", answer.headers["location"], who="one").status == 204
    assert node.call("GET", answer.headers["location"], who="one").kind == "not_found"
    assert stored_bytes(node) == 0


def test_a_name_and_version_are_taken_once(node):
    assert publish(node, signed(name="once")).status == 201
    assert "another version" in refused(node, signed(name="once"), 409, "already_registered")
    refused(node, signed(PTX + b"\n", name="once"), 409, "already_registered")
    assert publish(node, signed(name="once", version="1.1")).status == 201
    assert node.call("DELETE", "/kernels/once/1.0", who="one").status == 204
    assert node.call("GET", "/kernels/once/1.1?text=1", who="one").json["verified"] is True


def test_another_tenant_sees_nothing_of_it_and_may_have_the_same_name(node):
    assert publish(node, signed(name="mine")).status == 201
    for method in ("GET", "DELETE"):
        assert node.call(method, "/kernels/mine/1.0", who="two").kind == "not_found"
    assert node.call("GET", "/kernels", who="two").json == {"kernels": [], "next": None}
    assert publish(node, signed(name="mine"), who="two").status == 201
    assert node.call("DELETE", "/kernels/mine/1.0", who="one").status == 204
    # The text was the same one: it is still there for whom it is left.
    assert node.call("GET", "/kernels/mine/1.0", who="two").json["verified"] is True
    assert node.call("DELETE", "/kernels/mine/1.0", who="two").status == 204


def test_lists_come_in_pages_also_while_kernels_go(node):
    names = [f"page-{number}" for number in range(5)]
    for name in names:
        assert publish(node, signed(name=name), who="two").status == 201
    page = node.call("GET", "/kernels?limit=2", who="two").json
    assert [one["name"] for one in page["kernels"]] == names[:2]
    assert node.call("DELETE", f"/kernels/{page['next']}", who="two").status == 204
    rest = node.call("GET", f"/kernels?after={page['next']}", who="two").json
    assert [one["name"] for one in rest["kernels"]] == names[2:]
    assert rest["next"] is None
    for bad in ("limit=0", "limit=1001", "after=nothing", "after=../..", "other=1", "limit=1&limit=2"):
        assert node.call("GET", f"/kernels?{bad}", who="two").status == 400, bad


# --- attacks -------------------------------------------------------------------------------------------------


def test_a_text_or_a_manifest_that_was_altered_is_refused(node):
    request = signed(name="altered")
    altered = base64.b64encode(PTX.replace(b"second", b"sec0nd")).decode()
    refused(node, request | {"ptx_b64": altered}, 400, "digest_mismatch")
    manifest = base64.b64decode(request["manifest_b64"])
    for change in (manifest.replace(b'"1.0"', b'"1.1"'), manifest + b" ", manifest.replace(b": ", b":")):
        assert change != manifest
        refused(node, request | {"manifest_b64": base64.b64encode(change).decode()}, 403, "bad_signature")
    assert node.call("GET", "/kernels/altered/1.0", who="one").kind == "not_found"


def test_a_signature_of_something_else_is_refused(node):
    request, other = signed(name="swapped"), signed(name="swapped", version="2")
    refused(node, request | {"signature_b64": other["signature_b64"]}, 403, "bad_signature")
    for signature in (b"", b"\0" * 64, b"\0" * 63, b"\0" * 65, b"\0" * 100_000):
        refused(node, request | {"signature_b64": base64.b64encode(signature).decode()}, 403, "bad_signature")


def test_a_publisher_who_is_not_on_the_list_is_refused(node):
    assert "TENSOR_WASM_KERNEL_PUBLISHERS" in refused(node, signed(key=OTHER_KEY), 403, "bad_signature")
    # The allowed key is named, and the other one signs.
    manifest = json.dumps(fields_of()).encode()
    refused(node, body(manifest, OTHER_KEY.sign(manifest)), 403, "bad_signature")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"format": 1', b'"format": 1, "name": "other"'),
        (b'"format": 1', b'"format": 1, "format": 1'),
        (b'"format": 1', b'"format": 1, "n\\u0061me": "other"'),
        (b'"format": 1', b'"format": 1, "more": "x"'),
        (b'"format": 1', b'"format": 1.0'),
        (b'"format": 1', b'"format": 1e0'),
        (b'"format": 1', b'"format": true'),
        (b'"format": 1', b'"format": "1"'),
        (b'"format": 1', b'"format": 2'),
        (b'"format": 1', b'"format": ' + b"1" * 50_000),
        (b'"format": 1', b'"format": NaN'),
        (b', "format": 1', b""),
        (b'["first", "second"]', b"[]"),
        (b'["first", "second"]', b'["first", "first"]'),
        (b'["first", "second"]', b'["first", 1]'),
        (b'["first", "second"]', b'"first"'),
        (b'["first", "second"]', b'["' + b"a" * 257 + b'"]'),
        (b'["first", "second"]', b"[" * 30_000 + b"]" * 30_000),
        (b'["first", "second"]', json.dumps([f"e{number}" for number in range(257)]).encode()),
        (b'["first", "second"]', b'["first\\u0000"]'),
        (b'["first", "second"]', b'["\\ud800"]'),
        (b'"sm_70"', b'"70"'),
        (b'"sm_70"', b'"sm_80"'),
        (b'"sm_70"', b"null"),
        (b"2026-01-31T12:00:00Z", b"2026-02-31T12:00:00Z"),
        (b"2026-01-31T12:00:00Z", b"2026-01-31T12:00:00+01:00"),
        (b"2026-01-31T12:00:00Z", b"2026-01-31"),
        (b'"digest": "', b'"digest": "0'),
        pytest.param(KEY.public.text.encode(), KEY.public.text.encode().replace(b"=", b""), id="key-unpadded"),
        pytest.param(KEY.public.text.encode(), b"ed25519:" + b"AQ" + b"A" * 41 + b"=", id="key-other"),
        (b"{", b"\xff{"),
        (b"{", b"\xef\xbb\xbf{"),
        (b"{", b"[{"),
        (b"}", b"}{}"),
        (b"{", b" " * 65_536 + b"{"),
    ],
)
def test_a_manifest_is_read_strictly_though_it_is_signed(node, old, new):
    manifest = json.dumps(fields_of(name="strict")).encode()
    assert old in manifest
    manifest = manifest.replace(old, new, 1)
    refused(node, body(manifest, KEY.sign(manifest)), 400, "invalid_manifest")


@pytest.mark.parametrize(
    "changes",
    [
        {"name": name}
        for name in ("", "..", ".", "...", "a/b", "../x", "a b", "ä", "a" * 129, "a\n", "a\0", "%2e%2e", "a\\b")
    ]
    + [{"version": version} for version in ("", "..", "1/2", "1 ", "1" * 65)],
)
def test_a_name_is_no_path(node, changes):
    refused(node, signed(**changes), 400, "invalid_name")


@pytest.mark.parametrize("path", ["..%2f..%2fnode.key/1", "a%00/1", "%2e%2e/%2e%2e", "a/" + "1" * 5000, "%ff/1"])
def test_what_can_be_no_name_is_not_found(node, path):
    for method in ("GET", "DELETE"):
        assert node.call(method, f"/kernels/{path}", who="one").status == 404


def test_what_cannot_run_here_is_not_taken(node):
    assert "no entry 'third'" in refused(node, signed(entry_points=["first", "third"]), 400, "invalid_ptx")
    refused(node, signed(b"not ptx", entry_points=["x"]), 400, "invalid_ptx")
    refused(node, signed(b"", entry_points=["x"]), 400, "invalid_ptx")
    broken = PTX.replace(b"{ ret; }", b"{ frobnicate; ret; }", 1)
    assert "frobnicate" in refused(node, signed(broken), 400, "invalid_ptx")
    assert stored_bytes(node) == sum(
        one["size_bytes"] + len(base64.b64decode(node.call("GET", path, who="one").json["manifest_b64"]))
        for one in node.call("GET", "/kernels", who="one").json["kernels"]
        if (path := f"/kernels/{one['name']}/{one['version']}")
    )


def test_what_is_too_large_or_no_request_is_refused(node):
    large = b"//" + b"x" * (8 << 20)
    refused(node, signed(large), 413, "body_too_large")
    refused(node, signed() | {"ptx_b64": "A" * (13 << 20)}, 413, "body_too_large")
    refused(node, signed() | {"more": 1}, 400, "invalid_json")
    refused(node, signed() | {"ptx_b64": "A"}, 400, "invalid_base64")
    refused(node, b"[]", 400, "invalid_json")


def test_the_bytes_count_in_the_tenant_s_quota(node):
    assert node.call("PATCH", "/admin/tenants/2", {"stored_bytes": stored_bytes(node, 2) + 100}).status == 200
    refused(node, signed(name="quota"), 429, "quota_exceeded", who="two")
    assert node.call("PATCH", "/admin/tenants/2", {"stored_bytes": None}).status == 200
    assert publish(node, signed(name="quota"), who="two").status == 201


# --- what is kept ----------------------------------------------------------------------------------------------


def edited(home, statement, *values):
    with closing(sqlite3.connect(home / "node.db")) as database:
        database.execute(statement, values)
        database.commit()


def test_what_was_changed_on_the_disk_is_not_verified(tmp_path):
    more = signed(PTX + b"// more\n", name="more")
    with administered(tmp_path, kernel_publishers=KEY.public.text) as node:
        for request in (signed(), more, signed(name="renamed"), signed(name="forged")):
            assert publish(node, request).status == 201
        function = node.deploy()
    (artifact,) = tmp_path.glob(f"artifacts/*/{blake3(PTX + b'// more' + bytes([10])).hexdigest()}")
    artifact.write_bytes(b"changed")
    edited(tmp_path, "UPDATE kernels SET name = 'other' WHERE name = 'renamed'")
    forged = json.dumps(fields_of(name="forged", published_at="2020-01-01T00:00:00Z")).encode()
    edited(tmp_path, "UPDATE kernels SET manifest = ? WHERE name = 'forged'", forged)
    with administered(tmp_path, kernel_publishers=KEY.public.text) as node:
        reasons = {}
        for name in ("scale", "more", "other", "forged"):
            shown = node.call("GET", f"/kernels/{name}/1.0?text=1", who="one").json
            assert shown["verified"] is ("reason" not in shown)
            reasons[name] = shown.get("reason", "")
            assert str(tmp_path) not in json.dumps(shown)
        assert reasons["scale"] == ""
        assert "damaged" in reasons["more"]
        assert "not what its manifest describes" in reasons["other"]
        assert "signature" in reasons["forged"]
        assert node.call("GET", f"/functions/{function}", who="one").status == 200
        usage = node.call("GET", "/admin/tenants/1").json["usage"]
        assert usage["stored_bytes"] > 4 * len(PTX)
    with administered(tmp_path, kernel_publishers=OTHER_KEY.public.text) as node:
        shown = node.call("GET", "/kernels/scale/1.0", who="one").json
        assert shown["verified"] is False
        assert "publisher" in shown["reason"]
    with administered(tmp_path) as node:
        shown = node.call("GET", "/kernels/scale/1.0", who="one").json
        assert shown["verified"] is False
        assert "TENSOR_WASM_KERNEL_PUBLISHERS" in shown["reason"]
        assert "TENSOR_WASM_KERNEL_PUBLISHERS" in refused(node, signed(name="new"), 403, "bad_signature")


def test_a_node_without_tokens_and_list_takes_anybody_s_until_it_has_tokens(tmp_path):
    with administered(tmp_path, api_tokens=None) as node:
        example = {
            "manifest_b64": kernel_example.MANIFEST_B64,
            "signature_b64": kernel_example.SIGNATURE_B64,
            "ptx_b64": kernel_example.PTX_B64,
        }
        answer = node.post("/kernels", example)
        assert answer.status == 201, answer.body
        shown = node.get("/kernels/add-one/1.0.0").json
        assert shown["verified"] is True
        assert shown["digest"] == kernel_example.DIGEST
        assert shown["size_bytes"] == kernel_example.SIZE_BYTES
        admin = node.post("/admin/tokens", {"scope": "role=admin"}).json["token"]
        shown = node.call("GET", "/kernels/add-one/1.0.0", who=admin).json
        assert shown["verified"] is False
        assert node.call("POST", "/kernels", signed(), who=admin).kind == "bad_signature"


def test_the_manifest_that_the_command_line_makes_is_taken(node):
    manifest = Manifest(
        name="made",
        version="1",
        sm="sm_70",
        entry_points=("first",),
        digest=blake3(PTX).hexdigest(),
        publisher=read_public_key(KEY.public.text),
        published_at="2026-01-31T12:00:00.25Z",
    ).encode()
    assert publish(node, body(manifest, KEY.sign(manifest))).status == 201
