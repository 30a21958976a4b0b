from __future__ import annotations

import pytest

from tensor_wasm.telemetry.build import _head, build

SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def git(tmp_path):
    directory = tmp_path / ".git"
    (directory / "refs" / "heads").mkdir(parents=True)
    return directory


def test_a_loose_branch_a_packed_one_and_none(git):
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "packed-refs").write_text(f"# pack-refs\n{'9' * 40} refs/heads/maintenance\n{SHA} refs/heads/main\n")
    assert _head(git) == SHA
    (git / "refs" / "heads" / "main").write_text("f" * 40 + "\n")
    assert _head(git) == "f" * 40
    (git / "HEAD").write_text(SHA + "\n")
    assert _head(git) == SHA


def test_a_linked_work_tree(git, tmp_path):
    linked = git / "worktrees" / "second"
    linked.mkdir(parents=True)
    (linked / "HEAD").write_text("ref: refs/heads/side\n")
    (linked / "commondir").write_text("../..\n")
    (git / "refs" / "heads" / "side").write_text(SHA)
    work_tree = tmp_path / "second"
    work_tree.mkdir()
    (work_tree / ".git").write_text(f"gitdir: {linked}\n")
    assert _head(work_tree / ".git") == SHA


def test_no_repository_is_no_commit(tmp_path):
    assert _head(tmp_path / ".git") == ""
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("ref: refs/heads/none\n")
    assert _head(tmp_path / ".git") == ""


def test_the_running_build_is_known():
    made = build()
    assert made.wasmtime[0].isdigit()
    assert made.python.count(".") == 2
    assert made.git_sha == "unknown" or len(made.git_sha) >= 40
