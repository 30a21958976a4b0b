"""Functions that stay functions, against NumPy and plain Python; what kernels print and assert."""

from __future__ import annotations

import numpy as np
import pytest

import tensor_wasm
from compiler.launch import LaunchFault, Machine
from kernels.build import VARIANTS
from kernels.cores import CoresMachine
from kernels.gpu import GpuMachine
from kernels.loading import generator, normal, refused, variants
from kernels.products import FOLDER, Product
from tensor_wasm.compiler import CompiledKernel, Fault
from tensor_wasm.errors import KernelFault, PtxError

WORDS = VARIANTS["calls"]


@variants("calls", "powers")
@pytest.mark.parametrize(("size", "block"), [(1, 1), (100, 33), (1000, 256)])
def test_a_function_with_structs_is_called_from_several_places(
    machine: Machine, code: CompiledKernel, size: int, block: int
) -> None:
    re, im = normal(2, size)
    exponents = generator(size).integers(0, 12, size).astype(np.int32)
    out = np.zeros((size, 2), np.float32)
    machine.run(code, -(-size // block), block, re.copy(), im.copy(), exponents, out, size)
    expected = (re + 1j * im).astype(np.complex128) ** exponents
    np.testing.assert_allclose(out[:, 0] + 1j * out[:, 1], expected, rtol=1e-4)


def _wide(index: int) -> float:
    weights, count, tag, shift = [1.0, 2.0, 3.0, 4.0], index, index & 0xFF, 3 * index
    for turn in range(index % 5):
        place, by = index + turn, turn - 2
        weights[place & 3] += by
        count, tag, shift = count + place, tag ^ by & 0xFF, shift - by
    return count + 1000.0 * tag + 0.5 * shift + sum(weights[: count % 4 + 1])


@variants("calls", "wides")
def test_parts_of_structs_of_every_size_arrive(machine: Machine, code: CompiledKernel) -> None:
    out = np.zeros(1000)
    machine.run(code, 4, 256, out, 1000)
    assert out.tolist() == [_wide(index) for index in range(1000)]


@variants("calls", "operate")
def test_a_table_of_functions_is_called_through(machine: Machine, code: CompiledKernel) -> None:
    which = generator(1).integers(0, 3, 500).astype(np.int32)
    values = generator(2).integers(-99, 99, 500).astype(np.int32)
    expected = np.choose(which, [values + 1, 2 * values, -values])
    machine.run(code, 2, 256, which, values, 500)
    assert (values == expected).all()


@variants("calls", "operate_twice")
def test_a_chosen_function_is_called_through(machine: Machine, code: CompiledKernel) -> None:
    values = np.arange(100, dtype=np.int32)
    machine.run(code, 1, 128, values, 100)
    assert values.tolist() == [(2 * i if i % 3 else -i) + 1 for i in range(100)]


@variants("calls", "areas")
def test_virtual_functions_are_called(machine: Machine, code: CompiledKernel) -> None:
    out = np.zeros(64, np.float32)
    machine.run(code, 1, 64, out, 64)
    assert out.tolist() == [i * i if i % 2 else 3 * (i * i - 1) for i in range(64)]


@variants("calls", "spread")
@pytest.mark.parametrize("twice", [0, 1])
@pytest.mark.parametrize("block", [32, 96, 1024])
def test_threads_wait_for_each_other_in_functions(
    machine: Machine, code: CompiledKernel, twice: int, block: int
) -> None:
    values = generator(block).integers(-50, 50, (3, block)).astype(np.int32)
    out = np.zeros_like(values)
    machine.run(code, 3, block, values, out, twice)
    sums = values.sum(axis=1, keepdims=True) + twice * (values * np.arange(block)).sum(axis=1, keepdims=True)
    assert (out == sums - values).all()


@variants("calls", "survivors")
def test_exit_in_a_function_ends_the_thread(machine: Machine, code: CompiledKernel) -> None:
    out = np.full(64, -1, np.int32)
    machine.run(code, 1, 64, out, 20)
    assert out.tolist() == [i + 20 if i <= 20 else -1 for i in range(64)]


@variants("calls", "insist")
def test_a_failed_assertion_has_a_fault_of_its_own(
    machine: Machine | CoresMachine | GpuMachine, code: CompiledKernel
) -> None:
    values = np.arange(64, dtype=np.int32)
    machine.run(code, 2, 32, values, 64)
    if isinstance(machine, CoresMachine | GpuMachine):
        with pytest.raises(KernelFault, match=r"assertion .* failed .* block \(1, 0, 0\), thread \(8, 0, 0\)"):
            machine.run(code, 2, 32, values, 40)
        return
    with pytest.raises(LaunchFault) as caught:
        machine.run(code, 2, 32, values, 40)
    assert (caught.value.fault, caught.value.block, caught.value.thread) == (Fault.ASSERTION, (1, 0, 0), 8)


@pytest.mark.parametrize("variant", WORDS)
def test_recursion_is_refused_by_name_and_line(variant: str) -> None:
    (lack, *others) = refused("calls", "recursive", variant)
    assert not others
    assert "_Z9fibonaccii calls itself, at line" in lack.reason
    line = int(lack.reason.split("at line ")[1].split(":")[0])
    lines = _text(variant).splitlines()
    assert lines[line - 1].strip().startswith("call")
    assert lines[line].strip() == "_Z9fibonaccii,"


@pytest.mark.parametrize("variant", WORDS)
def test_memory_from_kernels_is_refused_by_name(variant: str) -> None:
    (lack,) = refused("calls", "allocate", variant)
    assert lack.reason.startswith("malloc: memory that kernels allocate")


# --- what is printed ---------------------------------------------------------------------------------------


def _text(variant: str) -> str:
    return Product("calls", variant).path.read_text("utf-8")


@pytest.fixture(scope="module")
def device() -> tensor_wasm.OpenDevice:
    return tensor_wasm.open_device("cpu")


@pytest.mark.parametrize("variant", WORDS)
def test_printf_is_written_to_stderr_after_the_launch(
    device: tensor_wasm.OpenDevice, capsys: pytest.CaptureFixture[str], variant: str
) -> None:
    kernel = device.load_ptx(_text(variant), "tell")
    numbers = np.array([1.5, -2.25, 1e6, 0.0])
    kernel.launch(2, 2, [numbers, np.int32(4)])
    # Each thread's lines in their order; those of several threads as it comes.
    assert sorted(capsys.readouterr().err.splitlines()) == [
        "0| 1.50|even  |123456789abc|a|%",
        "1|-2.25|odd   |123456789abd|b|%",
        "2|1000000.00|even  |123456789abe|c|%",
        "3| 0.00|odd   |123456789abf|d|%",
        "below 7",
        "nothing else,    0",
    ]
    kernel.launch(1, 1, [-numbers, np.int32(1)])
    assert capsys.readouterr().err == "0|-1.50|even  |123456789abc|a|%\n"


@pytest.mark.parametrize("variant", WORDS)
def test_what_finds_no_room_is_dropped_and_counted(
    device: tensor_wasm.OpenDevice, capsys: pytest.CaptureFixture[str], variant: str
) -> None:
    kernel = device.load_ptx(_text(variant), "tell_often")
    kernel.launch(1, 2, [np.int32(20_000)])
    *lines, last = capsys.readouterr().err.splitlines()
    room = (256 * 1024 - 16 - 128) // 12  # each record is a number and two values
    assert len(lines) == len(set(lines)) == room
    for thread in range(2):
        own = [line for line in lines if line.endswith(f"thread {thread}")]
        assert own == [f"round {number} of thread {thread}" for number in range(len(own))]
    assert last == f"[kernel tell_often: {40_000 - room} records that it printed were dropped: there was no room]"
    kernel.launch(1, 1, [np.int32(1)])
    assert capsys.readouterr().err == "round 0 of thread 0\n"


@pytest.mark.parametrize("variant", WORDS)
def test_a_failed_assertion_is_named_in_the_fault_and_on_stderr(
    device: tensor_wasm.OpenDevice, capsys: pytest.CaptureFixture[str], variant: str
) -> None:
    kernel = device.load_ptx(_text(variant), "insist")
    values = np.arange(64, dtype=np.int32)
    with pytest.raises(KernelFault) as caught:
        kernel.launch((2, 1), (32, 2), [values, np.int32(40)])
    line = _source_line("assert(values[i] < n);")
    assert f"assertion `values[i] < n` failed at calls.cu:{line}; block (1, 0, 0), thread (8, 0, 0)" in str(
        caught.value
    )
    expected = f"calls.cu:{line}: insist: block: [1,0,0], thread: [8,0,0] Assertion `values[i] < n` failed.\n"
    assert capsys.readouterr().err == expected


def _source_line(text: str) -> int:
    lines = (FOLDER / "calls.cu").read_text("utf-8").splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.strip() == text)


def test_a_kernel_that_cannot_be_inlined_says_why(device: tensor_wasm.OpenDevice) -> None:
    with pytest.raises(PtxError, match=r"call\.uni: the function _Z9fibonaccii calls itself, at line \d+"):
        device.load_ptx(_text(""), "recursive")
