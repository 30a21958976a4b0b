from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading

import pytest
from blake3 import blake3

from tensor_wasm.errors import StoreError
from tensor_wasm.store import ArtifactStore


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(tmp_path / "artifacts")


def file_of(store, digest):
    return store._directory / digest[:2] / digest


@pytest.mark.parametrize("data", [b"", b"x", os.urandom(100_000)])
def test_content_comes_back_by_its_hash(store, data):
    digest = store.put(data)
    assert digest == blake3(data).hexdigest()
    assert store.get(digest) == data


def test_the_same_content_is_kept_once(store):
    assert store.put(b"same") == store.put(b"same")
    assert store.digests() == {blake3(b"same").hexdigest()}


def test_damage_is_seen_and_mended_by_putting_it_again(store):
    digest = store.put(b"content")
    for damage in (b"Content", b"", b"content and more"):
        file_of(store, digest).write_bytes(damage)
        with pytest.raises(StoreError, match=r"damaged.*deploy it again"):
            store.get(digest)
        store.put(b"content")
        assert store.get(digest) == b"content"


def test_what_is_gone_is_an_error_with_a_way_out(store):
    digest = store.put(b"content")
    store.delete(digest)
    store.delete(digest)
    with pytest.raises(StoreError, match=r"missing.*deploy it again"):
        store.get(digest)


@pytest.mark.parametrize("name", ["", "..", "../../../etc/passwd", "A" * 64, "ab" * 31 + "a/", "٣" * 64])
def test_only_a_digest_is_a_name(store, name):
    with pytest.raises(StoreError, match="64 hexadecimal"):
        store.get(name)
    with pytest.raises(StoreError, match="64 hexadecimal"):
        store.delete(name)


def test_what_nothing_names_is_deleted(store):
    kept, dropped = store.put(b"kept"), store.put(b"dropped")
    assert store.keep_only({kept}) == 1
    assert store.digests() == {kept}
    assert dropped not in store.digests()


def test_what_a_crash_left_unfinished_is_removed_at_the_start(store):
    digest = store.put(b"content")
    left = file_of(store, digest).parent / ".new-abc"
    left.write_bytes(b"half")
    again = ArtifactStore(store._directory)
    assert not left.exists()
    assert again.get(digest) == b"content"


def test_only_the_owner_may_read(store):
    before = os.umask(0)
    try:
        digest = store.put(b"content")
    finally:
        os.umask(before)
    assert stat.S_IMODE(file_of(store, digest).stat().st_mode) == 0o600
    assert stat.S_IMODE(file_of(store, digest).parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(store._directory.stat().st_mode) == 0o700


def test_what_was_put_survives_kill(tmp_path):
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from tensor_wasm.store import ArtifactStore\n"
        "print(ArtifactStore(Path(sys.argv[1])).put(b'z' * 300_000), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    child = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], check=False, stdout=subprocess.PIPE, text=True
    )
    assert child.returncode == -signal.SIGKILL
    assert ArtifactStore(tmp_path).get(child.stdout.strip()) == b"z" * 300_000


def test_threads_that_put_the_same_get_the_same(store):
    data = os.urandom(50_000)
    found = []
    threads = [threading.Thread(target=lambda: found.append(store.get(store.put(data)))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [data] * 6


def test_a_directory_that_cannot_be_made_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="TENSOR_WASM_HOME"):
        ArtifactStore(tmp_path / "file" / "artifacts")
