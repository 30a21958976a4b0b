"""Windows of a caller's memory, in and out: through staging by several threads, or by registering that memory."""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np
from part import ROOT, Findings, Options, attempt, median_s, rate, run
from stage import Array, Stage, host_array

_BAR = 0.80
_THREADS = (1, 2, 4, 8)
_SLOTS = 16
_TEXT = ROOT / "tests" / "corpus" / "vector_add.ptx"


class Copier:
    """Copies between memory of this process and the device by way of pinned slots: ``threads`` fill or empty them."""

    def __init__(self, stage: Stage, staging: Array, slot_bytes: int, threads: int) -> None:
        self._stage = stage
        self._slots = [staging.ctypes.data + slot_bytes * n for n in range(_SLOTS)]
        self._slot_bytes = slot_bytes
        self._streams = [stage.driver.create_stream() for _ in range(_SLOTS)]
        self._pool = ThreadPoolExecutor(threads)

    def _pieces(self, size_bytes: int) -> list[tuple[int, int]]:
        return [(start, min(self._slot_bytes, size_bytes - start)) for start in range(0, size_bytes, self._slot_bytes)]

    def copy_in(self, address: int, array: Array) -> None:
        """To the device."""
        driver, source, pieces = self._stage.driver, array.ctypes.data, self._pieces(array.nbytes)
        filled: list[Future[object]] = []
        for number, (start, size) in enumerate(pieces[:_SLOTS]):
            filled.append(self._pool.submit(ctypes.memmove, self._slots[number], source + start, size))
        for number, (start, size) in enumerate(pieces):
            slot = number % _SLOTS
            filled[number].result()
            driver.copy_to_device(address + start, self._slots[slot], size, self._streams[slot])
            following = number + _SLOTS - _SLOTS // 2
            if _SLOTS <= following < len(pieces):
                self._refill(filled, following, source, pieces)
        for stream in self._streams:
            driver.synchronize_stream(stream)

    def _refill(self, filled: list[Future[object]], number: int, source: int, pieces: list[tuple[int, int]]) -> None:
        slot = number % _SLOTS
        self._stage.driver.synchronize_stream(self._streams[slot])
        start, size = pieces[number]
        filled.append(self._pool.submit(ctypes.memmove, self._slots[slot], source + start, size))

    def copy_out(self, address: int, array: Array) -> None:
        """From the device."""
        driver, target, pieces = self._stage.driver, array.ctypes.data, self._pieces(array.nbytes)
        emptied: list[Future[object]] = []
        begun = 0
        for number, (start, size) in enumerate(pieces):
            while begun < len(pieces) and begun < number + _SLOTS // 2:
                if begun >= _SLOTS:
                    emptied[begun - _SLOTS].result()
                slot = begun % _SLOTS
                driver.copy_to_host(
                    self._slots[slot], address + pieces[begun][0], pieces[begun][1], self._streams[slot]
                )
                begun += 1
            slot = number % _SLOTS
            driver.synchronize_stream(self._streams[slot])
            emptied.append(self._pool.submit(ctypes.memmove, target + start, self._slots[slot], size))
        for each in emptied[-_SLOTS:]:
            each.result()

    def close(self) -> None:
        """End the threads and streams."""
        self._pool.shutdown()
        for stream in self._streams:
            self._stage.driver.destroy_stream(stream)


def measure(options: Options, findings: Findings) -> None:
    size = 2 << 20 if options.is_quick else 256 << 20
    slot = 64 << 10 if options.is_quick else 4 << 20
    rounds, seconds = (1, 0.0) if options.is_quick else (3, min(options.seconds, 0.5))
    with Stage(options.gpu, 16 << 20 if options.is_quick else 1 << 30) as stage:
        places = [stage.take(size) for _ in range(3)]
        caller = host_array(np.arange(size // 4, dtype=np.float32))
        staging = host_array(np.zeros(slot * _SLOTS, np.uint8))

        def timed(action: Callable[[], object]) -> float:
            return median_s(action, rounds=rounds, seconds=seconds)

        # --- registering the caller's memory ---------------------------------------------------------------
        times: list[tuple[float, float]] = []
        for _ in range(rounds):
            began = time.perf_counter()
            stage.driver.register_host(caller.ctypes.data, size)
            registered = time.perf_counter()
            stage.driver.unregister_host(caller.ctypes.data)
            times.append((registered - began, time.perf_counter() - registered))
        register_s, unregister_s = (statistics.median(each) for each in zip(*times, strict=True))
        findings.add(
            f"cuMemHostRegister of {size >> 20} MiB",
            f"{1e3 * register_s:.2f} ms, cuMemHostUnregister {1e3 * unregister_s:.2f} ms",
            note=rate(size, register_s + unregister_s),
        )
        with stage.pinned(caller) as seen:
            in_s = stage.median_ms(
                lambda: stage.driver.copy_to_device(places[0], caller.ctypes.data, size, stage.stream), rounds=5
            ) / 1e3  # fmt: skip
            out_s = stage.median_ms(
                lambda: stage.driver.copy_to_host(caller.ctypes.data, places[0], size, stage.stream), rounds=5
            ) / 1e3  # fmt: skip
            findings.add("pinned copy to the device", rate(size, in_s))
            findings.add("pinned copy from the device", rate(size, out_s))
            findings.keep("pinned", {"size_bytes": size, "in_s": in_s, "out_s": out_s})

            def direct() -> None:
                kernel = stage.plain(_TEXT.read_bytes(), "vector_add")
                count = size // 4
                launch = stage.launcher(
                    kernel, (count // 256, 1, 1), (256, 1, 1), [seen, places[0], places[1], np.int32(count)]
                )
                found = stage.median_ms(launch, rounds=5) / 1e3
                findings.add("a kernel reads registered memory where it lies", rate(size, found))

            if options.gpu.isdigit():
                attempt(findings, "a kernel reads registered memory where it lies", direct)
        part = (in_s + out_s) / (in_s + out_s + register_s + unregister_s)
        findings.add("in and out, registered for each launch", rate(2 * size, in_s + out_s + register_s + unregister_s),
                     note=f"{part:.0%} of pinned")  # fmt: skip
        findings.keep("registering", {"register_s": register_s, "unregister_s": unregister_s})

        # --- through staging -------------------------------------------------------------------------------
        best = 0.0
        with stage.pinned(staging):
            for threads in _THREADS:
                copier = Copier(stage, staging, slot, threads)
                result = host_array(np.zeros(size // 4, np.float32))
                copier.copy_in(places[0], caller)
                copier.copy_out(places[0], result)
                assert np.array_equal(result, caller), "a copy through staging is not the original"
                to_s = timed(partial(copier.copy_in, places[0], caller))
                from_s = timed(partial(copier.copy_out, places[0], result))
                copier.close()
                part = (in_s + out_s) / (to_s + from_s)
                best = max(best, part)
                findings.keep(f"staged by {threads}", {"in_s": to_s, "out_s": from_s, "to_pinned": part})
                found = f"in {rate(size, to_s)}, out {rate(size, from_s)}"
                findings.add(f"through staging, {threads} copying threads", found, note=f"{part:.0%} of pinned")
        findings.add("through staging, the best of these", f"{best:.0%} of pinned", f">= {_BAR:.0%}", best >= _BAR)

        target = np.ones(size, np.uint8)
        for threads in _THREADS:
            with ThreadPoolExecutor(threads) as pool:
                took = timed(partial(_move, pool, threads, target.ctypes.data, caller.ctypes.data, size))
            findings.keep(f"memmove by {threads}, GB/s", size / took / 1e9)


def _move(pool: ThreadPoolExecutor, threads: int, target: int, source: int, size_bytes: int) -> None:
    """Copy from one place in memory to another by so many threads."""
    piece = size_bytes // threads
    moves = [pool.submit(ctypes.memmove, target + piece * n, source + piece * n, piece) for n in range(threads)]
    for move in moves:
        move.result()


if __name__ == "__main__":
    run(measure, __doc__)
