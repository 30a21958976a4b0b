"""What tests of values share: a machine for single instructions, and a random source whose seed a failure prints."""

from __future__ import annotations

import os
import random

import pytest

from compiler.values.harness import Machine
from tensor_wasm.runtime import Engine


@pytest.fixture(scope="session")
def machine(engine: Engine) -> Machine:
    """Evaluates instructions."""
    return Machine(engine)


@pytest.fixture
def chance() -> random.Random:
    """Seeded from TEST_SEED if that is set."""
    seed = int(os.environ.get("TEST_SEED", "0")) or random.SystemRandom().getrandbits(32)
    print(f"TEST_SEED={seed}")
    return random.Random(seed)
