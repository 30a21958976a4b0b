"""Windows of a guest's memory, and arrays of a Python program, copied in and out, against pinned copies."""

from __future__ import annotations

import statistics
import time

import numpy as np
from nodes import Guest, gpu_node, window_guest
from part import ROOT, Findings, Options, attempt, rate, run
from stage import Stage, host_array

from dispatch import open_device

_BAR = 0.80


def measure(options: Options, findings: Findings) -> None:
    mib = 1 if options.is_quick else 16
    sizes = (mib, 4 * mib)
    in_s, out_s = _pinned(options, 4 * sizes[-1] << 20)
    findings.keep("pinned", {"in_s_per_byte": in_s, "out_s_per_byte": out_s})
    findings.add("pinned copies, in and out", f"{1e-9 / in_s:.1f} GB/s, {1e-9 / out_s:.1f} GB/s")
    for size in sizes:
        count = size * (1 << 20) // 4

        def guest(count: int = count, size: int = size) -> None:
            room = {"cuda_partition_mib": 64} if options.is_quick else {}
            with gpu_node(options.gpu, **room) as (node, _):
                kept = Guest(node, node.functions.deploy("windows", window_guest(count)).id)
                kept.call("prepare")
                kept.call("fill")
                times = [kept.call("launch") / 1e9 for _ in range(3 if options.is_quick else 12)]
                assert kept.call("right") == -(-count // 1000), "the sums are wrong"
            _add(findings, f"guest: 3 windows of {size} MiB, all in and one out", times[2:], 4 * count, in_s, out_s)
            findings.keep(f"guest: the first launch with 3 windows of {size} MiB", {"seconds": times[0]})
            findings.add(f"guest: the first launch with 3 windows of {size} MiB", f"{1e3 * times[0]:.1f} ms")

        def program(count: int = count, size: int = size) -> None:
            text = (ROOT / "tests" / "corpus" / "vector_add.ptx").read_bytes()
            with open_device(options.gpu) as device:
                kernel = device.load_ptx(text)
                a, b, c = (np.full(count, number, np.float32) for number in (1, 2, 0))
                times = []
                for _ in range(3 if options.is_quick else 12):
                    began = time.perf_counter()
                    kernel.launch(-(-count // 256), 256, [a, b, c, np.int32(count)])
                    times.append(time.perf_counter() - began)
                assert (c == 3).all(), "the sums are wrong"
            _add(findings, f"Python: 3 arrays of {size} MiB, all in and one out", times[2:], 4 * count, in_s, out_s)

        attempt(findings, f"guest: 3 windows of {size} MiB", guest)
        attempt(findings, f"Python: 3 arrays of {size} MiB", program)


def _add(findings: Findings, name: str, times: list[float], size_bytes: int, in_s: float, out_s: float) -> None:
    """Against a pinned copy of the same bytes: ``vector_add`` reads two vectors of ``size_bytes`` and writes one, which
    is copied in too: a kernel need not write all of a window.
    """
    took = statistics.median(times)
    part = size_bytes * (3 * in_s + out_s) / took
    findings.keep(name, {"seconds": times, "to_pinned": part})
    findings.add(name, f"{rate(4 * size_bytes, took)}, {part:.0%} of pinned", f">= {_BAR:.0%}", part >= _BAR)


def _pinned(options: Options, size_bytes: int) -> tuple[float, float]:
    """Seconds for a byte, in and out."""
    with Stage(options.gpu, 16 << 20 if options.is_quick else 512 << 20) as stage:
        array = host_array(np.zeros(size_bytes, np.uint8))
        place = stage.take(size_bytes)
        with stage.pinned(array):
            in_ms = stage.median_ms(
                lambda: stage.driver.copy_to_device(place, array.ctypes.data, size_bytes, stage.stream)
            )
            out_ms = stage.median_ms(
                lambda: stage.driver.copy_to_host(array.ctypes.data, place, size_bytes, stage.stream)
            )
    return in_ms / 1e3 / size_bytes, out_ms / 1e3 / size_bytes


if __name__ == "__main__":
    run(measure, __doc__)
