"""GPUs as the NVIDIA driver sees them: temperature, load, what slows their clocks, memory errors.

The driver is found at run time; without one, or without the package ``nvidia-ml-py``, there are no GPUs. A thread of
its own asks, and who reads gets what is known by then: a driver that hangs holds nobody up.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from tensor_wasm.telemetry.families import Family, Metric, labels_text, sample

#: What slows a GPU's clocks, by NVML's bits. Being idle and clocks that somebody has set are not among them.
THROTTLE_REASONS: dict[str, int] = {
    "sw_power_cap": 0x4,
    "hw_slowdown": 0x8,
    "sync_boost": 0x10,
    "sw_thermal_slowdown": 0x20,
    "hw_thermal_slowdown": 0x40,
    "hw_power_brake_slowdown": 0x80,
    "board_limit": 0x200,
    "reliability": 0x400,
}

TEMPERATURE = Family("device_temperature_celsius", "gauge", "Temperature of a GPU.", ("device",))
UTILIZATION = Family(
    "device_utilization_ratio", "gauge", "Part of the time in which a GPU ran kernels, 0 to 1.", ("device",)
)
THROTTLED = Family(
    "device_throttle_reasons", "gauge", "What slows a GPU's clocks, as the sum of NVML's bits; 0: nothing.", ("device",)
)
ECC_ERRORS = Family(
    "device_ecc_errors_total", "counter", "Memory errors of a GPU since its driver was loaded.", ("device",)
)

#: How old values may be.
_FRESH_S = 1.0
#: How long a reader waits for new values, once for each time that the driver is asked.
_WAIT_S = 0.02
#: After so long without an answer the last values are no longer true.
_HANGS_S = 10.0
#: When a driver is looked for again that was not there, or failed.
_RETRY_S = 30.0
#: More than a machine has.
_GPUS_MAX = 64

_log = logging.getLogger("tensor_wasm.telemetry")


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU at one moment. ``device`` is ``cuda:N``: the node's own name of it, where its node uses one, else in the
    order of the PCI bus. None for what this GPU cannot tell.

    ``throttle_reasons`` are names of ``THROTTLE_REASONS``; ``ecc_errors`` are counted since the driver was loaded.
    """

    device: str
    temperature_celsius: float | None
    utilization_ratio: float | None
    throttle_reasons: tuple[str, ...]
    ecc_errors: int | None


@dataclass(frozen=True, slots=True)
class NamedGpu:
    """A GPU that a node uses: its UUID, ``GPU-…``, and what the node calls it."""

    uuid: str
    device: str


class GpuReader:
    """Reads the machine's GPUs. May be used from any thread; :meth:`read` waits ``wait_s`` at the longest.

    With ``only`` it reads that GPU alone, and calls it so: CUDA may count GPUs in another order than NVML, or see only
    some of them.
    """

    def __init__(
        self,
        *,
        only: NamedGpu | None = None,
        wait_s: float = _WAIT_S,
        hangs_s: float = _HANGS_S,
        retry_s: float = _RETRY_S,
    ) -> None:
        self._only = only
        self._wait_s = wait_s
        self._hangs_s = hangs_s
        self._retry_s = retry_s
        self._lock = threading.Lock()
        self._gpus: tuple[Gpu, ...] = ()
        self._due_s = 0.0
        #: Set when the reading that is under way ends; None when none is.
        self._ended: threading.Event | None = None
        self._began_s = 0.0
        self._driver = _Driver(only)
        self._has_answered = False
        self._has_complained = False

    def read(self) -> tuple[Gpu, ...]:
        """The GPUs as they are, or were a second ago; empty without a driver, and when it does not answer."""
        ended = self._begin()
        if ended is not None:
            ended.wait(self._wait_s)
        with self._lock:
            hangs = self._ended is not None and time.monotonic() - self._began_s > self._hangs_s
            if not hangs:
                return self._gpus
        self._complain("it does not answer")
        return ()

    def collect(self) -> list[Metric]:
        """The four families. They have a sample for each GPU that can tell: none without a driver."""
        gpus = [(labels_text(device=gpu.device), gpu) for gpu in self.read()]

        def samples(family: Family, value: Callable[[Gpu], float | None]) -> Metric:
            values = [(labels, value(gpu)) for labels, gpu in gpus]
            return Metric(family, "".join(sample(family, labels, v) for labels, v in values if v is not None))

        return [
            samples(TEMPERATURE, lambda gpu: gpu.temperature_celsius),
            samples(UTILIZATION, lambda gpu: gpu.utilization_ratio),
            samples(THROTTLED, lambda gpu: sum(THROTTLE_REASONS[reason] for reason in gpu.throttle_reasons)),
            samples(ECC_ERRORS, lambda gpu: gpu.ecc_errors),
        ]

    def _begin(self) -> threading.Event | None:
        """Have the driver asked when that is due; what is set at the end. One reading at a time, hanging or not."""
        with self._lock:
            now_s = time.monotonic()
            if self._ended is not None or now_s < self._due_s:
                return None
            self._began_s = now_s
            self._ended = ended = threading.Event()
        try:
            threading.Thread(target=self._ask, args=(ended,), name="nvml", daemon=True).start()
        except RuntimeError:  # no more threads
            self._end(ended, (), self._retry_s)
        return ended

    def _ask(self, ended: threading.Event) -> None:
        gpus: tuple[Gpu, ...] = ()
        wait_s = _FRESH_S
        try:
            gpus, problem = self._driver.read()
        except Exception as error:
            problem, wait_s = str(error), self._retry_s
            self._driver = _Driver(self._only)
        self._end(ended, gpus, wait_s)
        if problem is None:
            self._has_answered, self._has_complained = True, False
        elif self._has_answered:  # without a driver from the start there is nothing to complain of
            self._complain(problem)

    def _end(self, ended: threading.Event, gpus: tuple[Gpu, ...], wait_s: float) -> None:
        with self._lock:
            self._gpus, self._due_s, self._ended = gpus, time.monotonic() + wait_s, None
        ended.set()

    def _complain(self, problem: str) -> None:
        with self._lock:
            if self._has_complained:
                return
            self._has_complained = True
        _log.warning("the GPUs cannot be read by NVML: %s", problem)


class _Driver:
    """NVML, opened at its first use. Used by one thread at a time. ``only`` is as :class:`GpuReader` has it."""

    def __init__(self, only: NamedGpu | None) -> None:
        self._nvml: Any = None
        self._only = only

    def read(self) -> tuple[tuple[Gpu, ...], str | None]:
        """All GPUs that answer, and what the first of the others says. Raises when there is no driver, or none answer.

        After that a new one is to be made.
        """
        if self._nvml is None:
            import pynvml

            with suppress(pynvml.NVMLError):  # what an earlier one has left open: a failed driver is opened anew
                pynvml.nvmlShutdown()
            pynvml.nvmlInit()
            self._nvml = pynvml
        nvml = self._nvml
        gpus: list[Gpu] = []
        failure: Exception | None = None
        for device, handle_of in self._handles():
            try:
                gpus.append(self._gpu(device, handle_of()))
            except nvml.NVMLError as error:
                failure = failure or error
        if failure is not None and not gpus:
            raise failure
        return tuple(gpus), None if failure is None else str(failure)

    def _handles(self) -> list[tuple[str, Callable[[], Any]]]:
        """The GPUs to read: what each is called, and how to have its handle."""
        nvml, only = self._nvml, self._only
        if only is not None:
            return [(only.device, partial(nvml.nvmlDeviceGetHandleByUUID, only.uuid))]
        count = min(nvml.nvmlDeviceGetCount(), _GPUS_MAX)
        return [(f"cuda:{index}", partial(nvml.nvmlDeviceGetHandleByIndex, index)) for index in range(count)]

    def _gpu(self, device: str, handle: Any) -> Gpu:
        nvml = self._nvml
        temperature = self._first(
            lambda: nvml.nvmlDeviceGetTemperatureV(handle, nvml.NVML_TEMPERATURE_GPU),
            lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
        )
        load_percent = self._first(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        bits = self._first(
            lambda: nvml.nvmlDeviceGetCurrentClocksEventReasons(handle),
            lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle),
        )
        return Gpu(
            device=device,
            temperature_celsius=temperature,
            utilization_ratio=None if load_percent is None else load_percent / 100,
            throttle_reasons=tuple(name for name, bit in THROTTLE_REASONS.items() if (bits or 0) & bit),
            ecc_errors=self._ecc_errors(handle),
        )

    def _ecc_errors(self, handle: Any) -> int | None:
        nvml = self._nvml
        total = 0
        for kind in (nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED):
            count = self._first(partial(nvml.nvmlDeviceGetTotalEccErrors, handle, kind, nvml.NVML_VOLATILE_ECC))
            if count is None:  # memory without error correction, or with that off
                return None
            total += count
        return total

    def _first(self, *calls: Callable[[], Any]) -> Any:
        """What the first call gives that this driver has; None for what the GPU cannot tell."""
        nvml = self._nvml
        for call in calls:
            try:
                return call()
            except (nvml.NVMLError_FunctionNotFound, AttributeError):  # an older or newer driver, an older package
                continue
            except (nvml.NVMLError_NotSupported, nvml.NVMLError_NoPermission, nvml.NVMLError_InvalidArgument):
                return None
        return None
