"""Front-door tests: nodes to talk to and the guest they serve."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from system.front_door import Served, nodes
from system.guests import guest


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Start nodes on one home; what still runs at the end is killed."""
    with nodes(tmp_path / "home") as start:
        yield start


@pytest.fixture(scope="session")
def shared_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One node for all tests that leave it as it was; it must have served them all and still end in order."""
    served = Served(
        tmp_path_factory.mktemp("shared") / "home",
        TENSOR_WASM_MAX_BODY_BYTES="1MiB",
        TENSOR_WASM_INVOKE_DEADLINE_S="10",
    )
    yield served
    code = served.stop()
    assert code == 0, served.log
    assert "Traceback" not in served.log


@pytest.fixture(scope="session")
def guest_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("guest") / "guest.wasm"
    path.write_bytes(guest())
    return path


@pytest.fixture(scope="session")
def function_id(shared_node: Served, guest_file: Path) -> str:
    """The guest, deployed on the shared node."""
    return str(shared_node.client.deploy("guest", guest_file.read_bytes())["id"])
