"""One engine for all tests of this folder, and a random source whose seed a failing test prints."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from compiler.values.harness import Machine
from tensor_wasm.runtime import Engine


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    engine = Engine()
    yield Machine(engine)
    engine.close()


@pytest.fixture
def chance() -> random.Random:
    """Seeded from TEST_SEED if that is set."""
    seed = int(os.environ.get("TEST_SEED", "0")) or random.SystemRandom().getrandbits(32)
    print(f"TEST_SEED={seed}")
    return random.Random(seed)
