"""A host for the example guests written with Wasmtime's public API: what they ask for, without what answers it.

Launches are answered by a Python function, so a guest's own code is tested apart from compiler and gate.
"""

from collections.abc import Callable
from pathlib import Path

import wasmtime

from tensor_wasm import abi

EXAMPLES = Path(__file__).parents[2] / "examples"


class ReferenceHost:
    """One instance of a guest. ``kernel(memory, argv, grid, block)`` answers launches with a code."""

    def __init__(self, wasm: bytes, kernel: Callable[..., int], maximum_bytes: int = 1 << 30) -> None:
        self.ptx: list[tuple[bytes, bytes]] = []
        self.output = {1: b"", 2: b""}
        self.last_error = b""
        self.load_code = 0
        self._kernel = kernel
        config = wasmtime.Config()
        engine = wasmtime.Engine(config)
        self._store = wasmtime.Store(engine)
        self._store.set_limits(memory_size=maximum_bytes)
        module = wasmtime.Module(engine, wasm)
        linker = wasmtime.Linker(engine)
        for item in module.imports:
            linker.define_func(item.module, item.name, item.type, getattr(self, f"_{item.name}"))
        exports = linker.instantiate(self._store, module).exports(self._store)
        self.exports = exports
        self.memory = exports["memory"]
        self._engine = engine

    def call(self, name: str, *arguments: float) -> float:
        return self.exports[name](self._store, *arguments)

    def read(self, address: int, size: int) -> bytes:
        return bytes(self.memory.read(self._store, address, address + size))

    def write(self, address: int, data: bytes) -> None:
        self.memory.write(self._store, data, address)

    @property
    def pages(self) -> int:
        return self.memory.size(self._store)

    def _wasi_cuda_load_ptx(self, ptx, ptx_bytes, entry, entry_bytes):
        self.ptx.append((self.read(ptx, ptx_bytes), self.read(entry, entry_bytes)))
        return self.load_code

    def _wasi_cuda_launch(self, kernel, gx, gy, gz, bx, by, bz, shared, argv, argv_bytes):
        assert kernel == 0
        assert shared == 0
        return self._kernel(self, self.read(argv, argv_bytes), (gx, gy, gz), (bx, by, bz))

    def _wasi_cuda_last_error_copy(self, destination, size):
        self.write(destination, self.last_error[:size])
        return min(size, len(self.last_error))

    def _fd_write(self, file, vectors, count, written):
        total = b""
        for i in range(count):
            place = self.read(vectors + 8 * i, 8)
            total += self.read(int.from_bytes(place[:4], "little"), int.from_bytes(place[4:], "little"))
        self.output[file] += total
        self.write(written, len(total).to_bytes(4, "little"))
        return 0

    def _clock_time_get(self, clock, precision, out):
        assert clock == 1
        self.now_ns = getattr(self, "now_ns", 0) + 70
        self.write(out, self.now_ns.to_bytes(8, "little"))
        return 0


def argv_records(argv: bytes) -> list[tuple[int, bytes]]:
    """The (tag, value bytes) of packed arguments."""
    records = []
    while argv:
        size = abi.argv.VALUE_BYTES[abi.Tag(argv[0])]
        assert len(argv) > size
        records.append((argv[0], argv[1 : 1 + size]))
        argv = argv[1 + size :]
    return records
