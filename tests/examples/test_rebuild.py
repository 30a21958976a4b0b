"""The committed guests and kernels are what their sources give, and what the sources give runs."""

import importlib.util
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tensor_wasm.config import load
from tensor_wasm.node import Node

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def builder():
    spec = importlib.util.spec_from_file_location("build_examples", ROOT / "examples" / "build.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def built(builder, tmp_path_factory):
    """A folder laid out as the repository, with everything built from source."""
    root = tmp_path_factory.mktemp("built")
    for target in builder.TARGETS:
        builder.build(target, root)
    return root


@pytest.fixture
def node(tmp_path):
    with Node(load({}, {"home": tmp_path, "device": "cpu"}).config) as node:
        yield node


def invoke(node, wasm: Path, export, args):
    function = node.functions.deploy(wasm.stem, wasm.read_bytes(), 7)
    return node.invocations.invoke(function.id, export, args, tenant=7)


def test_every_committed_file_is_what_its_source_gives(builder, built):
    products = [product for target in builder.TARGETS for product in target.products]
    assert len(products) >= 8
    assert [p for p in products if not builder.same(built / p, ROOT / p)] == []


def test_the_check_names_a_file_that_differs(builder, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(builder, "same", lambda made, committed: committed.name != "hello.wasm")
    assert builder.main(["--check", "hello"]) == 1
    assert "examples/hello/hello.wasm differs" in capsys.readouterr().out


def test_a_source_that_does_not_compile_is_told_with_its_place(builder, tmp_path):
    source = tmp_path / "wrong.c"
    source.write_text("int f(void) { return undeclared; }\n")
    with pytest.raises(builder.BuildError, match="undeclared"):
        builder.compile_guest(source, tmp_path / "wrong.wasm", [])
    with pytest.raises(builder.BuildError, match="undeclared"):
        builder.Nvrtc().compile('extern "C" __global__ void k() { undeclared = 1; }', "wrong.cu")


@pytest.mark.parametrize("n", [1, 1_000, 1_000_003])
def test_the_built_vector_add_adds_every_element(node, built, n):
    result = invoke(node, built / "examples/vector_add/vector_add.wasm", "run", [n])
    assert result.results == [n], result.stderr
    assert result.launches == 1


def test_the_built_vector_add_tells_why_it_cannot(node, built):
    result = invoke(node, built / "examples/vector_add/vector_add.wasm", "run", [300_000_000])
    assert result.results == [-1001]
    assert b"use a smaller n" in result.stderr


def test_the_built_saxpy_agrees_with_its_source(node, built):
    wasm = built / "examples/saxpy/saxpy.wasm"
    assert invoke(node, wasm, "run", [1_000, 2.0]).results == [1_000_000.0]
    assert invoke(node, wasm, "max_error", [500_001, 0.3]).results[0] < 1e-4
    assert math.isnan(invoke(node, wasm, "run", [0, 1.0]).results[0])


def test_the_built_hello_needs_no_kernel(node, built):
    wasm = built / "examples/hello/hello.wasm"
    started = invoke(node, wasm, None, [])
    assert started.stdout == b"Hello from WebAssembly.\n"
    assert invoke(node, wasm, "add", [2, 40]).results == [42]
    assert invoke(node, wasm, "fibonacci", [92]).results == [7540113804746346429]


def test_the_built_benchmark_guest_times_its_launches(node, built):
    wasm = built / "src/tensor_wasm/bench/guests/bench.wasm"
    assert invoke(node, wasm, "noop", []).results == [0]


def test_the_command_line_runs_what_was_built(built, tmp_path):
    command = [sys.executable, "-m", "tensor_wasm", "run", str(built / "examples/vector_add/vector_add.wasm")]
    done = subprocess.run(
        [*command, "--export", "run", "--args", "[1000000]", "--json"],
        env={**os.environ, "TENSOR_WASM_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "1000000" in done.stdout
