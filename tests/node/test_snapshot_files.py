"""Snapshot files: from node to node, and what is wrong with one is told for what it is."""

from __future__ import annotations

import io
import random
import struct
import uuid

import pytest
import wasmtime

from tensor_wasm.config import load
from tensor_wasm.errors import (
    Conflict,
    InvalidName,
    InvalidSnapshot,
    NotFound,
    QuotaExceeded,
    SnapshotDamaged,
    SnapshotSignatureInvalid,
    SnapshotTruncated,
    SnapshotVersion,
)
from tensor_wasm.node import Node
from tensor_wasm.store import snapshot_file
from tensor_wasm.store.signing import SigningKey

WAT = """(module (memory (export "memory") 4) (global $n (mut i32) (i32.const 0))
  (func (export "step") (result i32)
    (global.set $n (i32.add (global.get $n) (i32.const 1)))
    (memory.fill (i32.const 70000) (global.get $n) (i32.const 50000)) (global.get $n))
  (func (export "byte") (param i32) (result i32) (i32.load8_u (local.get 0))))"""


def new_id():
    return str(uuid.uuid4())


@pytest.fixture
def nodes(tmp_path):
    with Node(load({}, {"home": tmp_path / "a"}).config) as first:
        settings = {"home": tmp_path / "b", "snapshot_keys": first.snapshot_files.public_key}
        with Node(load({}, settings).config) as second:
            yield first, second


@pytest.fixture
def exported(nodes):
    node, _ = nodes
    kept = node.spawner.spawn(node.functions.deploy("state", bytes(wasmtime.wat2wasm(WAT)), 1).id, tenant=1)
    for _ in range(3):
        node.kept.call(kept.id, "step", tenant=1)
    snapshot = node.snapshots.capture(kept.id, 1)
    return snapshot, b"".join(node.snapshot_files.export(snapshot.id, 1))


def files(node):
    return sorted(path.name for path in (node.config.home / "snapshots").iterdir())


def test_a_node_goes_on_where_another_stopped(nodes, exported):
    first, second = nodes
    snapshot, data = exported
    identity = new_id()
    taken = second.snapshot_files.import_(identity, io.BytesIO(data), 7)
    assert (taken.id, taken.tenant, taken.sha, taken.size_bytes) == (identity, 7, snapshot.sha, snapshot.size_bytes)
    restored = second.spawner.restore(identity, tenant=7)
    assert second.kept.call(restored.id, "byte", [70_000], tenant=7).results == [3]
    assert second.kept.call(restored.id, "step", tenant=7).results == [4]
    assert len(data) < snapshot.size_bytes / 10
    again = first.snapshot_files.import_(new_id(), io.BytesIO(data), 1)
    assert first.kept.call(first.spawner.restore(again.id, tenant=1).id, "step", tenant=1).results == [4]


def test_a_file_of_a_node_that_is_not_trusted_is_refused(nodes, exported):
    first, second = nodes
    _, data = exported
    second.snapshot_files.import_(identity := new_id(), io.BytesIO(data), 7)
    theirs = b"".join(second.snapshot_files.export(identity, 7))
    with pytest.raises(SnapshotSignatureInvalid, match="TENSOR_WASM_SNAPSHOT_KEYS"):
        first.snapshot_files.import_(new_id(), io.BytesIO(theirs), 1)


def test_ids(nodes, exported):
    first, _ = nodes
    snapshot, data = exported
    with pytest.raises(Conflict):
        first.snapshot_files.import_(snapshot.id, io.BytesIO(data), 1)
    for wrong in ("", "../../x", new_id().upper(), new_id() + "\n", "a" * 36):
        with pytest.raises(InvalidName):
            first.snapshot_files.import_(wrong, io.BytesIO(data), 1)
    with pytest.raises(NotFound):
        first.snapshot_files.export(snapshot.id, 2)


def head(data):
    (length,) = struct.unpack_from("<I", data, 12)
    return 16 + length


def test_a_file_that_ends_too_early_is_truncated_wherever_it_ends(nodes, exported):
    _, second = nodes
    _, data = exported
    for size in [0, 1, 15, 16, 17, head(data) - 1, head(data), head(data) + 63, *range(head(data) + 64, len(data), 97)]:
        with pytest.raises(SnapshotTruncated):
            second.snapshot_files.import_(new_id(), io.BytesIO(data[:size]), 7)
    assert (files(second), second.snapshots.list(7)) == ([], [])
    assert second.administration.tenant(7).usage.stored_bytes == 0


def test_older_newer_and_foreign_files_are_told_apart(nodes, exported):
    _, second = nodes
    _, data = exported
    for version, word in ((0, "older"), (2, "newer")):
        with pytest.raises(SnapshotVersion, match=word):
            second.snapshot_files.import_(new_id(), io.BytesIO(data[:8] + struct.pack("<H", version) + data[10:]), 7)
    for foreign in (b"PK\3\4" + bytes(100), b"\x28\xb5\x2f\xfd" + bytes(100), b"\0" * 1000):
        with pytest.raises(SnapshotDamaged, match="no snapshot file"):
            second.snapshot_files.import_(new_id(), io.BytesIO(foreign), 7)


def test_whatever_byte_is_altered_the_file_is_refused_or_means_the_same(nodes, exported):
    _, second = nodes
    snapshot, data = exported
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    places = [*range(16), *(rng.randrange(16, len(data)) for _ in range(200))]
    for place in places:
        altered = bytearray(data)
        altered[place] ^= 1 << rng.randrange(8)
        if place in (10, 11):
            continue  # they say nothing, and are signed all the same
        try:
            taken = second.snapshot_files.import_(new_id(), io.BytesIO(altered), 7)
        except InvalidSnapshot:
            continue
        assert place > head(data) + 64, "of what is signed every bit counts; in the compressed form not every one does"
        assert taken.sha == snapshot.sha
        second.snapshots.delete(taken.id, 7)
    for more in (b"\0", data):
        with pytest.raises(SnapshotDamaged, match="after its end"):
            second.snapshot_files.import_(new_id(), io.BytesIO(data + more), 7)
    assert (files(second), second.snapshots.list(7)) == ([], [])


def forged(tmp_path, exported, **changes):
    """A file that was signed by the first node, with another header."""
    from tensor_wasm.store.signing import node_signing_key

    _, data = exported
    key = node_signing_key(tmp_path / "a")
    header = snapshot_file.SnapshotReader(io.BytesIO(data), lambda _: True).header
    fields = {name: getattr(header, name) for name in header.__slots__} | changes
    content = fields.pop("content", [b"\0asm\1\0\0\0"])
    return b"".join(snapshot_file.write(snapshot_file.Header(**fields), key, iter(content)))


def test_content_that_is_not_what_was_signed_is_refused_though_its_size_is_right(nodes, exported, tmp_path):
    _, second = nodes
    module = bytes(wasmtime.wat2wasm(WAT))
    with pytest.raises(SnapshotDamaged, match="not what was signed"):
        second.snapshot_files.import_(
            new_id(), io.BytesIO(forged(tmp_path, exported, content=[module, bytes(4 << 16)])), 7
        )
    other = bytes(wasmtime.wat2wasm(WAT.replace("70000", "70001")))
    with pytest.raises(SnapshotDamaged, match="module"):
        second.snapshot_files.import_(
            new_id(), io.BytesIO(forged(tmp_path, exported, content=[other, bytes(4 << 16)])), 7
        )
    assert (files(second), second.snapshots.list(7)) == ([], [])


BOMB = 1 << 40


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"size_bytes": BOMB}, InvalidSnapshot),
        ({"size_bytes": 1 << 30}, QuotaExceeded),
        ({"module_bytes": BOMB}, SnapshotDamaged),
        ({"module_bytes": 8, "size_bytes": 10, "content": [b"\0asm\1\0\0\0", bytes(50 << 20)]}, InvalidSnapshot),
        ({"size_bytes": 3}, InvalidSnapshot),
        ({"state": "{}"}, InvalidSnapshot),
        ({"state": "[" * 100_000}, InvalidSnapshot),
        ({"sha": "0" * 64}, InvalidSnapshot),
        ({"key": "ed25519:AAAA"}, SnapshotSignatureInvalid),
        ({"key": SigningKey.generate().public.text}, SnapshotSignatureInvalid),
        ({"module_digest": "0" * 64, "module_bytes": 8, "size_bytes": 1 << 18}, InvalidSnapshot),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value.__name__,
)
def test_a_header_that_cannot_be_is_refused_before_much_is_inflated(nodes, exported, tmp_path, changes, error):
    _, second = nodes
    second.administration.change_tenant(7, {"stored_bytes": 1 << 30})
    with pytest.raises(error):
        second.snapshot_files.import_(new_id(), io.BytesIO(forged(tmp_path, exported, **changes)), 7)
    assert (files(second), second.snapshots.list(7)) == ([], [])
    assert second.administration.tenant(7).usage.stored_bytes == 0
