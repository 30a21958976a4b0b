"""Machine code by NVIDIA's library nvJitLink, which needs no GPU: what is made, what is refused, and who waits."""

from __future__ import annotations

import ctypes
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from device.cuda.boards import GRANULE_BYTES, IMAGE, STORE, Board
from device.cuda.emulated import EmulatedDriver
from device.ptx_texts import HEAD
from kernels.build import VARIANTS
from kernels.loading import program
from tensor_wasm.device.compilers import Compilers
from tensor_wasm.device.cuda import fencing, nvjitlink
from tensor_wasm.device.cuda.assembler import AssembledKernel, Assembler
from tensor_wasm.device.cuda.board import Result
from tensor_wasm.device.cuda.device import CudaDevice
from tensor_wasm.device.cuda.driver import DriverError, GpuFacts
from tensor_wasm.device.cuda.fencing import Order, read_here, reader_of
from tensor_wasm.device.cuda.nvjitlink import LIBRARIES, NvJitLink, find_library
from tensor_wasm.device.fence import FencedKernel, Partition, fence
from tensor_wasm.errors import DeadlineExceeded, InternalError, PtxError
from tensor_wasm.ptx import read, support
from tensor_wasm.ptx.program import Emit

VECTOR_ADD = (Path(__file__).parents[2] / "corpus" / "vector_add.ptx").read_bytes()
PARTITION = Partition(1 << 40, 1 << 24)
BASE = PARTITION.base + 4096
ASSEMBLER = Assembler(max(LIBRARIES), "sm_90")
IS_ELF = b"\x7fELF"
NO_TEXT = FencedKernel(HEAD + ".visible .entry k()\n{\n frob;\n}\n", "k", bytes(16))


def many_registers(rounds: int = 4, count: int = 120, bounds: str = "") -> bytes:
    """A kernel that has so many values at the same time."""
    loads = "".join(f"    ld.global.f32 %f{n}, [%rd1+{4 * n}];\n" for n in range(count))
    use = "    fma.rn.f32 %f{0}, %f{0}, %f{1}, %f{2};\n"
    uses = "".join(use.format(n, (n + 7) % count, (n + 31) % count) for n in range(count)) * rounds
    stores = "".join(f"    st.global.f32 [%rd1+{4 * n}], %f{n};\n" for n in range(count))
    head = f".visible .entry many(.param .u64 p)\n{bounds}{{\n    .reg .f32 %f<{count}>;\n    .reg .b64 %rd<2>;\n"
    return (HEAD + head + "    ld.param.u64 %rd1, [p];\n" + loads + uses + stores + "    ret;\n}\n").encode()


def made(kernel: Any, **options: Any) -> AssembledKernel:
    found = kernel.fence(PARTITION, BASE, "sm_90", is_checked=False, assembler=ASSEMBLER, **options)
    assert isinstance(found, AssembledKernel)
    return found


@pytest.fixture(scope="module")
def compilers() -> Iterator[Compilers]:
    pool = Compilers(1, 120.0)
    yield pool
    pool.close()


# --- the library --------------------------------------------------------------------------------------------------


def test_the_newest_library_that_the_driver_may_have_and_that_knows_the_gpu_is_found() -> None:
    newest = max(LIBRARIES)
    assert find_library("sm_90", newest) == newest
    assert find_library("sm_90", newest + 5) == newest
    assert find_library("sm_91", newest) == 0
    assert find_library("sm_90", min(LIBRARIES) - 1) == 0


def test_without_the_library_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path), "relative"])
    monkeypatch.setattr(nvjitlink, "_FILE", "libnothing.so.{}")
    assert find_library("sm_90", 13) == 0
    with pytest.raises(InternalError, match="not there"):
        Assembler(13, "sm_90").assemble(NO_TEXT)


def test_a_file_of_that_name_that_is_something_else_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    directory = tmp_path / LIBRARIES[13]
    directory.mkdir(parents=True)
    (directory / "libnvJitLink.so.13").write_bytes(b"no library")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert find_library("sm_90", 13) == 0
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert find_library("sm_90", 13) == 0


def test_it_is_found_as_compiler_processes_look_for_it() -> None:
    code = "from tensor_wasm.device.cuda.nvjitlink import find_library; print(find_library('sm_90', 13))"
    environment = {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if Path(entry).is_absolute())}
    command = [sys.executable, "-S", "-P", "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "13\n"


def test_threads_go_on_meanwhile() -> None:
    """The interpreter's lock is not held: this thread counts while another assembles."""
    text, library, counts = many_registers(40), NvJitLink(13), 0
    thread = threading.Thread(target=lambda: library.assemble(text, "sm_90"))
    thread.start()
    while thread.is_alive():
        counts += 1
        thread.join(0.001)
    assert counts > 3


# --- machine code -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_a_kernel_becomes_machine_code(compilers: Compilers, is_elsewhere: bool) -> None:
    reader = reader_of(compilers) if is_elsewhere else read_here
    kernel = made(reader(VECTOR_ADD, "vector_add", None))
    text = fence(read(VECTOR_ADD), "vector_add", PARTITION, BASE, target="sm_90")
    assert kernel.code.startswith(IS_ELF)
    assert b"vector_add" in kernel.code
    assert (kernel.name, kernel.image) == (text.name, text.image)
    assert (kernel.is_narrow, kernel.wide) == (False, b"")


@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_a_kernel_with_many_registers_is_made_for_large_blocks_too(compilers: Compilers, is_elsewhere: bool) -> None:
    reader = reader_of(compilers) if is_elsewhere else read_here
    kernel = made(reader(many_registers(), "many", None))
    assert kernel.is_narrow
    assert kernel.wide.startswith(IS_ELF)
    assert kernel.wide != kernel.code


@pytest.mark.parametrize("bounds", [".maxntid 64, 1, 1\n", ".reqntid 64, 1, 1\n"])
def test_one_that_says_how_large_its_blocks_are_is_made_once(bounds: str) -> None:
    kernel = made(read_here(many_registers(bounds=bounds), "many"))
    assert (kernel.is_narrow, kernel.wide) == (False, b"")


def test_a_log_that_does_not_tell_the_registers_has_it_made_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvjitlink, "_REGISTERS_OPTION", "-O3")
    kernel = made(read_here(VECTOR_ADD, "vector_add"))
    assert kernel.is_narrow
    assert kernel.wide.startswith(IS_ELF)


def test_one_that_cannot_do_with_few_registers_has_no_machine_code_for_large_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = Assembler.assemble

    def assemble(self: Assembler, fenced: FencedKernel, *, is_wide: bool = False) -> AssembledKernel:
        if is_wide:
            raise PtxError("too few")
        return real(self, fenced)

    monkeypatch.setattr(Assembler, "assemble", assemble)
    kernel = made(read_here(many_registers(), "many"))
    assert (kernel.is_narrow, kernel.wide) == (True, b"")


def test_orders_to_assemble_are_read_as_they_were_written() -> None:
    for is_wide in (False, True):
        order = Order("k", PARTITION, BASE, "sm_90", True, ASSEMBLER, is_wide)
        assert Order.decode(order.encode()) == order


@pytest.mark.slow
@pytest.mark.parametrize("source", sorted(VARIANTS))
def test_what_the_fence_writes_becomes_machine_code(source: str) -> None:
    whole, count = program(source, VARIANTS[source][0]), 0
    for kernel in whole.kernels:
        prints = any(isinstance(each, Emit) for block in kernel.blocks for each in block.instructions)
        if not support(kernel) and not prints:
            fenced = fence(whole, kernel.name, PARTITION, PARTITION.base, target="sm_90")
            assert ASSEMBLER.assemble(fenced).code.startswith(IS_ELF)
            count += 1
    assert count


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("    frob.u32 %r1;\n", "line"),
        (
            "    .shared .align 4 .b8 s[300000];\n    .reg .b32 %r1;\n    st.shared.b32 [s], %r1;\n",
            "too much shared data",
        ),
    ],
    ids=["no instruction", "too much shared memory"],
)
def test_a_text_that_is_refused_says_why(body: str, said: str) -> None:
    text = FencedKernel(HEAD + ".visible .entry k()\n{\n" + body + "    ret;\n}\n", "k", bytes(16))
    with pytest.raises(PtxError, match="the GPU's assembler refuses the kernel: .*" + said) as caught:
        ASSEMBLER.assemble(text)
    assert "NVJITLINK" not in str(caught.value)


def test_an_architecture_that_the_library_does_not_know_is_no_fault_of_the_text() -> None:
    with pytest.raises(InternalError, match="does not work"):
        Assembler(13, "sm_91").assemble(NO_TEXT)


def test_a_compiler_process_tells_what_is_refused(compilers: Compilers) -> None:
    order = Order("vector_add", PARTITION, BASE, "sm_90", False, Assembler(13, "sm_91"))
    with pytest.raises(InternalError, match="the compiler failed"):
        compilers.fenced(VECTOR_ADD, order.encode()).result(120)
    much = HEAD + ".visible .entry k()\n{\n .reg .b32 %r<2>;\n .shared .align 4 .b8 s[49153];\n"
    much += " mov.u32 %r1, s;\n st.shared.u32 [%r1], %r1;\n ret;\n}\n"
    with pytest.raises(PtxError, match="assembler refuses the kernel"):
        made(reader_of(compilers)(much.encode(), "k", None))


@pytest.mark.slow
def test_a_text_that_takes_too_long_to_assemble_is_refused() -> None:
    """Its process is ended, and another takes the next."""
    pool = Compilers(1, 3.0)
    try:
        with pytest.raises(PtxError, match="takes too long to compile: the limit is 3 s"):
            made(reader_of(pool)(many_registers(20, 400), "many", None))
        assert made(reader_of(pool)(VECTOR_ADD, "vector_add", None)).code.startswith(IS_ELF)
    finally:
        pool.close()


def test_without_processes_a_node_has_texts_assembled_by_the_driver() -> None:
    pool = Compilers(0, 30.0)
    for compilers in (None, pool):
        kernel = reader_of(compilers)(VECTOR_ADD, "vector_add", None)
        found = kernel.fence(PARTITION, BASE, "sm_90", is_checked=False, assembler=ASSEMBLER)
        assert isinstance(found, FencedKernel)
    pool.close()


class NoGpu:
    """Is there, and does nothing."""

    def __init__(self, assembler: int) -> None:
        self.facts = GpuFacts(0, "A GPU", "GPU-1", "sm_90", 80 << 30, 132, 227 << 10, assembler)
        self.generation = 1

    def close(self) -> None:
        """Nothing."""


@pytest.mark.parametrize(
    ("assembler", "count", "said"),
    [(13, 1, ""), (0, 1, "nvJitLink is not installed"), (13, 0, "no compiler processes")],
)
def test_a_node_says_when_the_driver_has_to_assemble(
    caplog: pytest.LogCaptureFixture, assembler: int, count: int, said: str
) -> None:
    pool = Compilers(count, 30.0)
    with caplog.at_level(logging.WARNING, "tensor_wasm.device"):
        CudaDevice(lambda _: NoGpu(assembler), None, 1 << 28, pool).close()  # type: ignore[arg-type,return-value]
    assert [said in record.message for record in caplog.records] == ([True] if said else [])
    pool.close()


# --- in a program's own process -----------------------------------------------------------------------------------


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The library does not come to an end before the test does."""
    gate = threading.Event()
    monkeypatch.setattr(NvJitLink, "assemble", lambda *_: (gate.wait(120), (b"", b""))[1])
    yield gate
    gate.set()


def test_who_waits_in_a_program_may_be_ended(held: threading.Event) -> None:
    others = set(threading.enumerate())
    with pytest.raises(DeadlineExceeded):
        made(read_here(VECTOR_ADD, "vector_add", lambda: DeadlineExceeded("now")))
    held.set()
    for thread in set(threading.enumerate()) - others:  # it goes on to its end, and finds nothing wrong
        thread.join(120)


def test_who_waits_in_a_program_does_not_wait_for_ever(held: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fencing, "_LIMIT_S", 0.1)
    with pytest.raises(PtxError, match=r"takes too long to assemble: the limit is 0\.1 s"):
        made(read_here(VECTOR_ADD, "vector_add"))


# --- the engine ---------------------------------------------------------------------------------------------------


class Loads(EmulatedDriver):
    """Takes machine code, which is a text behind the first bytes of an ELF file."""

    def load_module(self, code: bytes) -> int:
        return super().load_module(code.removeprefix(IS_ELF))


@pytest.fixture
def loads() -> Iterator[Board]:
    with Loads(memory_bytes=16 << 20, granularity_bytes=GRANULE_BYTES) as driver:
        opened = Board(driver).open()
        opened.open_tenant(1)
        opened.engine.open_lane(1, 1)
        yield opened
        opened.close()
        assert not driver.misuses


@pytest.mark.parametrize("has_wide", [False, True])
def test_the_engine_loads_machine_code(loads: Board, has_wide: bool) -> None:
    driver, partition = loads.driver, loads.partitions[1]
    assert isinstance(driver, Loads)
    driver.threads_max["store"] = 64
    fenced = fence(read(STORE), "store", partition, partition.base + IMAGE)
    wide = IS_ELF + fenced.ptx.replace(")\n{", ")\n.maxntid 1024, 1, 1\n{", 1).encode() if has_wide else b""
    module = loads.engine.assemble(IS_ELF + fenced.ptx.encode(), wide)
    assert driver.calls["load_module"] == 1 + has_wide  # what the driver makes of it is not asked for
    kernel, threads = loads.engine.add_kernel(1, module, "store", partition.base + IMAGE, fenced.image, False)
    assert threads == (1024 if has_wide else 64)
    assert loads.launch(1, kernel, partition.base, 5, block=(threads, 1, 1)) == (Result.OK, 0)
    assert loads.read(1, partition.base, 8) == (5).to_bytes(8, "little")
    # How many bytes of parameters it has is known of the driver alone.
    assert loads.launch(1, kernel, partition.base, 5, parameter_bytes=15) == (Result.REFUSED, 0)
    loads.engine.remove_kernel(kernel)
    assert driver.calls["unload_module"] == 1 + has_wide


def test_machine_code_for_large_blocks_that_cannot_be_loaded_takes_the_other_with_it(loads: Board) -> None:
    driver = loads.driver
    assert isinstance(driver, Loads)
    partition = loads.partitions[1]
    fenced = fence(read(STORE), "store", partition, partition.base + IMAGE)
    with pytest.raises(DriverError):
        loads.engine.assemble(IS_ELF + fenced.ptx.encode(), IS_ELF + b"none")
    assert driver.calls["unload_module"] == 1
