"""Fixtures shared by all tests."""

from __future__ import annotations

import gc
import logging
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import thinning
from tensor_wasm.runtime import Engine
from tensor_wasm.store import Database

# A shell starts what runs in the background with SIGINT ignored, and children inherit that: tests that send it need
# what a terminal would give.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave combinations of parameters that add nothing new to the slow tests."""
    thinning.mark_the_rest_slow(items, Path(__file__).parent)


def pytest_collection_finish() -> None:
    """Keep the collector of cycles from going through tens of thousands of tests again and again: half of all time."""
    gc.collect()
    gc.freeze()


_LOGGERS = ("tensor_wasm", "uvicorn", "asyncio")


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A running engine; stores are the tests' own."""
    engine = Engine()
    engine.start()
    yield engine
    engine.close()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """An empty database, closed at the end."""
    opened = Database(tmp_path / "node.db")
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Undo what a test's command did to the process's log."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)
