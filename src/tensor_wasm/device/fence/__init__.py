"""Kernels confined to their tenant's partition of a GPU's memory, and to what is their own of everything else.

A GPU's threads share one address space with all that its context holds. So no kernel reaches the driver as its tenant
wrote it: the typed program is changed, and what the driver's assembler reads is written anew from that.
"""

from tensor_wasm.device.fence.image import Image, lay_out
from tensor_wasm.device.fence.rewriting import FencedKernel, confine, fence
from tensor_wasm.device.partition import FAULT_BYTES, GUARD_BYTES, Partition

__all__ = ["FAULT_BYTES", "GUARD_BYTES", "FencedKernel", "Image", "Partition", "confine", "fence", "lay_out"]
