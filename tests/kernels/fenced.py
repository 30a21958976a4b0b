"""Runs kernels that are fenced into a partition, between canaries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compiler.launch import ARRAYS_AT, Machine, Prepared
from kernels.loading import origin, program
from tensor_wasm.compiler import CompiledKernel, compile_kernel
from tensor_wasm.device.fence import GUARD_BYTES, Partition, fence, lay_out
from tensor_wasm.device.fence.written import written
from tensor_wasm.errors import PtxError
from tensor_wasm.ptx import Kernel, Program, find_kernel, read
from tensor_wasm.runtime import Engine

CANARY = 0x5C
_PAGE = 65_536
#: The least address of a partition: a guard zone is before it.
_BASE_LEAST = 1 << 20


class FencedMachine(Machine):
    """A machine on which each kernel goes through the fence and through PTX text first.

    Arrays lie in the partition; all else of guest memory is canaries, and they must all be alive afterwards.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        #: With the program, so that no other gets its id.
        self._fenced: dict[tuple[int, str, int, bool], tuple[Program, CompiledKernel, bytes]] = {}
        self.fault = 0
        self._partition = Partition(_BASE_LEAST, _BASE_LEAST)
        self._image = b""
        self._start = 0

    def run(self, kernel: CompiledKernel, *arguments: Any, **options: Any) -> Prepared:
        """As :meth:`Machine.run`."""
        source, entry, variant = origin(kernel)
        whole = program(source, variant)
        return self.run_entry(whole, entry or whole.kernels[0].name, *arguments, **options)

    def run_entry(
        self, whole: Program, entry: str, *arguments: Any, is_checked: bool = False, **options: Any
    ) -> Prepared:
        """Fence and launch a kernel of a program. :attr:`fault` is then the line that it left."""
        image = lay_out(whole)
        needed = (
            image.size_bytes + image.alignment + sum(a.nbytes + 256 for a in arguments if isinstance(a, np.ndarray))
        )
        size = 1 << max(needed - 1, 4096).bit_length()
        base = max(size, _BASE_LEAST)
        self._partition = Partition(base, size)
        key = id(whole), entry, size, is_checked
        if key not in self._fenced:
            try:
                fenced = fence(whole, entry, self._partition, base, is_checked=is_checked)
            except PtxError as error:
                if "prints" in error.text:
                    pytest.skip(error.text)
                raise
            again = read(fenced.ptx)
            self._fenced[key] = whole, compile_kernel(again.kernels[0], again), fenced.image
        _, compiled, self._image = self._fenced[key]
        self._start = base + -(-image.size_bytes // 256) * 256 - ARRAYS_AT
        options["guest_pages"] = -(-(base + size + GUARD_BYTES) // _PAGE)
        prepared = self.prepare(compiled, *arguments, **options)
        try:
            prepared.call()
            self._check_unwritten(find_kernel(whole, entry), prepared, arguments[2:])
            prepared.copy_back()
        finally:
            memory = np.frombuffer(prepared.memory("memory"), np.uint8)
            self.fault = int.from_bytes(memory[base : base + 4].tobytes(), "little")
            assert (memory[:base] == CANARY).all(), "written below the partition"
            assert (memory[base + size :] == CANARY).all(), "written past the partition"
            del memory
            prepared.store.close()
        return prepared

    def _check_unwritten(self, kernel: Kernel, prepared: Prepared, arguments: tuple[Any, ...]) -> None:
        """Arrays that the kernel cannot have written, as is said of it, are what they were."""
        words, memory = written(kernel), prepared.memory("memory")
        placed = iter(prepared.placed)
        for parameter, argument in zip(kernel.parameters, arguments, strict=True):
            if not isinstance(argument, np.ndarray):
                continue
            array, address = next(placed)
            if not words >> parameter.offset // 8 & 1:
                found = memory[address : address + array.nbytes]
                assert found == np.ascontiguousarray(array).tobytes(), f"{parameter.name} was written"

    @property
    def partition(self) -> Partition:
        """That of the last launch."""
        return self._partition

    def place(self, kernel: CompiledKernel, arguments: tuple[Any, ...]) -> tuple[list[tuple[np.ndarray, int]], int]:
        """Arrays after the image."""
        placed, end = super().place(kernel, arguments)
        return [(array, address + self._start) for array, address in placed], end + self._start

    def fill(self, kernel: CompiledKernel, memory: memoryview) -> None:
        """Canaries around the partition, and the image."""
        del kernel
        base, end = self._partition.base, self._partition.base + self._partition.size_bytes
        memory[:base] = bytes([CANARY]) * base
        memory[end:] = bytes([CANARY]) * (len(memory) - end)
        memory[base : base + len(self._image)] = self._image
