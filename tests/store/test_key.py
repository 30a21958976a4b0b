from __future__ import annotations

import stat
import threading

import pytest

from tensor_wasm.errors import StoreError
from tensor_wasm.store import node_key


def test_the_key_is_made_once_and_stays(tmp_path):
    home = tmp_path / "home"
    key = node_key(home)
    assert len(key) == 32
    assert node_key(home) == key
    assert node_key(tmp_path / "other") != key
    assert stat.S_IMODE((home / "node.key").stat().st_mode) == 0o600
    assert [path.name for path in home.iterdir()] == ["node.key"]


def test_all_who_make_it_at_once_get_the_same(tmp_path):
    start = threading.Barrier(8)
    keys = []

    def make():
        start.wait()
        keys.append(node_key(tmp_path / "home"))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert len(set(keys)) == 1


def test_a_key_that_others_may_read_is_refused(tmp_path):
    node_key(tmp_path)
    (tmp_path / "node.key").chmod(0o640)
    with pytest.raises(StoreError, match="chmod 600"):
        node_key(tmp_path)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_of_another_size_is_refused(tmp_path, size):
    (tmp_path / "node.key").write_bytes(b"k" * size)
    (tmp_path / "node.key").chmod(0o600)
    with pytest.raises(StoreError, match="damaged"):
        node_key(tmp_path)
