"""A node that compiles in other processes: deadlines, limits, and what it survives."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from device.texts import long_kernel, nonsense, vector_add
from tensor_wasm.abi import CUDA_MODULES, Code
from tensor_wasm.config import load
from tensor_wasm.errors import DeadlineExceeded, InvalidWasm, Terminated
from tensor_wasm.node import Node
from tensor_wasm.wasm import Module, ValType

I32, I64 = ValType.I32, ValType.I64
_PAGE_BYTES = 65_536


@contextmanager
def a_node(home: Path, **settings: object) -> Iterator[Node]:
    overrides = {"home": home, "instance_memory_bytes": 1 << 26, **settings}
    with Node(load({}, overrides).config) as node:
        yield node


def loader(ptx: bytes, entry: bytes = b"k") -> bytes:
    """A module whose ``run`` gives what loading that text gives."""
    module = Module()
    load_ptx = module.import_function(CUDA_MODULES[0], "wasi_cuda_load_ptx", [I32] * 4, [I64])
    module.export("memory", module.memory((len(ptx) + len(entry)) // _PAGE_BYTES + 1))
    module.data(ptx + entry, 0)
    body = module.function([], [I64], export="run").code
    for value in (0, len(ptx), len(ptx), len(entry)):
        body.i32_const(value)
    body.call(load_ptx)
    return module.encode().wasm


def test_a_guests_deadline_is_seen_while_its_kernel_is_compiled(tmp_path: Path) -> None:
    with a_node(tmp_path) as node:
        slow = node.functions.deploy("slow", loader(nonsense())).id
        quick = node.functions.deploy("quick", loader(vector_add(), b"vector_add")).id
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            node.invocations.invoke(slow, deadline_s=0.5)
        assert time.monotonic() - started < 2
        assert node.invocations.invoke(quick).results == [0]


def test_a_node_that_closes_ends_a_guest_whose_kernel_is_compiled(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as threads:
        with a_node(tmp_path) as node:
            slow = node.functions.deploy("slow", loader(nonsense())).id
            running = threads.submit(node.invocations.invoke, slow)
            while not node.statistics.active_count or not node.ledger.live:
                time.sleep(0.01)
            time.sleep(0.3)
            started = time.monotonic()
        assert time.monotonic() - started < 3, "closing waits for no compiler"
        assert isinstance(running.exception(), Terminated)


def test_a_kernel_over_the_time_limit_is_malformed_to_its_guest(tmp_path: Path) -> None:
    with a_node(tmp_path, compile_timeout_s=0.3) as node:
        function = node.functions.deploy("slow", loader(nonsense())).id
        assert node.invocations.invoke(function).results == [Code.MALFORMED_PTX]


def test_a_deploy_over_the_time_limit_is_invalid(tmp_path: Path) -> None:
    module = Module()
    function = module.function([I32], [I32], export="run")
    body, parameter = function.code, function.parameters[0]
    for number in range(150_000):
        body.get(parameter)
        body.i32_const(number)
        body.op("i32.mul")
        body.set(parameter)
    body.get(parameter)
    wasm = module.encode().wasm
    with a_node(tmp_path, compile_timeout_s=0.02) as node:
        with pytest.raises(InvalidWasm, match="takes too long to compile"):
            node.functions.deploy("large", wasm)
        node.functions.deploy("small", loader(vector_add(), b"vector_add"))


def test_a_restarted_node_compiles_nothing_anew(tmp_path: Path) -> None:
    with a_node(tmp_path) as node:
        function = node.functions.deploy("long", loader(long_kernel(3000))).id
        assert node.invocations.invoke(function).results == [0]
        assert node.invocations.invoke(function).results == [0]
        view = node.statistics.read()
        assert sum(view.kernel_compile.counts) == 1
        assert sum(view.kernel_load.counts) == 1, "the second time it was in memory"
        assert view.kernel_load.sum_s >= view.kernel_compile.sum_s
    with a_node(tmp_path) as node:
        assert node.invocations.invoke(function).results == [0]
        view = node.statistics.read()
        assert sum(view.kernel_compile.counts) == 0
        assert view.cache_hits == {"memory": 0, "disk": 1}
        assert sum(view.kernel_load.counts) == 1
