"""What the tests of what is deployed share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.expressions import Series, series_of
from system.front_door import VECTOR_ADD, Served


@pytest.fixture(scope="session")
def node_series(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Series]]:
    """The series of a node that has just started and was called once."""
    served = Served(tmp_path_factory.mktemp("node") / "home")
    try:
        function_id = served.client.deploy("vector_add", VECTOR_ADD.read_bytes())["id"]
        served.client.invoke(function_id, {"args": [64]}, None)
        yield series_of(served.cli("metrics").out)
    finally:
        served.kill()
