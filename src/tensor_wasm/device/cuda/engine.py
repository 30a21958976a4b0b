"""What a worker does with the driver: tenants' memory, their kernels, copies, and through :mod:`.lanes` launches.

Nothing that waits holds up launches: while work is waited for, other lanes' requests are begun. Each operation that
fails undoes what it did, or can be asked for again and goes on where it failed; after a sticky error there is nothing
to undo, and the worker ends.
"""

from __future__ import annotations

import contextlib
import mmap
import time
from collections.abc import Callable
from typing import Final

import numpy as np

from tensor_wasm.abi.limits import BLOCK_THREADS_MAX
from tensor_wasm.device.cuda.blocks import entries, is_bounded, widened
from tensor_wasm.device.cuda.board import BYTES
from tensor_wasm.device.cuda.driver import NOT_FOUND, OUT_OF_MEMORY, Driver, DriverError, GpuFacts
from tensor_wasm.device.cuda.lanes import Lanes
from tensor_wasm.device.cuda.memory import PartitionMemory
from tensor_wasm.device.cuda.records import Assembled, Kernel, Running, Tenant
from tensor_wasm.device.partition import FAULT_BYTES, GUARD_BYTES

#: Pinned memory of the worker's own, by which images go to the device.
_BOUNCE_BYTES: Final = 1 << 20
#: How long a wait spins before it sleeps between looks, and how long it sleeps.
_SPIN_S: Final = 0.002
_SLEEP_S: Final = 50e-6
#: What machine code begins with.
_MACHINE_CODE: Final = b"\x7fELF"


class Engine:
    """A GPU's context, and all in it. One thread calls, but for :meth:`assemble`.

    ``board`` is the file that the node shares, with its staging area, which this process has at ``host_address``, a
    multiple of the page size. ``on_wait`` is called again and again during each wait; what it raises ends the wait.
    Every call may raise :class:`DriverError`, and ValueError for what the caller may not ask.
    """

    def __init__(
        self,
        driver: Driver,
        index: int,
        board: memoryview,
        host_address: int,
        on_wait: Callable[[], None] = lambda: None,
    ) -> None:
        if len(board) < BYTES:
            raise ValueError(f"the board has {len(board)} bytes and needs {BYTES}")
        self.facts: GpuFacts = driver.facts(index)
        self._driver = driver
        self._on_wait = on_wait
        self._staging = host_address + BYTES
        self._staging_bytes = len(board) - BYTES
        self._tenants: dict[int, tuple[Tenant, PartitionMemory]] = {}
        #: Modules without a kernel so far.
        self._modules: dict[int, Assembled] = {}
        #: Of partitions that failed to open, what could not be given back at once.
        self._remains: list[PartitionMemory] = []
        self._next_kernel = 1
        self._bounce = mmap.mmap(-1, _BOUNCE_BYTES)
        self._bounce_address = np.frombuffer(self._bounce, np.uint8).ctypes.data
        self._context = driver.create_context(index)
        with contextlib.ExitStack() as undo:
            undo.callback(self._quietly, driver.destroy_context, self._context)
            self._granule = max(driver.granularity(), GUARD_BYTES)
            device_address = driver.register_host(host_address, len(board))
            undo.callback(self._quietly, driver.unregister_host, host_address)
            driver.register_host(self._bounce_address, _BOUNCE_BYTES)
            undo.callback(self._quietly, driver.unregister_host, self._bounce_address)
            #: For all that is no lane's.
            self._stream = driver.create_stream()
            undo.pop_all()
        self._host_address = host_address
        self._lanes = Lanes(driver, board, host_address, device_address, self.facts.shared_bytes_max)

    # --- tenants ----------------------------------------------------------------------------------------

    def open_tenant(self, tenant: int, size_bytes: int) -> int:
        """Give a tenant a partition, all zeros: its base. ``size_bytes`` is a power of two, two granules or more."""
        # First what failed the last time: it has memory.
        for number, (owner, _) in tuple(self._tenants.items()):
            if owner.is_closing:
                self.close_tenant(number)
        self._give_remains()
        if tenant in self._tenants:
            raise ValueError(f"tenant {tenant} has a partition")
        memory = PartitionMemory(self._driver)
        try:
            partition = memory.open(self._granule, size_bytes)
            self._fill(partition.base, 0, size_bytes)
        except BaseException:
            self._remains.append(memory)
            self._quietly(self._give_remains)
            raise
        self._tenants[tenant] = Tenant(tenant, partition), memory
        return partition.base

    def close_tenant(self, tenant: int) -> None:
        """Take a tenant's lanes, kernels and partition, once its work is over. After an error it can be called again;
        the tenant begins nothing meanwhile.
        """
        owner, memory = self._find(tenant)
        owner.is_closing = True
        since = time.monotonic()
        while not self._lanes.close_all(owner):
            self._let_others(since)
        for kernel in tuple(owner.kernels):
            self._lanes.unload(kernel)
        # Zeros for whoever has the memory next; a close that went on once part of it was given back has them already.
        if memory.is_whole:
            self._fill(owner.partition.base, 0, owner.partition.size_bytes)
        memory.close()
        del self._tenants[tenant]

    def _find(self, tenant: int) -> tuple[Tenant, PartitionMemory]:
        found = self._tenants.get(tenant)
        if found is None:
            raise ValueError(f"tenant {tenant} has no partition")
        return found

    def _give_remains(self) -> None:
        while self._remains:
            self._remains[-1].close()
            self._remains.pop()

    @staticmethod
    def _quietly(call: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(DriverError):
            call(*arguments)

    # --- kernels ----------------------------------------------------------------------------------------

    def assemble(self, code: bytes, wide: bytes = b"") -> int:
        """The module of a fenced kernel, for :meth:`add_kernel` or :meth:`forget`. Any thread may call.

        Machine code is loaded, and ``wide``, which larger blocks can have, where there is some. A text is assembled:
        the driver gives a kernel as many registers as it likes, and then refuses blocks that take more than there are.
        One that says nothing of its blocks is assembled once more for those.
        """
        driver = self._driver
        driver.use_context(self._context)
        module = driver.load_module(code)
        assembled = Assembled()
        try:
            if code.startswith(_MACHINE_CODE):
                assembled.wide = driver.load_module(wide) if wide else 0
            elif not is_bounded(code):
                assembled.wide = self._assemble_wide(module, code)
        except BaseException:
            self._quietly(driver.unload_module, module)
            raise
        self._modules[module] = assembled
        return module

    def _assemble_wide(self, module: int, ptx: bytes) -> int:
        driver = self._driver
        functions = (driver.function(module, name) for name in entries(ptx))
        if all(driver.max_threads(function) >= BLOCK_THREADS_MAX for function in functions):
            return 0
        try:
            return driver.load_module(widened(ptx))
        except DriverError as error:
            if error.is_sticky or error.code == OUT_OF_MEMORY:
                raise
            return 0  # it cannot do with so few: large blocks are refused

    def forget(self, module: int) -> None:
        """Unload a module of which no kernel was taken."""
        assembled = self._modules.get(module)
        if assembled is None:
            return
        if assembled.wide:
            self._driver.unload_module(assembled.wide)
            assembled.wide = 0
        self._driver.unload_module(module)
        del self._modules[module]

    def add_kernel(
        self, tenant: int, module: int, name: str, image_base: int, image: bytes, leaves_faults: bool
    ) -> tuple[int, int]:
        """Take a module's kernel for a tenant, and write its image: the kernel's number, 1 or more, and how many
        threads its blocks can have. Where this fails, the module is unloaded.

        ``leaves_faults``: the kernel's fault line goes to the board after each launch.
        """
        try:
            owner, _ = self._find(tenant)
            if module not in self._modules or owner.is_closing:
                raise ValueError(f"tenant {tenant} takes no kernel from module {module}")
            if not owner.partition.holds(image_base, max(len(image), FAULT_BYTES)):
                raise ValueError("the image is not inside the tenant's partition")
            assembled = self._modules[module]
            modules = [module, assembled.wide] if assembled.wide else [module]
            functions = [self._function(each, name) for each in modules]
            threads = [self._driver.max_threads(function) for function in functions]
            # What the driver reads of a launch, so nobody else is asked: it is never told fewer.
            parameter_bytes = max(self._driver.parameter_bytes(function) for function in functions)
            self._write(image_base, image)
        except BaseException:
            self._quietly(self.forget, module)
            raise
        number = self._next_kernel
        self._next_kernel += 1
        kernel = Kernel(
            number=number,
            tenant=owner,
            modules=modules,
            function=functions[0],
            fast_threads=threads[0],
            wide_function=functions[1] if assembled.wide else 0,
            name=name,
            parameter_bytes=parameter_bytes,
            max_threads=max(threads),
            fault=image_base if leaves_faults else 0,
        )
        del self._modules[module]
        owner.kernels.add(kernel)
        self._lanes.kernels[number] = kernel
        return number, kernel.max_threads

    def _function(self, module: int, name: str) -> int:
        try:
            return self._driver.function(module, name)
        except DriverError as error:
            if error.code != NOT_FOUND:
                raise
            raise ValueError(f"the module has no kernel {name[:64]}") from None

    def remove_kernel(self, number: int) -> None:
        """Forget a kernel. Its module is unloaded once nothing that its tenant has in flight can be running it."""
        kernel = self._lanes.kernels.get(number)
        if kernel is None:
            raise ValueError(f"there is no kernel {number}")
        self._lanes.retire(kernel)

    # --- lanes ------------------------------------------------------------------------------------------

    def open_lane(self, lane: int, tenant: int) -> None:
        """Give a lane to a tenant; its doorbell and body are zeros then."""
        owner, _ = self._find(tenant)
        if owner.is_closing:
            raise ValueError(f"tenant {tenant} has no partition")
        self._lanes.open(lane, owner)

    def close_lane(self, lane: int) -> None:
        """Begin nothing more for a lane. One that is busy is closed later, by :meth:`check`."""
        self._lanes.close(lane)

    def is_lane_open(self, lane: int) -> bool:
        """Whether a lane cannot be opened: it is in use, or was closed and its work is not over."""
        return self._lanes.is_open(lane)

    def poll(self) -> int:
        """Look at what lanes ask for and begin it; how many requests that were. Raises sticky errors only."""
        return self._lanes.poll()

    def check(self) -> None:
        """Notice a lost context, and end what waited for work to be over. To be called each millisecond or so."""
        self._lanes.check()
        self._lanes.is_done(self._stream)

    def running(self) -> tuple[Running, ...]:
        """The requests in flight, each with its tenant and kernel."""
        return self._lanes.running()

    def is_over(self, since_s: float) -> bool:
        """Whether all requests are over that were in flight at a time of the monotonic clock, but for the youngest."""
        return self._lanes.is_over(round(since_s * 1e9))

    # --- memory -----------------------------------------------------------------------------------------

    def copy_in(self, tenant: int, address: int, staging: int, size_bytes: int) -> None:
        """From the staging area to a tenant's partition; done when this returns."""
        self._check_range(tenant, address, size_bytes, staging)
        if size_bytes:
            self._driver.copy_to_device(address, self._staging + staging, size_bytes, self._stream)
            self._wait()

    def copy_out(self, tenant: int, staging: int, address: int, size_bytes: int) -> None:
        """From a tenant's partition to the staging area; done when this returns."""
        self._check_range(tenant, address, size_bytes, staging)
        if size_bytes:
            self._driver.copy_to_host(self._staging + staging, address, size_bytes, self._stream)
            self._wait()

    def set_memory(self, tenant: int, address: int, value: int, size_bytes: int) -> None:
        """A byte into all of a range of a tenant's partition; done when this returns."""
        self._check_range(tenant, address, size_bytes, None)
        if not 0 <= value <= 255:
            raise ValueError(f"{value} is not a byte")
        if size_bytes:
            self._fill(address, value, size_bytes)

    def _check_range(self, tenant: int, address: int, size_bytes: int, staging: int | None) -> None:
        owner, _ = self._find(tenant)
        if owner.is_closing or size_bytes < 0 or not owner.partition.holds(address, size_bytes):
            raise ValueError(f"{size_bytes} bytes at {address:#x} are not inside the tenant's partition")
        if staging is not None and not 0 <= staging <= staging + size_bytes <= self._staging_bytes:
            raise ValueError(f"{size_bytes} bytes at {staging} are not inside the staging area")

    def _fill(self, address: int, value: int, size_bytes: int) -> None:
        self._driver.set_memory(address, value, size_bytes, self._stream)
        self._wait()

    def _write(self, address: int, data: bytes) -> None:
        for start in range(0, len(data), _BOUNCE_BYTES):
            piece = data[start : start + _BOUNCE_BYTES]
            self._bounce[: len(piece)] = piece
            self._driver.copy_to_device(address + start, self._bounce_address, len(piece), self._stream)
            self._wait()

    # --- waiting ----------------------------------------------------------------------------------------

    def _wait(self) -> None:
        """Until the engine's own stream is done, also when this raises: what it copies from or to is free then."""
        since = time.monotonic()
        try:
            while not self._driver.is_stream_done(self._stream):
                self._let_others(since)
        except BaseException:
            self._quietly(self._driver.synchronize_stream, self._stream)
            raise

    def _let_others(self, since: float) -> None:
        """Begin what lanes ask for while something is waited for, since a time of the monotonic clock."""
        begun = self._lanes.poll()
        self._on_wait()
        if not begun and time.monotonic() - since > _SPIN_S:
            time.sleep(_SLEEP_S)

    # --- the end ----------------------------------------------------------------------------------------

    def close(self) -> None:
        """End all of it, once the lanes' work is over. After a sticky error this only lets go of the board."""
        driver, quietly = self._driver, self._quietly
        for tenant in tuple(self._tenants):
            quietly(self.close_tenant, tenant)
        quietly(self._give_remains)
        for module in tuple(self._modules):
            quietly(self.forget, module)
        quietly(self._lanes.release)
        quietly(driver.destroy_stream, self._stream)
        quietly(driver.unregister_host, self._bounce_address)
        quietly(driver.unregister_host, self._host_address)
        quietly(driver.destroy_context, self._context)
        self._bounce.close()
