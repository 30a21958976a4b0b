"""What a guest has on the device, for snapshots: kernels, device memory, and what its gate keeps.

The bytes go to the snapshot's file, everything else is JSON. Kernels are kept as they were compiled: a release with
another compiler refuses them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from tensor_wasm.dispatch.gate import GateState, LoadableKernel, LoadedRegions
from tensor_wasm.errors import InternalError, InvalidSnapshot, SnapshotVersion
from tensor_wasm.host.device_memory import CpuMemory, DeviceState
from tensor_wasm.host.guest import Guest, GuestKernel
from tensor_wasm.runtime import Region
from tensor_wasm.runtime.image import ImageWriter, read_exactly

Fields = Mapping[str, Any]
_KERNEL_MAX_BYTES = 64 << 20


def capture(guest: Guest, writer: ImageWriter) -> dict[str, Any] | None:
    """The guest's part of a snapshot, between calls; None when it never used the device."""
    gate, memory = guest.gate, guest.device_memory
    if gate is None:
        return None
    if guest.gpu is not None:
        raise InvalidSnapshot(
            "the instance has kernels or memory on a GPU, which no snapshot holds in this release: capture it before it"
            " uses the device, or run it on a node whose device is the CPU"
        )
    state = gate.state()
    scratch_offset = writer.size_bytes
    with gate.scratch() as scratch:
        scratch_bytes = len(scratch)
        writer.write(scratch)
    kernels = []
    for number, kernel in guest.kernels.items():
        encoded = kernel.loaded.compiled.encode()
        kernels.append([number, kernel.ptx_bytes, writer.size_bytes, len(encoded)])
        writer.write(encoded)
    return {
        "scratch": [scratch_offset, scratch_bytes],
        "kernels": kernels,
        "printers": [[number, base] for number, (_, base) in guest.printers.items()],
        "ptx_bytes": guest.ptx_bytes,
        "loaded": [
            [number, one.kernel, one.descriptor, one.descriptor_bytes, one.work_bytes, one.bases]
            for number, one in state.loaded.items()
        ],
        "uses": list(state.uses.items()),
        "heap": list(state.heap),
        "device_table": state.device_table,
        "device": _capture_memory(memory, writer) if isinstance(memory, CpuMemory) else None,
    }


def _capture_memory(memory: CpuMemory, writer: ImageWriter) -> dict[str, Any]:
    state = memory.state()
    regions = []
    for region in state.regions:
        regions.append([region.start, region.size_bytes, region.room, writer.size_bytes])
        with memory.view(region) as view:
            writer.write(view)
    return {
        "pieces": [[handle, *piece] for handle, piece in state.pieces.items()],
        "freed": list(state.freed),
        "next": state.next,
        "regions": regions,
    }


def restore(guest: Guest, fields: Fields, descriptor: int) -> None:
    """Give a guest that has run nothing its part of a snapshot, whose file is at ``descriptor``.

    Raises :class:`InvalidSnapshot`, :class:`SnapshotVersion`, :class:`~tensor_wasm.errors.QuotaExceeded`.
    """
    try:
        _restore(guest, fields, descriptor)
    except (KeyError, TypeError, ValueError, IndexError, OSError, OverflowError, StopIteration) as error:
        raise InvalidSnapshot("the snapshot's device state cannot be read") from error


def _restore(guest: Guest, fields: Fields, descriptor: int) -> None:
    loaded = {
        int(number): LoadedRegions(int(kernel), int(at), int(at_bytes), int(work_bytes), [int(base) for base in bases])
        for number, kernel, at, at_bytes, work_bytes, bases in fields["loaded"]
    }
    uses = {int(number): int(count) for number, count in fields["uses"]}
    heap = [(int(start), int(size_bytes)) for start, size_bytes in fields["heap"]]
    kernels = {int(number): (int(ptx), int(at), int(size)) for number, ptx, at, size in fields["kernels"]}
    if kernels.keys() != loaded.keys():
        raise InvalidSnapshot("the snapshot has kernels without their memory")
    if guest.services.device.gpu is not None:
        raise InvalidSnapshot(
            "the snapshot has kernels of the CPU device, and this node's device is a GPU: restore it on a node whose"
            " device is the CPU"
        )
    gate = guest.bind_gate()
    revived = {}
    for number, (_, offset, size_bytes) in kernels.items():
        if not 0 <= size_bytes <= _KERNEL_MAX_BYTES:
            raise InvalidSnapshot("the snapshot has a kernel that is too large")
        try:
            revived[number] = guest.services.device.revive(read_exactly(descriptor, offset, size_bytes))
        except InternalError:
            raise SnapshotVersion(
                "the snapshot has kernels that another release compiled: capture it again with this one"
            ) from None
    scratch_offset, scratch_bytes = (int(number) for number in fields["scratch"])
    modules = {number: LoadableKernel(kernel.module) for number, kernel in revived.items()}
    gate.restore(GateState(loaded, uses, heap, int(fields["device_table"])), modules, scratch_bytes)
    with gate.scratch() as scratch:
        if len(scratch) != scratch_bytes:
            raise InvalidSnapshot("the snapshot's device state has another size")
        _read_into(descriptor, scratch_offset, scratch)
    for number, kernel in revived.items():
        gate.ask_again(number, kernel.entry)
        instance = modules[number].instance
        assert instance is not None
        guest.kernels[number] = GuestKernel(kernel, instance, kernels[number][0])
    guest.printers.update({int(number): (revived[int(number)], int(base)) for number, base in fields["printers"]})
    guest.ptx_bytes = int(fields["ptx_bytes"])
    if fields["device"] is not None:
        _restore_memory(guest, fields["device"], descriptor)


def _restore_memory(guest: Guest, fields: Fields, descriptor: int) -> None:
    regions = [
        Region(int(start), int(size), None if room is None else [(int(at), int(count)) for at, count in room])
        for start, size, room, _ in fields["regions"]
    ]
    pieces = {int(handle): (int(address), int(size_bytes)) for handle, address, size_bytes in fields["pieces"]}
    memory = guest.device_memory = CpuMemory(guest.bind_gate(), guest.device_budget, guest.on_device_bytes)
    memory.restore(DeviceState(pieces, [int(handle) for handle in fields["freed"]], int(fields["next"]), regions))
    for region, (*_, offset) in zip(regions, fields["regions"], strict=True):
        with memory.view(region) as view:
            _read_into(descriptor, int(offset), view)


def _read_into(descriptor: int, offset: int, view: memoryview) -> None:
    done = 0
    while done < len(view):
        count = os.preadv(descriptor, [view[done:]], offset + done)
        if not count:
            raise InvalidSnapshot("the snapshot's file ends in its device memory")
        done += count
