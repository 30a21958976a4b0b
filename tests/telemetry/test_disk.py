from __future__ import annotations

import os

from tensor_wasm.telemetry import disk
from tensor_wasm.telemetry.disk import Disk, share_a_disk

STATS = """\
   7       0 loop0 396 0 6228 12 404 668 4322 22 0 24 38 0 0 0 0 226 3
 259       2 nvme0n1p2 100 5 2048 10 50 6 4096 20 1 1234 30 0 0 0 0 0 0
"""


def test_the_counters_are_those_of_the_disk_a_directory_is_on(tmp_path, monkeypatch):
    stats = tmp_path / "diskstats"
    device = tmp_path.stat().st_dev
    numbers = f"{os.major(device)}       {os.minor(device)}"
    stats.write_text(STATS.replace("259       2", numbers))
    monkeypatch.setattr(disk, "_STATS", stats)
    found = Disk(tmp_path / "not" / "yet").read()
    assert (found.busy_ms, found.read_bytes, found.write_bytes) == (1234, 1 << 20, 2 << 20)
    assert found.free_bytes > 0


def test_a_file_system_with_a_number_of_its_own_is_found_by_what_it_is_on(tmp_path, monkeypatch):
    stats, mounts = tmp_path / "diskstats", tmp_path / "mountinfo"
    source = tmp_path / "device"
    source.touch()
    device = tmp_path.stat().st_dev
    numbers = f"{os.major(device)}:{os.minor(device)}"
    mounts.write_text(f"22 27 0:21 / /proc rw - proc proc rw\n30 1 {numbers} / /x rw shared:1 - btrfs {source} rw\n")
    stats.write_text(STATS.replace("259       2", "0       0"))  # a plain file has the number 0:0
    monkeypatch.setattr(disk, "_STATS", stats)
    monkeypatch.setattr(disk, "_MOUNTS", mounts)
    assert Disk(tmp_path).read().busy_ms == 1234


def test_where_the_system_does_not_say_there_is_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "_STATS", tmp_path / "none")
    found = Disk(tmp_path).read()
    assert (found.busy_ms, found.read_bytes, found.write_bytes) == (None, None, None)


def test_directories_share_a_disk_or_do_not(tmp_path):
    assert share_a_disk(tmp_path / "a" / "b", tmp_path / "c")
    assert not share_a_disk(tmp_path, disk.Path("/proc"))
