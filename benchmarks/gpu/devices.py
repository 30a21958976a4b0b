"""The kernels of benchmarks/kernels on a GPU and on this machine's processors, by the same Python program."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from part import ROOT, Findings, Options, attempt, run

import tensor_wasm as tw
from dispatch import open_device

sys.path.insert(0, str(ROOT / "benchmarks" / "kernels"))

import cases


def measure(options: Options, findings: Findings) -> None:
    ratios: list[float] = []
    with open_device(options.gpu) as gpu, tw.open_device("cpu") as cpu:
        for case in cases.CASES:

            def one(case: cases.Case = case) -> None:
                work = case.work(options.is_quick)
                gpu_ms, cpu_ms = (_launch_ms(device, case, work, rounds) for device, rounds in ((gpu, 20), (cpu, 3)))
                ratios.append(cpu_ms / gpu_ms)
                findings.keep(case.name, {"gpu_ms": gpu_ms, "cpu_ms": cpu_ms})
                findings.add(f"{case.name}, {work.size}", f"GPU {gpu_ms:.3f} ms, CPU device {cpu_ms:.2f} ms",
                             note=f"{cpu_ms / gpu_ms:.0f} x")  # fmt: skip

            attempt(findings, case.name, one)
    if ratios:
        findings.add("GPU to CPU device, geometric mean", f"{statistics.geometric_mean(ratios):.0f} x")


def _launch_ms(device: Any, case: cases.Case, work: cases.Work, rounds: int) -> float:
    """The median time of a launch on arrays that are on the device, after one whose result is checked."""
    kernel = device.load_ptx(case.ptx.read_bytes(), case.entry)
    arguments = [device.array(each) if isinstance(each, np.ndarray) else each for each in work.arguments]

    def launch() -> None:
        kernel.launch(work.grid, work.block, arguments, work.shared_bytes, 60)

    launch()
    for position in work.expected:
        work.check(position, arguments[position].to_numpy())
    took = [_timed(launch) for _ in range(rounds)]
    for each in arguments:
        if isinstance(each, tw.DeviceArray):
            each.close()
    return 1e3 * statistics.median(took)


def _timed(action: Callable[[], None]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


if __name__ == "__main__":
    run(measure, __doc__)
