"""One opened CPU device for the tests that do not close theirs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import tensor_wasm as tw


@pytest.fixture(scope="session")
def dev() -> Iterator[tw.OpenDevice]:
    with tw.open_device("cpu") as opened:
        yield opened
