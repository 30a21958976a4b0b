"""Compiled modules on disk are loaded only when the node's key vouches for them."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path

import pytest

from tensor_wasm.errors import InternalError, InvalidWasm
from tensor_wasm.runtime import Engine, ModuleCache, SealedFiles
from tensor_wasm.wasm import Module, ValType

KEY = bytes(range(32))


def small_module(value: int) -> bytes:
    module = Module()
    module.function([], [ValType.I32], export="run").code.i32_const(value)
    return module.encode().wasm


def files_in(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.is_file())


def test_a_second_cache_takes_the_code_from_disk_without_the_source(engine: Engine, tmp_path: Path) -> None:
    ModuleCache(engine, SealedFiles(tmp_path, KEY)).get("d1", small_module(1))

    def gone() -> bytes:
        raise AssertionError("the module was compiled again")

    ModuleCache(engine, SealedFiles(tmp_path, KEY)).get("d1", gone)


@pytest.mark.parametrize("position", [0, 31, 32, -1])
def test_a_changed_file_is_ignored_and_written_anew(engine: Engine, tmp_path: Path, position: int) -> None:
    ModuleCache(engine, SealedFiles(tmp_path, KEY)).get("d1", small_module(1))
    (file,) = files_in(tmp_path)
    good = file.read_bytes()
    bad = bytearray(good)
    bad[position] ^= 1
    file.write_bytes(bad)
    asked: list[int] = []

    def source() -> bytes:
        asked.append(1)
        return small_module(1)

    ModuleCache(engine, SealedFiles(tmp_path, KEY)).get("d1", source)
    assert asked
    assert SealedFiles(tmp_path, KEY).read(file.name) is not None


def test_a_file_sealed_by_another_key_or_for_another_name_is_ignored(tmp_path: Path) -> None:
    SealedFiles(tmp_path, bytes(32)).write("a", b"code")
    assert SealedFiles(tmp_path, KEY).read("a") is None
    files = SealedFiles(tmp_path, KEY)
    files.write("b", b"code")
    assert files.read("b") == b"code"
    (tmp_path / "c").write_bytes((tmp_path / "b").read_bytes())
    assert files.read("c") is None


def test_what_does_not_compile_says_why_and_can_be_asked_again(engine: Engine, tmp_path: Path) -> None:
    cache = ModuleCache(engine, SealedFiles(tmp_path, KEY))
    for _ in range(2):
        with pytest.raises(InvalidWasm):
            cache.get("d1", b"\0asm\1\0\0\0\xff")
    cache.get("d1", small_module(2))


def test_many_callers_cause_one_compilation(engine: Engine, tmp_path: Path) -> None:
    cache = ModuleCache(engine, SealedFiles(tmp_path, KEY))
    asked: list[int] = []
    gate = threading.Barrier(8)

    def source() -> bytes:
        asked.append(1)
        return small_module(3)

    def ask() -> None:
        gate.wait()
        cache.get("d3", source)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asked == [1]


def test_code_compiled_elsewhere_is_found_again_in_memory_and_on_disk(engine: Engine, tmp_path: Path) -> None:
    code = engine.compile(small_module(4)).serialize()
    cache = ModuleCache(engine, SealedFiles(tmp_path, KEY))
    assert cache.find("d4") is None
    module = cache.put("d4", code)
    assert cache.find("d4") is module
    assert cache.get("d4", b"not even a module") is module
    assert cache.put("d4", code) is module
    other = ModuleCache(engine, SealedFiles(tmp_path, KEY))
    found = other.find("d4")
    assert found is not None
    assert found.serialize() == code


def test_code_that_is_none_is_refused_and_not_kept(engine: Engine, tmp_path: Path) -> None:
    cache = ModuleCache(engine, SealedFiles(tmp_path, KEY))
    with pytest.raises(InternalError):
        cache.put("d5", b"no code")
    assert cache.find("d5") is None
    assert files_in(tmp_path) == []


def test_a_module_is_compiled_elsewhere_when_that_is_possible(engine: Engine, tmp_path: Path) -> None:
    asked: list[bytes] = []

    def elsewhere(wasm: bytes) -> bytes | None:
        asked.append(wasm)
        return engine.compile(wasm).serialize() if len(asked) > 1 else None

    cache = ModuleCache(engine, SealedFiles(tmp_path, KEY), compile_elsewhere=elsewhere)
    for value in (6, 7):
        wasm = small_module(value)
        assert cache.get(f"d{value}", wasm) is cache.get(f"d{value}", wasm)
    assert asked == [small_module(6), small_module(7)]
    assert len(files_in(tmp_path)) == 2


def aged(path: Path, seconds: float) -> None:
    status = path.stat()
    os.utime(path, (status.st_atime - seconds, status.st_mtime - seconds))


def test_files_do_not_fill_the_disk_and_the_oldest_go_first(tmp_path: Path) -> None:
    block = 16 << 10
    files = SealedFiles(tmp_path, KEY, bytes_max=8 * block)
    for number in range(8):
        files.write(f"{number}", bytes(block // 2))
        aged(tmp_path / f"{number}", 1000 - number)
    assert len(files_in(tmp_path)) == 8
    files.write("8", b"one too many")
    assert {path.name for path in files_in(tmp_path)} == {"3", "4", "5", "6", "7", "8"}
    assert files.read("3") == bytes(block // 2)
    assert files.read("2") is None


def test_files_that_were_there_before_count_too(tmp_path: Path) -> None:
    large = bytes(1 << 20)
    for number in range(4):
        SealedFiles(tmp_path, KEY).write(f"{number}", large)
        aged(tmp_path / f"{number}", 1000 - number)
    SealedFiles(tmp_path, KEY, bytes_max=3 << 20).write("4", b"code")
    assert {path.name for path in files_in(tmp_path)} == {"2", "3", "4"}


def test_random_writes_keep_to_the_bound(tmp_path: Path) -> None:
    seed = random.randrange(1 << 31)
    print(f"seed {seed}")
    draw = random.Random(seed)
    bytes_max = 1 << 20
    files = SealedFiles(tmp_path, KEY, bytes_max)
    for _ in range(300):
        name = str(draw.randrange(200))
        files.write(name, draw.randbytes(draw.randrange(1, 40_000)))
        assert files.read(name) is not None
        assert sum(path.stat().st_size for path in files_in(tmp_path)) <= bytes_max
