"""Fixtures for the kernels of this folder."""

from __future__ import annotations

import pytest

from compiler.launch import Machine
from kernels.loading import kernel
from tensor_wasm.compiler import CompiledKernel
from tensor_wasm.runtime import Engine


@pytest.fixture(scope="session")
def machine(engine: Engine) -> Machine:
    """Launches compiled kernels."""
    return Machine(engine)


@pytest.fixture
def code(request: pytest.FixtureRequest) -> CompiledKernel:
    """The kernel that :func:`kernels.loading.variants` names."""
    return kernel(*request.param)


@pytest.fixture
def variant(request: pytest.FixtureRequest) -> str:
    """The word for what made ``code``, and how."""
    return request.node.callspec.params["code"][2]
