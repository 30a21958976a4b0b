"""The checks of ``doctor``, each in a world where it fails."""

from __future__ import annotations

import resource
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from tensor_wasm.cli import checks
from tensor_wasm.cli.checks import Status
from tensor_wasm.config import load


@pytest.fixture
def config(tmp_path):
    return load({"TENSOR_WASM_HOME": str(tmp_path / "home"), "TENSOR_WASM_LISTEN_ADDR": "127.0.0.1:0"}).config


def test_a_limited_address_space_fails_or_warns_by_what_the_workers_need(config, monkeypatch):
    def look(limit):
        monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
        return checks._address_space(replace(config, workers=4))

    assert look(resource.RLIM_INFINITY)[0] is Status.OK
    assert look(2 << 30)[0] is Status.FAIL
    status, detail, advice = look(20 << 30)
    assert status is Status.WARN
    assert "20.0 GiB" in detail
    assert "ulimit -v unlimited" in advice
    assert look(1 << 40)[0] is Status.OK


def test_a_home_that_cannot_be_made_fails(config, tmp_path):
    (tmp_path / "file").write_text("")
    assert checks._home(replace(config, home=tmp_path / "file" / "home"))[0] is Status.FAIL
    assert checks._home(replace(config, home=Path("/proc/home")))[0] is Status.FAIL


def test_a_home_is_looked_at_and_not_made(config):
    assert checks._home(config)[0] is Status.OK
    assert not config.home.exists()


@pytest.mark.parametrize(("free", "status"), [(10 << 30, Status.OK), (100 << 20, Status.WARN), (1 << 20, Status.FAIL)])
def test_a_full_disk_warns_then_fails(config, monkeypatch, free, status):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": free}))
    assert checks._home(config)[0] is status


def test_one_core_is_a_warning(config, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    assert checks._cores(config)[0] is Status.WARN


def test_a_slow_clock_is_a_warning(config, monkeypatch):
    now = iter(range(0, 1 << 62, 1 << 40))
    monkeypatch.setattr("time.perf_counter_ns", lambda: next(now))
    assert checks._clock(config)[0] is Status.WARN


def test_a_taken_address_is_a_warning(config):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert checks._address(replace(config, listen_addr=address))[0] is Status.WARN
    assert checks._address(config)[0] is Status.OK


def test_another_wasmtime_fails_with_the_version_to_install(config, monkeypatch):
    monkeypatch.setattr("importlib.metadata.requires", lambda _: ["numpy>=1", "wasmtime==1.2.3"])
    status, _, advice = checks._wasmtime(config)
    assert status is Status.FAIL
    assert "wasmtime==1.2.3" in advice


def test_shared_memory_works_here(config):
    assert checks._shared_memory(config)[0] is Status.OK


def test_a_check_that_breaks_is_a_failed_check_and_the_others_are_still_made(config, monkeypatch):
    def explode(_):
        raise RuntimeError("no such thing here")

    monkeypatch.setattr(checks, "_CHECKS", (("broken", explode), ("cores", checks._cores)))
    broken, cores = checks.all_checks(config)
    assert (broken.status, broken.detail) == (Status.FAIL, "no such thing here")
    assert cores.name == "cores"


def test_the_sandbox_runs_a_module_and_compiles_a_kernel(config):
    status, detail, _ = checks._sandbox(config)
    assert status is Status.OK, detail
    assert detail.startswith("device cpu")


def test_doctor_fails_on_a_setting_that_cannot_be_used(cli, monkeypatch):
    monkeypatch.setattr(checks, "_CHECKS", ())
    monkeypatch.setenv("TENSOR_WASM_WORKERS", "-1")
    result = cli("doctor", "--json")
    assert result.code == 1
    assert result.json["ok"] is False
    assert result.json["checks"][0]["status"] == "fail"


def test_doctor_is_content_with_warnings(cli, monkeypatch, tmp_path):
    monkeypatch.setattr(checks, "_CHECKS", (("cores", lambda _: (Status.WARN, "1", "give it more")),))
    result = cli("doctor", "--home", tmp_path / "home")
    assert result.code == 0
    assert "      give it more\n" in result.out
    assert not (tmp_path / "home").exists()


def test_doctor_says_what_is_wrong_with_the_home_and_mends_it(cli, monkeypatch, tmp_path):
    monkeypatch.setattr(checks, "_CHECKS", ())
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "node.db").touch(0o600)
    (home / "node.db").write_text("no database" * 500)
    (home / "left\x1b[2J").write_text("")
    result = cli("doctor", "--home", home)
    assert result.code == 1
    assert "fail  node.db" in result.out
    assert "with `tensor-wasm doctor --repair`, once no node runs:" in result.out
    assert "warn  other files" in result.out
    assert "\x1b" not in result.out
    assert (home / "node.db").read_text().startswith("no database")
    result = cli("doctor", "--home", home, "--repair")
    assert result.code == 0
    assert "mended:" in result.out
    assert "functions: 0 rows saved, nobody knows how many lost" in result.out
    result = cli("doctor", "--home", home, "--json")
    assert [finding["part"] for finding in result.json["home"]["findings"]] == ["other files"]
