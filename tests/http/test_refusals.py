"""What callers are told: errors meant for them in full; of the node's own only the kind, with the rest in the log."""

from __future__ import annotations

import logging

import pytest

from tensor_wasm.errors import GuestTrap, InternalError, NotFound, PtxError, RateLimited, StoreError
from tensor_wasm.http.refusals import GENERIC, told


@pytest.mark.parametrize("error", [NotFound("a"), GuestTrap("b"), RateLimited("c"), PtxError("d", 1, 2)])
def test_what_was_written_for_the_caller_is_told(error, caplog):
    assert told(error, "r") == error.message
    assert caplog.records == []


@pytest.mark.parametrize("error", [InternalError("secret"), StoreError("/path: secret")])
def test_what_is_the_nodes_own_is_in_the_log_only(error, caplog):
    with caplog.at_level(logging.ERROR, logger="tensor_wasm.http"):
        assert told(error, "r-1") == GENERIC
    (record,) = caplog.records
    assert record.request_id == "r-1"
    assert "secret" in record.getMessage()
