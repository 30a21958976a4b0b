"""A launch of an empty kernel: a loop in C, a guest of a node alone and beside HTTP load, a Python program."""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from nodes import Guest, gpu_node
from part import EMULATED, Findings, Options, attempt, microseconds, percentiles, run

from tensor_wasm.bench.load import HttpLoad, spinning_thread
from tensor_wasm.bench.sandbox import guest_wasm

_BAR, _LOADED_BAR_US, _RAW_MOST_US = 2.0, 50.0, 20.0
_SOURCE = Path(__file__).with_name("raw_launches.c")
_COMPILERS = ("cc", "gcc", "clang", "nvcc")
_CONNECTIONS = 16
_TEXT = b".version 8.0\n.target sm_52\n.address_size 64\n.visible .entry empty()\n{\n    ret;\n}\n"


def measure(options: Options, findings: Findings) -> None:
    count = 500 if options.is_quick else 50_000
    raw: dict[str, float] = {}

    def in_c() -> None:
        found = _raw(options, count, findings)
        findings.keep("raw", found)
        raw.update(found["synchronize"])
        for name, what in (("synchronize", "cuStreamSynchronize"), ("written word", "a word that the GPU writes")):
            if name in found:
                each = found[name]
                text = f"P50 {each['p50']:.2f}, P95 {each['p95']:.2f}, P99 {each['p99']:.2f} µs"
                findings.add(f"raw, cuLaunchKernel and {what}", text)

    if options.gpu != EMULATED:
        attempt(findings, "raw launches", in_c)

    def in_a_node() -> None:
        rounds, each = (1, 200) if options.is_quick else (10, 2000)
        with gpu_node(options.gpu) as (node, url):
            function = node.functions.deploy("bench", guest_wasm()).id
            guest = Guest(node, function)
            guest.call("prepare", 0)
            guest.call("launch_loop", each)
            times = guest.times_us(rounds, each)
            p50, p95, _ = percentiles(times)
            findings.keep("node", times[:: max(len(times) // 2000, 1)])
            ratio = p50 / raw["p50"] if raw else None
            findings.add(
                "guest -> empty kernel -> guest", microseconds(times),
                f"P50 <= {_BAR:g} x raw", None if ratio is None else ratio <= _BAR,
                "" if ratio is None else f"{ratio:.2f} x raw",
            )  # fmt: skip
            with _http_load(node, url):
                guest.call("time_loop", rounds * each)
            times = guest.samples_us(rounds * each)
            p50, p95, _ = percentiles(times)
            findings.keep("node, loaded", times[:: max(len(times) // 2000, 1)])
            applies = raw and raw["p95"] < _RAW_MOST_US
            findings.add(
                "the same beside HTTP load and a spinning thread", microseconds(times),
                f"P95 <= {_LOADED_BAR_US:g} µs" if applies else "", p95 <= _LOADED_BAR_US if applies else None,
            )  # fmt: skip
            other = Guest(node, function)
            other.call("prepare", 1)
            other.call("launch_loop", each)
            assert other.call("right_elements") == 1024, "vector_add gave wrong sums"
            findings.add(
                "guest -> vector_add, windows of 1,024 elements -> guest", microseconds(other.times_us(1, each))
            )

    attempt(findings, "guest -> empty kernel -> guest", in_a_node)

    def in_python() -> None:
        with open_device(options.gpu) as device:
            kernel = device.load_ptx(_TEXT, "empty")
            times = []
            for n in range(200 + min(count, 5000)):
                began = time.perf_counter_ns()
                kernel.launch(1, 1)
                if n >= 200:
                    times.append((time.perf_counter_ns() - began) / 1e3)
            findings.add("Kernel.launch from Python, empty kernel", microseconds(times))

    attempt(findings, "Kernel.launch from Python", in_python)


def open_device(gpu: str) -> Any:
    """The GPU for a Python program."""
    import tensor_wasm as tw

    if gpu == EMULATED:
        from device.cuda.opening import open_emulated

        return open_emulated()
    return tw.open_device(f"cuda:{gpu}", memory_bytes=1 << 30)


@contextmanager
def _http_load(node: Any, url: str) -> Iterator[None]:
    """Invocations of a function that does nothing, as many as can be, and a Python thread that never rests."""
    function = node.functions.deploy("noop", guest_wasm("noop"))
    load = HttpLoad(f"{url}/functions/{function.id}/invoke", _CONNECTIONS, 600.0, b'{"export":"noop","args":[]}')
    process = load.start()
    try:
        with spinning_thread():
            time.sleep(0.5)
            yield
    finally:
        process.kill()
        process.communicate()


# --- without anything of ours ------------------------------------------------------------------------------


def _raw(options: Options, count: int, findings: Findings) -> dict[str, Any]:
    """Percentiles of the loop in C, or where nothing compiles that, of one in Python."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "raw_launches"
        for compiler in _COMPILERS:
            if shutil.which(compiler) is None:
                continue
            built = subprocess.run(
                [compiler, "-O2", "-o", program, _SOURCE, "-ldl"],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            if built.returncode:
                findings.keep(f"{compiler} failed", built.stderr[-1000:])
                continue
            found = subprocess.run(
                [program, options.gpu, str(count)], capture_output=True, text=True, timeout=60, check=False
            )
            if not found.returncode:
                result: dict[str, Any] = json.loads(found.stdout)
                return result
            findings.keep("raw_launches failed", found.stderr[-1000:])
            break
    return {**_by_ctypes(int(options.gpu), count), "by": "ctypes"}


def _by_ctypes(gpu: int, count: int) -> dict[str, Any]:
    """The same by ctypes, whose calls take about a microsecond more."""
    driver = ctypes.CDLL("libcuda.so.1")

    def must(code: int) -> None:
        if code:
            raise OSError(f"the driver gave {code}")

    device = ctypes.c_int()
    context, module, function, stream = (ctypes.c_void_p() for _ in range(4))
    must(driver.cuInit(0))
    must(driver.cuDeviceGet(ctypes.byref(device), gpu))
    must(driver.cuDevicePrimaryCtxSetFlags_v2(device, 1))
    must(driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
    must(driver.cuCtxSetCurrent(context))
    must(driver.cuModuleLoadData(ctypes.byref(module), _TEXT + b"\0"))
    must(driver.cuModuleGetFunction(ctypes.byref(function), module, b"empty"))
    must(driver.cuStreamCreate(ctypes.byref(stream), 1))
    one, zero = ctypes.c_uint(1), ctypes.c_uint(0)
    launch, wait = driver.cuLaunchKernel, driver.cuStreamSynchronize
    times = np.zeros(count)
    for n in range(-1000, count):
        began = time.perf_counter_ns()
        must(launch(function, one, one, one, one, one, one, zero, stream, None, None))
        must(wait(stream))
        if n >= 0:
            times[n] = (time.perf_counter_ns() - began) / 1e3
    p50, p95, p99 = percentiles(times.tolist())
    return {"count": count, "synchronize": {"p50": p50, "p95": p95, "p99": p99}}


if __name__ == "__main__":
    run(measure, __doc__)
