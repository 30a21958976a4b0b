"""What a device offers to the rooms above it."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from tensor_wasm.compiler import CompiledKernel
from tensor_wasm.dispatch import KernelEntry
from tensor_wasm.runtime import Module

if TYPE_CHECKING:
    from tensor_wasm.device.cuda.device import CudaDevice

#: Upper bounds, in seconds, of the histogram of compile times.
COMPILE_BUCKETS_S: tuple[float, ...] = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: Those of the time until a kernel that was not in memory is there.
LOAD_BUCKETS_S: tuple[float, ...] = (0.0001, 0.00025, 0.0005, *COMPILE_BUCKETS_S)

#: The newest instructions that the CPU device claims to have; compilers ask.
SM = "sm_80"

#: Asked again and again while something is waited for: an exception to end the waiting with, or None to go on.
Interrupt = Callable[[], Exception | None]


@dataclass(frozen=True, slots=True)
class LoadedKernel:
    """A kernel ready for any guest's gate: its module, what the compiler said of it, what the gate must check."""

    compiled: CompiledKernel
    module: Module
    entry: KernelEntry

    def line(self, module_offset: int) -> int:
        """The PTX line of the code at an offset in the module, 0 when it belongs to none."""
        lines = self.compiled.lines
        position = bisect_left(lines, (module_offset + 1, 0)) - 1
        return lines[position][1] if position >= 0 else 0


class Device(Protocol):
    """Where kernels run."""

    @property
    def name(self) -> str:
        """The metric label: ``cpu``."""

    @property
    def kind(self) -> str:
        """``cpu`` or ``cuda``."""

    @property
    def sm(self) -> str:
        """The newest architecture whose instructions it takes, ``sm_80``."""

    @property
    def restarts(self) -> int | None:
        """How often it lost everything that was on it; None for one that cannot."""

    @property
    def gpu(self) -> CudaDevice | None:
        """What guests use a GPU by; None for the CPU device."""

    @property
    def statistics(self) -> KernelStatistics:
        """Compilations and cache hits since the start."""

    def load(self, ptx: bytes, entry: str, interrupt: Interrupt | None = None) -> LoadedKernel:
        """Compile ``entry`` of a PTX text, or take it from the cache.

        ``interrupt`` is asked every 50 ms or more often while another process compiles.

        Raises :class:`~tensor_wasm.errors.PtxError` with line and column, also for a kernel that takes too long or
        too much memory to compile; :class:`~tensor_wasm.errors.CapacityExhausted` when too many kernels wait for that;
        and what ``interrupt`` gives.
        """

    def has(self, ptx: bytes, entry: str) -> bool:
        """Whether :meth:`load` would find this kernel compiled, in memory or on disk."""

    def revive(self, encoded: bytes) -> LoadedKernel:
        """A kernel that was compiled before, from what its :meth:`CompiledKernel.encode` gave.

        Raises :class:`~tensor_wasm.errors.InternalError` for one of another release's compiler.
        """


@dataclass(slots=True)
class KernelStatistics:
    """Counts of a device's compilations, and of the loads of kernels that were not in memory.

    ``compile_counts`` are per bucket of ``COMPILE_BUCKETS_S``, the last above; ``load_counts`` of ``LOAD_BUCKETS_S``.
    """

    hits: dict[str, int] = field(default_factory=lambda: {"memory": 0, "disk": 0})
    misses: dict[str, int] = field(default_factory=lambda: {"memory": 0, "disk": 0})
    compile_counts: list[int] = field(default_factory=lambda: [0] * (len(COMPILE_BUCKETS_S) + 1))
    compile_sum_s: float = 0.0
    load_counts: list[int] = field(default_factory=lambda: [0] * (len(LOAD_BUCKETS_S) + 1))
    load_sum_s: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count_lookup(self, tier: str, *, hit: bool) -> None:
        """Count one look into a tier of the cache."""
        with self._lock:
            (self.hits if hit else self.misses)[tier] += 1

    def count_load(self, duration_s: float) -> None:
        """Count one kernel that came from disk or a compiler, by how long its caller waited."""
        with self._lock:
            self.load_counts[bisect_left(LOAD_BUCKETS_S, duration_s)] += 1
            self.load_sum_s += duration_s

    def count_compilation(self, duration_s: float) -> None:
        """Count one compilation."""
        with self._lock:
            self.compile_counts[bisect_left(COMPILE_BUCKETS_S, duration_s)] += 1
            self.compile_sum_s += duration_s
