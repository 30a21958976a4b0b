"""A backup is of one moment and whole, whatever goes on meanwhile; a restore is all of it or nothing."""

from __future__ import annotations

import json
import secrets
import shutil
import stat
import threading
import time
from random import Random

import pytest

from store.homes import Home, rows
from tensor_wasm.errors import StoreError
from tensor_wasm.store import ArtifactStore, Database, FunctionRecord, HomeLock, Registry
from tensor_wasm.store import backup as backup_module
from tensor_wasm.store.backup import MANIFEST, back_up, restore
from tensor_wasm.store.repair import examine


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


def names(directory):
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def test_a_backup_has_all_but_caches_and_can_be_put_back(home, tmp_path):
    home.add_snapshot("one", b"memory")
    (home.path / "snapshots" / "orphan").write_bytes(b"no row names it")
    made = back_up(home.path, tmp_path / "backups" / "monday")
    assert made.missing == ()
    artifacts = {f"artifacts/{digest[:2]}/{digest}" for digest in home.digests.values()}
    assert names(made.directory) == {"node.db", "node.key", "snapshots/one", MANIFEST, *artifacts}

    restored = tmp_path / "elsewhere" / "home"
    done = restore(made.directory, restored, replaces=False)
    assert (done.files, done.replaced) == (made.files, None)
    assert rows(restored / "node.db", "functions") == rows(home.path / "node.db", "functions")
    assert (restored / "node.key").read_bytes() == home.key
    assert ArtifactStore(restored / "artifacts").get(home.digests["a"]) == b"a" * 1000
    assert examine(restored).findings == []
    for path in (restored, *restored.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


def test_what_is_restored_is_no_link_to_the_backup(home, tmp_path):
    made = back_up(home.path, tmp_path / "backup")
    restore(made.directory, tmp_path / "new", replaces=False)
    with next((tmp_path / "new" / "artifacts").glob("??/*")).open("r+b") as file:
        file.write(b"x")
    restore(made.directory, tmp_path / "newer", replaces=False)


def test_a_backup_across_disks_is_a_copy(home, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("tensor_wasm.store.backup.os.link", refuse)
    made = back_up(home.path, tmp_path / "backup")
    assert made.missing == ()
    restore(made.directory, tmp_path / "new", replaces=False)


def test_every_row_of_a_backup_has_its_artifact_while_functions_come_and_go(home, tmp_path):
    seed = secrets.randbelow(1 << 31)
    print(f"seed {seed}")
    database = Database(home.path / "node.db")
    registry, artifacts = Registry(database), ArtifactStore(home.path / "artifacts")
    lock, stop = threading.Lock(), threading.Event()
    failures = []
    changes = [0]

    def churn(number):
        """As the node's catalog does it: the artifact before the row, the row before the artifact."""
        random = Random(seed + number)
        try:
            for serial in range(1 << 30):
                if stop.is_set():
                    return
                data = random.randbytes(100)
                with lock:
                    record = FunctionRecord(f"{number}-{serial}", 1, "f", artifacts.put(data), 100, 1.5)
                    registry.add(record)
                if random.random() < 0.5:
                    time.sleep(random.random() * 0.005)
                with lock:
                    registry.delete(record.id, 1)
                    artifacts.delete(record.digest)
                changes[0] += 1
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=churn, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        for number in range(8):
            before = changes[0]
            made = back_up(home.path, tmp_path / f"backup-{number}")
            assert made.missing == ()
            restore(made.directory, tmp_path / f"home-{number}", replaces=False)
            assert {finding.part for finding in examine(tmp_path / f"home-{number}").findings} == set()
            while changes[0] == before and not failures:
                time.sleep(0.001)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        database.close()
    assert failures == []


def test_an_artifact_that_is_damaged_is_told_and_left_out(home, tmp_path):
    home.artifact("a").write_bytes(b"x")
    home.artifact("b").unlink()
    made = back_up(home.path, tmp_path / "backup")
    assert set(made.missing) == set(home.digests.values())
    assert restore(made.directory, tmp_path / "new", replaces=False).missing == made.missing


def test_a_file_that_is_cut_is_told_and_left_out(home, tmp_path):
    home.add_snapshot("one", b"memory").write_bytes(b"mem")
    made = back_up(home.path, tmp_path / "backup")
    assert made.missing == ("snapshots/one",)
    assert restore(made.directory, tmp_path / "new", replaces=False).missing == made.missing


def test_a_damaged_database_is_not_backed_up(home, tmp_path):
    home.lose_page(1)
    with pytest.raises(StoreError, match="doctor"):
        back_up(home.path, tmp_path / "backup")
    assert list(tmp_path.iterdir()) == [home.path]


def test_a_backup_that_fails_leaves_nothing(home, tmp_path, monkeypatch):
    monkeypatch.setattr(backup_module, "_PASSES_MAX", 1)
    monkeypatch.setattr(backup_module, "_HELD_S", -1.0)
    link = backup_module._link_all

    def slow(source, target, until):
        return True if until is None else link(source, target, until)

    monkeypatch.setattr(backup_module, "_link_all", slow)
    with pytest.raises(StoreError, match="faster"):
        back_up(home.path, tmp_path / "backup")
    assert list(tmp_path.iterdir()) == [home.path]


def test_a_directory_that_is_there_is_not_written_over(home, tmp_path):
    made = back_up(home.path, tmp_path / "backup")
    with pytest.raises(StoreError, match="not empty"):
        back_up(home.path, made.directory)
    with pytest.raises(StoreError, match=r"no node\.db"):
        back_up(tmp_path / "nothing", tmp_path / "other")


def test_a_home_that_has_something_in_it_is_kept(home, tmp_path):
    made = back_up(home.path, tmp_path / "backup")
    (home.path / "mine").write_text("mine")
    with pytest.raises(StoreError, match="--force"):
        restore(made.directory, home.path, replaces=False)
    done = restore(made.directory, home.path, replaces=True)
    assert (done.replaced / "mine").read_text() == "mine"
    assert not (home.path / "mine").exists()
    assert home.functions() == ["a", "b"]


def test_a_home_that_a_node_holds_is_not_replaced(home, tmp_path):
    made = back_up(home.path, tmp_path / "backup")
    lock = HomeLock(home.path)
    with pytest.raises(StoreError, match="another node"):
        restore(made.directory, home.path, replaces=True)
    lock.close()


def rewrite(directory, change):
    path = directory / MANIFEST
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document))


def lead_out(directory):
    (directory.parent / "outside").write_bytes(b"")
    entry = {"size_bytes": 0, "blake3": "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"}
    rewrite(directory, lambda document: document["files"].__setitem__("artifacts/../../outside", entry))


def link_out(directory):
    path = next((directory / "artifacts").glob("??/*"))
    shutil.move(path, directory.parent / "moved")
    path.symlink_to(directory.parent / "moved")


def forget_an_artifact(directory):
    rewrite(directory, lambda d: d["files"].pop(next(name for name in d["files"] if name.startswith("artifacts/"))))


SPOILED = {
    "no manifest": lambda d: (d / MANIFEST).unlink(),
    "no JSON": lambda d: (d / MANIFEST).write_text("{"),
    "a list": lambda d: (d / MANIFEST).write_text("[]"),
    "another format": lambda d: rewrite(d, lambda document: document.update(format=99)),
    "files that are none": lambda d: rewrite(d, lambda document: document.update(files={"node.db": 1})),
    "no database": lambda d: rewrite(d, lambda document: document["files"].pop("node.db")),
    "a path that leads out": lead_out,
    "a link that leads out": link_out,
    "a file that is gone": lambda d: (d / "node.key").unlink(),
    "a file that changed": lambda d: (d / "node.key").write_bytes(b"x" * 32),
    "a file that is cut": lambda d: (d / "node.db").write_bytes((d / "node.db").read_bytes()[:4096]),
    "an artifact that the manifest lacks": forget_an_artifact,
}


@pytest.mark.parametrize("spoil", list(SPOILED))
def test_a_backup_that_is_not_whole_is_refused_and_changes_nothing(home, tmp_path, spoil):
    made = back_up(home.path, tmp_path / "backup")
    SPOILED[spoil](made.directory)
    before = names(home.path)
    with pytest.raises(StoreError):
        restore(made.directory, home.path, replaces=True)
    assert names(home.path) == before
    assert not list(tmp_path.glob(".new-*"))
    with pytest.raises(StoreError):
        restore(made.directory, tmp_path / "new", replaces=False)
    assert not (tmp_path / "new").exists()
