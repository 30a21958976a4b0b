"""Writes ``docs/openapi.json``: ``python -m tensor_wasm.http.reference > docs/openapi.json``."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from tensor_wasm.config import load
from tensor_wasm.http.app import create_app
from tensor_wasm.http.openapi import describe
from tensor_wasm.node import Node
from tensor_wasm.telemetry import HttpMetrics


def reference() -> str:
    """The API's description as a node without tokens has it, as text."""
    with tempfile.TemporaryDirectory() as home:
        config = load({}, {"home": Path(home), "listen_addr": "127.0.0.1:0", "device": "cpu"}).config
        with Node(config) as node:
            document = describe(create_app(node, config, HttpMetrics()).table.operations)
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
