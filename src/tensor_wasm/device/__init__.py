"""Devices: what turns PTX into something a gate can launch. One protocol; `cpu.py` runs it on the node's processors."""

from tensor_wasm.device.compilers import Compilers
from tensor_wasm.device.cpu import CpuDevice
from tensor_wasm.device.protocol import COMPILE_BUCKETS_S, LOAD_BUCKETS_S, Device, KernelStatistics, LoadedKernel
from tensor_wasm.device.selection import open_device

__all__ = [
    "COMPILE_BUCKETS_S",
    "LOAD_BUCKETS_S",
    "Compilers",
    "CpuDevice",
    "Device",
    "KernelStatistics",
    "LoadedKernel",
    "open_device",
]
