"""The demo's own judgement; that it works is shown in ``tests/system``."""

from __future__ import annotations

import signal

import pytest

from tensor_wasm.cli import demo as module
from tensor_wasm.cli.failures import Failure
from tensor_wasm.wasm import Module, ValType


@pytest.fixture(autouse=True)
def _signals():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def _guest(answer: int) -> bytes:
    wasm = Module()
    wasm.function([ValType.I32], [ValType.I32], export="run").code.i32_const(answer)
    return wasm.encode().wasm


def test_a_wrong_sum_is_exit_code_1(cli, monkeypatch):
    monkeypatch.setattr(module, "guest", lambda: _guest(7))
    result = cli("demo", "--elements", "10")
    assert result.code == 1
    assert "7 of 10 sums are right" in result.out
    assert result.err == "error: wrong_result: 7 of 10 sums are right\n"


def test_a_wrong_sum_as_json_is_one_document(cli, monkeypatch):
    monkeypatch.setattr(module, "guest", lambda: _guest(-4))
    result = cli("demo", "--elements", "10", "--json")
    assert result.code == 1
    assert (result.json["ok"], result.json["right_sums"], result.json["dispatch_p95_us"]) == (False, -4, None)


def test_the_packaged_guest_goes_before_the_source_trees(monkeypatch, tmp_path):
    from_source = module.guest()
    assert from_source.startswith(b"\0asm")
    (tmp_path / "_examples").mkdir()
    (tmp_path / "_examples" / "vector_add.wasm").write_bytes(b"packaged")
    monkeypatch.setattr(module, "files", lambda _: tmp_path)
    assert module.guest() == b"packaged"


def test_a_missing_guest_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "files", lambda _: tmp_path)
    monkeypatch.setattr(module, "__file__", str(tmp_path / "a" / "b" / "c" / "demo.py"))
    with pytest.raises(Failure, match="install tensor-wasm again"):
        module.guest()


@pytest.mark.parametrize("elements", ["0", "-1", "80000001", "many"])
def test_a_number_of_elements_that_cannot_be_is_wrong_usage(cli, elements):
    assert cli("demo", "--elements", elements).code == 2
