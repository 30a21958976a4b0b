"""Fixtures shared by all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tensor_wasm.runtime import Engine


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A running engine; stores are the tests' own."""
    engine = Engine()
    engine.start()
    yield engine
    engine.close()
