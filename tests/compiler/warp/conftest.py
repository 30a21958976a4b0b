"""What tests of warp operations share: a machine for resolvers, and a random source whose seed a failure prints."""

from __future__ import annotations

import os
import secrets

import numpy as np
import pytest

from compiler.warp.harness import Warps
from tensor_wasm.runtime import Engine


@pytest.fixture(scope="session")
def warps(engine: Engine) -> Warps:
    """Resolves warp operations."""
    return Warps(engine)


@pytest.fixture
def chance() -> np.random.Generator:
    """Seeded from TEST_SEED if that is set."""
    seed = int(os.environ.get("TEST_SEED", "0")) or secrets.randbits(32)
    print(f"TEST_SEED={seed}")
    return np.random.default_rng(seed)
