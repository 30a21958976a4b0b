"""Random kernels, compiled and interpreted: memory must be the same afterwards."""

from __future__ import annotations

import random

import numpy as np
import pytest

from compiler.generator import DATA_BYTES, THREAD_BYTES, Generator
from compiler.interpreter import Thread
from compiler.launch import ARRAYS_AT, Machine
from tensor_wasm.compiler import compile_kernel
from tensor_wasm.ptx.program import Kernel

_SEED = 20_261_124


def _expected(kernel: Kernel, memory: np.ndarray, parameters: bytes, grid: int, block: int) -> np.ndarray:
    guest = bytearray(ARRAYS_AT) + bytearray(memory.tobytes())
    for ctaid in range(grid):
        for tid in range(block):
            special = {"tid.x": tid, "ctaid.x": ctaid, "ntid.x": block, "nctaid.x": grid}
            Thread(kernel, guest, parameters, special).run()
    return np.frombuffer(guest[ARRAYS_AT:], dtype=np.uint8)


def _check(machine: Machine, seed: int, size: int) -> None:
    source = random.Random(seed)
    kernel, program = Generator(source, size).kernel()
    grid, block = source.randint(1, 3), source.randint(1, 4)
    threads = grid * block
    memory = np.zeros((threads, THREAD_BYTES), np.uint8)
    memory[:, :DATA_BYTES] = np.frombuffer(source.randbytes(threads * DATA_BYTES), np.uint8).reshape(threads, -1)
    one, two = source.getrandbits(32), source.getrandbits(63)
    parameters = np.array([ARRAYS_AT, one, two], "<u8").tobytes()
    expected = _expected(kernel, memory, parameters, grid, block)
    machine.run(compile_kernel(kernel, program), grid, block, memory, one, two)
    assert (memory.reshape(-1) == expected).all(), f"seed {seed}, size {size}"


@pytest.mark.parametrize("size", [1, 5, 20, 60])
@pytest.mark.parametrize("number", range(20))
def test_random_kernels_do_what_the_interpreter_does(machine: Machine, number: int, size: int) -> None:
    _check(machine, _SEED + 1000 * size + number, size)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(400))
def test_many_more_random_kernels(machine: Machine, number: int) -> None:
    _check(machine, random.randrange(1 << 32), 10 + number)
