"""Fixtures for the kernels of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from compiler.launch import Machine
from kernels.cores import CoresMachine
from kernels.fenced import FencedMachine
from kernels.gpu import GpuMachine, gpu_name, open_gpu
from kernels.loading import kernel, third
from tensor_wasm.compiler import CompiledKernel
from tensor_wasm.runtime import Engine

_MACHINES = [1, 2, *(pytest.param(kind, marks=pytest.mark.slow) for kind in (3, "fenced"))]


@pytest.fixture(scope="session", params=["gpu"] if gpu_name() else _MACHINES, ids="on_{}".format)
def machine(request: pytest.FixtureRequest, engine: Engine) -> Iterator[Machine | CoresMachine | GpuMachine]:
    """Launches compiled kernels, on one core and on several: what they compute must be the same.

    Where ``TENSOR_WASM_TEST_GPU`` names a GPU, on that alone.
    """
    if request.param == "gpu":
        with open_gpu() as device:
            yield GpuMachine(device, engine)
        return
    if request.param == "fenced":
        yield FencedMachine(engine)
        return
    if request.param == 1:
        yield Machine(engine)
        return
    cores = CoresMachine(request.param)
    yield cores
    cores.close()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On two cores all code runs, but a third of the fast tests; on three and fenced, a kernel's first variant."""
    here = Path(__file__).parent
    kept, left = [], []
    for item in items:
        # pytest calls this with the items of all folders.
        parameters = item.callspec.params if here in item.path.parents and hasattr(item, "callspec") else {}
        cores = parameters.get("machine")
        if gpu_name():
            (kept if cores == "gpu" else left).append(item)
            continue
        is_first = "code" not in parameters or not parameters["code"][2]
        is_third = "code" not in parameters or third(*parameters["code"][:2]) == 0
        if cores == 2 and not (is_first and is_third):
            item.add_marker(pytest.mark.slow)
        is_left = cores in (3, "fenced") and not is_first
        # A fence does the same to every shape of a launch: some of them will do.
        is_left |= cores == "fenced" and crc32(item.nodeid.encode()) % 3 != 0
        (left if is_left else kept).append(item)
    config.hook.pytest_deselected(items=left)
    items[:] = kept


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where pytest-xdist has several processes test a GPU, one has all launches of a kernel, and assembles it once."""
    if not gpu_name():
        return None
    from xdist.scheduler import LoadScopeScheduling

    class ByFunction(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return nodeid.split("[", maxsplit=1)[0]

    return ByFunction(config, log)


@pytest.fixture
def code(request: pytest.FixtureRequest) -> CompiledKernel:
    """The kernel that :func:`kernels.loading.variants` names."""
    return kernel(*request.param)


@pytest.fixture
def variant(request: pytest.FixtureRequest) -> str:
    """The word for what made ``code``, and how."""
    return request.node.callspec.params["code"][2]
