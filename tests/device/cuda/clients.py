"""A client's conversation with its worker: what the tests of both have one do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from device.ptx_texts import HEAD, INCREMENT
from tensor_wasm.device.cuda.gpu import Gpu, Lane
from tensor_wasm.device.fence import FencedKernel, Partition, fence
from tensor_wasm.errors import DeviceRestarting
from tensor_wasm.ptx import read

LIMIT_S = 120.0
STAGING_BYTES = 4 << 20
PARTITION_BYTES = 8 << 20
#: Where images are in a partition, and what kernels work on.
IMAGE, DATA = 1 << 20, 2 << 20

#: Writes 1 to its target, and has a trap in line 8 of the text.
TRAPPING = (
    HEAD
    + """.visible .entry trapping(.param .u64 target)
{
    .reg .b64 %rd<2>;
    ld.param.u64 %rd1, [target];
    trap;
    ret;
}
"""
)


def until(condition: Callable[[], Any]) -> None:
    """Wait for something to be so."""
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, "it did not come to be so"
        time.sleep(0.005)


def in_thread(call: Callable[[], Any]) -> Callable[[], BaseException | Any]:
    """Call something on a thread of its own: what gives its result or its error, once there is one."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def result() -> Any:
        thread.join(LIMIT_S)
        assert results, "a caller hangs"
        return results[0]

    return result


def fenced(partition: Partition, ptx: str = INCREMENT) -> FencedKernel:
    program = read(ptx)
    return fence(program, program.kernels[0].name, partition, partition.base + IMAGE)


def load(gpu: Gpu, tenant: int, partition: Partition, ptx: str = INCREMENT, *, generation: int | None = None) -> int:
    image = partition.base + IMAGE
    return gpu.load(tenant, fenced(partition, ptx), image, leaves_faults=True, generation=generation)[0]


def parameters(*values: int) -> bytes:
    return b"".join(value.to_bytes(8, "little") for value in values)


def increment(lane: Lane, kernel: int, address: int, count: int, deadline_ns: int | None = None) -> int:
    """Add 1 to words on the device."""
    block = min(count, 256)
    grid = -(-count // block), 1, 1
    return lane.launch(kernel, grid, (block, 1, 1), 0, parameters(address, address), (), deadline_ns)


def converse(gpu: Gpu, tenant: int) -> None:
    """All that a tenant can ask for, with its results looked at. Raises DeviceRestarting when the worker ends."""
    generation = gpu.generation
    partition = gpu.open_tenant(tenant, PARTITION_BYTES)
    if gpu.generation != generation:
        raise DeviceRestarting
    address = partition.base + DATA
    words = np.arange(100_000, dtype=np.uint32)
    gpu.copy_in(tenant, address, memoryview(words), generation=generation)
    kernel = load(gpu, tenant, partition, generation=generation)
    lane = gpu.open_lane(tenant, generation=generation)
    try:
        for _ in range(3):
            assert increment(lane, kernel, address, 1024) == 0
    finally:
        lane.close()
    gpu.unload(kernel, generation=generation)
    out = np.zeros_like(words)
    gpu.copy_out(tenant, address, memoryview(out), generation=generation)
    words[:1024] += 3
    assert (out == words).all()
    gpu.set_memory(tenant, address, 0, words.nbytes, generation=generation)
    gpu.copy_out(tenant, address, memoryview(out), generation=generation)
    assert not out.any()
    gpu.close_tenant(tenant, generation=generation)
