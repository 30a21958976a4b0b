"""One opened device of each kind, for the tests that do not close theirs.

A test with the fixture ``dev`` runs on the CPU device and on a GPU, which is emulated: what a program does on the one
it does on the other. Tests of what only the one has are marked with ``only_on``, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import tensor_wasm as tw
from device.cuda.opening import open_emulated


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "only_on(kind): the kind of device, cpu or cuda, that has what the test is of")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what a kind of device does not have."""
    kept, left = [], []
    for item in items:
        marker = item.get_closest_marker("only_on")
        kind = item.callspec.params.get("dev") if hasattr(item, "callspec") else None
        (left if marker is not None and kind not in (None, marker.args[0]) else kept).append(item)
    config.hook.pytest_deselected(items=left)
    items[:] = kept


@pytest.fixture(scope="session", params=["cpu", "cuda"])
def dev(request: pytest.FixtureRequest) -> Iterator[tw.OpenDevice]:
    with tw.open_device("cpu") if request.param == "cpu" else open_emulated() as opened:
        yield opened
