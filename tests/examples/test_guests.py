"""The committed guests do what their sources say, with launches answered by NumPy."""

import itertools
import math
import struct
from importlib import resources

import numpy as np
import pytest

from examples.reference import EXAMPLES, ReferenceHost, argv_records
from tensor_wasm.abi import Tag, pack
from tensor_wasm.wasm.inspector import inspect


def floats(host: ReferenceHost, window: bytes) -> np.ndarray:
    address, size = struct.unpack("<II", window)
    return np.frombuffer(host.read(address, size), "<f4")


def guest(name: str) -> bytes:
    return (EXAMPLES / name / f"{name}.wasm").read_bytes()


class VectorAdd:
    """Answers launches; keeps what was asked."""

    def __init__(self) -> None:
        self.launches: list[tuple] = []
        self.code = 0
        self.wrong: dict[int, float] = {}

    def __call__(self, host, argv, grid, block):
        self.launches.append((argv, grid, block))
        if self.code:
            return self.code
        (_, a), (_, b), (_, c), (_, n) = argv_records(argv)
        sums = floats(host, a) + floats(host, b)
        assert len(sums) == struct.unpack("<i", n)[0]
        for place, value in self.wrong.items():
            sums[place] = value
        host.write(struct.unpack("<II", c)[0], sums.astype("<f4").tobytes())
        return 0


@pytest.mark.parametrize("n", [1, 255, 256, 257, 100_000])
def test_vector_add_counts_the_right_sums(n):
    kernel = VectorAdd()
    host = ReferenceHost(guest("vector_add"), kernel)
    assert host.call("run", n) == n
    ((argv, grid, block),) = kernel.launches
    assert (grid, block) == ((math.ceil(n / 256), 1, 1), (256, 1, 1))
    assert [tag for tag, _ in argv_records(argv)] == [Tag.POINTER, Tag.POINTER, Tag.POINTER, Tag.I32]
    windows = [struct.unpack("<II", value) for tag, value in argv_records(argv) if tag == Tag.POINTER]
    assert argv == pack([*((Tag.POINTER, *window) for window in windows), (Tag.I32, n)])
    assert [size for _, size in windows] == [4 * n] * 3
    assert [second[0] - first[0] for first, second in itertools.pairwise(windows)] == [4 * n] * 2
    assert host.ptx == [((EXAMPLES / "vector_add" / "vector_add.ptx").read_bytes(), b"vector_add")]


def test_vector_add_does_not_count_wrong_sums():
    kernel = VectorAdd()
    kernel.wrong = {0: 1.0, 500: math.nan, 999: -1.0}
    assert ReferenceHost(guest("vector_add"), kernel).call("run", 1_000) == 997


def test_vector_add_does_not_take_results_of_the_call_before():
    host = ReferenceHost(guest("vector_add"), VectorAdd())
    assert host.call("run", 1_000) == 1_000
    host._kernel = lambda *_: 0  # says it ran, and did not
    assert host.call("run", 1_000) == 0


def test_vector_add_s_checksum_is_the_sum_of_both_vectors():
    n = 300_000
    i = np.arange(n)
    expected = float(((i & 0xFFFFF) + 3 * (i & 0x3FFFF)).sum())
    assert ReferenceHost(guest("vector_add"), VectorAdd()).call("checksum", n) == expected


@pytest.mark.parametrize("n", [0, -1, 300_000_001, 2**31 - 1])
def test_vector_add_refuses_other_counts(n):
    host = ReferenceHost(guest("vector_add"), VectorAdd())
    assert host.call("run", n) == -1000
    assert b"n must be from 1 to 300000000" in host.output[2]


def test_vector_add_says_when_memory_cannot_grow():
    host = ReferenceHost(guest("vector_add"), VectorAdd(), maximum_bytes=1 << 20)
    assert host.call("run", 80_000) == 80_000  # three times 320 KB fit
    assert host.call("run", 100_000) == -1001
    assert b"use a smaller n" in host.output[2]
    assert math.isnan(host.call("checksum", 100_000))


def test_vector_add_uses_the_same_memory_for_every_call():
    host = ReferenceHost(guest("vector_add"), VectorAdd())
    host.call("run", 50_000)
    pages = host.pages
    for _ in range(3):
        assert host.call("run", 50_000) == 50_000
    assert host.pages == pages


def test_vector_add_prints_the_last_error_of_a_refused_launch():
    kernel = VectorAdd()
    kernel.code = -12
    host = ReferenceHost(guest("vector_add"), kernel)
    host.last_error = "saturated: später".encode()
    assert host.call("run", 10) == -12
    assert host.output[2].decode() == "vector_add: launch gave code -12: saturated: später\n"


def test_vector_add_prints_the_last_error_of_refused_ptx():
    host = ReferenceHost(guest("vector_add"), VectorAdd())
    host.load_code = -4
    host.last_error = b"3:5: unknown opcode"
    assert host.call("run", 10) == -4
    assert host.output[2] == b"vector_add: load gave code -4: 3:5: unknown opcode\n"


def saxpy(host, argv, grid, block):
    (n_tag, n), (a_tag, a), (_, x), (_, y) = argv_records(argv)
    assert (n_tag, a_tag) == (Tag.I32, Tag.F32)
    assert block == (128, 1, 1)
    assert grid[0] == min(1024, math.ceil(struct.unpack("<i", n)[0] / 128))
    result = np.float32(struct.unpack("<f", a)[0]) * floats(host, x) + floats(host, y)
    host.write(struct.unpack("<II", y)[0], result.astype("<f4").tobytes())
    return 0


def test_saxpy_gives_the_sum_its_source_promises():
    assert ReferenceHost(guest("saxpy"), saxpy).call("run", 1_000, 2.0) == 1_000_000


@pytest.mark.parametrize(("n", "a"), [(1, 5.0), (127, -1.5), (200_000, 0.25)])
def test_saxpy_agrees_with_double_precision(n, a):
    host = ReferenceHost(guest("saxpy"), saxpy)
    assert host.call("max_error", n, a) == 0
    assert host.call("run", n, a) == sum(a * (i % 1_000) + 1 for i in range(n))


def test_saxpy_s_max_error_sees_an_error():
    def wrong(host, argv, grid, block):
        return 0

    assert ReferenceHost(guest("saxpy"), wrong).call("max_error", 10, 2.0) == 18


@pytest.mark.parametrize("n", [0, -5, 500_000_001])
def test_saxpy_refuses_other_counts(n):
    host = ReferenceHost(guest("saxpy"), saxpy)
    assert math.isnan(host.call("run", n, 1.0))
    assert b"n must be from 1 to 500000000" in host.output[2]


def test_saxpy_prints_why_a_launch_was_refused():
    host = ReferenceHost(guest("saxpy"), lambda *_: -8)
    host.last_error = b"invalid dimensions"
    assert math.isnan(host.call("run", 5, 1.0))
    assert host.output[2] == b"saxpy: the launch was refused: invalid dimensions\n"


def test_hello_greets_and_computes_without_a_kernel():
    host = ReferenceHost(guest("hello"), lambda *_: 0)
    host.call("_start")
    assert host.output == {1: b"Hello from WebAssembly.\n", 2: b""}
    assert host.call("add", 2, 40) == 42
    assert host.call("add", 2**31 - 1, 1) == -(2**31)
    assert [host.call("fibonacci", n) for n in (0, 1, 2, 10, 92)] == [0, 1, 1, 55, 7540113804746346429]
    assert [host.call("fibonacci", n) for n in (-1, 93)] == [-1, -1]
    assert host.output[2] == b"fibonacci: n must be from 0 to 92\n" * 2


@pytest.mark.parametrize("name", ["hello", "vector_add", "saxpy"])
def test_a_fresh_instance_is_small(name):
    info = inspect(guest(name))
    assert info.exports_memory
    assert info.memory is not None
    assert info.memory.minimum_pages <= 3
    assert len(guest(name)) < 8_000


# --- the benchmarks' guests -----------------------------------------------------------------------------------


def bench_guest(name: str) -> bytes:
    return resources.files("tensor_wasm.bench").joinpath(f"guests/{name}.wasm").read_bytes()


def test_the_benchmark_guest_launches_what_was_chosen():
    kernel = VectorAdd()
    host = ReferenceHost(bench_guest("bench"), kernel)
    assert host.call("prepare", 1) == 0
    assert host.call("right_elements") == 0
    assert host.call("launch_loop", 3) == 0
    assert host.call("right_elements") == 1024
    assert [launch[1:] for launch in kernel.launches] == [((4, 1, 1), (256, 1, 1))] * 3
    assert host.ptx[-1][1] == b"vector_add"


def test_the_benchmark_guest_s_empty_kernel_has_no_arguments():
    asked = []
    host = ReferenceHost(bench_guest("bench"), lambda _host, *launch: asked.append(launch) or 0)
    assert host.call("prepare", 0) == 0
    assert host.call("launch_loop", 2) == 0
    assert asked == [(b"", (1, 1, 1), (1, 1, 1))] * 2
    assert b".entry empty" in host.ptx[0][0]


@pytest.mark.parametrize("loop", ["time_loop", "clock_loop"])
def test_the_benchmark_guest_keeps_a_sample_a_launch(loop):
    host = ReferenceHost(bench_guest("bench"), lambda *_: 0)
    host.call("prepare", 0)
    assert host.call(loop, 20_000) == 0
    assert host.call("samples_len") == 20_000
    start = host.call("samples_ptr")
    assert set(np.frombuffer(host.read(start, 8 * 20_000), "<u8")) == {70}
    assert host.call("sample", 19_999) == 70
    assert host.call("sample", 20_000) == -1


def test_the_benchmark_guest_stops_at_the_first_code():
    codes = [0, 0, -12]
    host = ReferenceHost(bench_guest("bench"), lambda *_: codes.pop(0))
    host.call("prepare", 0)
    assert host.call("time_loop", 10) == -12
    assert host.call("samples_len") == 2


def test_the_benchmark_guest_refuses_what_it_cannot_do():
    host = ReferenceHost(bench_guest("bench"), lambda *_: 0, maximum_bytes=1 << 20)
    assert host.call("prepare", 2) == -1000
    assert host.call("time_loop", -1) == -1000
    assert host.call("time_loop", 1_000_000) == -1001
    host.load_code = -1
    assert host.call("prepare", 0) == -1


def test_the_smallest_guest_imports_nothing():
    info = inspect(bench_guest("noop"))
    assert info.imports == ()
    assert ReferenceHost(bench_guest("noop"), lambda *_: 0).call("noop") == 0
