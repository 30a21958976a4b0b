"""Memory of the device: vector_add over 64 M elements that are there, against copying; what zeros cost."""

from __future__ import annotations

import time

import numpy as np
from part import ROOT, Findings, Options, attempt, rate, run
from stage import Stage, host_array

from tensor_wasm.device.cuda.memory import PartitionMemory
from tensor_wasm.device.fence import GUARD_BYTES

_BAR = 0.85
_TEXT = ROOT / "tests" / "corpus" / "vector_add.ptx"


def measure(options: Options, findings: Findings) -> None:
    count = 1 << 16 if options.is_quick else 1 << 26
    size = 4 * count
    with Stage(options.gpu, 16 << 20 if options.is_quick else 1 << 30) as stage:
        image = host_array(np.zeros(1 << 16, np.uint8))
        text = _TEXT.read_bytes()
        grid, block = (count // 256, 1, 1), (256, 1, 1)
        with stage.pinned(image):
            kernels = {"fenced": stage.fenced(text, "vector_add", image), "plain": stage.plain(text, "vector_add")}
        places = [stage.take(size) for _ in range(3)]
        for place in places:
            stage.driver.set_memory(place, 0, size, stage.stream)

        copy_ms = stage.median_ms(lambda: stage.driver.copy_on_device(places[1], places[0], size, stage.stream))
        findings.add(
            "device copy, cuMemcpyDtoD", rate(2 * size, copy_ms / 1e3), note=f"{size >> 20} MiB, read and written"
        )
        for name, kernel in kernels.items():
            launch = stage.launcher(kernel, grid, block, [*places, np.int32(count)])
            add_ms = stage.median_ms(launch)
            part = (3 * size / add_ms) / (2 * size / copy_ms)
            findings.keep(f"vector_add, {name}", {"ms": add_ms, "to copy": part})
            findings.add(
                f"vector_add over {count:,} resident elements, {name}",
                f"{rate(3 * size, add_ms / 1e3)}, {part:.0%} of the copy's",
                f">= {_BAR:.0%}" if name == "fenced" else "",
                part >= _BAR if name == "fenced" else None,
            )
        for zeroed in (size >> 8, size >> 2, 2 * size):
            zero_ms = stage.median_ms(lambda n=zeroed: stage.driver.set_memory(places[0], 0, n, stage.stream))  # type: ignore[misc]
            findings.add(
                f"zeros, {zeroed / (1 << 20):g} MiB", f"{1e3 * zero_ms:.1f} µs", note=rate(zeroed, zero_ms / 1e3)
            )

        def partition() -> None:
            took = []
            for _ in range(3):
                began = time.perf_counter()
                memory = PartitionMemory(stage.driver)
                own = memory.open(
                    max(stage.driver.granularity(), GUARD_BYTES), 2 * size if not options.is_quick else 8 << 20
                )
                stage.driver.set_memory(own.base, 0, own.size_bytes, stage.stream)
                stage.driver.synchronize_stream(stage.stream)
                opened = time.perf_counter()
                stage.driver.set_memory(own.base, 0, own.size_bytes, stage.stream)
                stage.driver.synchronize_stream(stage.stream)
                memory.close()
                took.append((opened - began, time.perf_counter() - opened))
            open_s, close_s = (sorted(times)[1] for times in zip(*took, strict=True))
            found = f"{1e3 * open_s:.2f} ms to open, {1e3 * close_s:.2f} ms to close"
            findings.add(f"a partition of {own.size_bytes >> 20} MiB, with its zeros", found)

        attempt(findings, "a partition", partition)


if __name__ == "__main__":
    run(measure, __doc__)
