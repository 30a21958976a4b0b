"""The page on the Python API: its programs run, in the order in which they stand."""

import re
from pathlib import Path

import pytest

import tensor_wasm as tw
from tensor_wasm.config import load
from tensor_wasm.http import Server
from tensor_wasm.node import Node

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "python-api.md").read_text("utf-8")


@pytest.fixture
def served(tmp_path):
    """The URL of a node."""
    config = load({}, {"home": tmp_path / "node", "listen_addr": "127.0.0.1:0", "device": "cpu"}).config
    with Node(config) as node:
        server = Server(node, config)
        server.start_in_thread()
        try:
            yield "http://{}:{}".format(*server.address)
        finally:
            server.stop()


def test_every_program_runs(monkeypatch, capsys, served, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    page = PAGE.replace("http://127.0.0.1:8080", served)
    programs = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(programs) > 5
    names: dict[str, object] = {}
    for number, program in enumerate(programs):
        exec(compile(program, f"program {number} of python-api.md", "exec"), names)
    assert capsys.readouterr().out.count("vector_add") >= 4


def test_the_errors_are_the_tree_s():
    table = PAGE.partition("## Errors")[2]
    for name in re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE):
        assert issubclass(getattr(tw.errors, name), tw.errors.TensorWasmError)


@pytest.mark.parametrize("name", [n for n in tw.__all__ if n.islower() and not n.startswith("_")])
def test_public_functions_are_described(name):
    assert f"tw.{name}" in PAGE
