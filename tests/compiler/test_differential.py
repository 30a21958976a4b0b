"""Random kernels, compiled and interpreted: memory must be the same afterwards.

``FUZZ_KERNELS`` and ``FUZZ_SEED`` in the environment say how many the slow tests run, and from which seed on.
"""

from __future__ import annotations

import os
import random

import numpy as np
import pytest

from compiler.block_interpreter import Block
from compiler.cooperating import SHARED_BYTES, THREADS_MAX, CooperatingGenerator
from compiler.generator import DATA_BYTES, THREAD_BYTES, Generator
from compiler.interpreter import Thread
from compiler.launch import ARRAYS_AT, LaunchFault, Machine
from compiler.text import compiled, kernel_text
from tensor_wasm.compiler import compile_kernel
from tensor_wasm.ptx.program import Kernel

_SEED = 20_261_124
_KERNELS = int(os.environ.get("FUZZ_KERNELS", "400"))
_FIRST = int(os.environ.get("FUZZ_SEED", random.SystemRandom().randrange(1 << 32)))
_BATCHES = 20
_BOUNDARY_SIZES = (1, 31, 32, 32, 33, 63, 64, 64, 65)


def _arguments(source: random.Random, threads: int) -> tuple[np.ndarray, int, int, bytes]:
    """Memory of which each thread has its part, two numbers, and the block of parameters with all three."""
    memory = np.zeros((threads, THREAD_BYTES), np.uint8)
    memory[:, :DATA_BYTES] = np.frombuffer(source.randbytes(threads * DATA_BYTES), np.uint8).reshape(threads, -1)
    one, two = source.getrandbits(32), source.getrandbits(63)
    return memory, one, two, np.array([ARRAYS_AT, one, two], "<u8").tobytes()


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
    memory, one, two, parameters = _arguments(source, grid * block)
    expected = _expected(kernel, memory, parameters, grid, block)
    machine.run(compile_kernel(kernel, program), grid, block, memory, one, two)
    assert (memory.reshape(-1) == expected).all(), f"seed {seed}, size {size}"


def _shape(source: random.Random) -> tuple[int, int, int]:
    """The block's axes: one to three of them, with 1 to 70 threads in all."""
    kind = source.random()
    if kind < 0.3:
        return source.randint(1, 8), 1, 1
    if kind < 0.6:
        return source.choice(_BOUNDARY_SIZES), 1, 1
    x = source.randint(1, 70)
    y = source.randint(1, 70 // x)
    z = source.randint(1, 70 // (x * y)) if source.random() < 0.5 else 1
    axes = [x, y, z]
    source.shuffle(axes)
    return axes[0], axes[1], axes[2]


def _check_cooperating(machine: Machine, seed: int, size: int) -> None:
    source = random.Random(seed)
    shape = _shape(source)
    grid = source.choice((1, 1, 2))
    threads = shape[0] * shape[1] * shape[2]
    kernel, program = CooperatingGenerator(source, size, may_count=threads % 32 == 0).kernel()
    assert threads <= THREADS_MAX
    memory, one, two, parameters = _arguments(source, grid * threads)
    guest = bytearray(ARRAYS_AT) + bytearray(memory.tobytes())
    for ctaid in range(grid):
        special = {"ctaid.x": ctaid, "nctaid.x": grid}
        Block(kernel, guest, parameters, shape, special, SHARED_BYTES).run()
    expected = np.frombuffer(guest[ARRAYS_AT:], np.uint8)
    case = f"seed {seed}, size {size}, block {shape}, grid {grid}"
    try:
        machine.run(compile_kernel(kernel, program), grid, shape, memory, one, two)
    except LaunchFault as fault:
        pytest.fail(f"{case}: {fault}, stuck at {fault.stuck_line}")
    assert (memory.reshape(-1) == expected).all(), case


@pytest.mark.parametrize("size", [1, 5, 20, 60])
@pytest.mark.parametrize("number", range(20))
def test_random_kernels_do_what_the_interpreter_does(machine: Machine, number: int, size: int) -> None:
    _check(machine, _SEED + 1000 * size + number, size)


@pytest.mark.parametrize("size", [2, 8, 16])
@pytest.mark.parametrize("number", range(70))
def test_threads_that_wait_for_each_other_do_what_the_interpreter_does(
    machine: Machine, number: int, size: int
) -> None:
    _check_cooperating(machine, _SEED + 1000 * size + number, size)


@pytest.mark.parametrize("threads", [1, 33, 48, 63])
def test_a_barrier_with_a_count_counts_whole_warps(machine: Machine, threads: int) -> None:
    """PTX ISA, "bar": the arrival count is incremented by the warp size, however many threads of a warp there are."""
    kernel = compiled(kernel_text(f"bar.sync 1, {-(-threads // 32) * 32};\n    ret;"))
    machine.run(kernel, 1, threads, np.zeros(1, np.uint32))


def test_the_carry_flag_outlives_a_barrier(machine: Machine) -> None:
    body = """
    ld.param.u64 %rd1, [out];
    mov.u32 %r1, -1;
    mov.u32 %r2, 0;
    add.cc.u32 %r3, %r1, %r1;
    bar.sync 0;
    addc.u32 %r4, %r2, %r2;
    st.global.u32 [%rd1], %r4;
    ret;"""
    out = np.zeros(1, np.uint32)
    machine.run(compiled(kernel_text(body)), 1, 1, out)
    assert out[0] == 1


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(_BATCHES))
def test_many_more_random_kernels(machine: Machine, batch: int) -> None:
    for number in range(batch, _KERNELS, _BATCHES):
        _check(machine, _FIRST + number, 10 + number % 400)


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(_BATCHES))
def test_many_more_random_kernels_whose_threads_wait(machine: Machine, batch: int) -> None:
    for number in range(batch, _KERNELS, _BATCHES):
        _check_cooperating(machine, _FIRST + number, 1 + number % 40)
