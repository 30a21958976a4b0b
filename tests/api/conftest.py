"""Fixtures of the Python API's tests."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from zlib import crc32

import pytest

from api.kernels import publisher
from api.ways import WAYS, opened


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: Iterable[pytest.Item]) -> None:
    """Of the ways, a test's fast ones are one in this process and one over HTTP, one of them for event loops."""
    for item in items:
        if Path(__file__).parent in item.path.parents and "node" in getattr(item, "fixturenames", ()):
            place = WAYS.index(item.callspec.params["node"])
            if place in (0, 3) if crc32(item.originalname.encode()) % 2 else place in (1, 2):
                item.add_marker(pytest.mark.slow)


@pytest.fixture(params=WAYS)
def node(request, tmp_path, monkeypatch):
    """A node in each of the ways."""
    for name in list(os.environ):
        if name.startswith("TENSOR_WASM_"):
            monkeypatch.delenv(name)
    with opened(request.param, tmp_path, kernel_publishers=publisher()) as node:
        yield node
