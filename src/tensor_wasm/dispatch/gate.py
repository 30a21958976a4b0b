"""The gate: the WebAssembly between a guest's ``wasi_cuda_launch`` and its kernel. No Python runs there.

Two modules in the guest's own store:

- the *link*, made before the guest because the guest imports from it: hands the host's functions on, and a
  ``wasi_cuda_launch`` that calls what stands in its table, asking the host to bind the gate the first time;
- the *gate* proper, made at the first need, because it imports the guest's memory: checks, permit, clock, argv,
  kernel, counters, in the order of the guest ABI.

A guest that links the CUDA module and never launches pays for the small one only.
"""

from __future__ import annotations

import ctypes
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tensor_wasm.abi.limits import ALLOCATIONS_MAX, KERNELS_MAX
from tensor_wasm.dispatch import layout, scratch
from tensor_wasm.dispatch.crew import CrewPool, Memories
from tensor_wasm.dispatch.gate_module import LAUNCH, TRACED_LAUNCH, gate_module
from tensor_wasm.dispatch.ledger import Ledger, Slot
from tensor_wasm.dispatch.link_module import CLOCK_EXPORT, HIRE_EXPORT, LAUNCH_TABLE, LinkedImport, link_module
from tensor_wasm.dispatch.scratch import Helpers, KernelEntry, Placement, Window
from tensor_wasm.errors import QuotaExceeded
from tensor_wasm.runtime import Annex, Engine, Instance, Linker, Module, Spans, Store, TableEntry
from tensor_wasm.runtime import bindings as native

#: Two clocks are compared by reading one within two readings of the other: so close together, or in so many tries.
_CLOCK_READING_NS = 20_000
_CLOCK_READINGS = 4
_ALIGNMENT = 64
_SCRATCH_MAX_BYTES = 1 << 32
#: What an instance of a kernel costs outside its memory, with its globals, measured 0.7 KB. It stays in its store when
#: the kernel is unloaded.
_INSTANCE_BYTES = 1024


class GuestLink:
    """A deployed function's link: resolved once a function, started in each instance's store.

    ``more`` are functions of the host that it hands on, by their names, to others than the guest.
    """

    def __init__(
        self, engine: Engine, linker: Linker, imports: Sequence[LinkedImport], more: Sequence[LinkedImport] = ()
    ) -> None:
        self._names = [str(position) for position in range(len(imports))]
        self._template = linker.template(engine.compile(link_module(imports, more)), runs_code=False)

    def start(self, store: Store) -> Instance:
        """Instantiate the link in a new store."""
        return store.start(self._template)

    def externs(self, link: Instance) -> list[Any]:
        """The guest's imports, in the guest's order."""
        return [link.extern(name) for name in self._names]


class GateFactory:
    """Binds gates: the compiled gate of one engine, and the ledger it writes.

    ``helpers`` threads are lent to guests whose launches are large; ``crews`` is None when there are none.
    ``has_windows`` is for a device that does not see the guests' memory.
    """

    def __init__(self, engine: Engine, ledger: Ledger, helpers: int = 0, *, has_windows: bool = False) -> None:
        self.ledger = ledger
        self.has_windows = has_windows
        self.crews = CrewPool(engine, ledger.memory, layout.BOARDS, helpers) if helpers else None
        self._module = engine.compile(gate_module(has_windows))

    def bind(self, store: Store, link: Instance, guest_memory: Any, slot: Slot, left_ns: int | None) -> Gate:
        """Make the gate of one guest and put it in the link's table.

        ``guest_memory`` is the C extern of the guest's memory; the invocation has ``left_ns`` to go (None: no end).
        Raises :class:`~tensor_wasm.errors.QuotaExceeded` when scratch memory does not fit the instance's limit.
        """
        launch_table, clock, hire = (link.extern(name) for name in (LAUNCH_TABLE, CLOCK_EXPORT, HIRE_EXPORT))
        imports = [guest_memory, self.ledger.memory.extern, launch_table, clock, hire]
        instance = store.instantiate(self._module, imports)
        gate = Gate(store, instance, guest_memory, launch_table, has_windows=self.has_windows)
        gate.helpers = Helpers.NEVER if self.crews is None else Helpers.ASK
        gate.start_clock(self.ledger, slot, left_ns)
        return gate

    def close(self) -> None:
        """End the helpers; no guest may be left."""
        if self.crews is not None:
            self.crews.close()


@dataclass(slots=True)
class LoadedRegions:
    """What a loaded kernel has in scratch memory: its descriptor, and the regions, its own and its helpers'."""

    kernel: int
    descriptor: int
    descriptor_bytes: int
    work_bytes: int
    bases: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class GateState:
    """A gate as a snapshot has it: kernels by number, how often numbers were used, free space, table of devices."""

    loaded: Mapping[int, LoadedRegions]
    uses: Mapping[int, int]
    heap: Sequence[tuple[int, int]]
    device_table: int


@dataclass(slots=True)
class LoadableKernel:
    """A kernel's module, and its instance once there is one."""

    module: Module
    instance: Instance | None = None


class Gate:
    """One guest's gate, seen from the host: kernels go in, the code of the last refusal comes out."""

    def __init__(
        self, store: Store, instance: Instance, guest_memory: Any, launch_table: Any, *, has_windows: bool = False
    ) -> None:
        self._store = store
        self._launch_table = launch_table
        self._has_windows = has_windows
        #: The functions that can stand there, plain and traced, once an instance was traced.
        self._launches: tuple[TableEntry, TableEntry] | None = None
        self._enter = instance.function("enter")
        self._instance = instance
        self._guest_memory = guest_memory
        self._scratch: Any = instance.extern("scratch")
        self._kernels = instance.extern("kernels")
        self._shares = instance.extern("shares")
        self._loaded: dict[int, LoadedRegions] = {}
        self._uses: dict[int, int] = {}  # how often a kernel's number was used and given back
        self._heap = Spans(scratch.WINDOWS_END if has_windows else scratch.HEAP, _SCRATCH_MAX_BYTES)
        self._device_table = 0
        self._retired_bytes = 0
        self.helpers = Helpers.NEVER

    def start_clock(self, ledger: Ledger, slot: Slot, left_ns: int | None) -> None:
        """Tie the gate to its slot; from now on the invocation has ``left_ns`` (None: no end)."""
        self._store.call_short(self._enter, slot.offset)
        if left_ns is None:
            ledger.clear_deadline(slot)
        else:
            ledger.set_deadline(slot, left_ns)

    def begin_trace(self, ledger: Ledger, slot: Slot) -> int:
        """From now on note launches in the ring that the slot has, and have a GPU take their time; what to add to the
        gate's clock to have :func:`time.monotonic_ns`'s.
        """
        offset_ns = self.clock_offset_ns(ledger, slot)
        if self._launches is None:
            plain, traced = (self._instance.function(name) for name in (LAUNCH, TRACED_LAUNCH))
            self._launches = TableEntry(self._launch_table, 0, plain), TableEntry(self._launch_table, 0, traced)
        self._launches[1].put(self._store)
        if self._has_windows:
            self._poke(scratch.GPU_TIMED, 1)
        return offset_ns

    def clock_offset_ns(self, ledger: Ledger, slot: Slot) -> int:
        """What to add to the gate's clock to have :func:`time.monotonic_ns`'s."""
        enter, slot_offset = self._enter, slot.offset
        shortest_ns = offset_ns = 0
        for _ in range(_CLOCK_READINGS):
            before_ns = time.monotonic_ns()
            self._store.call_short(enter, slot_offset)
            took_ns = time.monotonic_ns() - before_ns
            if not shortest_ns or took_ns < shortest_ns:
                shortest_ns, offset_ns = took_ns, before_ns + took_ns // 2 - ledger.clock_ns(slot)
            if took_ns < _CLOCK_READING_NS:
                break
        return offset_ns

    def end_trace(self) -> None:
        """Note no more launches."""
        assert self._launches is not None
        self._launches[0].put(self._store)
        if self._has_windows:
            self._poke(scratch.GPU_TIMED, 0)

    def kernel_ids(self) -> dict[int, int]:
        """The ids of the kernels that there are, by number."""
        return {number: loaded.kernel for number, loaded in self._loaded.items()}

    def add(
        self, module: Module, work_bytes: int, entry: KernelEntry, more_imports: Sequence[Any] = ()
    ) -> tuple[int, Instance, int]:
        """Instantiate a kernel with a region of ``work_bytes`` in scratch memory; its id, its instance, and where its
        region starts.

        ``more_imports`` are C externs of this store that its module imports after those of every kernel. Raises
        :class:`~tensor_wasm.errors.QuotaExceeded` when its memory does not fit the instance's limit. A gate takes
        ``KERNELS_MAX`` kernels: whoever calls counts them.
        """
        number = next(number for number in range(KERNELS_MAX) if number not in self._loaded)
        descriptor = entry.encode(self.helpers)
        at = self._allocate(len(descriptor))
        try:
            base = self._allocate(work_bytes)
        except QuotaExceeded:
            self._free(at, len(descriptor))
            raise
        with self.scratch() as view:
            view[at : at + len(descriptor)] = descriptor
        region = self._store.i32_global(base)
        kernel = self._store.instantiate(module, [self._guest_memory, self._scratch, region, region, *more_imports])
        identity = number + KERNELS_MAX * self._uses.get(number, 0)
        self._loaded[number] = LoadedRegions(identity, at, len(descriptor), work_bytes, [base])
        self._store.table_set(self._kernels, number, kernel.function("run"))
        self._store.table_set(self._shares, number, kernel.function("share"))
        self._write_kernel(number, identity + 1, at)
        return identity, kernel, base

    def has(self, kernel: int) -> bool:
        """Whether there is a kernel of this id."""
        found = self._loaded.get(kernel & (KERNELS_MAX - 1))
        return found is not None and found.kernel == kernel

    def remove(self, kernel: int) -> None:
        """Forget a kernel that there is, by its id. Its memory is for others then.

        What its instance costs besides stays until the store ends, and counts against the instance's limit. Raises
        :class:`~tensor_wasm.errors.QuotaExceeded` when that has no room for it: the kernel is still there.
        """
        if not self._store.budget.take(_INSTANCE_BYTES):
            raise QuotaExceeded("the instance has unloaded too many kernels: each leaves a kilobyte until it ends")
        if not self._retired_bytes:
            self._store.allow_instances()
        self._retired_bytes += _INSTANCE_BYTES
        number = kernel & (KERNELS_MAX - 1)
        found = self._loaded.pop(number)
        self._write_kernel(number, 0, 0)
        self._uses[number] = self._uses.get(number, 0) + 1
        self._free(found.descriptor, found.descriptor_bytes)
        for base in found.bases:
            self._free(base, found.work_bytes)

    def close(self) -> None:
        """Give back what counts against the instance's limit and is not in a memory."""
        self._store.budget.give(self._retired_bytes)
        self._retired_bytes = 0

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
        found = self._loaded[number].bases
        while len(found) <= count:
            found.append(self._allocate(work_bytes))
        return found[: count + 1]

    def forget_helpers(self) -> None:
        """Have every kernel that helpers know ask for some again; to be called when they are dismissed."""
        for loaded in self._loaded.values():
            at = loaded.descriptor + scratch.DESCRIPTOR_CREW
            if self._peek(at) == Helpers.KNOW:
                self._poke(at, Helpers.ASK)

    def thread_ns(self, number: int) -> float:
        """What a thread of a kernel cost when it ran last."""
        at = self._loaded[number].descriptor + scratch.DESCRIPTOR_THREAD_NS
        with self.scratch() as view:
            (cost,) = struct.unpack("<d", view[at : at + 8])
        return float(cost)

    # --- for snapshots ------------------------------------------------------------------------------------

    def state(self) -> GateState:
        """What there is besides the bytes of scratch memory, between launches."""
        loaded = {number: replace(found, bases=list(found.bases)) for number, found in self._loaded.items()}
        return GateState(loaded, dict(self._uses), self._heap.free, self._device_table)

    def restore(self, state: GateState, modules: Mapping[int, LoadableKernel], scratch_bytes: int) -> None:
        """Take on a state, in a gate that has no kernels; scratch memory is grown to so many bytes.

        ``modules`` are the kernels by number. Their descriptors are in scratch memory: write that, then
        :meth:`ask_again`. Raises :class:`~tensor_wasm.errors.QuotaExceeded` when scratch memory does not fit.
        """
        self._store.grow_memory(self._scratch.of.memory, scratch_bytes)
        self._uses = dict(state.uses)
        self._heap = Spans.of(state.heap)
        self._device_table = state.device_table
        for number, found in sorted(state.loaded.items()):
            region = self._store.i32_global(found.bases[0])
            kernel = self._store.instantiate(
                modules[number].module, [self._guest_memory, self._scratch, region, region]
            )
            modules[number].instance = kernel
            self._store.table_set(self._kernels, number, kernel.function("run"))
            self._store.table_set(self._shares, number, kernel.function("share"))
            self._loaded[number] = replace(found, bases=list(found.bases))

    def ask_again(self, number: int, entry: KernelEntry) -> None:
        """Have a restored kernel ask for helpers when it needs some, if this node has any."""
        helpers = self.helpers if entry.uses_helpers else Helpers.NEVER
        self._poke(self._loaded[number].descriptor + scratch.DESCRIPTOR_CREW, helpers)

    # --- device memory ------------------------------------------------------------------------------------

    def annex(self) -> Annex:
        """A new annex of the guest's memory."""
        pool = self._store.engine.pool
        base = native.memory_data(self._store.context, ctypes.byref(self._guest_memory.of.memory))
        memory = pool.find(base or 0)
        assert memory is not None
        return Annex(pool, memory, self._store.budget)

    def set_device(self, handle: int, address: int, size_bytes: int) -> None:
        """Have launches know a device allocation. On a GPU ``address`` is its offset in the partition, in units of
        ``1 << scratch.DEVICE_ADDRESS_SHIFT`` bytes.

        Raises :class:`~tensor_wasm.errors.QuotaExceeded` when there is no room for the table of them.
        """
        if not self._device_table:
            self._device_table = self._allocate(scratch.DEVICE_TABLE_BYTES)
            self._poke(scratch.DEVICE_TABLE, self._device_table)
        self._write_device(handle, struct.pack("<QII", handle, address, size_bytes))

    def unset_device(self, handle: int) -> None:
        """Have launches know an allocation no more."""
        self._write_device(handle, bytes(scratch.DEVICE_BYTES))

    def _write_device(self, handle: int, entry: bytes) -> None:
        at = self._device_table + scratch.DEVICE_BYTES * ((handle - 1) & (ALLOCATIONS_MAX - 1))
        with self.scratch() as view:
            view[at : at + len(entry)] = entry

    # --- a GPU: only for gates that have windows ------------------------------------------------------------

    def place(self, placement: Placement) -> None:
        """Say where launches go."""
        words = placement.encode()
        with self.scratch() as view:
            view[scratch.GPU_LANE : scratch.GPU_LANE + len(words)] = words

    def windows(self) -> list[Window]:
        """The guest pointers of the launch that runs, also those with no bytes."""
        count = self._peek(scratch.WINDOW_COUNT)
        with self.scratch() as view:
            entries = bytes(view[scratch.WINDOWS : scratch.WINDOWS + count * scratch.WINDOW_BYTES])
        return [Window(*fields) for fields in struct.iter_unpack("<3I", entries)]

    def shown(self, words: int = -1) -> list[tuple[int, int]]:
        """The ranges of guest memory that those pointers show, ascending, each byte once: their starts and bytes.

        Of those pointers alone that stand where ``words`` has a bit for the parameter block's 64-bit word.
        """
        found: list[tuple[int, int]] = []
        windows = (window for window in self.windows() if words >> (window.parameter // 8) & 1)
        for _, start, size_bytes in sorted(windows, key=lambda window: window.start):
            before, before_bytes = found[-1] if found else (0, 0)
            if found and start <= before + before_bytes:
                found[-1] = before, max(before_bytes, start + size_bytes - before)
            elif size_bytes:
                found.append((start, size_bytes))
        return found

    # --- words --------------------------------------------------------------------------------------------

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

    def _write_kernel(self, number: int, identity: int, descriptor: int) -> None:
        entry = struct.pack("<qi4x", identity, descriptor)
        at = scratch.KERNELS + scratch.KERNEL_BYTES * number
        with self.scratch() as view:
            view[at : at + len(entry)] = entry

    def _allocate(self, size_bytes: int) -> int:
        """Zeroed bytes of scratch memory, at a multiple of ``_ALIGNMENT``."""
        size_bytes = _rounded(size_bytes)
        base = self._heap.take(size_bytes)
        if base is None:
            raise QuotaExceeded("the kernel's memory does not fit the limit of an instance")
        try:
            self._store.grow_memory(self._scratch.of.memory, base + size_bytes)
        except QuotaExceeded:
            self._heap.give(base, size_bytes)
            raise
        return base

    def _free(self, base: int, size_bytes: int) -> None:
        size_bytes = _rounded(size_bytes)
        if size_bytes:
            address = native.memory_data(self._store.context, ctypes.byref(self._scratch.of.memory))
            self._store.engine.pool.clear((address or 0) + base, size_bytes)
            self._heap.give(base, size_bytes)


def _rounded(size_bytes: int) -> int:
    return -(-size_bytes // _ALIGNMENT) * _ALIGNMENT
