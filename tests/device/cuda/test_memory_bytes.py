"""How much of a GPU's memory an opened device takes."""

from __future__ import annotations

import pytest

import tensor_wasm as tw
from device.cuda.emulated_worker import worker_command
from tensor_wasm.device.cuda.session import CudaSession


@pytest.mark.parametrize(
    ("asked", "taken"), [(None, 64 << 20), (8 << 20, 8 << 20), ((16 << 20) - 1, 8 << 20), (1 << 40, 64 << 20)]
)
def test_what_is_taken_is_a_power_of_two_of_at_most_that(asked: int | None, taken: int) -> None:
    session = CudaSession(0, memory_bytes=asked, command=worker_command(f"memory_bytes={128 << 20}"))
    with tw.OpenDevice(session), session.visit() as visit:
        assert session.tenant(visit).partition.size_bytes == taken


@pytest.mark.parametrize("size", [0, (4 << 20) - 1, 1e9, True])
def test_what_is_no_such_size_is_refused(size: object) -> None:
    with pytest.raises(tw.errors.ConfigurationError, match="memory_bytes must be at least 4,194,304"):
        tw.open_device("cuda:0", memory_bytes=size)  # type: ignore[arg-type]
