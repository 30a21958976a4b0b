from __future__ import annotations

from contextlib import ExitStack

import pytest

from fake_node import FakeNode
from serving import running


@pytest.fixture
def serve(tmp_path):
    """A function that starts a server with these settings; all end with the test."""
    with ExitStack() as stack:
        yield lambda **overrides: stack.enter_context(running(tmp_path, **overrides))


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One server for tests that leave nothing behind."""
    with running(tmp_path_factory.mktemp("home"), max_body_bytes=4096) as server:
        yield server


@pytest.fixture
def server(shared):
    """The shared server, its node as new."""
    fresh = FakeNode(shared.node.config)
    vars(shared.node).clear()
    vars(shared.node).update(vars(fresh))
    return shared
