"""What ``tensor-wasm doctor`` looks at: one small function a check, each of which says what to do."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from importlib import metadata
from pathlib import Path

from tensor_wasm.config import Config

#: Address space an instance with a kernel takes: its memory and its kernels', each 4 GiB and a guard.
_INSTANCE_SPAN_BYTES = 2 * ((4 << 30) + (32 << 20))
_LOW_DISK_BYTES, _LEAST_DISK_BYTES = 1 << 30, 64 << 20
_LOW_MEMORY_BYTES = 512 << 20
_CLOCK_READS = 20_000
_SLOW_CLOCK_NS = 500
_KERNEL = b".version 7.0\n.target sm_70\n.address_size 64\n.visible .entry probe()\n{\n  ret;\n}\n"


class Status(Enum):
    """How a check went: the value is what is printed."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """A check's outcome; ``advice`` says what to do when ``status`` is not ok."""

    name: str
    status: Status
    detail: str
    advice: str = ""


def all_checks(config: Config) -> list[Check]:
    """Look at everything. A check that breaks is a failed check, and the next one is still made."""
    return [_guarded(name, check, config) for name, check in _CHECKS]


def _guarded(name: str, check: Callable[[Config], tuple[Status, str, str]], config: Config) -> Check:
    try:
        return Check(name, *check(config))
    except Exception as error:
        text = str(error) or type(error).__name__
        return Check(name, Status.FAIL, text, "a node cannot run here until this works")


def _python(_config: Config) -> tuple[Status, str, str]:
    version = platform.python_version()
    if sys.maxsize <= 1 << 32:
        return Status.FAIL, f"{version}, 32 bits", "use a 64-bit Python: guest memories need the address space"
    return Status.OK, f"{version}, {platform.machine()}", ""


def _wasmtime(_config: Config) -> tuple[Status, str, str]:
    wanted = _required_version()
    found = metadata.version("wasmtime")
    if wanted is not None and found != wanted:
        return Status.FAIL, found, f"install wasmtime=={wanted}: the bindings belong to that version"
    return Status.OK, found, ""


def _required_version() -> str | None:
    try:
        requirements = metadata.requires("tensor-wasm") or []
    except metadata.PackageNotFoundError:
        return None
    pinned = (text.partition("==")[2].split(";")[0].strip() for text in requirements if text.startswith("wasmtime=="))
    return next(pinned, None)


def _sandbox(config: Config) -> tuple[Status, str, str]:
    from tensor_wasm.node import Node

    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="tensor-wasm-doctor-") as home:
        local = replace(config, home=Path(home), kernel_cache_dir=None, workers=1)
        with Node(local) as node:
            function = node.functions.deploy("probe", _probe_module(), 0)
            results = node.invocations.invoke(function.id, "add", [40, 2], tenant=0).results
            node.device.load(_KERNEL, "probe")
            device = node.device.name
    if results != [42]:
        return Status.FAIL, f"40 + 2 gave {results}", "this processor or this build of Wasmtime cannot be trusted"
    spent_ms = (time.perf_counter() - started) * 1e3
    return Status.OK, f"device {device}; a module ran and a kernel compiled in {spent_ms:.0f} ms", ""


def _probe_module() -> bytes:
    from tensor_wasm.wasm import Module, ValType

    module = Module()
    function = module.function([ValType.I32, ValType.I32], [ValType.I32], export="add")
    for parameter in function.parameters:
        function.code.get(parameter)
    function.code.op("i32.add")
    return module.encode().wasm


def _gpu(config: Config) -> tuple[Status, str, str]:
    from tensor_wasm.device.cuda.discovery import INSTALL, find
    from tensor_wasm.device.selection import choose
    from tensor_wasm.errors import DeviceUnavailable

    name = config.device
    if name == "cpu":
        return Status.OK, "skipped: TENSOR_WASM_DEVICE=cpu", ""
    found = find()
    try:
        gpu = choose(name, lambda: found).gpu
    except DeviceUnavailable as error:
        return Status.FAIL, error.message, "or set TENSOR_WASM_DEVICE to auto or cpu: a node does not start like this"
    if gpu is None:
        lack = found.lack or next(gpu.lack for gpu in found.gpus if gpu.lack is not None)
        if lack.is_plain:
            return Status.OK, f"skipped: {lack.text}", ""
        return Status.WARN, f"none that can be used: {lack.text}", lack.advice
    versions = " and ".join(
        f"{what} for CUDA {number // 1000}.{number % 1000 // 10}"
        for what, number in (("driver", found.driver_version), ("bindings", found.bindings_version))
    )
    text = f"cuda:{gpu.index}, {gpu.name} ({gpu.sm}, {_gib(gpu.memory_bytes)}, {gpu.uuid}); {versions}"
    if not gpu.assembler:
        advice = f"launches of all tenants wait meanwhile: {INSTALL}, which has NVIDIA's nvJitLink"
        return Status.WARN, f"{text}; the driver has to assemble kernels", advice
    return Status.OK, text, ""


def _shared_memory(_config: Config) -> tuple[Status, str, str]:
    from tensor_wasm.runtime import Engine, SharedMemory

    engine = Engine()
    try:
        memory = SharedMemory(engine, 1)
        return Status.OK, f"WebAssembly threads work, {memory.size_bytes} bytes shared", ""
    finally:
        engine.close()


def _address_space(config: Config) -> tuple[Status, str, str]:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return Status.OK, "no limit", ""
    needed = config.workers * _INSTANCE_SPAN_BYTES
    detail = f"limited to {_gib(limit)}; {config.workers} workers reserve up to {_gib(needed)}"
    advice = "raise it (ulimit -v unlimited), or set TENSOR_WASM_WORKERS lower; it is address space, not memory"
    if limit < _INSTANCE_SPAN_BYTES:
        return Status.FAIL, detail, advice
    return (Status.OK, detail, "") if limit >= 2 * needed else (Status.WARN, detail, advice)


def _home(config: Config) -> tuple[Status, str, str]:
    advice = "make it writable for this user, or set TENSOR_WASM_HOME to another directory"
    place = config.home
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        return Status.FAIL, f"{place} is not a directory", advice
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"probe")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return Status.FAIL, f"{place}: {error.strerror}", advice
    free = shutil.disk_usage(place).free
    detail = f"{config.home}, {_gib(free)} free"
    if free < _LOW_DISK_BYTES:
        status = Status.FAIL if free < _LEAST_DISK_BYTES else Status.WARN
        return status, detail, "free some space: functions, compiled code and the database live there"
    return Status.OK, detail, ""


def _cores(_config: Config) -> tuple[Status, str, str]:
    count = len(os.sched_getaffinity(0))
    quota = _core_quota()
    detail = f"{count}" + (f", of which a quota allows {quota:g}" if quota is not None else "")
    if min(count, quota or count) < 2:
        return Status.WARN, detail, "give it 2 or more: with one, guests and the HTTP server wait for each other"
    return Status.OK, detail, ""


def _core_quota() -> float | None:
    """Cores that the control group allows, None without a limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()[:2]
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _memory(_config: Config) -> tuple[Status, str, str]:
    available = _available_bytes()
    if available is None:
        return Status.OK, "unknown", ""
    detail = f"{_gib(available)} available"
    if available < _LOW_MEMORY_BYTES:
        return Status.WARN, detail, "free some, or set TENSOR_WASM_INSTANCE_MEMORY_BYTES and TENSOR_WASM_WORKERS lower"
    return Status.OK, detail, ""


def _available_bytes() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    except (OSError, ValueError, IndexError):
        pass
    return None


def _clock(_config: Config) -> tuple[Status, str, str]:
    started = time.perf_counter_ns()
    for _ in range(_CLOCK_READS):
        time.monotonic_ns()
    cost_ns = (time.perf_counter_ns() - started) / _CLOCK_READS
    try:
        source = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource").read_text().strip()
    except OSError:
        source = "unknown"
    detail = f"{source}, {cost_ns:.0f} ns a read"
    if cost_ns > _SLOW_CLOCK_NS:
        return (
            Status.WARN,
            detail,
            "every launch reads the clock twice: use a clock source read without a system call (tsc)",
        )
    return Status.OK, detail, ""


def _address(config: Config) -> tuple[Status, str, str]:
    host, port = config.listen_host, config.listen_port
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            advice = "a node may already run there; else set TENSOR_WASM_LISTEN_ADDR to another address"
            return Status.WARN, f"{config.listen_addr}: {error.strerror}", advice
    return Status.OK, f"{config.listen_addr} is free", ""


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 30):,.1f} GiB"


_CHECKS: tuple[tuple[str, Callable[[Config], tuple[Status, str, str]]], ...] = (
    ("python", _python),
    ("wasmtime", _wasmtime),
    ("address space", _address_space),
    ("shared memory", _shared_memory),
    ("sandbox and device", _sandbox),
    ("gpu", _gpu),
    ("home", _home),
    ("cores", _cores),
    ("memory", _memory),
    ("clock", _clock),
    ("listen address", _address),
)
