"""A node that serves HTTP at full load in this process while something else is measured."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tensor_wasm.bench.load import HttpLoad, spinning_thread
from tensor_wasm.bench.sandbox import guest_wasm
from tensor_wasm.config import Config, load
from tensor_wasm.http.server import Server
from tensor_wasm.node import Node

_CONNECTIONS = 16
_LONGEST_S = 600.0
#: Until the load has begun.
_SETTLE_S = 0.5


def bench_config(home: Path, **settings: object) -> Config:
    """Default settings but for ``settings``, on a free port, nothing of the environment."""
    # The report is the output: what the server has to say at its start is not.
    logging.getLogger("tensor_wasm").addHandler(logging.NullHandler())
    return load({}, {"home": home, "listen_addr": "127.0.0.1:0", **settings}).config


@contextmanager
def serving(home: Path, **settings: object) -> Iterator[tuple[Node, str]]:
    """A node with its HTTP server in a thread; gives the node and its base URL. ``settings`` by field name."""
    config = bench_config(home, **settings)
    with Node(config) as node:
        server = Server(node, config)
        server.start_in_thread()
        host, port = server.address
        try:
            yield node, f"http://{host}:{port}"
        finally:
            server.stop()


@contextmanager
def busy_node(home: Path) -> Iterator[None]:
    """HTTP load on a node in this process, and a Python thread that never rests."""
    with serving(home / "busy") as (node, url):
        function = node.functions.deploy("noop", guest_wasm("noop"))
        body = b'{"export":"noop","args":[]}'
        load = HttpLoad(f"{url}/functions/{function.id}/invoke", _CONNECTIONS, _LONGEST_S, body)
        process = load.start()
        try:
            with spinning_thread():
                time.sleep(_SETTLE_S)
                yield
        finally:
            process.kill()
            process.communicate()
