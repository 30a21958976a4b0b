"""Fixtures for the kernels of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from compiler.launch import Machine
from kernels.cores import CoresMachine
from kernels.loading import kernel
from tensor_wasm.compiler import CompiledKernel
from tensor_wasm.runtime import Engine


@pytest.fixture(scope="session", params=[1, 2, pytest.param(3, marks=pytest.mark.slow)], ids="on_{}".format)
def machine(request: pytest.FixtureRequest, engine: Engine) -> Iterator[Machine | CoresMachine]:
    """Launches compiled kernels, on one core and on several: what they compute must be the same."""
    if request.param == 1:
        yield Machine(engine)
        return
    cores = CoresMachine(request.param)
    yield cores
    cores.close()


@pytest.fixture
def code(request: pytest.FixtureRequest) -> CompiledKernel:
    """The kernel that :func:`kernels.loading.variants` names."""
    return kernel(*request.param)


@pytest.fixture
def variant(request: pytest.FixtureRequest) -> str:
    """The word for what made ``code``, and how."""
    return request.node.callspec.params["code"][2]
