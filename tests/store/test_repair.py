"""What is wrong with a home is told without a change, and mended where it can be."""

from __future__ import annotations

import shutil
import stat

import pytest

from store.homes import Home
from tensor_wasm.errors import StoreError
from tensor_wasm.store import ArtifactStore, Database, HomeLock, Registry, check_database
from tensor_wasm.store.repair import examine, repair


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


def content(directory):
    return {
        str(path.relative_to(directory)): (stat.S_IMODE(path.stat().st_mode), path.is_file() and path.read_bytes())
        for path in directory.rglob("*")
        if path.name not in ("node.db-wal", "node.db-shm")
    }


def told(report):
    return {finding.part for finding in report.findings}


def test_a_home_that_is_whole_has_no_findings(home):
    for report in (examine(home.path), repair(home.path)):
        assert report.findings == []
        assert report.is_sound
    assert examine(home.path / "nothing here").findings == []


def damage_database(home):
    home.lose_page(1)


def damage_artifact(home):
    home.artifact("a").write_bytes(b"b" * 1000)


def lose_artifact(home):
    home.artifact("a").unlink()


def leave_orphans(home):
    ArtifactStore(home.path / "artifacts").put(b"orphan")


def leave_unfinished(home):
    (home.path / "artifacts" / "ab").mkdir()
    (home.path / "artifacts" / "ab" / ".new-x").touch(0o600)
    (home.path / ".new-salvage").mkdir()
    (home.path / ".new-salvage" / "node.db").touch(0o600)


def open_to_others(home):
    home.path.chmod(0o755)
    (home.path / "node.key").chmod(0o644)
    home.artifact("b").chmod(0o666)


def spoil_cache(home):
    (home.path / "cache" / "modules" / "ab").write_bytes(b"planted code")


def cut_key(home):
    (home.path / "node.key").write_bytes(b"short")


def cut_snapshot(home):
    home.add_snapshot("one", b"memory").write_bytes(b"mem")


def lose_database(home):
    (home.path / "node.db").unlink()


#: What is done, where it is told, whether it is harmful, what is left after a repair, which functions are left whole.
CASES = [
    (damage_database, "node.db", True, set(), {"a", "b"}),
    (damage_artifact, "artifacts", True, {"artifacts"}, {"b"}),
    (lose_artifact, "artifacts", True, {"artifacts"}, {"b"}),
    (leave_orphans, "artifacts", False, set(), {"a", "b"}),
    (leave_unfinished, "unfinished files", False, set(), {"a", "b"}),
    (open_to_others, "permissions", True, set(), {"a", "b"}),
    (spoil_cache, "cache/modules", False, set(), {"a", "b"}),
    (cut_key, "node.key", True, set(), {"a", "b"}),
    (cut_snapshot, "snapshots", True, {"snapshots"}, {"a", "b"}),
    (lose_database, "node.db", True, set(), set()),
]


@pytest.mark.parametrize(
    ("damage", "part", "is_harmful", "left", "whole"), CASES, ids=lambda v: getattr(v, "__name__", "")
)
def test_damage_is_told_without_a_change_and_mended(home, damage, part, is_harmful, left, whole):
    damage(home)
    before = content(home.path)
    report = examine(home.path)
    assert part in told(report)
    assert report.is_sound is not is_harmful
    assert content(home.path) == before

    report = repair(home.path)
    assert part in told(report)
    assert report.is_sound is not bool(left)
    assert told(examine(home.path)) == left

    check_database(home.path)
    database = Database(home.path / "node.db")
    artifacts = ArtifactStore(home.path / "artifacts")
    usable = set()
    for record in Registry(database).all():
        try:
            usable.add(artifacts.get(record.digest)[:1].decode())
        except StoreError:
            assert record.id not in whole
    database.close()
    assert usable == whole


def test_what_was_damaged_is_kept_aside(home):
    damaged_bytes = b"b" * 1000
    home.artifact("a").write_bytes(damaged_bytes)
    home.lose_page(1)
    database = (home.path / "node.db").read_bytes()
    repair(home.path)
    (place,) = (home.path / "damaged").iterdir()
    assert (place / "node.db").read_bytes() == database
    assert (place / "artifacts" / home.digests["a"]).read_bytes() == damaged_bytes
    assert stat.S_IMODE(place.stat().st_mode) == 0o700


def test_a_function_without_its_artifact_is_named(home):
    lose_artifact(home)
    (finding,) = examine(home.path).findings
    assert "function a" in finding.detail
    assert not finding.is_mendable
    assert home.functions() == ["a", "b"]


def test_artifacts_whose_rows_are_lost_are_kept(home):
    database = Database(home.path / "node.db")
    with database.transaction() as connection:
        ((root,),) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'functions'")
    database.close()
    home.lose_page(root)
    report = repair(home.path)
    (table,) = [table for table in report.tables if table.name == "functions"]
    assert (table.saved, table.lost, table.is_exact) == (0, 2, True)
    (place,) = (home.path / "damaged").iterdir()
    assert {path.name for path in (place / "artifacts").iterdir()} == set(home.digests.values())
    assert home.functions() == []


def test_artifacts_without_a_database_are_not_for_a_node_to_delete(home):
    lose_database(home)
    with pytest.raises(StoreError, match=r"restore.*doctor --repair"):
        check_database(home.path)
    repair(home.path)
    check_database(home.path)
    (place,) = (home.path / "damaged").iterdir()
    assert len(list((place / "artifacts").iterdir())) == 2


def test_lost_tokens_are_a_warning_of_their_own(home):
    database = Database(home.path / "node.db")
    with database.transaction() as connection:
        connection.execute("INSERT INTO tokens VALUES (1, 't', '', 'tenant=1', x'00', 1.5, NULL)")
        ((root,),) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'tokens'")
    database.close()
    home.lose_page(root)
    (finding,) = [finding for finding in repair(home.path).findings if finding.part == "node.db"]
    assert "1 of tokens" in finding.remedy
    assert "look at the tokens" in finding.remedy


def test_a_home_that_a_node_holds_is_looked_at_and_not_repaired(home):
    lock = HomeLock(home.path)
    leave_orphans(home)
    leave_unfinished(home)
    report = examine(home.path)
    assert report.is_served
    assert report.findings == []
    lose_artifact(home)
    assert told(examine(home.path)) == {"artifacts"}
    with pytest.raises(StoreError, match="another node uses"):
        repair(home.path)
    lock.close()
    assert repair(home.path).findings


def test_a_newer_database_is_left_alone(home):
    database = Database(home.path / "node.db")
    with database.transaction() as connection:
        connection.execute("PRAGMA user_version = 999")
    database.close()
    before = content(home.path)
    for look in (examine, repair):
        with pytest.raises(StoreError, match="newer"):
            look(home.path)
    assert content(home.path) == before


def test_links_that_lead_out_of_the_home_are_not_followed(home, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"x")
    (outside / "file").chmod(0o644)
    (home.path / "artifacts" / "aa").symlink_to(outside)
    (home.path / "cache" / "modules" / "link").symlink_to(outside / "file")
    repair(home.path)
    assert stat.S_IMODE((outside / "file").stat().st_mode) == 0o644
    assert (outside / "file").read_bytes() == b"x"


def test_a_stranger_s_file_is_told_and_left(home):
    (home.path / "notes.txt").write_text("mine")
    report = repair(home.path)
    assert told(report) == {"other files"}
    assert report.is_sound
    assert (home.path / "notes.txt").read_text() == "mine"


def test_a_repair_that_is_cut_short_can_be_made_again(home, monkeypatch):
    damage_database(home)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tensor_wasm.store.repair.os.link", stop)
        with pytest.raises(KeyboardInterrupt):
            repair(home.path)
    shutil.rmtree(home.path / "damaged")
    assert repair(home.path).is_sound
    assert home.functions() == ["a", "b"]
