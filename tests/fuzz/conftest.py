"""Fixtures for random tests."""

from __future__ import annotations

import pytest

from compiler.launch import Machine
from tensor_wasm.runtime import Engine


@pytest.fixture(scope="session")
def machine(engine: Engine) -> Machine:
    """Launches compiled kernels."""
    return Machine(engine)
