"""A tenant on a GPU: its partition, what of that is in use, and its kernels, fenced for it and assembled once."""

from __future__ import annotations

import contextlib
import re
import threading
import weakref
from collections import OrderedDict, deque
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Final

from blake3 import blake3

from tensor_wasm.compiler import ParameterLayout
from tensor_wasm.device.cuda.assembler import Assembler
from tensor_wasm.device.cuda.driver import GpuFacts
from tensor_wasm.device.cuda.fencing import Reader, read_here
from tensor_wasm.device.cuda.gpu import Gpu
from tensor_wasm.device.fence import FAULT_BYTES, GUARD_BYTES, Partition
from tensor_wasm.device.protocol import Interrupt
from tensor_wasm.errors import (
    CapacityExhausted,
    DeviceRestarting,
    EndingError,
    InternalError,
    KernelError,
    TensorWasmError,
)
from tensor_wasm.runtime import Spans

#: Pieces of a partition start at multiples of this, and their sizes are.
ALIGNMENT: Final = 256
#: Kernels that nothing refers to any more, kept assembled to be used again.
_IDLE_KERNELS_MAX: Final = 64
#: How often a caller that waits for another's kernel looks whether it should still wait.
_POLL_S: Final = 0.04
#: Text for this architecture is taken by every driver there is, and runs on all newer GPUs.
_TARGET_LEAST: Final = 90


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class GpuKernel:
    """A kernel of a tenant's, in use as long as anything refers to this object.

    ``number`` is what requests on the board name. ``max_threads`` is how many a block can have, by the registers that
    the kernel takes; ``trap_lines`` are the PTX lines of its trap instructions. ``fault_address`` is where on the
    device it leaves the line of a trap or of an access outside; with ``leaves_faults`` the worker brings that to the
    board after each launch. ``written`` is a mask of the parameter block's words: bit i where the kernel may write
    through a pointer at byte offset 8 * i. The rest is as in :class:`~tensor_wasm.compiler.CompiledKernel`.
    """

    number: int
    name: str
    parameters: tuple[ParameterLayout, ...]
    parameter_bytes: int
    reqntid: tuple[int, int, int] | None
    maxntid: tuple[int, int, int] | None
    max_threads: int
    fault_address: int
    leaves_faults: bool
    trap_lines: frozenset[int]
    written: int


@dataclass(slots=True, eq=False)
class _Assembled:
    """A kernel as the worker has it, and how many use it. Its image is at ``fault_address``.

    One with variables that kernels write to is used by one at a time.
    """

    key: str
    fields: tuple[object, ...]
    number: int
    image_base: int
    image: bytes
    is_shared: bool
    users: int = 1

    @property
    def has_variables(self) -> bool:
        return len(self.image) > FAULT_BYTES


class _Use(weakref.ref[GpuKernel]):
    """Says when a kernel is not in use any more."""

    __slots__ = ("assembled",)

    assembled: _Assembled


class GpuTenant:
    """A partition of ``partition_bytes``, a power of two, for the tenant ``number``. Safe for threads.

    ``reader`` reads and fences its texts. All of it is void once the GPU has another worker than the one that made it
    (:attr:`is_void`). Every call may raise :class:`DeviceRestarting`.
    """

    def __init__(self, gpu: Gpu, number: int, partition_bytes: int, reader: Reader = read_here) -> None:
        self._gpu = gpu
        self._read = reader
        self.number = number
        self.generation = gpu.generation
        self.partition: Partition = gpu.open_tenant(number, partition_bytes)
        if gpu.generation != self.generation:  # whose partition that is cannot be told
            with contextlib.suppress(TensorWasmError):
                gpu.close_tenant(number)
            raise DeviceRestarting("the GPU's worker was restarted while a partition was opened")
        base, end = self.partition.base, self.partition.base + partition_bytes
        # Null pointers and what misses the partition by a little lead to its ends: nothing lies there.
        self._free = Spans(base + GUARD_BYTES, end - GUARD_BYTES)
        self._taken: dict[int, int] = {}
        self.used_bytes = 0
        self._entries: dict[str, list[_Assembled]] = {}
        self._idle: OrderedDict[int, _Assembled] = OrderedDict()
        self._flights: dict[str, Future[None]] = {}
        self._uses: dict[int, _Use] = {}
        # The garbage collector may call at any moment, also while this thread has the lock.
        self._returned: deque[_Use] = deque()
        self._lock = threading.Lock()
        self._is_closed = False

    @property
    def is_void(self) -> bool:
        """Whether what was on the GPU is gone."""
        return self.generation != self._gpu.generation

    @property
    def capacity_bytes(self) -> int:
        """The largest piece there can be."""
        return self.partition.size_bytes - 2 * GUARD_BYTES

    @property
    def empty_address(self) -> int:
        """For an array without elements: no null pointer, outside of the partition, and nobody's when it is used."""
        return self.partition.base + self.partition.size_bytes + GUARD_BYTES // 2

    # --- memory -------------------------------------------------------------------------------------------------

    def take(
        self, size_bytes: int, *, is_cleared: bool = True, alignment: int = ALIGNMENT, is_high: bool = False
    ) -> int:
        """Memory of the partition, zeros unless ``is_cleared`` is false: its address, a multiple of 256 or more.

        ``is_high`` takes it from the other end, out of the way of what is large.

        Raises :class:`CapacityExhausted` when there is no room.
        """
        self._collect()
        span = -(-max(size_bytes, 1) // ALIGNMENT) * ALIGNMENT
        address = self._find(span, alignment, is_high=is_high)
        if address is None and self._drop(0):
            address = self._find(span, alignment, is_high=is_high)
        if address is None:
            raise CapacityExhausted(
                f"the tenant's part of the GPU's memory has no room for {span:,} more bytes: {self.used_bytes:,} of "
                f"{self.capacity_bytes:,} are in use"
            )
        if is_cleared:
            try:
                self._gpu.set_memory(self.number, address, 0, span, generation=self.generation)
            except BaseException:
                self.give(address)
                raise
        return address

    def give(self, address: int) -> None:
        """Take memory back. Nothing on the GPU uses it any more."""
        with self._lock:
            span = self._taken.pop(address)
            self._free.give(address, span)
            self.used_bytes -= span

    def _find(self, span: int, alignment: int, *, is_high: bool) -> int | None:
        with self._lock:
            whole = span + alignment - ALIGNMENT
            start = self._free.take_high(whole) if is_high else self._free.take(whole)
            if start is None:
                return None
            address = -(-start // alignment) * alignment
            self._give_back(start, address - start)
            self._give_back(address + span, start + whole - address - span)
            self._taken[address] = span
            self.used_bytes += span
            return address

    def _give_back(self, start: int, size_bytes: int) -> None:
        if size_bytes:
            self._free.give(start, size_bytes)

    def copy_in(self, address: int, data: memoryview) -> None:
        """Copy bytes, any number of them, to memory that was taken."""
        self._gpu.copy_in(self.number, address, data, generation=self.generation)

    def copy_out(self, address: int, into: memoryview) -> None:
        """Fill ``into`` from memory that was taken."""
        self._gpu.copy_out(self.number, address, into, generation=self.generation)

    # --- kernels ------------------------------------------------------------------------------------------------

    def kernel(
        self, ptx: bytes, entry: str, *, is_checked: bool = False, interrupt: Interrupt | None = None
    ) -> GpuKernel:
        """The kernel ``entry`` of a text, its variables at their initial values; taken from the cache where it can be.

        Kernels without variables that they write to are shared by all who ask for them at the same time. With
        ``is_checked`` an access outside of the partition leaves its line. ``interrupt`` is asked while this waits for
        another caller who assembles the same.

        Raises :class:`PtxError`, :class:`CapacityExhausted`, and what ``interrupt`` gives.
        """
        key = _key(ptx, entry, is_checked=is_checked)
        self._collect()
        while True:
            with self._lock:
                if self._is_closed:
                    raise KernelError("the tenant's part of the GPU is closed")
                assembled, is_fresh = self._use(key)
                flight = self._flights.get(key)
                if assembled is None and flight is None:
                    mine = self._flights[key] = Future()
                    break
            if assembled is not None:
                return self._handle(assembled, is_fresh=is_fresh)
            assert flight is not None
            _wait(flight, interrupt)
        try:
            assembled = self._assemble(key, ptx, entry, interrupt, is_checked=is_checked)
        except BaseException as error:
            with self._lock:
                del self._flights[key]
            if isinstance(error, EndingError) and not isinstance(error, DeviceRestarting):
                mine.set_result(None)  # this caller's own end: another one assembles it
            elif isinstance(error, Exception):
                mine.set_exception(error)
            else:
                mine.set_exception(InternalError("the caller that loaded this kernel was interrupted"))
            raise
        with self._lock:
            self._entries.setdefault(key, []).append(assembled)
            del self._flights[key]
        mine.set_result(None)
        return self._handle(assembled, is_fresh=True)

    def reset(self, kernel: GpuKernel) -> None:
        """Give a kernel's variables their initial values again. It does not run."""
        use = next((each for each in tuple(self._uses.values()) if each() is kernel), None)
        if use is not None:
            self._write_image(use.assembled)

    def _use(self, key: str) -> tuple[_Assembled | None, bool]:
        """A kernel that can be used once more, counted, and whether its image is as it should be. With the lock."""
        for assembled in self._entries.get(key, ()):
            if assembled.users == 0 or assembled.is_shared:
                is_fresh = assembled.users > 0 or not assembled.has_variables
                assembled.users += 1
                self._idle.pop(assembled.number, None)
                return assembled, is_fresh
        return None, False

    def _handle(self, assembled: _Assembled, *, is_fresh: bool) -> GpuKernel:
        kernel = GpuKernel(*assembled.fields)  # type: ignore[arg-type]
        use = _Use(kernel, self._returned.append)
        use.assembled = assembled
        self._uses[id(use)] = use
        if not is_fresh:
            self._write_image(assembled)
        return kernel

    def _write_image(self, assembled: _Assembled) -> None:
        self.copy_in(assembled.image_base, memoryview(assembled.image))

    def _assemble(
        self, key: str, ptx: bytes, entry: str, interrupt: Interrupt | None, *, is_checked: bool
    ) -> _Assembled:
        kernel = self._read(ptx, entry, interrupt)
        draft = kernel.draft
        base = self.take(draft.image_bytes, is_cleared=False, alignment=draft.image_alignment, is_high=True)
        try:
            target = _target(draft.target, self._gpu.facts.sm)
            assembler = _assembler(self._gpu.facts)
            fenced = kernel.fence(self.partition, base, target, is_checked=is_checked, assembler=assembler)
            leaves_faults = is_checked or bool(draft.trap_lines)
            number, max_threads = self._gpu.load(
                self.number, fenced, base, leaves_faults=leaves_faults, generation=self.generation
            )
        except BaseException:
            self.give(base)
            raise
        fields = (
            number,
            draft.name,
            draft.parameters,
            draft.parameter_bytes,
            draft.reqntid,
            draft.maxntid,
            max_threads,
            base,
            leaves_faults,
            draft.trap_lines,
            draft.written,
        )
        return _Assembled(key, fields, number, base, fenced.image, is_shared=not draft.has_variables)

    # --- kernels that are not in use any more -------------------------------------------------------------------

    def _collect(self) -> None:
        """Note which kernels are not in use any more, and forget those that are too many."""
        while self._returned:
            use = self._returned.popleft()
            if self._uses.pop(id(use), None) is not None:
                with self._lock:
                    assembled = use.assembled
                    assembled.users -= 1
                    if not assembled.users:
                        self._idle[assembled.number] = assembled
        if len(self._idle) > _IDLE_KERNELS_MAX:
            self._drop(_IDLE_KERNELS_MAX)

    def _drop(self, kept: int) -> bool:
        """Forget idle kernels but the latest ``kept``; whether there were any."""
        dropped = []
        with self._lock:
            while len(self._idle) > kept:
                _, assembled = self._idle.popitem(last=False)
                entries = self._entries[assembled.key]
                entries.remove(assembled)
                if not entries:
                    del self._entries[assembled.key]
                dropped.append(assembled)
        for assembled in dropped:
            self._gpu.unload(assembled.number, generation=self.generation)
            self.give(assembled.image_base)
        return bool(dropped)

    # --- the end ------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give the partition back. Safe to call twice; nothing is done for one that is void."""
        with self._lock:
            was_closed, self._is_closed = self._is_closed, True
        if not was_closed and not self.is_void:
            with contextlib.suppress(DeviceRestarting):
                self._gpu.close_tenant(self.number, generation=self.generation)


def _key(ptx: bytes, entry: str, *, is_checked: bool) -> str:
    name = entry.encode("utf-8", "surrogatepass")
    content = blake3(f"{is_checked:d}\0{len(name)}\0".encode() + name)
    content.update(ptx)
    return content.hexdigest()


def _target(text_target: str, sm: str) -> str:
    """What a text's fenced kernel is for. Not always the GPU itself: newer ones need a newer version of PTX, which the
    text would have to be of; but the instructions of all architectures before it are its too.
    """
    gpu, text = _architecture(sm), _architecture(text_target)
    return f"sm_{min(max(text, _TARGET_LEAST), gpu)}"


def _assembler(facts: GpuFacts) -> Assembler | None:
    """What makes machine code for a GPU; None where its driver has to."""
    return Assembler(facts.assembler, facts.sm) if facts.assembler else None


def _architecture(sm: str) -> int:
    found = re.match(r"sm_([0-9]{2,3})", sm)
    return int(found[1]) if found else _TARGET_LEAST


def _wait(flight: Future[None], interrupt: Interrupt | None) -> None:
    """Wait for another caller. Raises what that one met, and what ``interrupt`` gives."""
    while not flight.done():
        error = interrupt() if interrupt is not None else None
        if error is not None:
            raise error
        wait([flight], _POLL_S)
    flight.result()
