"""Published kernels on disk, their manifests, and artifacts that several stores name."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tensor_wasm.errors import InvalidManifest, InvalidName, StoreError
from tensor_wasm.store import ArtifactStore, Database, KernelRecord, KernelStore, SharedArtifacts
from tensor_wasm.store.manifest import Manifest, check_name, decode_manifest
from tensor_wasm.store.signing import SigningKey

RECORD = KernelRecord(
    tenant=(1 << 64) - 1,
    name="scale",
    version="1.0",
    digest="a" * 64,
    size_bytes=7,
    manifest=b"{}\0\xff",
    signature=b"\0" * 64,
    publisher="ed25519:x",
    created_at=1.5,
)


@pytest.fixture
def database(tmp_path):
    opened = Database(tmp_path / "node.db")
    yield opened
    opened.close()


@pytest.fixture
def store(database):
    return KernelStore(database)


def names(outlines):
    return [(outline.name, outline.version) for outline in outlines]


def test_a_kernel_comes_back_byte_for_byte_after_a_restart(tmp_path, database, store):
    assert store.add(RECORD)
    database.close()
    again = Database(tmp_path / "node.db")
    assert KernelStore(again).get(RECORD.tenant, "scale", "1.0") == RECORD
    (outline,) = KernelStore(again).all()
    assert outline.stored_bytes == RECORD.stored_bytes == 7 + 4
    again.close()


def test_a_name_and_version_are_taken_once_for_each_tenant(store):
    assert store.add(RECORD)
    assert not store.add(replace(RECORD, manifest=b"other"))
    assert store.get(RECORD.tenant, "scale", "1.0") == RECORD
    assert store.add(replace(RECORD, version="1.1"))
    assert store.add(replace(RECORD, tenant=0))
    assert store.get(1, "scale", "1.0") is None
    assert store.delete(0, "scale", "1.0")
    assert not store.delete(0, "scale", "1.0")
    assert store.get(RECORD.tenant, "scale", "1.0") == RECORD


def test_lists_are_by_name_and_version_and_go_on_where_a_kernel_was(store):
    for name, version in (("b", "2"), ("a", "2"), ("b", "10"), ("a-", "1"), ("a", "1")):
        assert store.add(replace(RECORD, tenant=1, name=name, version=version))
    assert store.add(replace(RECORD, tenant=2, name="c"))
    everything = [("a", "1"), ("a", "2"), ("a-", "1"), ("b", "10"), ("b", "2")]
    assert names(store.list(1, 100)) == everything
    assert names(store.list(1, 2)) == everything[:2]
    assert store.delete(1, "a", "2")
    assert names(store.list(1, 100, ("a", "2"))) == everything[2:]
    assert names(store.all()) == [("b", "2"), ("b", "10"), ("a-", "1"), ("a", "1"), ("c", "1.0")]


def test_a_tenant_that_is_no_number_is_damage(database, store):
    store.add(RECORD)
    with database.transaction() as connection:
        connection.execute("UPDATE kernels SET tenant = 'x'")
    with pytest.raises(StoreError, match="damaged"):
        store.all()


# --- artifacts ---------------------------------------------------------------------------------------------------


@pytest.fixture
def artifacts(tmp_path):
    return SharedArtifacts(ArtifactStore(tmp_path / "artifacts"))


def test_an_artifact_goes_with_the_last_that_holds_it(artifacts):
    digest = artifacts.put(b"text")
    assert artifacts.put(b"text") == digest
    assert not artifacts.release(digest)
    assert artifacts.get(digest) == b"text"
    assert artifacts.release(digest)
    with pytest.raises(StoreError):
        artifacts.get(digest)


def test_what_was_not_noted_is_let_go_again(artifacts):
    noting = artifacts.putting(b"text")
    with pytest.raises(ZeroDivisionError), noting as digest:
        _ = artifacts.get(digest)[0] / 0
    with pytest.raises(StoreError):
        artifacts.get(digest)


def test_the_start_deletes_what_no_store_holds(tmp_path):
    plain = ArtifactStore(tmp_path / "artifacts")
    mine, theirs, nobody_s = (plain.put(text) for text in (b"1", b"2", b"3"))
    artifacts = SharedArtifacts(plain)
    artifacts.hold([mine])
    artifacts.hold([theirs, mine])
    assert artifacts.sweep() == 1
    assert plain.digests() == {mine, theirs}
    assert nobody_s not in plain.digests()
    assert not artifacts.release(mine)
    assert artifacts.release(mine)


# --- manifests ---------------------------------------------------------------------------------------------------

MANIFEST = Manifest(
    name="scale",
    version="1.0",
    sm="sm_90a",
    entry_points=("first", "$second", "_Z5thirdPf"),
    digest="0" * 64,
    publisher=SigningKey.generate().public,
    published_at="2026-01-31T12:00:00.123456Z",
)


def test_a_manifest_is_read_as_it_was_written():
    assert decode_manifest(MANIFEST.encode()) == MANIFEST
    spaced = json.dumps(json.loads(MANIFEST.encode()), indent=4).encode()
    assert decode_manifest(spaced) == MANIFEST


def test_any_damage_is_refused_or_harmless():
    """Each byte changed in turn: never another manifest of the same fields, never another error."""
    data = MANIFEST.encode()
    for position in range(len(data)):
        for value in (0, 0x22, 0x7B, 0x31, data[position] ^ 0x20):
            changed = bytearray(data)
            changed[position] = value
            try:
                read = decode_manifest(bytes(changed))
            except (InvalidManifest, InvalidName):
                continue
            assert read != MANIFEST or bytes(changed) == data
        for cut in (data[:position], data[position:] if position else b""):
            with pytest.raises((InvalidManifest, InvalidName)):
                decode_manifest(cut)


@pytest.mark.parametrize("name", ["a", "..a", "a..", "-", "_", "A.b-c_9", "x" * 128])
def test_names_that_are_fine(name):
    check_name(name, "1")
    check_name("a", name[:64])


@pytest.mark.parametrize("name", ["", ".", "..", "...", "a/b", "a\\b", "a b", "é", "a\n", "x" * 129, "%2e"])
def test_names_that_are_none(name):
    with pytest.raises(InvalidName):
        check_name(name, "1")
    with pytest.raises(InvalidName):
        check_name("a", name)
