"""What the fence costs: kernels of the corpus as they are and fenced, assembled by the same driver, in turn."""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from part import ROOT, Findings, Options, attempt, run
from stage import Array, Axes, Stage, host_array

_BAR = 0.10
_CORPUS = ROOT / "tests" / "corpus"
_KERNELS = ROOT / "benchmarks" / "kernels"


@dataclass(frozen=True, slots=True)
class Work:
    """A launch. ``arguments``: arrays as ``("f32", count)`` and ``("u8", count)`` with random numbers, ``("0", bytes)``
    for results; scalars as NumPy has them. ``result`` is the argument that is compared.
    """

    name: str
    text: Path
    entry: str
    grid: Axes
    block: Axes
    arguments: tuple[tuple[str, int] | np.generic | int, ...]
    result: int
    is_memory_bound: bool
    shared_bytes: int = 0


def works(scale: int) -> list[Work]:
    """All launches. ``scale`` is 1 for sizes that keep a large GPU busy, more for smaller ones."""
    many = (1 << 26) // scale
    i32, f32 = np.int32, np.float32
    side = 4096 // min(scale, 64)
    matrix = 2048 // min(scale, 64)
    bodies = 32_768 // min(scale, 128)
    rows = max(32_768 // scale, 4)
    options = (1 << 24) // scale
    saxpy = ROOT / "examples" / "saxpy" / "saxpy.ptx"

    def flat(count: int, block: int = 256) -> tuple[Axes, Axes]:
        return (-(-count // block), 1, 1), (block, 1, 1)

    def square(length: int) -> tuple[Axes, Axes]:
        return (length // 16, length // 16, 1), (16, 16, 1)

    def floats(count: int) -> tuple[str, int]:
        return "f32", count

    def zeros(count: int) -> tuple[str, int]:
        return "0", count

    def corpus(name: str) -> Path:
        return _CORPUS / f"{name}.ptx"

    def own(name: str) -> Path:
        return _KERNELS / f"{name}.ptx"

    walk = (max(4096 // scale, 8), 1, 1), (256, 1, 1)
    adds = (floats(many), floats(many), zeros(4 * many), i32(many))
    return [
        Work("vector_add", corpus("vector_add"), "vector_add", *flat(many), adds, 2, True),
        Work("saxpy", saxpy, "saxpy", *flat(many), (i32(many), f32(1.25), floats(many), floats(many)), 3, True),
        Work("half2_add", corpus("half_axpy"), "half2_add", *flat(many), adds, 2, True),
        Work("triton_add", corpus("triton_add"), "add", *flat(many, 256)[:1], (128, 1, 1), (*adds, 0, 0), 2, True),
        Work(
            "softmax_rows", corpus("softmax"), "softmax_rows", (rows, 1, 1), (256, 1, 1),
            (floats(rows * 1024), zeros(4096 * rows), i32(1024)), 1, True, 1024,
        ),
        Work(
            "triton_softmax", corpus("triton_softmax"), "softmax", (rows, 1, 1), (128, 1, 1),
            (zeros(4096 * rows), floats(rows * 1024), i32(1024), i32(1024), 0, 0), 0, True, 4096,
        ),
        Work(
            "warp_reduce", corpus("warp_reduce"), "warp_reduce_sum", *walk,
            (floats(many), zeros(4 * walk[0][0]), i32(many)), 1, True,
        ),
        Work(
            "histogram256", corpus("histogram"), "histogram256", *walk,
            (("u8", 4 * many), zeros(1024), i32(4 * many)), 1, True,
        ),
        Work(
            "conv2d", own("conv2d"), "conv2d", *square(side),
            (floats(side * side), floats(49), zeros(4 * side * side), i32(side), i32(side)), 2, False,
        ),
        Work(
            "matmul_tiled", corpus("matmul_tiled"), "matmul_tiled", *square(matrix),
            (floats(matrix**2), floats(matrix**2), zeros(4 * matrix**2), *(i32(matrix),) * 3), 2, False,
        ),
        Work(
            "triton_matmul_f16", corpus("triton_matmul_f16"), "matmul", (matrix // 32, matrix // 32, 1), (128, 1, 1),
            (("f16", matrix**2), ("f16", matrix**2), zeros(4 * matrix**2), *(i32(matrix),) * 6, 0, 0), 2, False, 32_768,
        ),
        Work(
            "nbody", own("nbody"), "nbody", *flat(bodies),
            (floats(4 * bodies), zeros(16 * bodies), i32(bodies), f32(0.01)), 1, False,
        ),
        Work(
            "blackscholes", own("blackscholes"), "blackscholes", *flat(options),
            (*(floats(options),) * 3, *(zeros(4 * options),) * 2, f32(0.02), f32(0.3), i32(options)), 3, False,
        ),
        Work(
            "mandelbrot", own("mandelbrot"), "mandelbrot", *square(side),
            (zeros(4 * side * side), f32(-2), f32(-1.25), f32(2.5 / side), i32(side), i32(side), i32(256)), 0, False,
        ),
    ]  # fmt: skip


def measure(options: Options, findings: Findings) -> None:
    scale = 1 << 14 if options.is_quick else 1
    many = (1 << 26) // scale
    random = np.random.default_rng(7)
    floats = host_array(random.random(max(many, 1 << 14), np.float32) + np.float32(0.5))
    octets = host_array(np.frombuffer(random.bytes(max(4 * many, 1 << 16)), np.uint8))
    halves = host_array(floats[: 1 << 22].astype(np.float16))
    results = [host_array(np.zeros(min(4 * many, 64 << 20), np.uint8)) for _ in range(2)]
    image = host_array(np.zeros(1 << 16, np.uint8))
    size = 32 << 20 if options.is_quick else 2 << 30
    ratios: dict[bool, list[float]] = {True: [], False: []}
    with Stage(options.gpu, size) as stage, ExitStack() as pins:
        for array in (floats, octets, halves, *results, image):
            pins.enter_context(stage.pinned(array))
        sources = {"f32": floats, "u8": octets, "f16": halves}
        for work in works(scale):

            def one(work: Work = work) -> None:
                rounds = 3 if options.is_quick else 11
                ratio, (plain_ms, fenced_ms), wrong = _compare(stage, work, sources, results, image, rounds)
                findings.keep(work.name, {"plain_ms": plain_ms, "fenced_ms": fenced_ms, "wrong_bytes": wrong})
                ratios[work.is_memory_bound].append(ratio)
                kind = "memory" if work.is_memory_bound else "compute"
                differ = f", {wrong} bytes of the result differ" if wrong else ""
                findings.add(f"fence, {work.name} ({kind})", f"{ratio - 1:+.1%}", note=f"{plain_ms:.3f} ms{differ}")

            attempt(findings, f"fence, {work.name}", one)
    for name, values in (
        ("memory-bound", ratios[True]), ("compute-bound", ratios[False]), ("all", ratios[True] + ratios[False]),
    ):  # fmt: skip
        if values:
            mean = statistics.geometric_mean(values) - 1
            is_all = name == "all"
            findings.add(
                f"fence, geometric mean of {len(values)} kernels, {name}", f"{mean:+.1%}",
                f"<= {_BAR:.0%}" if is_all else "", mean <= _BAR if is_all else None,
            )  # fmt: skip


def _compare(
    stage: Stage, work: Work, sources: dict[str, Array], results: list[Array], image: Array, rounds: int
) -> tuple[float, tuple[float, float], int]:
    """How many times as long the fenced kernel takes, both in milliseconds, and how many bytes of results differ."""
    stage.clear()
    text = work.text.read_bytes()
    kernels = stage.plain(text, work.entry), stage.fenced(text, work.entry, image)
    addresses: list[int | np.generic] = []
    for argument in work.arguments:
        if isinstance(argument, tuple):
            kind, count = argument
            addresses.append(stage.take(count * (sources[kind].itemsize if kind != "0" else 1)))
        else:
            addresses.append(argument)

    def fill() -> None:
        for argument, address in zip(work.arguments, addresses, strict=True):
            if isinstance(argument, tuple):
                kind, count = argument
                assert isinstance(address, int)
                if kind == "0":
                    stage.driver.set_memory(address, 0, count, stage.stream)
                else:
                    stage.upload(address, sources[kind][:count])

    launches = [stage.launcher(each, work.grid, work.block, addresses, work.shared_bytes) for each in kernels]
    fetched = work.arguments[work.result]
    assert isinstance(fetched, tuple)
    kind, count = fetched
    size = min(count * (4 if kind == "f32" else 1), results[0].nbytes)
    place = addresses[work.result]
    assert isinstance(place, int)
    for launch, result in zip(launches, results, strict=True):
        fill()
        launch()
        stage.download(place, result[:size])
    wrong = int(np.count_nonzero(results[0][:size] != results[1][:size]))
    once = stage.time_ms(launches[0])
    repeats = max(min(int(2.0 / max(once, 1e-3)), 200), 1)
    samples: list[list[float]] = [[], []]
    for _ in range(rounds):
        for launch, found in zip(launches, samples, strict=True):
            found.append(stage.time_ms(launch, repeats))
    ratio = statistics.median(fenced / plain for plain, fenced in zip(*samples, strict=True))
    return ratio, (statistics.median(samples[0]), statistics.median(samples[1])), wrong


if __name__ == "__main__":
    run(measure, __doc__)
