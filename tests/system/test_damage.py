"""Disks that are full, read-only or damaged, and hands that slip: the node says so and serves what it can."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import secrets
import subprocess
import time
import urllib.request
from random import Random

import pytest

from system.front_door import Served, run_cli
from system.kills.client import Changer
from system.kills.kills import SETTINGS
from system.kills.model import Model, module
from tensor_wasm.cli.failures import Failure
from tensor_wasm.store.backup import back_up, restore
from tensor_wasm.store.repair import examine
from tensor_wasm.store.signing import SigningKey

_PAGE_BYTES = 4096
_PATIENCE_S = 30.0


def deploy(node, value, padding=b""):
    return node.client.deploy(f"returns-{value}", module(value, padding))["id"]


def result(node, function):
    return node.client.invoke(function, {}, None)["result"]


def kind(call, *arguments):
    with pytest.raises(Failure) as caught:
        call(*arguments)
    return caught.value.kind


def refusal(call, *arguments):
    """The kind of error that a call ends in, None when it does not."""
    try:
        call(*arguments)
    except Failure as failure:
        return failure.kind
    return None


def ready(node):
    with urllib.request.urlopen(f"{node.url}/readyz", timeout=_PATIENCE_S) as answer:
        return json.load(answer)


@contextlib.contextmanager
def mounted(directory, *options):
    """A small file system of its own, where this process may mount one."""
    directory.mkdir()
    done = subprocess.run(["mount", *options, str(directory)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this process may not mount: {done.stderr.strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


def remount(directory, how):
    subprocess.run(["mount", "-o", f"remount,{how}", str(directory)], check=True)


def fill(directory):
    """Leave no byte free."""
    path = directory / "ballast"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(_PAGE_BYTES))
    return path


@pytest.mark.slow
def test_a_full_disk_loses_nothing_and_invocations_go_on(tmp_path):
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=16m", "tmpfs") as disk:
        node = Served(disk.parent / "disk" / "home")
        try:
            one = deploy(node, 1)
            token = node.client.create_token("kept", "role=admin")
            client = node.client.__class__(node.url, token["token"], None)
            assert ready(node) == {"status": "ready", "reasons": []}
            ballast = fill(disk)
            modules = [module(value, os.urandom(20_000)) for value in range(100, 120)]
            assert {refusal(client.deploy, "new", wasm) for wasm in modules} == {"store_error"}
            assert ready(node) == {"status": "ready", "reasons": ["the store's disk is full"]}
            assert client.invoke(one, {}, None)["result"] == [1]
            assert [item["name"] for item in client.functions()] == ["returns-1"]
            ballast.unlink()
            two = client.deploy("two", module(2, b""))["id"]
            assert client.invoke(two, {}, None)["result"] == [2]
            fill(disk)
            node.kill()
            ballast.unlink()
            node = Served(disk.parent / "disk" / "home")
            client = node.client.__class__(node.url, token["token"], None)
            assert [item["id"] for item in client.functions()] == [one, two]
            assert client.invoke(one, {}, None)["result"] == [1]
            assert node.stop() == 0
        finally:
            if node.process.poll() is None:
                node.kill()


@pytest.mark.slow
def test_tokens_and_limits_on_a_full_disk_are_refused_whole(tmp_path):
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=4m", "tmpfs") as disk:
        node = Served(disk / "home")
        try:
            token = node.client.create_token("kept", "role=admin")["token"]
            client = node.client.__class__(node.url, token, None)
            ballast = fill(disk)
            outcomes = []
            while outcomes[-3:] != ["store_error"] * 3:  # the log has room for some
                outcomes.append(refusal(client.create_token, f"t{len(outcomes)}", "role=admin"))
            assert set(outcomes) <= {None, "store_error"}
            names = {item["name"] for item in client.tokens()}
            assert names == {"kept", *(f"t{number}" for number, kind in enumerate(outcomes) if kind is None)}
            ballast.unlink()
            node.kill()
            node = Served(disk / "home")
            client = node.client.__class__(node.url, token, None)
            assert {item["name"] for item in client.tokens()} == names
            assert node.stop() == 0
        finally:
            if node.process.poll() is None:
                node.kill()


@pytest.mark.slow
def test_a_disk_that_is_read_only_is_told_and_loses_nothing(tmp_path):
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=32m", "tmpfs") as disk:
        node = Served(disk / "home")
        one = deploy(node, 1)
        assert node.kill() != 0
        remount(disk, "ro")
        refused = run_cli("serve", "--listen", "127.0.0.1:0", "--home", disk / "home")
        looked = run_cli("doctor", "--home", disk / "home")
        remount(disk, "rw")
        assert refused.code == 1
        assert refused.err.startswith("error: store_error: ")
        assert "Read-only file system" in refused.err
        assert looked.code == 1
        assert "Traceback" not in refused.err + looked.err + looked.out
        node = Served(disk / "home")
        assert result(node, one) == [1]
        assert node.stop() == 0


@pytest.mark.slow
def test_a_disk_that_becomes_read_only_under_a_node_loses_nothing_and_invocations_go_on(tmp_path):
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=32m", "tmpfs") as disk:
        image, place = disk / "image", tmp_path / "place"
        with image.open("wb") as file:
            file.truncate(24 << 20)
        if subprocess.run(["mkfs.ext4", "-q", str(image)], capture_output=True, check=False).returncode:
            pytest.skip("there is no mkfs.ext4")
        with mounted(place, "-o", "loop", str(image)):
            node = Served(place / "home")
            try:
                one = deploy(node, 1)
                shut = subprocess.run(["mount", "-o", "remount,abort", str(place)], capture_output=True, check=False)
                if shut.returncode:
                    pytest.skip("this process may not shut a file system")
                assert kind(deploy, node, 2) == "store_error"
                assert kind(node.client.create_token, "x", "role=admin") == "store_error"
                assert result(node, one) == [1]
                assert node.process.poll() is None
            finally:
                node.kill()


@pytest.mark.slow
def test_files_that_may_not_grow_lose_nothing_and_invocations_go_on(tmp_path):
    """Where nothing can be mounted: the system refuses each write beyond the size that files have."""
    node = Served(tmp_path / "home")
    try:
        one = deploy(node, 1)
        resource.prlimit(node.process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        assert kind(deploy, node, 2) == "store_error"
        assert kind(node.client.create_token, "x", "role=admin") == "store_error"
        assert kind(node.client.delete, one) == "store_error"
        assert result(node, one) == [1]
        assert node.process.poll() is None
        resource.prlimit(node.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        two = deploy(node, 2)
        node.kill()
        node = Served(tmp_path / "home")
        assert [item["id"] for item in node.client.functions()] == [one, two]
        assert node.stop() == 0
    finally:
        if node.process.poll() is None:
            node.kill()


@pytest.mark.slow
def test_a_damaged_artifact_fails_its_function_alone(serve, tmp_path):
    node = serve()
    one, two = deploy(node, 1), deploy(node, 2)
    node.kill()
    digest = {item["id"]: item["digest"] for item in _listed(serve)}[one]
    path = tmp_path / "home" / "artifacts" / digest[:2] / digest
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])

    node = serve()
    assert [item["id"] for item in node.client.functions()] == [one, two]
    assert kind(result, node, one) == "store_error"
    assert kind(node.client.function, one) == "store_error"
    assert result(node, two) == [2]
    three = deploy(node, 1)  # the same bytes: the artifact is whole again
    assert result(node, three) == [1]
    assert result(node, one) == [1]
    assert node.stop() == 0


def _listed(serve):
    node = serve()
    found = list(node.client.functions())
    assert node.stop() == 0
    return found


@pytest.mark.slow
def test_a_damaged_page_stops_the_start_and_is_repaired(serve, tmp_path):
    home = tmp_path / "home"
    node = serve()
    functions = [deploy(node, value) for value in range(5)]
    assert node.stop() == 0
    with (home / "node.db").open("r+b") as file:
        file.write(os.urandom(_PAGE_BYTES))

    refused = run_cli("serve", "--listen", "127.0.0.1:0", "--home", home)
    assert refused.code == 1
    assert refused.err.startswith("error: store_error: ")
    assert "tensor-wasm doctor --repair" in refused.err
    looked = run_cli("doctor", "--json", "--home", home)
    assert looked.code == 1
    assert [finding["part"] for finding in looked.json["home"]["findings"]] == ["node.db"]
    mended = run_cli("doctor", "--repair", "--json", "--home", home, TENSOR_WASM_LISTEN_ADDR="127.0.0.1:0")
    assert mended.code == 0, mended.out
    tables = {table["name"]: table for table in mended.json["home"]["tables"]}
    assert tables["functions"] == {"name": "functions", "saved": 5, "lost": 0, "exact": True}

    node = serve()
    assert [item["id"] for item in node.client.functions()] == functions
    assert [result(node, function) for function in functions] == [[value] for value in range(5)]
    assert node.stop() == 0


@pytest.mark.slow
def test_a_served_home_is_looked_at_and_not_repaired(serve, tmp_path):
    node = serve()
    deploy(node, 1)
    looked = run_cli("doctor", "--home", tmp_path / "home", TENSOR_WASM_LISTEN_ADDR="127.0.0.1:0")
    assert looked.code == 0, looked.out
    assert "while a node runs on it" in looked.out
    refused = run_cli("doctor", "--repair", "--home", tmp_path / "home")
    assert refused.code == 1
    assert "another node uses" in refused.err
    assert node.stop() == 0


@pytest.mark.slow
def test_a_database_that_is_gone_does_not_cost_the_artifacts(serve, tmp_path):
    node = serve()
    deploy(node, 1)
    assert node.stop() == 0
    (tmp_path / "home" / "node.db").unlink()
    refused = run_cli("serve", "--listen", "127.0.0.1:0", "--home", tmp_path / "home")
    assert refused.code == 1
    assert "tensor-wasm restore" in refused.err
    assert len(list((tmp_path / "home" / "artifacts").glob("??/*"))) == 1


@pytest.mark.slow
def test_a_home_that_others_may_read_is_mended(serve, tmp_path):
    node = serve()
    one = deploy(node, 1)
    assert node.stop() == 0
    (tmp_path / "home" / "node.key").chmod(0o644)
    assert "chmod 600" in run_cli("serve", "--listen", "127.0.0.1:0", "--home", tmp_path / "home").err
    settings = {"TENSOR_WASM_HOME": str(tmp_path / "home"), "TENSOR_WASM_LISTEN_ADDR": "127.0.0.1:0"}
    assert run_cli("doctor", "--repair", **settings).code == 0
    node = serve()
    assert result(node, one) == [1]
    assert node.stop() == 0


@pytest.mark.slow
def test_a_home_is_backed_up_while_it_serves_and_put_back(serve, tmp_path):
    home, backup = tmp_path / "home", tmp_path / "backup"
    node = serve()
    one = deploy(node, 1)
    made = run_cli("backup", backup, "--json", TENSOR_WASM_HOME=str(home))
    assert made.code == 0, made.err
    assert made.json["missing"] == []
    two = deploy(node, 2)
    node.client.delete(one)
    refused = run_cli("restore", backup, "--force", "--home", home)
    assert (refused.code, "another node uses" in refused.err) == (1, True)
    assert node.stop() == 0
    assert "--force" in run_cli("restore", backup, "--home", home).err

    done = run_cli("restore", backup, "--force", "--home", home, "--json")
    assert done.code == 0, done.err
    node = serve()
    assert [item["id"] for item in node.client.functions()] == [one]
    assert result(node, one) == [1]
    assert kind(result, node, two) == "not_found"
    assert node.stop() == 0


@pytest.mark.slow
def test_every_backup_is_whole_while_clients_change_everything(tmp_path):
    seed = secrets.randbelow(1 << 31)
    print(f"seed {seed}")
    key = SigningKey.generate()
    settings = SETTINGS | {"TENSOR_WASM_KERNEL_PUBLISHERS": key.public.text}
    node = Served(tmp_path / "home", **settings)
    host, port = node.url.removeprefix("http://").split(":")
    changers = [Changer(place, (host, int(port)), Model(), Random(seed + place), key) for place in range(4)]
    try:
        for changer in changers:
            changer.start()
        for number in range(6):
            before = sum(changer.acknowledged for changer in changers)
            made = back_up(tmp_path / "home", tmp_path / f"backup-{number}")
            assert made.missing == ()
            restored = tmp_path / f"home-{number}"
            restore(made.directory, restored, replaces=False)
            assert examine(restored).findings == []
            until = time.monotonic() + _PATIENCE_S
            while sum(changer.acknowledged for changer in changers) == before and time.monotonic() < until:
                time.sleep(0.01)
    finally:
        for changer in changers:
            changer.stop()
            changer.join()
        node.kill()
    assert [finding for changer in changers for finding in changer.findings] == []
    last = Served(restored, **settings)
    assert last.stop() == 0, last.log
