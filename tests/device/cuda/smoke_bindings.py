"""Every call of the bindings against the driver of this machine, and how long they take.

    python tests/device/cuda/smoke_bindings.py

Prints a line for each thing that was tried, goes on after those that fail, and ends with OK, or with FAILED and their
names (exit code 1). NumPy and ``cuda-bindings`` suffice: of this project only ``device/cuda`` is imported. What ends a
context runs in processes of its own, several at a time. With ``--emulated`` it tries itself on the emulated driver.
"""

# ruff: noqa: E402 - what is imported is first made importable

from __future__ import annotations

import ctypes
import faulthandler
import itertools
import json
import mmap
import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

STARTED = time.perf_counter()
HERE = Path(__file__).resolve().parent
SOURCE = HERE.parents[2] / "src"
IS_EMULATED = "--emulated" in sys.argv
sys.path[:0] = [str(SOURCE), str(HERE.parents[1])]

from tensor_wasm.device.cuda.bindings import CudaDriver
from tensor_wasm.device.cuda.driver import NOT_READY, OUT_OF_MEMORY, STICKY, Driver, DriverError

PTX = (HERE / "smoke_kernels.ptx").read_bytes()
ONE = (1, 1, 1)
MIB = 1 << 20
#: What hangs is given up after so long.
STEP_LIMIT_S = 25.0
CHILD_LIMIT_S = 20.0
#: A launch that waits for longer is told, and ends what it waits for.
LAUNCH_LIMIT_S = 2.0
#: Of the step that starts all the processes that lose their contexts.
CHILDREN_LIMIT_S = 100.0
#: Cycles of a GPU in a millisecond, about.
CYCLES_PER_MS = 1_700_000
BANDWIDTH_BYTES = 4 * MIB if IS_EMULATED else 256 * MIB
PARTITION_BYTES = 16 * MIB if IS_EMULATED else 1024 * MIB
ROUNDS = 50 if IS_EMULATED else 3000

#: What ends a context, or should: kernel, offset, the codes that would be no surprise. None: it may well go unnoticed.
WRONGS: tuple[tuple[str, int, tuple[int, ...]], ...] = (
    ("misaligned", 4, (716,)),
    ("misaligned", 1 << 44, (700,)),
    ("trapped", 0, (715, 719, 710)),
    ("paused", 0, (0, 715, 719)),
    ("shared_read", 64, ()),
    ("shared_read", 2048, ()),
    ("shared_read", 16384, ()),
    ("shared_read", 48 << 10, ()),
    ("shared_read", 227 << 10, ()),
    ("shared_read", 1 << 20, (700, 719)),
    ("shared_read", 1 << 30, (700, 719)),
    ("shared_write", 4096, ()),
    ("shared_write", 1 << 20, (700, 719)),
    ("generic_shared", 4096, ()),
    ("generic_shared", 1 << 20, ()),
    ("generic_shared", 1 << 24, ()),
    ("local_read", 1024, ()),
    ("local_read", 1 << 16, ()),
    ("local_read", 1 << 20, ()),
    ("local_read", 1 << 24, (700, 719, 714)),
    ("generic_local", 1 << 16, ()),
    ("generic_local", 1 << 24, ()),
)


class Skipped(Exception):
    """What is tried does not apply here."""


def make_driver() -> Driver:
    if IS_EMULATED:
        from device.cuda.emulated import EmulatedDriver

        return EmulatedDriver()
    return CudaDriver()


def environment() -> dict[str, str]:
    return dict(os.environ)


# --- what the steps share -----------------------------------------------------------------------------------------


@dataclass
class Host:
    """Pages of a file in memory, mapped twice: what another process would see is in ``other``."""

    size_bytes: int
    descriptor: int = -1
    first: Any = None
    second: Any = None
    address: int = 0
    seen: int = 0
    words: Any = None
    other: Any = None

    def open(self) -> None:
        self.descriptor = os.memfd_create("smoke", os.MFD_CLOEXEC)
        os.ftruncate(self.descriptor, self.size_bytes)
        self.first, self.second = (
            mmap.mmap(self.descriptor, self.size_bytes),
            mmap.mmap(self.descriptor, self.size_bytes),
        )
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.first))
        self.words = memoryview(self.first).cast("B").cast("I")
        self.other = memoryview(self.second).cast("B").cast("I")


@dataclass
class Bench:
    """The world that later steps find: each member is made by the step that says so."""

    driver: Driver
    index: int = 0
    context: int = 0
    stream: int = 0
    granule: int = 0
    host: Host = field(default_factory=lambda: Host(2 * BANDWIDTH_BYTES))
    module: int = 0
    functions: dict[str, int] = field(default_factory=dict)
    #: Plain device memory, a granule's multiple.
    device: int = 0
    device_bytes: int = 2 * BANDWIDTH_BYTES
    memory: int = 0
    block: Any = field(default_factory=lambda: ctypes.create_string_buffer(4096))

    def launch(self, name: str, *parameters: tuple[int, int], grid: Any = ONE, block: Any = ONE, shared: int = 0,
               stream: int | None = None, size: int | None = None) -> None:  # fmt: skip
        """A kernel; parameters are (value, bytes)."""
        end = 0
        for value, width in parameters:
            end = -(-end // width) * width
            self.block[end : end + width] = (value & ((1 << 8 * width) - 1)).to_bytes(width, "little")
            end += width
        self.driver.launch(
            self.functions[name], grid, block, shared, self.stream if stream is None else stream,
            ctypes.addressof(self.block), end if size is None else size,
        )  # fmt: skip

    def wait(self, stream: int | None = None) -> None:
        self.driver.synchronize_stream(self.stream if stream is None else stream)

    def read(self, address: int, count: int = 1) -> np.ndarray:
        """Words on the device, through the pinned memory's last part."""
        at = self.host.size_bytes - 4 * count
        self.driver.copy_to_host(self.host.address + at, address, 4 * count, self.stream)
        self.wait()
        return np.frombuffer(self.host.first, np.uint32, count, at).copy()

    def write(self, address: int, words: Any) -> None:
        data = np.ascontiguousarray(words, np.uint32)
        at = self.host.size_bytes - data.nbytes
        np.frombuffer(self.host.first, np.uint32, data.size, at)[:] = data
        self.driver.copy_to_device(address, self.host.address + at, data.nbytes, self.stream)
        self.wait()


def refused(call: Callable[[], Any], *codes: int) -> DriverError:
    """The error of a call that must fail, with one of these codes if any are given, and not lose the context."""
    found = None
    try:
        call()
    except DriverError as error:
        found = error
    assert found is not None, "it was not refused"
    assert not codes or found.code in codes, f"{found} is none of {codes}"
    assert not found.is_sticky, f"{found} is sticky"
    return found


def tried(call: Callable[[], Any]) -> str:
    """How a call ends that may go either way."""
    try:
        call()
    except DriverError as error:
        return f"{error.name} ({error.code})"
    return "goes"


def took_ms(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1e3


def told(times_ns: list[int]) -> str:
    values = np.array(times_ns) / 1e3
    p50, p95, p99 = np.percentile(values, (50, 95, 99))
    return f"min {values.min():.2f} P50 {p50:.2f} P95 {p95:.2f} P99 {p99:.2f} max {values.max():.0f} µs"


def timed(call: Callable[[], Any], count: int = ROUNDS) -> list[int]:
    for _ in range(min(count, 100)):
        call()
    times = []
    for _ in range(count):
        began = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - began)
    return times


# --- the steps, in order ------------------------------------------------------------------------------------------

STEPS: list[Callable[[Bench], str | None]] = []


def step(function: Callable[[Bench], str | None]) -> Callable[[Bench], str | None]:
    STEPS.append(function)
    return function


@step
def machine(bench: Bench) -> str:
    driver = bench.driver
    version, count = driver.version(), driver.count()
    assert version >= 12000
    assert count >= 1
    facts = driver.facts(0)
    assert facts.uuid.startswith("GPU-")
    assert len(facts.uuid) == 40
    assert facts.sm.startswith("sm_")
    assert facts.memory_bytes > 0
    assert facts.multiprocessors > 0
    assert facts.shared_bytes_max >= 48 << 10
    refused(lambda: driver.facts(count), 101)
    bindings = driver.bindings_version() if isinstance(driver, CudaDriver) else 0
    return f"driver {version}, bindings {bindings}, {count} GPUs; {facts}; python {sys.version.split()[0]}"


@step
def probe(bench: Bench) -> str:
    if IS_EMULATED:
        raise Skipped
    from tensor_wasm.device.cuda.discovery import understood
    from tensor_wasm.device.cuda.probe import probe

    answer = probe(lambda: bench.driver)  # type: ignore[arg-type,return-value]
    json.dumps(answer)
    found = understood(answer, os.environ, Path("/"))
    assert found.lack is None, found.lack
    assert found.gpus[0].lack is None, found.gpus[0].lack
    command = [sys.executable, "-m", "tensor_wasm.device.cuda.probe"]
    path = os.pathsep.join([str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])])
    own = environment() | {"PYTHONPATH": path}
    began = time.perf_counter()
    output = subprocess.run(command, capture_output=True, text=True, timeout=60, env=own, check=True).stdout
    spent_s = time.perf_counter() - began
    assert json.loads(output)["gpus"][0]["lack"] == "", output
    for variable, value in (("CUDA_VISIBLE_DEVICES", ""), ("CUDA_VISIBLE_DEVICES", found.gpus[0].facts.uuid)):
        other = own | {variable: value}
        text = subprocess.run(command, capture_output=True, text=True, timeout=60, env=other, check=True).stdout
        answer = json.loads(text)
        if value:
            assert len(answer["gpus"]) == 1, text
        else:
            lack = understood(answer, other, Path("/")).lack
            assert "CUDA_VISIBLE_DEVICES" in str(lack), lack
    files = sorted(path.name for path in Path("/dev").glob("nvidia*"))
    return f"the probe's process takes {spent_s:.2f} s; files {files}"


@step
def context(bench: Bench) -> str:
    driver = bench.driver
    began = time.perf_counter()
    bench.context = driver.create_context(0)
    spent_ms = (time.perf_counter() - began) * 1e3
    again = driver.create_context(0)
    driver.use_context(bench.context)
    driver.destroy_context(again)
    driver.use_context(bench.context)
    free, total = driver.memory_info()
    assert 0 < free <= total
    return f"made in {spent_ms:.0f} ms; {free / MIB:.0f} of {total / MIB:.0f} MiB free"


@step
def streams(bench: Bench) -> str:
    driver = bench.driver
    bench.stream = driver.create_stream()
    assert driver.is_stream_done(bench.stream)
    driver.synchronize_stream(bench.stream)
    began = time.perf_counter()
    others = [driver.create_stream() for _ in range(256)]
    spent_us = (time.perf_counter() - began) * 1e6 / len(others)
    assert len({bench.stream, *others}) == 257
    for other in others:
        driver.destroy_stream(other)
    return f"{spent_us:.1f} µs each to make"


@step
def registering(bench: Bench) -> str:
    driver, host = bench.driver, bench.host
    host.open()
    spent_ms = took_ms(lambda: setattr(host, "seen", driver.register_host(host.address, host.size_bytes)))
    again = tried(lambda: driver.register_host(host.address, host.size_bytes))
    assert host.seen
    # A part of a mapping, and undone again.
    other = Host(16 * mmap.PAGESIZE)
    other.open()
    driver.register_host(other.address + mmap.PAGESIZE, mmap.PAGESIZE)
    driver.unregister_host(other.address + mmap.PAGESIZE)
    driver.register_host(other.address, other.size_bytes)
    driver.unregister_host(other.address)
    same = "the same" if host.seen == host.address else f"{host.seen:#x}"
    return f"{host.size_bytes / MIB:.0f} MiB in {spent_ms:.0f} ms; the device's address is {same}; again: {again}"


@step
def values(bench: Bench) -> str:
    """A value comes to light in another mapping of the same pages, without a call of the driver's."""
    driver, host = bench.driver, bench.host
    for value in (1, 0xFFFF_FFFF, 0x1234_5678):
        driver.write_value(host.seen + 64, value, bench.stream)
        until = time.monotonic() + 10
        while host.other[16] != value:
            assert time.monotonic() < until, f"{host.other[16]:#x} and not {value:#x} after 10 s"
    code = (
        "import mmap, sys, time\n"
        f"words = memoryview(mmap.mmap({host.descriptor}, {host.size_bytes})).cast('B').cast('I')\n"
        "print('ready', flush=True)\nuntil = time.monotonic() + 20\n"
        "while words[17] != 99 and time.monotonic() < until: pass\nprint(words[17])"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
                          pass_fds=[host.descriptor]) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        driver.write_value(host.seen + 68, 99, bench.stream)
        assert process.stdout.readline() == "99\n"
    return "seen by another mapping and by another process"


@step
def modules(bench: Bench) -> str:
    driver = bench.driver
    began = time.perf_counter()
    bench.module = driver.load_module(PTX)
    first_ms = (time.perf_counter() - began) * 1e3
    names = [line.split()[2].split("(")[0] for line in PTX.decode().splitlines() if line.startswith(".visible .entry")]
    bench.functions = {name: driver.function(bench.module, name) for name in names}
    refused(lambda: driver.function(bench.module, "nothing"), 500)
    again_ms = took_ms(lambda: driver.unload_module(driver.load_module(PTX)))
    unique = PTX + f"\n// {os.getpid()} {time.time_ns()}\n.visible .entry u{time.time_ns()}() {{ ret; }}\n".encode()
    new_ms = took_ms(lambda: driver.unload_module(driver.load_module(unique)))
    small = b".version 8.0\n.target sm_70\n.address_size 64\n.visible .entry s%d() { ret; }\n" % time.time_ns()
    small_ms = took_ms(lambda: driver.unload_module(driver.load_module(small)))
    return (
        f"{len(names)} kernels assembled in {first_ms:.1f} ms, again {again_ms:.1f} ms, another text {new_ms:.1f} ms;"
        f" an empty kernel {small_ms:.1f} ms"
    )


@step
def refused_modules(bench: Bench) -> str:
    driver = bench.driver
    head = b".version 8.0\n.target sm_70\n.address_size 64\n"
    wrong = refused(lambda: driver.load_module(head + b".visible .entry k() { frob.u32 %r1; }\n"), 218, 1)
    assert wrong.log, "the assembler said nothing"
    texts = {
        "empty": b"",
        "noise": bytes(range(1, 256)),
        "version 99": head.replace(b"8.0", b"99.0") + b".visible .entry k() { ret; }\n",
        "version 8.4": head.replace(b"8.0", b"8.4") + b".visible .entry k() { ret; }\n",
        "version 9.0": head.replace(b"8.0", b"9.0") + b".visible .entry k() { ret; }\n",
        "target sm_999": head.replace(b"sm_70", b"sm_999") + b".visible .entry k() { ret; }\n",
        "target sm_100": head.replace(b"sm_70", b"sm_100") + b".visible .entry k() { ret; }\n",
        "no such function": head + b".extern .func there();\n.visible .entry k() { call there; ret; }\n",
    }
    ends = {what: tried(lambda text=text: driver.load_module(text)) for what, text in texts.items()}
    return f"log {wrong.log[:160]!r} of {wrong.name}; {ends}"


@step
def reserving(bench: Bench) -> str:
    driver = bench.driver
    bench.granule = driver.granularity()
    assert bench.granule & (bench.granule - 1) == 0
    assert bench.granule >= 1 << 16
    honoured = []
    for alignment in (bench.granule, PARTITION_BYTES, 16 * PARTITION_BYTES):
        address = driver.reserve(2 * bench.granule, alignment)
        honoured.append(address % alignment == 0)
        driver.release(address, 2 * bench.granule)
    large = tried(lambda: driver.release(driver.reserve(1 << 40, bench.granule), 1 << 40))
    return f"granule {bench.granule / MIB:g} MiB; alignments honoured: {honoured}; a terabyte of addresses: {large}"


@step
def memory(bench: Bench) -> str:
    """Plain memory, for what follows."""
    driver = bench.driver
    before = driver.memory_info()[0]
    create_ms = took_ms(lambda: setattr(bench, "memory", driver.create_memory(bench.device_bytes)))
    bench.device = driver.reserve(bench.device_bytes, bench.granule)
    map_ms = took_ms(lambda: driver.map_memory(bench.device, bench.device_bytes, bench.memory, 0))
    after = driver.memory_info()[0]
    refused(lambda: driver.create_memory(1 << 44), OUT_OF_MEMORY)
    wrong = {}
    if not IS_EMULATED:  # it says that these are misuses
        wrong = {
            "a size that is no multiple": tried(lambda: driver.create_memory(bench.granule + 1)),
            "mapped twice": tried(lambda: driver.map_memory(bench.device, bench.device_bytes, bench.memory, 0)),
        }
        bench.write(bench.device, [1])  # it is mapped still
    return (
        f"{bench.device_bytes / MIB:.0f} MiB made in {create_ms:.1f} ms, mapped in {map_ms:.1f} ms,"
        f" {(before - after) / MIB:.0f} MiB fewer free; {wrong}"
    )


@step
def copies(bench: Bench) -> str:
    driver, host = bench.driver, bench.host
    half = BANDWIDTH_BYTES
    words = np.frombuffer(host.first, np.uint32, half // 4)
    words[:] = np.arange(half // 4, dtype=np.uint32)
    driver.copy_to_device(bench.device, host.address, half, bench.stream)
    driver.copy_on_device(bench.device + half, bench.device, half, bench.stream)
    driver.copy_to_host(host.address + half, bench.device + half, half, bench.stream)
    bench.wait()
    assert (np.frombuffer(host.first, np.uint32, half // 4, half) == words).all()
    driver.set_memory(bench.device + 12, 0xAB, 5, bench.stream)
    assert bench.read(bench.device, 5).tolist() == [0, 1, 2, 0xABABABAB, 0x000000AB]
    # Odd places and sizes.
    driver.copy_to_device(bench.device + 1, host.address + 3, 7, bench.stream)
    driver.copy_to_host(host.address + half + 5, bench.device + 1, 7, bench.stream)
    bench.wait()
    assert host.first[half + 5 : half + 12] == host.first[3:10]

    def rate(call: Callable[[], Any], size: int = half) -> str:
        call()
        bench.wait()
        best = min(took_ms(lambda: (call(), bench.wait())) for _ in range(5))
        return f"{size / best / 1e6:.1f}"

    rates = {
        "in": rate(lambda: driver.copy_to_device(bench.device, host.address, half, bench.stream)),
        "out": rate(lambda: driver.copy_to_host(host.address, bench.device, half, bench.stream)),
        "on device (both ways)": rate(
            lambda: driver.copy_on_device(bench.device + half, bench.device, half, bench.stream), 2 * half
        ),
        "set": rate(lambda: driver.set_memory(bench.device, 0, half, bench.stream)),
    }
    return f"GB/s {rates}"


@step
def unpinned_copies(bench: Bench) -> str:
    """Pages of the process that nobody registered: for the record."""
    if IS_EMULATED:
        raise Skipped
    data = np.full(1 << 16, 7, np.uint32)
    place = data.ctypes.data
    way_in = tried(lambda: bench.driver.copy_to_device(bench.device, place, data.nbytes, bench.stream))
    bench.wait()
    assert (bench.read(bench.device, 16) == 7).all()
    return way_in


@step
def launches(bench: Bench) -> str:
    count = 1000
    bench.driver.set_memory(bench.device, 0, 4 * count + 4, bench.stream)
    bench.launch("fill", (bench.device, 8), (count, 4), (5, 4), grid=(8, 1, 1), block=(128, 1, 1))
    found = bench.read(bench.device, count + 1)
    assert (found[:count] == np.arange(count) + 5).all()
    assert found[count] == 0
    bench.launch("empty")
    bench.launch("empty", grid=(65535, 2, 1), block=(8, 8, 16))
    bench.wait()
    # Parameters are taken before the call returns: the block is written over at once.
    for value in range(64):
        bench.launch("tail", (bench.device + 4 * value, 8), (value, 4))
    assert bench.read(bench.device, 64).tolist() == list(range(64))
    return None


@step
def sizes_of_parameters(bench: Bench) -> str:
    """A launch is given exactly as many bytes as the driver says that the kernel has, up to the last one's end."""
    laid_out = {name: parameter_bytes(name) for name in bench.functions}
    assert (laid_out["empty"], laid_out["tail"], laid_out["narrow"]) == (0, 12, 18)
    sizes = {name: bench.driver.parameter_bytes(function) for name, function in bench.functions.items()}
    assert sizes == laid_out
    place = (bench.device, 8)
    for other in (0x00, 0xFF):  # what stands behind the last byte, and in the gap, is nobody's
        ctypes.memset(bench.block, other, len(bench.block))
        bench.launch("empty", size=sizes["empty"])
        bench.launch("tail", place, (0x8765_4321, 4), size=sizes["tail"])
        assert bench.read(bench.device)[0] == 0x8765_4321
        bench.launch("narrow", (0xFE, 1), place, (0xDCBA, 2), size=sizes["narrow"])
        assert bench.read(bench.device, 2).tolist() == [0xFE, 0xDCBA]
    return str(sizes)


def parameter_bytes(kernel: str) -> int:
    """Bytes of a kernel's parameters by its text, each where its own alignment puts it."""
    head = PTX.decode().split(f".entry {kernel}(")[1].split(")")[0]
    end = 0
    for width in (int(bits) // 8 for bits in re.findall(r"\.param \.u(\d+)", head)):
        end = -(-end // width) * width + width
    return end


@step
def launches_refused(bench: Bench) -> str:
    ends = {
        "no block": refused(lambda: bench.launch("empty", grid=(0, 1, 1))),
        "grid": refused(lambda: bench.launch("empty", grid=(1, 65536, 1))),
        "1025 threads": refused(lambda: bench.launch("empty", block=(1025, 1, 1))),
        "65 of 64": refused(lambda: bench.launch("few", block=(65, 1, 1))),
        "49 KiB": refused(lambda: bench.launch("share", (bench.device, 8), (1, 4), shared=49 << 10)),
    }
    assert bench.driver.max_threads(bench.functions["few"]) == 64
    most = bench.driver.max_threads(bench.functions["fill"])
    bench.launch("few", block=(64, 1, 1))
    bench.launch("fill", (bench.device, 8), (1, 4), (77, 4))
    assert bench.read(bench.device)[0] == 77
    return f"max_threads of fill {most}; { ({what: (error.code, error.name) for what, error in ends.items()}) }"


@step
def shared_memory(bench: Bench) -> str:
    most = bench.driver.facts(0).shared_bytes_max
    function = bench.functions["share"]
    refused(lambda: bench.driver.allow_shared(function, most + 1024))
    for size in (48 << 10, 64 << 10, most):
        bench.driver.allow_shared(function, size)
        words = size // 4
        bench.launch("share", (bench.device, 8), (words, 4), shared=size)
        assert bench.read(bench.device)[0] == words * (words - 1) // 2 % (1 << 32)
    refused(lambda: bench.launch("share", (bench.device, 8), (1, 4), shared=most + 16))
    return f"up to {most} bytes"


@step
def events(bench: Bench) -> str:
    driver = bench.driver
    start, end = driver.create_event(), driver.create_event()
    driver.record(start, bench.stream)
    bench.launch("spin", (10 * CYCLES_PER_MS, 8))
    driver.record(end, bench.stream)
    soon = tried(lambda: driver.elapsed_ms(start, end))
    bench.wait()
    spent_ms = driver.elapsed_ms(start, end)
    assert spent_ms > 0
    for event in (start, end):
        driver.destroy_event(event)
    return f"{10 * CYCLES_PER_MS} cycles: {spent_ms:.2f} ms; asked too soon: {soon}"


@step
def times_of_a_launch(bench: Bench) -> str:
    """Events around a kernel and its copies, in the stream, and a write after them: as the worker times a request."""
    driver, host, stream, words = bench.driver, bench.host, bench.stream, bench.host.other
    marks = [driver.create_event() for _ in range(4)]
    size, early, times = 64 << 10, 0, []
    words[16] = 0
    for number in range(1, 101):
        driver.record(marks[0], stream)
        driver.copy_to_device(bench.device, host.address + 8192, size, stream)
        driver.record(marks[1], stream)
        driver.launch(bench.functions["empty"], ONE, ONE, 0, stream, 0, 0)
        driver.record(marks[2], stream)
        driver.copy_to_host(host.address + 8192, bench.device, size, stream)
        driver.record(marks[3], stream)
        driver.write_value(host.seen + 64, number, stream)
        while words[16] != number:
            pass
        # Once the write is seen they have happened; a driver that does not know yet is asked again.
        while True:
            try:
                times.append([driver.elapsed_ms(*marks[place : place + 2]) for place in range(3)])
                break
            except DriverError as error:
                if error.code != NOT_READY:
                    raise
                early += 1
    bench.wait()
    assert np.min(times) >= 0
    copy_in, kernel, copy_out = (f"{each * 1e3:.2f}" for each in np.median(times, axis=0))
    never = driver.create_event()
    unused = tried(lambda: driver.elapsed_ms(marks[0], never))
    for event in (*marks, never):
        driver.destroy_event(event)
    return (
        f"µs: copy in of 64 KiB {copy_in}, empty kernel {kernel}, copy out {copy_out}; asked too early {early} times;"
        f" an event that nothing recorded: {unused}"
    )


@step
def done(bench: Bench) -> str:
    """``is_stream_done`` while a kernel runs."""
    driver, stream = bench.driver, bench.driver.create_stream()
    release = bench.device + 256
    bench.write(release, [0])
    bench.launch("until", (release, 8), (2000 * CYCLES_PER_MS, 8), stream=stream)
    for _ in range(20):
        assert not driver.is_stream_done(stream)
        time.sleep(0.002)
    assert driver.is_stream_done(bench.stream)
    bench.write(release, [1])  # by another stream, while it runs
    until = time.monotonic() + 10
    while not driver.is_stream_done(stream):
        assert time.monotonic() < until
    driver.synchronize_stream(stream)
    driver.destroy_stream(stream)
    assert NOT_READY == 600
    return None


@step
def partition(bench: Bench) -> str:
    """As the engine lays one out: what is before the base and behind the end shows the last and the first granule."""
    driver, granule, size = bench.driver, bench.granule, PARTITION_BYTES
    reserved = 2 * size + granule
    start = driver.reserve(reserved, granule)
    base = -(-(start + granule) // size) * size
    assert start <= base - granule
    assert base + size + granule <= start + reserved
    first, last, between = driver.create_memory(granule), driver.create_memory(granule), driver.create_memory(
        size - 2 * granule
    )  # fmt: skip
    maps = ((base - granule, granule, last), (base, granule, first), (base + granule, size - 2 * granule, between),
            (base + size - granule, granule, last), (base + size, granule, first))  # fmt: skip
    spent_ms = took_ms(lambda: [driver.map_memory(address, length, piece, 0) for address, length, piece in maps])
    driver.set_memory(base, 0, size, bench.stream)
    end = base + size
    try:
        # By kernels: written in one place, read in the other, by different launches and by copies.
        bench.launch("fill", (end, 8), (4, 4), (100, 4), block=(4, 1, 1))
        bench.launch("peek", (base, 8), (bench.device, 8))
        assert bench.read(bench.device)[0] == 100
        assert bench.read(base, 4).tolist() == [100, 101, 102, 103]
        bench.launch("fill", (base - 16, 8), (4, 4), (200, 4), block=(4, 1, 1))
        assert bench.read(end - 16, 4).tolist() == [200, 201, 202, 203]
        bench.launch("fill", (end - 65536, 8), (1, 4), (300, 4))
        bench.launch("peek", (base - 65536, 8), (bench.device, 8))
        assert bench.read(bench.device)[0] == 300
        # By the copy engine, and by a memset through one and a copy through the other.
        bench.write(end + 8, [7])
        assert bench.read(base + 8)[0] == 7
        driver.set_memory(base - granule, 0xEE, granule, bench.stream)
        assert (bench.read(end - granule, 1024) == 0xEEEEEEEE).all()
        # One that reads again and again what another address changes: caches must not hide it.
        bench.write(base + 64, [0])
        stream = driver.create_stream()
        bench.launch("until", (base + 64, 8), (2000 * CYCLES_PER_MS, 8), stream=stream)
        time.sleep(0.01)
        bench.write(end + 64, [1])
        seen_ms = took_ms(lambda: driver.synchronize_stream(stream))
        assert seen_ms < 1000, f"a kernel that runs does not see in {seen_ms:.0f} ms what another address changed"
        driver.destroy_stream(stream)
        stale = 0
        for value in range(1, 200):
            bench.launch("peek", (base + 128, 8), (bench.device, 8))
            bench.launch("fill", (end + 128, 8), (1, 4), (value, 4))
            bench.launch("peek", (base + 128, 8), (bench.device + 4, 8))
            before, after = bench.read(bench.device, 2)
            stale += int(before != value - 1 and value > 1) + int(after != value)
        assert stale == 0, f"{stale} of 200 reads through the other address were stale"
    finally:
        bench.wait()
        unmap_ms = took_ms(lambda: [driver.unmap_memory(address, length) for address, length, _ in maps])
        for piece in (first, last, between):
            driver.destroy_memory(piece)
        driver.release(start, reserved)
    return f"{size / MIB:.0f} MiB mapped in {spent_ms:.1f} ms, unmapped in {unmap_ms:.1f} ms"


@step
def mapping_with_an_offset(bench: Bench) -> str:
    driver, granule = bench.driver, bench.granule
    piece, address = driver.create_memory(4 * granule), driver.reserve(4 * granule, granule)
    ends = []
    for offset in (granule, 3 * granule):
        ends.append(tried(lambda offset=offset: driver.map_memory(address, granule, piece, offset)))
        if ends[-1] == "goes":
            driver.unmap_memory(address, granule)
    part = tried(lambda: driver.map_memory(address, granule, piece, 0))
    if part == "goes":
        driver.unmap_memory(address, granule)
    driver.destroy_memory(piece)
    driver.release(address, 4 * granule)
    return f"offset not 0: {ends}; a part from the start: {part}"


@step
def residue(bench: Bench) -> str:
    """What stands in memory that was another's before."""
    driver, size = bench.driver, bench.granule
    address = driver.reserve(size, bench.granule)
    dirty = 0
    for _ in range(2):
        piece = driver.create_memory(size)
        driver.map_memory(address, size, piece, 0)
        dirty = int((bench.read(address, size // 4) == 0xA5A5A5A5).sum())
        driver.set_memory(address, 0xA5, size, bench.stream)
        bench.wait()
        driver.unmap_memory(address, size)
        driver.destroy_memory(piece)
    driver.release(address, size)
    return f"{dirty} of {size // 4} words are still there after the memory was given back and taken again"


@step
def order_of_giving_back(bench: Bench) -> str:
    """Physical memory that is destroyed while it is mapped stays until it is unmapped."""
    driver, granule = bench.driver, bench.granule
    piece, address = driver.create_memory(granule), driver.reserve(granule, granule)
    driver.map_memory(address, granule, piece, 0)
    if IS_EMULATED:
        driver.unmap_memory(address, granule)
        driver.destroy_memory(piece)
        driver.release(address, granule)
        raise Skipped
    driver.destroy_memory(piece)
    bench.launch("fill", (address, 8), (1, 4), (3, 4))
    assert bench.read(address)[0] == 3
    early = tried(lambda: driver.release(address, granule))
    driver.unmap_memory(address, granule)
    driver.release(address, granule)
    return f"released while mapped: {early}"


@step
def two_contexts(bench: Bench) -> str:
    """Memory of the one under the other's name."""
    driver = bench.driver
    other = driver.create_context(0)
    try:
        stream = driver.create_stream()
        end = tried(lambda: driver.set_memory(bench.device, 1, 64, stream))
        driver.synchronize_stream(stream)
        driver.destroy_stream(stream)
    finally:
        driver.use_context(bench.context)
        driver.destroy_context(other)
        driver.use_context(bench.context)
    return f"memory that another context mapped: {end}"


@contextmanager
def running(bench: Bench) -> Iterator[Callable[[], bool]]:
    """A kernel runs in a stream of its own until the block ends, or half a second; the function says if it does."""
    stream = bench.driver.create_stream()
    bench.host.words[1024] = 0
    bench.launch("until", (bench.host.seen + 4096, 8), (500 * CYCLES_PER_MS, 8), stream=stream)
    try:
        yield lambda: not bench.driver.is_stream_done(stream)
    finally:
        bench.host.words[1024] = 1
        bench.driver.synchronize_stream(stream)
        bench.driver.destroy_stream(stream)


@step
def beside_a_kernel_that_runs(bench: Bench) -> str:
    """Which calls wait for another stream's kernel: such a call holds up every tenant."""
    driver, granule = bench.driver, bench.granule
    made: dict[str, int] = {}

    def make(name: str, call: Callable[[], int]) -> Callable[[], None]:
        def run() -> None:
            made[name] = call()

        return run

    other = Host(MIB)
    other.open()
    small = b".version 8.0\n.target sm_70\n.address_size 64\n.visible .entry s%d() { ret; }\n"
    calls: dict[str, Callable[[], Any]] = {
        "launch": lambda: (bench.launch("empty"), bench.wait()),
        "copy in": lambda: (driver.copy_to_device(bench.device, bench.host.address, 4096, bench.stream), bench.wait()),
        "copy out": lambda: (driver.copy_to_host(bench.host.address, bench.device, 4096, bench.stream), bench.wait()),
        "set": lambda: (driver.set_memory(bench.device, 1, 4096, bench.stream), bench.wait()),
        "write value": lambda: (driver.write_value(bench.host.seen, 1, bench.stream), bench.wait()),
        "create stream": make("stream", driver.create_stream),
        "destroy stream": lambda: driver.destroy_stream(made["stream"]),
        "create event": make("event", driver.create_event),
        "destroy event": lambda: driver.destroy_event(made["event"]),
        "memory info": driver.memory_info,
        "reserve": make("address", lambda: driver.reserve(4 * granule, granule)),
        "create memory": make("memory", lambda: driver.create_memory(4 * granule)),
        "map": lambda: driver.map_memory(made["address"], 4 * granule, made["memory"], 0),
        "first use of it": lambda: (driver.set_memory(made["address"], 0, 4 * granule, bench.stream), bench.wait()),
        "unmap": lambda: driver.unmap_memory(made["address"], 4 * granule),
        "destroy memory": lambda: driver.destroy_memory(made["memory"]),
        "release": lambda: driver.release(made["address"], 4 * granule),
        "register": lambda: driver.register_host(other.address, other.size_bytes),
        "unregister": lambda: driver.unregister_host(other.address),
        "load module": make("module", lambda: driver.load_module(small % time.time_ns())),
        "unload module": lambda: driver.unload_module(made["module"]),
        "load many": make("many", lambda: driver.load_module(PTX)),
        "function": make("function", lambda: driver.function(made["many"], "share")),
        "allow shared": lambda: driver.allow_shared(made["function"], 64 << 10),
        "max threads": lambda: driver.max_threads(made["function"]),
        "first launch": lambda: (
            driver.launch(driver.function(made["many"], "empty"), ONE, ONE, 0, bench.stream, 0, 0),
            bench.wait(),
        ),
        "unload many": lambda: driver.unload_module(made["many"]),
        "launch with 64 KiB of stack": lambda: (bench.launch("deep", (bench.device, 8), (16, 4)), bench.wait()),
        "create context": make("context", lambda: driver.create_context(0)),
        "destroy context": lambda: (driver.destroy_context(made["context"]), driver.use_context(bench.context)),
    }
    if IS_EMULATED:
        raise Skipped
    spent: dict[str, str] = {}
    waits = []
    for what, call in calls.items():
        try:
            with running(bench) as runs:
                time.sleep(0.002)
                spent_ms = took_ms(call)
                if not runs():
                    waits.append(what)
            spent[what] = f"{spent_ms:.2f}"
        except (DriverError, KeyError) as error:
            driver.use_context(bench.context)
            spent[what] = str(error)
    return f"WAIT for it: {waits}; ms {spent}"


@step
def streams_at_once(bench: Bench) -> str:
    """How many streams of 127 get on while one kernel does not end: they share queues."""
    driver = bench.driver
    if IS_EMULATED:
        raise Skipped
    others = [driver.create_stream() for _ in range(127)]
    with running(bench) as runs:
        for other in others:
            bench.launch("empty", stream=other)
        time.sleep(0.05)
        is_running = runs()
        held = sum(not driver.is_stream_done(other) for other in others)
    # And how many kernels run at the same time.
    for other in others:
        driver.synchronize_stream(other)
    began = time.perf_counter()
    for other in others:
        bench.launch("spin", (5 * CYCLES_PER_MS, 8), stream=other)
    for other in others:
        driver.synchronize_stream(other)
    spent_ms = (time.perf_counter() - began) * 1e3
    for other in others:
        driver.destroy_stream(other)
    queues = os.environ.get("CUDA_DEVICE_MAX_CONNECTIONS")
    return (
        f"{held} of 127 are held up (it ran: {is_running}, queues {queues});"
        f" 127 kernels of ~5 ms take {spent_ms:.0f} ms"
    )


# --- time ---------------------------------------------------------------------------------------------------------


@step
def time_of_calls(bench: Bench) -> str:
    driver, seen = bench.driver, bench.host.seen

    def each(call: Callable[[], Any]) -> str:
        times = []
        for _ in range(max(ROUNDS // 20, 1)):
            began = time.perf_counter_ns()
            for _ in range(20):
                call()
            times.append((time.perf_counter_ns() - began) // 20)
            bench.wait()
        return f"{np.median(times) / 1e3:.2f}"

    place = ctypes.addressof(bench.block)
    empty, tail = bench.functions["empty"], bench.functions["tail"]
    bench.launch("tail", (bench.device, 8), (1, 4))
    made = [driver.create_event() for _ in range(22)]
    happened, others = made[:2], itertools.cycle(made[2:])
    for event in happened:
        driver.record(event, bench.stream)
    bench.wait()
    calls = {
        "launch": lambda: driver.launch(empty, ONE, ONE, 0, bench.stream, 0, 0),
        "launch with 12 bytes": lambda: driver.launch(tail, ONE, ONE, 0, bench.stream, place, 12),
        "write_value": lambda: driver.write_value(seen, 1, bench.stream),
        "is_stream_done": lambda: driver.is_stream_done(bench.stream),
        "copy in 4 KiB": lambda: driver.copy_to_device(bench.device, bench.host.address, 4096, bench.stream),
        "copy out 4 KiB": lambda: driver.copy_to_host(bench.host.address, bench.device, 4096, bench.stream),
        "copy in 16 B": lambda: driver.copy_to_device(bench.device, bench.host.address, 16, bench.stream),
        "set 4 KiB": lambda: driver.set_memory(bench.device, 0, 4096, bench.stream),
        "record": lambda: driver.record(next(others), bench.stream),
        "elapsed_ms": lambda: driver.elapsed_ms(*happened),
        "poll of memory": lambda: bench.host.other[0],
    }
    spent = {what: each(call) for what, call in calls.items()}
    for event in made:
        driver.destroy_event(event)
    return f"median of 20 in a row, µs a call: {spent}"


@step
def time_to_the_end(bench: Bench) -> str:
    """From before a launch until its end is known: the ways to know."""
    driver, host, stream = bench.driver, bench.host, bench.stream
    empty, seen, words = bench.functions["empty"], bench.host.seen, bench.host.other
    number = 0

    def synchronised() -> None:
        driver.launch(empty, ONE, ONE, 0, stream, 0, 0)
        driver.synchronize_stream(stream)

    def asked() -> None:
        driver.launch(empty, ONE, ONE, 0, stream, 0, 0)
        while not driver.is_stream_done(stream):
            pass

    def written() -> None:
        nonlocal number
        number += 1
        driver.launch(empty, ONE, ONE, 0, stream, 0, 0)
        driver.write_value(seen, number, stream)
        while words[0] != number:
            pass

    def told_by_the_kernel() -> None:
        nonlocal number
        number += 1
        bench.launch("tell", (seen, 8), (number, 4))
        while words[0] != number:
            pass

    def only_written() -> None:
        nonlocal number
        number += 1
        driver.write_value(seen, number, stream)
        while words[0] != number:
            pass

    def with_windows(size: int) -> Callable[[], None]:
        def run() -> None:
            nonlocal number
            number += 1
            driver.copy_to_device(bench.device, host.address + 8192, size, stream)
            driver.launch(empty, ONE, ONE, 0, stream, 0, 0)
            driver.copy_to_host(host.address + 8192, bench.device, size, stream)
            driver.write_value(seen, number, stream)
            while words[0] != number:
                pass

        return run

    lines = [
        f"launch, synchronise: {told(timed(synchronised))}",
        f"launch, is_stream_done: {told(timed(asked))}",
        f"launch, write_value, poll: {told(timed(written))}",
        f"launch of a kernel that writes itself, poll: {told(timed(told_by_the_kernel)) if not IS_EMULATED else '-'}",
        f"write_value alone, poll: {told(timed(only_written))}",
        f"copy in 64 B, launch, copy out, write_value, poll: {told(timed(with_windows(64)))}",
        f"copy in 4 KiB, launch, copy out, write_value, poll: {told(timed(with_windows(4096)))}",
        f"copy in 256 KiB, launch, copy out, write_value, poll: {told(timed(with_windows(1 << 18), ROUNDS // 4))}",
    ]
    bench.wait()
    return "\n        ".join(["", *lines])


class Launches(threading.Thread):
    """Launches an empty kernel again and again, waits for each, and keeps how long each took."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(name="launches", daemon=True)
        self._bench = bench
        self._is_over = threading.Event()
        self.times_ns: list[int] = []
        self.began_s = 0.0
        self.problem: BaseException | None = None

    def run(self) -> None:
        driver, host, number = self._bench.driver, self._bench.host, 0
        try:
            driver.use_context(self._bench.context)
            stream = driver.create_stream()
            while not self._is_over.is_set():
                number += 1
                self.began_s, began_ns = time.monotonic(), time.perf_counter_ns()
                driver.launch(self._bench.functions["empty"], ONE, ONE, 0, stream, 0, 0)
                driver.write_value(host.seen + 128, number, stream)
                while host.other[32] != number:
                    pass
                self.times_ns.append(time.perf_counter_ns() - began_ns)
                time.sleep(100e-6)
            driver.destroy_stream(stream)
        except BaseException as error:
            self.problem = error

    def end(self) -> None:
        self._is_over.set()
        self.join()
        if self.problem is not None:
            raise self.problem


def beside(bench: Bench, work: Callable[[], None], limit_s: float = 1.5) -> str:
    """Launches while ``work`` is done again and again on another thread: how long they took, and how often it was done.

    Ended after a while, or when a launch has waited for too long.
    """
    is_over, problems, count = threading.Event(), [], 0

    def repeat() -> None:
        nonlocal count
        try:
            bench.driver.use_context(bench.context)
            while not is_over.is_set():
                work()
                count += 1
        except BaseException as error:
            problems.append(error)

    launches, other = Launches(bench), threading.Thread(target=repeat, daemon=True)
    launches.start()
    while not launches.times_ns and launches.is_alive():
        time.sleep(0.001)
    launches.times_ns.clear()
    other.start()
    until, is_late = time.monotonic() + limit_s, False
    while time.monotonic() < until and other.is_alive() and launches.is_alive() and not is_late:
        time.sleep(0.01)
        is_late = time.monotonic() - launches.began_s > LAUNCH_LIMIT_S
    is_over.set()
    other.join()
    launches.end()
    if problems:
        raise problems[0]
    late = f"; ENDED, for a launch waited more than {LAUNCH_LIMIT_S:g} s" if is_late else ""
    return f"{len(launches.times_ns)} launches {told(launches.times_ns)} while it was done {count} times{late}"


def large_text(operations: int = 3000) -> bytes:
    """A kernel that takes a while to assemble, like no other."""
    head = f".version 8.0\n.target sm_70\n.address_size 64\n.visible .entry big{time.time_ns()}(.param .u64 p)\n{{\n"
    head += "\t.reg .f32 %f<100>;\n\t.reg .u64 %d;\n\tld.param.u64 %d, [p];\n\tld.global.f32 %f0, [%d];\n"
    lines = (f"\tfma.rn.f32 %f{i % 90 + 1}, %f{i % 89}, %f{i % 83}, %f{i % 79};\n" for i in range(operations))
    return (head + "".join(lines) + "\tst.global.f32 [%d], %f5;\n\tret;\n}\n").encode()


def name_of(text: bytes) -> str:
    return text.split(b".entry ")[1].split(b"(")[0].decode()


def machine_code(driver: Driver) -> Callable[[bytes], bytes]:
    """What makes machine code without the driver."""
    from tensor_wasm.device.cuda.nvjitlink import NvJitLink

    facts = driver.facts(0)
    if not facts.assembler:
        raise Skipped
    library = NvJitLink(facts.assembler)
    return lambda text: library.assemble(text, facts.sm)[0]


@step
def machine_code_loads(bench: Bench) -> str:
    """Machine code that nvJitLink made, and what the driver tells of it."""
    if IS_EMULATED:
        raise Skipped
    driver, make, lines = bench.driver, machine_code(bench.driver), []
    for text in (PTX, large_text(), large_text(30)):
        began = time.perf_counter()
        code = make(text)
        spent_ms = (time.perf_counter() - began) * 1e3
        began = time.perf_counter()
        module = driver.load_module(code)
        load_ms = (time.perf_counter() - began) * 1e3
        lines.append(f"{len(code):,} bytes made in {spent_ms:.1f} ms, loaded in {load_ms:.2f}")
        assembled = driver.load_module(text)
        names = [line.split()[2].split("(")[0] for line in text.decode().splitlines() if ".visible .entry" in line]
        for name in names:
            told = [(driver.parameter_bytes(f), driver.max_threads(f) >= 64)
                    for f in (driver.function(module, name), driver.function(assembled, name))]  # fmt: skip
            assert told[0] == told[1], f"{name}: {told}"
        if text is PTX:
            sizes = {name: driver.parameter_bytes(driver.function(module, name)) for name in names}
            assert (sizes["empty"], sizes["fill"], sizes["tell"]) == (0, 16, 12), sizes
        driver.unload_module(assembled)
        driver.unload_module(module)
    refused(lambda: driver.load_module(b"\x7fELF" + bytes(2000)))
    return f"nvJitLink {driver.facts(0).assembler}; " + "; ".join(lines)


@step
def time_beside_the_assembler(bench: Bench) -> str:
    """Launches while the driver assembles on another thread: what that costs them."""
    if IS_EMULATED:
        raise Skipped
    driver = bench.driver
    return beside(bench, lambda: driver.unload_module(driver.load_module(large_text())))


@step
def time_beside_another_assembler(bench: Bench) -> str:
    """Launches while another process assembles, and this one only loads what it made."""
    if IS_EMULATED:
        raise Skipped
    driver, loads_ns, unloads_ns = bench.driver, [], []
    machine_code(driver)
    command = [sys.executable, __file__, "--child", "assemble", "64"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) as process:
        assert process.stdout is not None
        output = process.stdout

        def load() -> None:
            code = output.read(int.from_bytes(output.read(4), "little"))
            times = [time.perf_counter_ns()]
            module = driver.load_module(code)
            times.append(time.perf_counter_ns())
            driver.unload_module(module)
            times.append(time.perf_counter_ns())
            loads_ns.append(times[1] - times[0])
            unloads_ns.append(times[2] - times[1])

        try:
            line = beside(bench, load, 3.0)
        finally:
            process.kill()
    return f"{line}\n        loads {told(loads_ns)}\n        unloads {told(unloads_ns)}"


@step
def loads_beside_a_kernel(bench: Bench) -> str:
    """Whether loading machine code waits for a kernel of another stream that runs for half a second."""
    if IS_EMULATED:
        raise Skipped
    machine_code(bench.driver)
    lines = [f"{loading}: {run_child('loads', more={'CUDA_MODULE_LOADING': loading})}" for loading in ("EAGER", "LAZY")]
    return "\n        ".join(["", *lines])


@step
def other_processes(bench: Bench) -> str:
    """Processes that lose their contexts, in all ways; this one goes on launching meanwhile."""
    wrongs = WRONGS[:1] if IS_EMULATED else WRONGS
    ends: list[tuple[str, int, tuple[int, ...], str]] = []

    def child(wrong: tuple[str, int, tuple[int, ...]]) -> tuple[str, int, tuple[int, ...], str]:
        kernel, offset, codes = wrong
        return kernel, offset, codes, run_child("wrong", kernel, str(offset))

    with ThreadPoolExecutor(6) as pool:
        work = [pool.submit(child, wrong) for wrong in wrongs]
        count = 0
        while not all(future.done() for future in work):
            bench.launch("fill", (bench.device, 8), (1, 4), (count, 4))
            assert bench.read(bench.device)[0] == count
            count += 1
        ends = [future.result() for future in work]
    problems, lines = [], []
    for kernel, offset, codes, text in ends:
        lines.append(f"{kernel} +{offset:#x}: {text}")
        try:
            code = json.loads(text)["code"]
        except (ValueError, KeyError):
            problems.append(f"{kernel} +{offset:#x}")
        else:
            if codes and code not in codes:
                problems.append(f"{kernel} +{offset:#x}: {code}, and not one of {codes}")
            if code and code not in STICKY:
                problems.append(f"{kernel} +{offset:#x}: {code} is not among the sticky ones")
    report = "\n        ".join([f"{count} launches here were right meanwhile", *lines])
    assert not problems, f"{problems}\n        {report}"
    return report


@step
def killed_process(bench: Bench) -> str:
    """A process whose kernel does not end is killed: how soon it is gone, and its memory back."""
    if IS_EMULATED:
        raise Skipped
    free = bench.driver.memory_info()[0]
    with subprocess.Popen([sys.executable, __file__, "--child", "endless"], stdout=subprocess.PIPE, text=True,
                          env=environment()) as process:  # fmt: skip
        assert process.stdout is not None
        ready = process.stdout.readline().strip()
        assert ready.startswith("ready"), ready

        def once() -> None:
            bench.launch("empty")
            bench.wait()

        during = told(timed(once, 200))
        taken = free - bench.driver.memory_info()[0]
        began = time.perf_counter()
        process.send_signal(signal.SIGKILL)
        process.wait()
        gone_ms = (time.perf_counter() - began) * 1e3
    until = time.monotonic() + 10
    while bench.driver.memory_info()[0] < free - 64 * MIB and time.monotonic() < until:
        time.sleep(0.001)
    back_ms = (time.perf_counter() - began) * 1e3
    after = told(timed(once, 200))
    return (
        f"{ready}; {taken / MIB:.0f} MiB taken; launches here meanwhile {during}, after it {after};"
        f" gone {gone_ms:.0f} ms after the signal, memory back after {back_ms:.0f} ms"
    )


@step
def giving_back(bench: Bench) -> str:
    driver = bench.driver
    bench.wait()
    driver.unload_module(bench.module)
    driver.unmap_memory(bench.device, bench.device_bytes)
    driver.destroy_memory(bench.memory)
    driver.release(bench.device, bench.device_bytes)
    driver.unregister_host(bench.host.address)
    driver.destroy_stream(bench.stream)
    driver.destroy_context(bench.context)
    return "" if IS_EMULATED else f"without a context: {tried(driver.memory_info)}"


# --- processes of their own ---------------------------------------------------------------------------------------


def run_child(*arguments: str, more: dict[str, str] | None = None) -> str:
    command = [sys.executable, __file__, "--child", *arguments, *(["--emulated"] if IS_EMULATED else [])]
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            timeout=CHILD_LIMIT_S,
            env=environment() | (more or {}),
        )
    except subprocess.TimeoutExpired:
        return f"it hangs for {CHILD_LIMIT_S:g} s"
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return f"exit code {done.returncode}: {done.stdout[-200:]} {done.stderr[-600:]}"
    return lines[-1]


def prepared(driver: Driver) -> Bench:
    bench = Bench(driver, host=Host(MIB), device_bytes=driver.granularity())
    bench.context = driver_context(driver)
    bench.stream = driver.create_stream()
    bench.module = driver.load_module(PTX)
    bench.host.open()
    bench.host.seen = driver.register_host(bench.host.address, bench.host.size_bytes)
    bench.memory = driver.create_memory(bench.device_bytes)
    bench.device = driver.reserve(bench.device_bytes, bench.device_bytes)
    driver.map_memory(bench.device, bench.device_bytes, bench.memory, 0)
    driver.set_memory(bench.device, 0, bench.device_bytes, bench.stream)
    bench.wait()
    return bench


def driver_context(driver: Driver) -> int:
    """The context that is current; children make theirs first."""
    return CURRENT[0]


CURRENT: list[int] = []


def child_wrong(kernel: str, offset: int) -> dict[str, Any]:
    """One that ends a context, in a process that has another one besides."""
    driver = make_driver()
    other = driver.create_context(0)
    other_stream = driver.create_stream()
    CURRENT.append(driver.create_context(0))
    bench = prepared(driver)
    bench.functions = {name: driver.function(bench.module, name) for name in (kernel, "fill")}
    before = np.uint32(0)
    code, value, later = 0, 0, ""
    bench.write(bench.device, [before])
    spent_ms = 0.0
    try:
        began = time.perf_counter()
        bench.launch(kernel, (bench.device, 8), (offset, 8))
        try:
            bench.wait()
        finally:
            spent_ms = (time.perf_counter() - began) * 1e3
        value = int(bench.read(bench.device)[0])
    except DriverError as error:
        code = error.code
    if code:
        # What later calls say, those that wait and those that do not.
        calls: dict[str, Callable[[], Any]] = {
            "is_stream_done": lambda: driver.is_stream_done(bench.stream),
            "launch": lambda: bench.launch("fill", (bench.device, 8), (1, 4), (1, 4)),
            "memory_info": driver.memory_info,
            "write_value": lambda: driver.write_value(bench.host.seen, 5, bench.stream),
        }
        later = ", ".join(f"{what} {tried(call)}" for what, call in calls.items())

    # The other context of this process, and one made now.
    def works() -> None:
        driver.use_context(other)
        driver.set_memory(bench.device, 1, 64, other_stream)
        driver.synchronize_stream(other_stream)
        driver.unload_module(driver.load_module(PTX))

    def another() -> None:
        driver.create_context(0)
        driver.synchronize_stream(driver.create_stream())

    result = {"code": code, "value": value, "ms": round(spent_ms, 2), "later": later}
    if code:
        result |= {"other context": tried(works), "new context": tried(another)}
    return result


def child_assemble(count: int) -> None:
    """Machine code of so many kernels, on standard output, each after its length. Makes no context."""
    make = machine_code(make_driver())
    for _ in range(count):
        code = make(large_text())
        sys.stdout.buffer.write(len(code).to_bytes(4, "little") + code)
        sys.stdout.buffer.flush()


def child_loads() -> dict[str, Any]:
    """How long it takes to load a kernel, to launch it for the first time and to unload it: while the GPU does nothing,
    and beside a kernel that runs for half a second; whether that still ran then; and launches meanwhile.
    """
    driver = make_driver()
    CURRENT.append(driver.create_context(0))
    bench = prepared(driver)
    bench.functions = {name: driver.function(bench.module, name) for name in ("empty", "spin")}
    other = driver.create_stream()
    make, found = machine_code(driver), {}
    for milliseconds in (0, 500):
        for operations in (30, 3000):
            text = large_text(operations)
            code = make(text)
            if milliseconds:
                bench.launch("spin", (milliseconds * CYCLES_PER_MS, 8), stream=other)
            launches = Launches(bench)
            launches.start()
            time.sleep(0.02)
            lines = []
            for name, call in uses(bench, code, name_of(text)):
                spent_ms = took_ms(call)
                ran = "" if not milliseconds else " before the other ended" if not driver.is_stream_done(other) else ""
                lines.append(f"{name} {spent_ms:.2f}{ran}")
            launches.end()
            driver.synchronize_stream(other)
            found[f"{len(code)} bytes beside {milliseconds} ms"] = f"{', '.join(lines)}; {told(launches.times_ns)}"
    return found


def uses(bench: Bench, code: bytes, name: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What is done with a kernel, one after the other."""
    driver, handles = bench.driver, []
    stream = driver.create_stream()
    parameters = ctypes.create_string_buffer(bench.device.to_bytes(8, "little"), 8)
    address = ctypes.addressof(parameters)
    yield "load", lambda: handles.append(driver.load_module(code))
    yield "function", lambda: handles.append(driver.function(handles[0], name))
    yield "launch", lambda: driver.launch(handles[1], ONE, ONE, 0, stream, address, 8)
    yield "run", lambda: driver.synchronize_stream(stream)
    yield "unload", lambda: driver.unload_module(handles[0])


def child_endless() -> None:
    began = time.perf_counter()
    driver = make_driver()
    made_s = time.perf_counter() - began
    CURRENT.append(driver.create_context(0))
    context_s = time.perf_counter() - began - made_s
    bench = prepared(driver)
    bench.functions = {"endless": driver.function(bench.module, "endless")}
    bench.launch("endless", (bench.device, 8))
    print(
        f"ready: a process has begun {time.perf_counter() - STARTED:.2f} s after its imports, of which the driver"
        f" {made_s:.2f} s, the context {context_s:.2f} s",
        flush=True,
    )
    while True:
        time.sleep(60)


# --- running ------------------------------------------------------------------------------------------------------


#: What later steps need: made again when the process begins anew.
SETUP = ("context", "streams", "registering", "modules", "memory")


class Watch:
    """Has the process begin anew, without the steps that it is through with, when one hangs or loses the context."""

    def __init__(self, through: list[str], failures: list[str]) -> None:
        self.through, self.failures = through, failures
        self.what, self.until = "", float("inf")
        threading.Thread(target=self._run, daemon=True).start()

    def begin(self, what: str) -> None:
        limit_s = CHILDREN_LIMIT_S if what == "other_processes" else STEP_LIMIT_S
        self.what, self.until = what, time.monotonic() + limit_s
        # Where a call of the driver's kept the interpreter's lock, nothing here could run.
        faulthandler.dump_traceback_later(limit_s + 10, exit=True)

    def end(self) -> None:
        self.until = float("inf")
        faulthandler.cancel_dump_traceback_later()

    def begin_anew(self) -> None:
        if self.what in SETUP:
            print(f"FAILED: {', '.join(self.failures)}; the steps after {self.what} need it", flush=True)
            os._exit(1)
        print("      the process begins anew", flush=True)
        faulthandler.cancel_dump_traceback_later()
        arguments = ["--through", ",".join(self.through), "--failed", ",".join(self.failures)]
        emulated = ["--emulated"] if IS_EMULATED else []
        os.execv(sys.executable, [sys.executable, __file__, *emulated, *arguments])

    def _run(self) -> None:
        while True:
            time.sleep(0.5)
            if time.monotonic() > self.until:
                print(f"FAIL  {self.what}: it hangs; all threads:", flush=True)
                faulthandler.dump_traceback(sys.stdout)
                self.through.append(self.what)
                self.failures.append(self.what)
                self.begin_anew()


def names_after(option: str) -> list[str]:
    if option not in sys.argv:
        return []
    return [name for name in sys.argv[sys.argv.index(option) + 1].split(",") if name]


def main() -> int:
    if "--child" in sys.argv:
        arguments = sys.argv[sys.argv.index("--child") + 1 :]
        if arguments[0] == "endless":
            child_endless()
        if arguments[0] == "assemble":
            child_assemble(int(arguments[1]))
            os._exit(0)
        if arguments[0] == "loads":
            print(json.dumps(child_loads()), flush=True)
            os._exit(0)
        print(json.dumps(child_wrong(arguments[1], int(arguments[2]))), flush=True)
        # What the driver would do at the end of a process with a broken context is of no interest.
        os._exit(0)
    try:
        began = time.perf_counter()
        bench = Bench(make_driver())
        print(f"ok    driver: started in {time.perf_counter() - began:.2f} s", flush=True)
    except BaseException as error:
        print(f"FAILED: there is no driver: {type(error).__name__}: {error}", flush=True)
        return 1
    through, failures = names_after("--through"), names_after("--failed")
    watch = Watch(through, failures)
    for function in STEPS:
        name = function.__name__
        if name in through and name not in SETUP:
            continue
        watch.begin(name)
        is_lost = False
        began = time.perf_counter()
        try:
            detail = function(bench) or ""
        except Skipped:
            print(f"skip  {name}", flush=True)
        except BaseException as error:
            failures.append(name)
            is_lost = isinstance(error, DriverError) and error.is_sticky
            place = "".join(traceback.format_exception(error)[-3:]).rstrip().replace("\n", "\n      ")
            print(f"FAIL  {name}: {type(error).__name__}: {error}\n      {place}", flush=True)
        else:
            print(f"ok    {name} ({time.perf_counter() - began:.2f} s): {detail}", flush=True)
        watch.end()
        through.append(name)
        if is_lost:
            watch.begin_anew()
    spent_s = time.perf_counter() - STARTED
    print(f"FAILED: {', '.join(dict.fromkeys(failures))}" if failures else f"OK in {spent_s:.1f} s", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
