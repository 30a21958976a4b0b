"""An engine on a board, and the lanes' side of it, in one process."""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from device.ptx_texts import HEAD
from tensor_wasm.device.cuda import board
from tensor_wasm.device.cuda.board import Result
from tensor_wasm.device.cuda.driver import Driver
from tensor_wasm.device.cuda.engine import Engine
from tensor_wasm.device.fence import Partition, fence
from tensor_wasm.ptx import read

STAGING_BYTES = 1 << 20
LIMIT_S = 60
#: Of partitions, and where in them images are.
SIZE_BYTES = 1 << 19
IMAGE = 1 << 18
GRANULE_BYTES = 1 << 16

#: target[0] = value
STORE = (
    HEAD
    + """
.visible .entry store(.param .u64 target, .param .u64 value)
{
    .reg .b64 %rd<3>;
    ld.param.u64 %rd1, [target];
    ld.param.u64 %rd2, [value];
    st.global.u64 [%rd1], %rd2;
    ret;
}
"""
)
#: Uses dynamic shared memory beside 1 KiB of its own.
SHARED = (
    HEAD
    + """
.extern .shared .align 8 .b8 open[];
.visible .entry sharing(.param .u64 target, .param .u64 offset)
{
    .reg .b32 %r<4>;
    .reg .b64 %rd<4>;
    .shared .align 8 .b8 own[1024];
    ld.param.u64 %rd1, [target];
    ld.param.u32 %r1, [offset];
    mov.u32 %r2, open;
    add.u32 %r2, %r2, %r1;
    mov.u64 %rd2, 77;
    st.shared.u64 [%r2], %rd2;
    st.shared.u64 [own], %rd2;
    ld.shared.u64 %rd3, [%r2];
    st.global.u64 [%rd1], %rd3;
    ret;
}
"""
)
NOTHING = HEAD + ".visible .entry nothing() { ret; }\n"


class Board:
    """A board, and the engine that serves it once it is opened."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.memory = mmap.mmap(-1, board.BYTES + STAGING_BYTES)
        self.view = memoryview(self.memory)
        self.words = self.view[: board.BODIES].cast("I")
        self.times = self.view[: board.BODIES].cast("Q")
        self.staging = self.view[board.BYTES :]
        self.address = np.frombuffer(self.memory, np.uint8).ctypes.data
        self.on_wait: Callable[[], None] = lambda: None
        self.engine: Engine = None  # type: ignore[assignment]
        self.partitions: dict[int, Partition] = {}

    def open(self) -> Board:
        self.engine = Engine(self.driver, 0, self.view, self.address, self._wait)
        return self

    def _wait(self) -> None:
        self.on_wait()

    def close(self) -> None:
        self.engine.close()
        self.release()

    def release(self) -> None:
        """Give the memory back."""
        for view in (self.words, self.times, self.staging, self.view):
            view.release()  # fails where the engine still has one
        self.memory.close()

    # --- a tenant ---------------------------------------------------------------------------------------------

    def open_tenant(self, tenant: int, size_bytes: int = SIZE_BYTES) -> Partition:
        self.partitions[tenant] = Partition(self.engine.open_tenant(tenant, size_bytes), size_bytes)
        return self.partitions[tenant]

    def module(self, tenant: int, ptx: str, image: int = IMAGE) -> tuple[Any, ...]:
        """The arguments of :meth:`Engine.add_kernel`, but for the last."""
        partition = self.partitions[tenant]
        program = read(ptx)
        fenced = fence(program, program.kernels[0].name, partition, partition.base + image)
        module = self.engine.assemble(fenced.ptx.encode())
        return tenant, module, fenced.name, partition.base + image, fenced.image

    def kernel(self, tenant: int, ptx: str, *, leaves_faults: bool = False, image: int = IMAGE) -> int:
        return self.engine.add_kernel(*self.module(tenant, ptx, image), leaves_faults)[0]

    def write(self, tenant: int, address: int, data: bytes) -> None:
        self.staging[: len(data)] = data
        self.engine.copy_in(tenant, address, 0, len(data))

    def read(self, tenant: int, address: int, size_bytes: int) -> bytes:
        self.engine.copy_out(tenant, 0, address, size_bytes)
        return bytes(self.staging[:size_bytes])

    # --- a lane -----------------------------------------------------------------------------------------------

    def ask(
        self,
        lane: int,
        kernel: int,
        *parameters: int,
        grid: Sequence[int] = (1, 1, 1),
        block: Sequence[int] = (1, 1, 1),
        shared_bytes: int = 0,
        parameter_bytes: int | None = None,
        windows: Sequence[tuple[int, int, int, int]] = (),
        window_count: int | None = None,
        is_timed: bool = False,
    ) -> int:
        """Write a request; ``windows`` as address, staging, bytes, directions. Its number."""
        body = board.BODIES + lane * board.BODY_BYTES
        size = 8 * len(parameters) if parameter_bytes is None else parameter_bytes
        count = len(windows) if window_count is None else window_count
        struct.pack_into("<11I", self.view, body, kernel, *grid, *block, shared_bytes, size, count, is_timed)
        struct.pack_into(f"<{len(parameters)}Q", self.view, body + board.PARAMETERS, *parameters)
        for number, window in enumerate(windows):
            struct.pack_into("<QIIII", self.view, body + board.WINDOWS + number * board.WINDOW_BYTES, *window, 0)
        bell = lane * board.DOORBELL_BYTES // 4
        self.words[bell + board.RESULT // 4] = self.words[bell + board.FAULT_LINE // 4] = 0
        self.words[bell] = (self.words[bell] + 1) & 0xFFFF_FFFF
        return self.words[bell]

    def doorbell(self, lane: int, field: int) -> int:
        return self.words[(lane * board.DOORBELL_BYTES + field) // 4]

    def spent_ns(self, lane: int) -> tuple[int, int, int]:
        """How long the GPU took for a lane's latest request: its kernel, copies in, copies out."""
        start = lane * board.DOORBELL_BYTES
        kernel, copy_in, copy_out = (
            self.times[(start + place) // 8] for place in (board.KERNEL_NS, board.COPY_IN_NS, board.COPY_OUT_NS)
        )
        return kernel, copy_in, copy_out

    def is_done(self, lane: int) -> bool:
        return self.doorbell(lane, board.DONE) == self.doorbell(lane, board.REQUEST)

    def wait(self, lane: int) -> tuple[Result, int]:
        """Poll until a lane's request is over: its result and fault line."""
        self.until(lambda: self.is_done(lane))
        return Result(self.doorbell(lane, board.RESULT)), self.doorbell(lane, board.FAULT_LINE)

    def until(self, condition: Callable[[], bool]) -> None:
        """Do what a worker does until something is so."""
        end = time.monotonic() + LIMIT_S
        while not condition():
            self.engine.poll()
            self.engine.check()
            assert time.monotonic() < end, "it never came"

    def launch(self, lane: int, kernel: int, *parameters: int, **options: Any) -> tuple[Result, int]:
        self.ask(lane, kernel, *parameters, **options)
        return self.wait(lane)
