"""Fixtures of the Python API's tests."""

from __future__ import annotations

import os

import pytest

from api.kernels import publisher
from api.ways import WAYS, opened


@pytest.fixture(params=WAYS)
def node(request, tmp_path, monkeypatch):
    """A node in each of the ways."""
    for name in list(os.environ):
        if name.startswith("TENSOR_WASM_"):
            monkeypatch.delenv(name)
    with opened(request.param, tmp_path, kernel_publishers=publisher()) as node:
        yield node
