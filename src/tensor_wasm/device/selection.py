"""Which device a node or program uses, by its setting."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tensor_wasm.config import is_device
from tensor_wasm.device.compilers import Compilers
from tensor_wasm.device.cpu import CpuDevice
from tensor_wasm.device.cuda.discovery import Discovery, Lack, find
from tensor_wasm.device.cuda.driver import GpuFacts
from tensor_wasm.device.protocol import Device
from tensor_wasm.errors import ConfigurationError, DeviceUnavailable
from tensor_wasm.runtime import ModuleCache, SealedFiles

if TYPE_CHECKING:
    from tensor_wasm.device.cuda.supervisor import WorkerEnd

_log = logging.getLogger("tensor_wasm.device")


@dataclass(frozen=True, slots=True)
class Choice:
    """The GPU to use, or None for the CPU; ``reason`` says why that one, for the log.

    ``is_lacking``: there is a GPU, which would be used were something not missing.
    """

    gpu: GpuFacts | None
    reason: str
    is_lacking: bool = False


def choose(name: str, look: Callable[[], Discovery] = find) -> Choice:
    """The device of a name: ``cpu``; ``cuda:N`` or ``cuda:GPU-…``, a GPU by its number or UUID; ``auto`` for the first
    GPU that can be used, or else the CPU.

    Raises :class:`~tensor_wasm.errors.ConfigurationError` for a name of no device, and
    :class:`~tensor_wasm.errors.DeviceUnavailable` for a GPU that there is not or that cannot be used, with what to do.
    """
    if not is_device(name):
        raise ConfigurationError(f"{name[:80]!r} names no device: use auto, cpu, cuda:N or cuda:GPU-UUID")
    if name == "cpu":
        return Choice(None, "the CPU was asked for")
    found = look()
    if name == "auto":
        return _best(found)
    wanted = name.removeprefix("cuda:")
    gpu = next((gpu for gpu in found.gpus if _is(gpu.facts, wanted)), None)
    lack = found.lack if gpu is None else gpu.lack
    if gpu is not None and lack is None:
        return Choice(gpu.facts, f"{name} was asked for")
    raise DeviceUnavailable(f"{name}: {lack or _others(found)}")


def _is(facts: GpuFacts, wanted: str) -> bool:
    return int(wanted) == facts.index if wanted.isdigit() else wanted.lower() == facts.uuid.lower()


def _best(found: Discovery) -> Choice:
    for gpu in found.gpus:
        if gpu.lack is None:
            return Choice(gpu.facts, f"cuda:{gpu.facts.index} can be used")
    if found.lack is not None:
        return Choice(None, str(found.lack), not found.lack.is_plain)
    return Choice(None, "; ".join(f"cuda:{gpu.facts.index}: {gpu.lack}" for gpu in found.gpus), is_lacking=True)


def _others(found: Discovery) -> Lack:
    names = ", ".join(f"cuda:{gpu.facts.index} or cuda:{gpu.facts.uuid}" for gpu in found.gpus)
    return Lack("there is no such GPU", f"there is {names}")


def open_device(
    name: str,
    modules: ModuleCache,
    files: SealedFiles,
    compilers: Compilers | None = None,
    *,
    partition_bytes: int = 1 << 30,
    staging_bytes: int = 512 << 20,
) -> Device:
    """The device of that name for a node, as :func:`choose` has it.

    ``compilers`` compile its kernels, or fence them, outside this process; the pool stays its maker's to close. On a
    GPU each tenant has ``partition_bytes``, a power of two, and ``staging_bytes`` are pinned. One that is chosen by
    ``auto`` and does not start leaves the CPU.

    Raises what :func:`choose` does.
    """
    if name == "cpu":
        return CpuDevice(modules, files, compilers)
    try:
        choice = choose(name)
        if choice.gpu is not None:
            return open_gpu(choice.gpu.index, modules, partition_bytes, staging_bytes, compilers)
        _log.log(logging.WARNING if choice.is_lacking else logging.INFO, "kernels run on the CPU: %s", choice.reason)
    except ConfigurationError as error:
        if name != "auto":
            raise type(error)(f"TENSOR_WASM_DEVICE={error}") from None
        _log.warning("kernels run on the CPU: %s", error)
    return CpuDevice(modules, files, compilers)


def open_gpu(
    index: int, modules: ModuleCache, partition_bytes: int, staging_bytes: int, compilers: Compilers | None
) -> Device:
    """A GPU, by its number. Raises :class:`~tensor_wasm.errors.DeviceUnavailable`."""
    from tensor_wasm.device.cuda.device import CudaDevice  # only here: without a GPU nothing of it is loaded
    from tensor_wasm.device.cuda.gpu import Gpu

    def start(on_end: Callable[[WorkerEnd], None]) -> Gpu:
        return Gpu(index, staging_bytes=staging_bytes, on_end=on_end)

    return CudaDevice(start, modules, partition_bytes, compilers)
