"""Snapshots and their files: what inflates, lies, never ends, or is somebody else's."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import wasmtime
from blake3 import blake3

from administered import administered
from security.attacked import MIB, Answer, Attacked, reset
from security.conftest import bearer
from security.guests import probe
from security.test_kept_instances import WARM, call, end_all, spawn
from tensor_wasm.http import body
from tensor_wasm.node import snapshot_state, snapshots
from tensor_wasm.runtime.state import InstanceState
from tensor_wasm.store import snapshot_file
from tensor_wasm.store.signing import SigningKey

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

GIB = 1 << 30
MODULE = b"\0asm\1\0\0\0"
_STATE = snapshot_state.encode_state(InstanceState(0, (), ()), None, str(uuid.UUID(int=0)))


def upload(node: Attacked, data: bytes, identity: object = None, **headers: str) -> Answer:
    path = f"/snapshots/{identity or uuid.uuid4()}"
    return node.ask("PUT", path, data, Content_Type="application/octet-stream", **headers)


def head(key: SigningKey, **changes: object) -> bytes:
    """All of a signed file but its content."""
    fields = {
        "function_name": "bomb", "module_digest": blake3(MODULE).hexdigest(), "module_bytes": len(MODULE),
        "sha": blake3(b"").hexdigest(), "size_bytes": 0, "state": _STATE, "created_at": 1.0, "key": key.public.text,
    }  # fmt: skip
    file = snapshot_file.write(snapshot_file.Header(**fields | changes), key, iter(()))  # type: ignore[arg-type]
    return next(file)


def inflating(size_bytes: int, window_log: int | None = None) -> bytes:
    """The module and so many zeros, compressed: a few KiB for a GiB."""
    options = {zstd.CompressionParameter.compression_level: 1}
    if window_log is not None:
        options |= {zstd.CompressionParameter.window_log: window_log}
    compressor = zstd.ZstdCompressor(options=options)
    zeros = bytes(16 * MIB)
    parts = [compressor.compress(MODULE)] + [compressor.compress(zeros) for _ in range(size_bytes // len(zeros))]
    return b"".join(parts) + compressor.flush()


def files(node_home: Path) -> list[str]:
    return sorted(path.name for path in (node_home / "snapshots").iterdir())


@pytest.fixture(scope="session")
def home(served: Attacked) -> Path:
    """The home of the node under attack."""
    return served.home


def test_files_that_inflate(node: Attacked, home: Path, signer: SigningKey):
    """Bound: what was announced and signed, an instance's memory at most; one block beyond it ends the reading."""
    before, there = node.resident_bytes, files(home)
    bomb = inflating(GIB)
    assert len(bomb) < MIB
    for changes, kinds in (
        ({"size_bytes": 1000}, {"snapshot_damaged"}),
        ({"size_bytes": 2 * GIB}, {"invalid_snapshot"}),
        ({"size_bytes": 1 << 60}, {"invalid_snapshot"}),
        ({"module_bytes": GIB}, {"snapshot_damaged"}),
        ({"size_bytes": GIB}, {"snapshot_damaged", "invalid_wasm"}),
    ):
        assert upload(node, head(signer, **changes) + bomb).kind in kinds, changes
        assert upload(node, head(SigningKey.generate(), **changes) + bomb).kind == "snapshot_signature_invalid"
    assert node.worst().resident_bytes < before + 160 * MIB
    assert files(home) == there


def test_windows_that_are_too_wide(node: Attacked, home: Path, signer: SigningKey):
    """Bound: 8 MiB of what was inflated are kept to go on; a file that wants more is refused."""
    before, there = node.resident_bytes, files(home)
    for window_log in (24, 27, 30, 31):
        bomb = inflating(64 * MIB, window_log)
        answer = upload(node, head(signer, size_bytes=64 * MIB) + bomb)
        assert answer.kind in {"snapshot_damaged", "invalid_wasm"}, answer.body
    assert node.worst().resident_bytes < before + 160 * MIB
    assert files(home) == there


def test_headers_that_lie(node: Attacked, home: Path, signer: SigningKey):
    """Bound: 8 MiB of header, of which nothing is made that is not a header's field; no state is believed unread."""
    before, there = node.resident_bytes, files(home)
    magic = snapshot_file._HEAD
    for announced in (0, 1, 8 * MIB, 8 * MIB + 1, (1 << 32) - 1):
        data = magic.pack(b"TWSNAP\r\n", 1, 0, announced) + b"{" * 1000
        assert upload(node, data).kind in {"snapshot_damaged", "snapshot_truncated"}, announced
    for text in (
        b"[" * (8 * MIB),
        b"[[]," * (2 * MIB),
        b'{"a":' * MIB,
        b'{"state":"' + b"\\u0000" * MIB,
        b"\xff" * MIB,
    ):
        data = magic.pack(b"TWSNAP\r\n", 1, 0, len(text)) + text + bytes(64)
        assert upload(node, data).kind == "snapshot_damaged"
    # Signed, with a state that is none.
    fields = json.loads(_STATE)
    for change in (
        {"tables": [[1 << 40, []]]}, {"tables": [[4, [[1 << 40, 0, 0]]]]}, {"memory_bytes": 1 << 32},
        {"memory_bytes": -1}, {"variables": ["00" * MIB]}, {"tables": [[1]] * 1000}, {"device": []}, {"format": 9},
    ):  # fmt: skip
        state = json.dumps(fields | change)
        answer = upload(node, head(signer, state=state) + inflating(0))
        if answer.status == 201:  # it fits no module, which is seen when it is to be restored
            path = f"/snapshots/{answer.json['id']}"
            assert (
                node.ask("POST", f"{path}/restore", b"{}", Content_Type="application/json").kind == "invalid_snapshot"
            )
            assert node.ask("DELETE", path).status == 204
        else:
            assert answer.kind in {"invalid_snapshot", "snapshot_damaged"}, answer.body
    assert upload(node, head(signer, state="[" * (4 * MIB)) + inflating(0)).kind == "invalid_snapshot"
    assert node.worst().resident_bytes < before + 200 * MIB
    assert files(home) == there


def test_ids_that_lead_elsewhere(node: Attacked, home: Path, signer: SigningKey):
    """Bound: an id is a UUID in lower case, whole: no path is made of anything else, and none is followed."""
    data = head(signer) + inflating(0)
    there = sorted(path for path in home.rglob("*") if path.is_file() and path.suffix not in (".db-wal", ".db-shm"))
    ids = (
        "..", "../x", "..%2Fx", "%2e%2e%2fnode.db", "%2Fetc%2Fpasswd", "a" * 36, str(uuid.uuid4()).upper(), "x" * 5000,
        f"{uuid.uuid4()}%0a", f"{uuid.uuid4()}%00", f"{uuid.uuid4()}/", f"{uuid.uuid4()}%2F..", f"./{uuid.uuid4()}",
        "%D9%A0" * 8, ".unfinished-x", str(uuid.uuid4()).replace("-", ""),
    )  # fmt: skip
    for identity in ids:
        assert upload(node, data, identity).status in (400, 404, 405), identity
        for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/restore")):
            answer = node.ask(method, f"/snapshots/{identity}{path}", b"{}", Content_Type="application/json")
            assert answer.status in (404, 405) or answer.json == {"snapshots": []}, (method, identity)
    assert there == sorted(
        path for path in home.rglob("*") if path.is_file() and path.suffix not in (".db-wal", ".db-shm")
    )


@contextlib.contextmanager
def sending(address: tuple[str, int], first: bytes, count: int, token: str = ""):
    """Connections that have begun to upload a snapshot."""
    opened = []
    try:
        for _ in range(count):
            connection = socket.create_connection(address, timeout=10)
            opened.append(connection)
            request = f"PUT /snapshots/{uuid.uuid4()} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 900000000\r\n"
            request += f"Authorization: Bearer {token}\r\n" if token else ""
            connection.sendall(request.encode() + b"Content-Type: application/octet-stream\r\n\r\n" + first)
        yield opened
    finally:
        for connection in opened:
            reset(connection)


def test_uploads_that_never_end(node: Attacked, home: Path, function: str):
    """Bound: four files of a tenant on their way; the others are refused at once, and nothing stays of any."""
    before, there = node.resident_bytes, files(home)
    with sending(node.address, b"TWSNAP\r\n" + bytes(900_000), 60) as opened:
        statuses = Counter()
        for connection in opened:
            connection.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                statuses[connection.recv(12)] += 1
        assert statuses[b"HTTP/1.1 503"] == 56
        assert node.invoke(function, "nothing").status == 200
        assert node.resident_bytes < before + 64 * MIB
    kept = spawn(node, function).json["id"]
    snapshot = node.ask("POST", f"/instances/{kept}/snapshot").json["snapshot_id"]
    until = time.monotonic() + 20
    while node.ask("GET", f"/snapshots/{snapshot}").status != 200:
        assert time.monotonic() < until, "they are gone, and count no longer"
        time.sleep(0.05)
    assert node.ask("DELETE", f"/snapshots/{snapshot}").status == 204
    end_all(node)
    assert files(home) == there


def test_uploads_that_trickle(tmp_path, monkeypatch):
    """Bound: with the time made short: a file that pauses for it is given up, and may be sent again."""
    monkeypatch.setattr(body, "PAUSE_S", 0.2)
    with administered(tmp_path) as server:
        with sending((server.host, server.port), b"TWSNAP\r\n", 4, "one") as opened:
            for connection in opened:
                assert connection.recv(12) == b"HTTP/1.1 408"
        headers = {"Authorization": "Bearer one", "Content-Type": "application/octet-stream"}
        answer = server.request("PUT", f"/snapshots/{uuid.uuid4()}", b"x", headers)
        assert answer.kind == "snapshot_truncated"
        assert files(tmp_path) == []


def test_downloads_that_nobody_reads(node: Attacked, function: str):
    """Bound: four files of a tenant on their way, with a module each in memory; whoever leaves makes room."""
    kept = spawn(node, function).json["id"]
    fill = wasmtime.wat2wasm(
        """(module (memory (export "memory") 512) (func (export "run") (local $at i32) (local $x i32)
        (local.set $x (i32.const 12345)) (loop $l
          (local.set $x (i32.xor (local.get $x) (i32.shl (local.get $x) (i32.const 13))))
          (local.set $x (i32.xor (local.get $x) (i32.shr_u (local.get $x) (i32.const 17))))
          (local.set $x (i32.xor (local.get $x) (i32.shl (local.get $x) (i32.const 5))))
          (i32.store (local.get $at) (local.get $x)) (local.set $at (i32.add (local.get $at) (i32.const 4)))
          (br_if $l (i32.lt_u (local.get $at) (i32.const 33554432))))))"""
    )
    kept = spawn(node, node.deploy(bytes(fill))).json["id"]
    assert call(node, kept, "run").status == 200
    snapshot = node.ask("POST", f"/instances/{kept}/snapshot").json["snapshot_id"]
    before = node.resident_bytes
    opened = []
    statuses: Counter[bytes] = Counter()
    try:
        for _ in range(20):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(node.address)
            opened.append(connection)
            connection.settimeout(10)
            connection.sendall(f"GET /snapshots/{snapshot} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            statuses[connection.recv(12)] += 1
        assert statuses == {b"HTTP/1.1 200": 4, b"HTTP/1.1 503": 16}
        assert node.resident_bytes < before + 100 * MIB
    finally:
        for connection in opened:
            reset(connection)
    until = time.monotonic() + 20
    while node.ask("GET", f"/snapshots/{snapshot}").status != 200:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert node.ask("DELETE", f"/snapshots/{snapshot}").status == 204
    end_all(node)


def test_a_storm_of_captures(tenants: Attacked):
    """Bound: they are written one at a time, on the tenant's own turns; another's deploys do not wait for all."""
    mine = tenants.deploy(WARM, **bearer(1))
    kept = [spawn(tenants, mine, **bearer(1)).json["id"] for _ in range(6)]
    for instance in kept:
        assert call(tenants, instance, "stain", **bearer(1)).status == 200

    def capture(n: int) -> Answer:
        return tenants.ask("POST", f"/instances/{kept[n % 6]}/snapshot", **bearer(1))

    with ThreadPoolExecutor(24) as pool:
        began = time.monotonic()
        captures = [pool.submit(capture, n) for n in range(48)]
        times_s = []
        for _ in range(3):
            deployed_s = time.monotonic()
            theirs = tenants.deploy(probe(), **bearer(2))
            times_s.append(time.monotonic() - deployed_s)
            assert tenants.ask("DELETE", f"/functions/{theirs}", **bearer(2)).status == 204
        answers = [capture.result() for capture in captures]
        all_s = time.monotonic() - began
    assert {answer.kind for answer in answers} <= {"", "busy"}
    assert min(times_s) < all_s
    for answer in answers:
        if answer.status == 200:
            path = f"/snapshots/{answer.json['snapshot_id']}"
            assert tenants.ask("DELETE", path, **bearer(1)).status == 204
    end_all(tenants, **bearer(1))


#: A table of 60,000 entries, all of which are others than at first: a state of most of a megabyte, and no memory.
STATEFUL = bytes(
    wasmtime.wat2wasm("""(module (table $t 60000 funcref) (elem (i32.const 0) $f) (func $f)
  (func (export "run") (table.fill $t (i32.const 1) (table.get $t (i32.const 0)) (i32.const 59999))))""")
)


def test_states_that_are_larger_than_memories(node: Attacked):
    """Bound: a state counts as stored, stays on the disk, and costs a list nothing."""
    before = node.resident_bytes
    kept = spawn(node, node.deploy(STATEFUL)).json["id"]
    assert call(node, kept, "run").status == 200
    stored = node.ask("GET", "/admin/tenants/0").json["usage"]["stored_bytes"]
    made = [node.ask("POST", f"/instances/{kept}/snapshot").json["snapshot_id"] for _ in range(8)]
    usage = node.ask("GET", "/admin/tenants/0").json["usage"]
    assert usage["stored_bytes"] - stored > 8 * 500_000
    for _ in range(50):
        assert len(node.ask("GET", "/snapshots").json["snapshots"]) == 8
    restored = node.ask("POST", f"/snapshots/{made[0]}/restore", b"{}", Content_Type="application/json")
    assert call(node, restored.json["instance_id"], "run").status == 200
    for snapshot in made:
        assert node.ask("DELETE", f"/snapshots/{snapshot}").status == 204
    end_all(node)
    assert node.ask("GET", "/admin/tenants/0").json["usage"]["stored_bytes"] == stored
    assert node.resident_bytes < before + 64 * MIB


def test_a_hoard_of_snapshots(tmp_path, monkeypatch):
    """Bound: 1000 of a tenant, here 3; each counts with its module, which is kept when its function is gone."""
    monkeypatch.setattr(snapshots, "SNAPSHOTS_MAX", 3)
    with administered(tmp_path) as server:
        function = server.deploy(wasm=STATEFUL + b"\0\x80\x08\x01x" + bytes(1022))  # a section of no meaning, 1 KiB
        kept = server.call("POST", "/instances", {"function_id": function}, who="one").json["id"]
        made = [server.call("POST", f"/instances/{kept}/snapshot", who="one") for _ in range(4)]
        assert [answer.status for answer in made] == [200, 200, 200, 429]
        assert made[3].kind == "quota_exceeded"
        assert server.call("DELETE", f"/functions/{function}", who="one").status == 204
        assert server.call("GET", "/admin/tenants/1").json["usage"]["stored_bytes"] > 3 * 1024
        for answer in made[:3]:
            assert server.call("DELETE", f"/snapshots/{answer.json['snapshot_id']}", who="one").status == 204
        assert server.call("GET", "/admin/tenants/1").json["usage"]["stored_bytes"] == 0
