"""The kill harness, bounded: what a node acknowledged outlives ``kill -9``.

The whole of it is a command; see CONTRIBUTING.md.
"""

from __future__ import annotations

import secrets
import sqlite3

import pytest

from system.kills.kills import kill_again_and_again

pytestmark = pytest.mark.slow


def strain(directory, kills, **more):
    seed = secrets.randbelow(1 << 31)
    print(f"seed {seed}")
    return kill_again_and_again(kills, seed, directory, print, **more)


def test_what_was_acknowledged_outlives_ten_kills(tmp_path):
    outcome = strain(tmp_path, 10)
    assert outcome.findings == []
    assert outcome.acknowledged > 50


def lose_a_function(home):
    connection = sqlite3.connect(home / "node.db")
    connection.execute("DELETE FROM functions WHERE deleted_at IS NULL")
    connection.commit()
    connection.close()


def revive_a_function(home):
    connection = sqlite3.connect(home / "node.db")
    connection.execute("UPDATE functions SET deleted_at = NULL")
    connection.commit()
    connection.close()


def lose_tokens(home):
    connection = sqlite3.connect(home / "node.db")
    connection.execute("DELETE FROM tokens")
    connection.commit()
    connection.close()


def damage_artifacts(home):
    for path in home.glob("artifacts/??/*"):
        path.write_bytes(path.read_bytes()[:-1])


def lose_snapshots(home):
    connection = sqlite3.connect(home / "node.db")
    connection.execute("DELETE FROM snapshots")
    connection.commit()
    connection.close()


def damage_snapshots(home):
    for path in home.glob("snapshots/*"):
        path.write_bytes(bytes(path.stat().st_size))


def leave_snapshots(home):
    (home / "snapshots" / "half").write_bytes(b"half")


def lose_keys(home):
    connection = sqlite3.connect(home / "node.db")
    connection.execute("DELETE FROM idempotency")
    connection.commit()
    connection.close()


SABOTAGES = [
    lose_a_function, revive_a_function, lose_tokens, damage_artifacts, lose_snapshots, damage_snapshots,
    leave_snapshots, lose_keys,
]  # fmt: skip


@pytest.mark.parametrize("sabotage", SABOTAGES)
def test_what_is_lost_or_comes_back_is_found(tmp_path, sabotage):
    assert strain(tmp_path, 3, sabotage=sabotage).findings
