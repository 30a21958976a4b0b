"""A node on a temporary home."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tensor_wasm.config import load
from tensor_wasm.node import Node


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A node with small limits: 64 MiB an instance, 5 s an invocation."""
    overrides = {"home": tmp_path, "instance_memory_bytes": 1 << 26, "invoke_deadline_s": 5.0, "output_bytes": 1000}
    with Node(load({}, overrides).config) as node:
        yield node
