"""An engine on a driver without a GPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from device.cuda.boards import GRANULE_BYTES, Board
from device.cuda.emulated import EmulatedDriver


@pytest.fixture
def driver() -> Iterator[EmulatedDriver]:
    with EmulatedDriver(memory_bytes=16 << 20, granularity_bytes=GRANULE_BYTES) as driver:
        yield driver
        assert not driver.misuses


@pytest.fixture
def node(driver: EmulatedDriver) -> Iterator[Board]:
    opened = Board(driver).open()
    yield opened
    driver.let_go()
    opened.close()


@pytest.fixture
def two(node: Board) -> Board:
    """Tenants 1 and 2, who have lanes 1 and 2."""
    for tenant in (1, 2):
        node.open_tenant(tenant)
        node.engine.open_lane(tenant, tenant)
    return node
