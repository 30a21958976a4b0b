"""The gate: the WebAssembly between a guest's ``wasi_cuda_launch`` and its kernel. No Python runs there.

Two modules in the guest's own store:

- the *link*, made before the guest because the guest imports from it: hands the host's functions on, and a
  ``wasi_cuda_launch`` that calls what stands in its table, asking the host to bind the gate the first time;
- the *gate* proper, made at the first need, because it imports the guest's memory: checks, permit, clock, argv,
  kernel, counters, in the order of the guest ABI.

A guest that links the CUDA module and never launches pays for the small one only.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from tensor_wasm.dispatch import layout, scratch
from tensor_wasm.dispatch.crew import CrewPool, Memories
from tensor_wasm.dispatch.gate_module import gate_module
from tensor_wasm.dispatch.ledger import Ledger, Slot
from tensor_wasm.dispatch.link_module import CLOCK_EXPORT, HIRE_EXPORT, LAUNCH_TABLE, LinkedImport, link_module
from tensor_wasm.dispatch.scratch import Helpers, KernelEntry
from tensor_wasm.runtime import Engine, Instance, Linker, Module, Store

_PAGE_BYTES = 65_536
_ALIGNMENT = 64


class GuestLink:
    """A deployed function's link: resolved once a function, started in each instance's store."""

    def __init__(self, engine: Engine, linker: Linker, imports: Sequence[LinkedImport]) -> None:
        self._names = [str(position) for position in range(len(imports))]
        self._template = linker.template(engine.compile(link_module(imports)), runs_code=False)

    def start(self, store: Store) -> Instance:
        """Instantiate the link in a new store."""
        return store.start(self._template)

    def externs(self, link: Instance) -> list[Any]:
        """The guest's imports, in the guest's order."""
        return [link.extern(name) for name in self._names]


class GateFactory:
    """Binds gates: the compiled gate of one engine, and the ledger it writes.

    ``helpers`` threads are lent to guests whose launches are large; ``crews`` is None when there are none.
    """

    def __init__(self, engine: Engine, ledger: Ledger, helpers: int = 0) -> None:
        self.ledger = ledger
        self.crews = CrewPool(engine, ledger.memory, layout.BOARDS, helpers) if helpers else None
        self._module = engine.compile(gate_module())

    def bind(self, store: Store, link: Instance, guest_memory: Any, slot: Slot, left_ns: int | None) -> Gate:
        """Make the gate of one guest and put it in the link's table.

        ``guest_memory`` is the C extern of the guest's memory; the invocation has ``left_ns`` to go (None: no end).
        Raises :class:`~tensor_wasm.errors.QuotaExceeded` when scratch memory does not fit the instance's limit.
        """
        names = (LAUNCH_TABLE, CLOCK_EXPORT, HIRE_EXPORT)
        imports = [guest_memory, self.ledger.memory.extern, *(link.extern(name) for name in names)]
        gate = Gate(store, store.instantiate(self._module, imports), guest_memory)
        gate.helpers = Helpers.NEVER if self.crews is None else Helpers.ASK
        gate.start_clock(self.ledger, slot, left_ns)
        return gate

    def close(self) -> None:
        """End the helpers; no guest may be left."""
        if self.crews is not None:
            self.crews.close()


class Gate:
    """One guest's gate, seen from the host: kernels go in, the code of the last refusal comes out."""

    def __init__(self, store: Store, instance: Instance, guest_memory: Any) -> None:
        self._store = store
        self._instance = instance
        self._guest_memory = guest_memory
        self._scratch: Any = instance.extern("scratch")
        self._kernels = instance.extern("kernels")
        self._shares = instance.extern("shares")
        self._regions: list[list[int]] = []  # of each kernel, its own and its helpers'
        self.helpers = Helpers.NEVER
        self._top = scratch.HEAP
        self.kernel_count = 0

    def start_clock(self, ledger: Ledger, slot: Slot, left_ns: int | None) -> None:
        """Tie the gate to its slot; from now on the invocation has ``left_ns`` (None: no end)."""
        self._store.call_short(self._instance.function("enter"), slot.offset)
        if left_ns is None:
            ledger.clear_deadline(slot)
        else:
            ledger.set_deadline(slot, left_ns)

    def add(self, module: Module, work_bytes: int, entry: KernelEntry) -> tuple[int, Instance, int]:
        """Instantiate a kernel with a region of ``work_bytes`` in scratch memory; its id, its instance, and where its
        region starts.

        Raises :class:`~tensor_wasm.errors.QuotaExceeded` when its memory does not fit the instance's limit. A gate
        takes ``KERNELS_MAX`` kernels: whoever calls counts them.
        """
        descriptor = entry.encode(self.helpers)
        base = self._allocate(work_bytes + len(descriptor))
        at = base + work_bytes
        with self._store.memory_view(self._scratch.of.memory) as view:
            view[at : at + len(descriptor)] = descriptor
        region = self._store.i32_global(base)
        kernel = self._store.instantiate(module, [self._guest_memory, self._scratch, region, region])
        identity = self.kernel_count
        self._store.table_set(self._kernels, identity, kernel.function("run"))
        self._store.table_set(self._shares, identity, kernel.function("share"))
        self._regions.append([base])
        self._poke(scratch.DESCRIPTORS + 4 * identity, at)
        self.kernel_count = identity + 1
        self._poke(scratch.KERNEL_COUNT, self.kernel_count)
        return identity, kernel, base

    def scratch(self) -> memoryview:
        """Scratch memory, as it is now; invalid once a kernel runs or is added."""
        return self._store.memory_view(self._scratch.of.memory)

    @property
    def memories(self) -> Memories:
        """What kernels work on, as it is now."""
        return Memories.of(self._store, [self._guest_memory, self._scratch])

    def regions(self, number: int, count: int, work_bytes: int) -> list[int]:
        """Where a kernel's regions are: its own, and those of as many helpers as there may be, zeroed when new.

        Raises :class:`~tensor_wasm.errors.QuotaExceeded` when their memory does not fit the instance's limit.
        """
        found = self._regions[number]
        while len(found) <= count:
            found.append(self._allocate(work_bytes))
        return found[: count + 1]

    def forget_helpers(self) -> None:
        """Have every kernel that helpers know ask for some again; to be called when they are dismissed."""
        for number in range(self.kernel_count):
            at = self._peek(scratch.DESCRIPTORS + 4 * number) + scratch.DESCRIPTOR_CREW
            if self._peek(at) == Helpers.KNOW:
                self._poke(at, Helpers.ASK)

    def thread_ns(self, number: int) -> float:
        """What a thread of a kernel cost when it ran last."""
        with self._store.memory_view(self._scratch.of.memory) as view:
            at = int.from_bytes(view[scratch.DESCRIPTORS + 4 * number :][:4], "little") + scratch.DESCRIPTOR_THREAD_NS
            (cost,) = struct.unpack("<d", view[at : at + 8])
        return float(cost)

    @property
    def last_code(self) -> int:
        """The code of the latest launch if it was refused; 0 after one that succeeded and after :meth:`clear`."""
        return self._peek(scratch.LAST_CODE)

    def set_last_code(self, code: int) -> None:
        """Note what a call of the host's came to."""
        self._poke(scratch.LAST_CODE, code)

    @property
    def block_shape(self) -> tuple[int, int, int]:
        """Block axes of the launch that runs, or ran last."""
        x, y, z = (self._peek(scratch.BLOCK + 4 * axis) for axis in range(3))
        return x, y, z

    def _peek(self, address: int) -> int:
        with self._store.memory_view(self._scratch.of.memory) as view:
            return int.from_bytes(view[address : address + 4], "little", signed=True)

    def _poke(self, address: int, value: int) -> None:
        with self._store.memory_view(self._scratch.of.memory) as view:
            view[address : address + 4] = value.to_bytes(4, "little", signed=True)

    def _allocate(self, size_bytes: int) -> int:
        base = -(-self._top // _ALIGNMENT) * _ALIGNMENT
        self._store.grow_memory(self._scratch.of.memory, base + size_bytes)
        self._top = base + size_bytes
        return base
