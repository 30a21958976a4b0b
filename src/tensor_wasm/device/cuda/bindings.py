"""The driver itself, by NVIDIA's ``cuda.bindings.driver`` (12.8 or newer), for one thread of one process.

Why not :mod:`ctypes` where launches go: with a driver's library that does nothing, a launch by version 13 of the
bindings takes 0.6 µs, a write or copy as much; by ctypes it is 1.0 µs at the best (``cuLaunchKernelEx``, its structure
packed anew each time) and 1.4 µs with ``cuLaunchKernel``'s eleven arguments. Version 12.8 takes 1.8 µs a call.

What the driver reads from the environment when it starts is set here, in the process that is to hold a context:

- GPUs are counted in the order of the PCI bus, as NVML counts them, not by a guess of which is the fastest.
- Kernels are moved to the GPU when their module is loaded. By default that happens at the first launch, and can wait
  for all that runs: for another tenant's kernel that does not end.
- There are as many queues to the GPU as there can be, 32, and not 8: streams that share one wait for each other.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, MutableMapping
from typing import Any, Final

from tensor_wasm.device.cuda.driver import INVALID_VALUE, NOT_READY, DriverError, GpuFacts
from tensor_wasm.device.cuda.nvjitlink import find_library

#: Where the driver keeps to what the user has set, if anything.
ENVIRONMENT: Final = {
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    "CUDA_MODULE_LOADING": "EAGER",
    "CUDA_DEVICE_MAX_CONNECTIONS": "32",
}
#: What the assembler says of a text is cut off after so many bytes.
_LOG_BYTES: Final = 8192
_NAME_BYTES: Final = 256
#: More than a kernel has.
_PARAMETERS_MAX: Final = 32_768
#: ``extra`` of a launch: where the block of parameters is, where its size is, end.
_BUFFER_POINTER, _BUFFER_SIZE, _END = 1, 2, 0
#: From this version on the bindings' ``cuCtxCreate`` has parameters before its flags.
_CONTEXT_PARAMETERS_VERSION: Final = 13000
#: An event that keeps the time, ``CU_EVENT_DEFAULT``; a write after all before it, ``CU_STREAM_WRITE_VALUE_DEFAULT``.
_DEFAULT: Final = 0


def prepare(environ: MutableMapping[str, str]) -> None:
    """Set what the driver is to read when it starts."""
    for name, value in ENVIRONMENT.items():
        environ.setdefault(name, value)


class CudaDriver:
    """A :class:`~.driver.Driver`. One thread launches; :meth:`load_module` may run on another meanwhile.

    Raises :class:`DriverError` when the driver does not start, ImportError without the package ``cuda-bindings``, and
    what that raises without the driver's library.
    """

    def __init__(self) -> None:
        prepare(os.environ)
        # Not at the top: the package is an extra, and takes a tenth of a second.
        from cuda.bindings import driver

        self._api: Any = driver
        self._call(driver.cuInit, 0)
        # Found once: an attribute of a module costs a tenth of a launch.
        self._launch_kernel = driver.cuLaunchKernel
        self._write = driver.cuStreamWriteValue32
        self._query = driver.cuStreamQuery
        self._to_device = driver.cuMemcpyHtoDAsync
        self._to_host = driver.cuMemcpyDtoHAsync
        self._parameter_bytes = ctypes.c_size_t()
        size_address = ctypes.addressof(self._parameter_bytes)
        self._extra = (ctypes.c_uint64 * 5)(_BUFFER_POINTER, 0, _BUFFER_SIZE, size_address, _END)
        self._extra_address = ctypes.addressof(self._extra)

    # --- the machine ------------------------------------------------------------------------------------

    def version(self) -> int:
        """The newest CUDA that the driver has, as 13000."""
        return int(self._call(self._api.cuDriverGetVersion))

    def bindings_version(self) -> int:
        """The CUDA that the bindings were made for, as 13000."""
        return int(self._api.CUDA_VERSION)

    def count(self) -> int:
        """How many GPUs this process may use."""
        return int(self._call(self._api.cuDeviceGetCount))

    def facts(self, index: int) -> GpuFacts:
        """What a GPU is."""
        api = self._api
        device = self._call(api.cuDeviceGet, index)
        name = self._call(api.cuDeviceGetName, _NAME_BYTES, device)
        unique = bytes(self._call(api.cuDeviceGetUuid, device).bytes).hex()
        parts = unique[:8], unique[8:12], unique[12:16], unique[16:20], unique[20:]
        major, minor = (
            self.attribute(index, "COMPUTE_CAPABILITY_MAJOR"),
            self.attribute(index, "COMPUTE_CAPABILITY_MINOR"),
        )
        sm = f"sm_{major}{minor}"
        return GpuFacts(
            index=index,
            name=bytes(name).split(b"\0")[0].decode("utf-8", "replace").strip(),
            uuid="GPU-" + "-".join(parts),
            sm=sm,
            memory_bytes=int(self._call(api.cuDeviceTotalMem, device)),
            multiprocessors=self.attribute(index, "MULTIPROCESSOR_COUNT"),
            shared_bytes_max=self.attribute(index, "MAX_SHARED_MEMORY_PER_BLOCK_OPTIN"),
            assembler=find_library(sm, self.version() // 1000),
        )

    def attribute(self, index: int, name: str) -> int:
        """A number that describes a GPU, by the end of its name, ``CU_DEVICE_ATTRIBUTE_…``."""
        api = self._api
        attribute = getattr(api.CUdevice_attribute, "CU_DEVICE_ATTRIBUTE_" + name)
        return int(self._call(api.cuDeviceGetAttribute, attribute, self._call(api.cuDeviceGet, index)))

    # --- contexts ---------------------------------------------------------------------------------------

    def create_context(self, index: int) -> int:
        """A new context on a GPU, current on this thread."""
        api = self._api
        # Waiting spins: the few waits there are last microseconds, and a thread that slept would wake 50 µs late.
        flags = int(api.CUctx_flags.CU_CTX_SCHED_SPIN)
        device = self._call(api.cuDeviceGet, index)
        if api.CUDA_VERSION >= _CONTEXT_PARAMETERS_VERSION:
            return int(self._call(api.cuCtxCreate, None, flags, device))
        return int(self._call(api.cuCtxCreate, flags, device))

    def use_context(self, context: int) -> None:
        """Make a context current on this thread."""
        self._call(self._api.cuCtxSetCurrent, context)

    def destroy_context(self, context: int) -> None:
        """End a context and all that is in it."""
        self._call(self._api.cuCtxDestroy, context)

    # --- memory -----------------------------------------------------------------------------------------

    def granularity(self) -> int:
        """Sizes and offsets of physical memory are multiples of this many bytes."""
        least = self._api.CUmemAllocationGranularity_flags.CU_MEM_ALLOC_GRANULARITY_MINIMUM
        return int(self._call(self._api.cuMemGetAllocationGranularity, self._physical(), least))

    def memory_info(self) -> tuple[int, int]:
        """Bytes that are free, and all, of the GPU's."""
        free, total = self._call(self._api.cuMemGetInfo)
        return int(free), int(total)

    def reserve(self, size_bytes: int, alignment: int) -> int:
        """Addresses without memory, at a multiple of ``alignment`` (a power of two)."""
        return int(self._call(self._api.cuMemAddressReserve, size_bytes, alignment, 0, 0))

    def release(self, address: int, size_bytes: int) -> None:
        """Give reserved addresses back; nothing is mapped there."""
        self._call(self._api.cuMemAddressFree, address, size_bytes)

    def create_memory(self, size_bytes: int) -> int:
        """Physical memory of the GPU; its content is whatever was there."""
        return int(self._call(self._api.cuMemCreate, size_bytes, self._physical(), 0))

    def destroy_memory(self, memory: int) -> None:
        """Give physical memory back once nothing maps it."""
        self._call(self._api.cuMemRelease, memory)

    def map_memory(self, address: int, size_bytes: int, memory: int, offset: int) -> None:
        """Have reserved addresses show physical memory, readable and writable; several may show the same."""
        api = self._api
        self._call(api.cuMemMap, address, size_bytes, offset, memory, 0)
        access = api.CUmemAccessDesc()
        access.location = self._here()
        access.flags = api.CUmemAccess_flags.CU_MEM_ACCESS_FLAGS_PROT_READWRITE
        try:
            self._call(api.cuMemSetAccess, address, size_bytes, [access], 1)
        except DriverError:
            api.cuMemUnmap(address, size_bytes)
            raise

    def unmap_memory(self, address: int, size_bytes: int) -> None:
        """Have addresses show nothing, in the pieces that were mapped."""
        self._call(self._api.cuMemUnmap, address, size_bytes)

    def register_host(self, address: int, size_bytes: int) -> int:
        """Pin pages of this process, and give the address by which the device sees them."""
        api = self._api
        flags = api.CU_MEMHOSTREGISTER_PORTABLE | api.CU_MEMHOSTREGISTER_DEVICEMAP
        self._call(api.cuMemHostRegister, address, size_bytes, flags)
        try:
            return int(self._call(api.cuMemHostGetDevicePointer, address, 0))
        except DriverError:
            api.cuMemHostUnregister(address)
            raise

    def unregister_host(self, address: int) -> None:
        """Undo :meth:`register_host`."""
        self._call(self._api.cuMemHostUnregister, address)

    def _here(self) -> Any:
        """Memory of the GPU whose context is current."""
        location = self._api.CUmemLocation()
        location.type = self._api.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
        location.id = int(self._call(self._api.cuCtxGetDevice))
        return location

    def _physical(self) -> Any:
        properties = self._api.CUmemAllocationProp()
        properties.type = self._api.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
        properties.location = self._here()
        return properties

    # --- work in a stream's order -----------------------------------------------------------------------

    def create_stream(self) -> int:
        """A stream that waits for no other."""
        return int(self._call(self._api.cuStreamCreate, int(self._api.CUstream_flags.CU_STREAM_NON_BLOCKING)))

    def destroy_stream(self, stream: int) -> None:
        """End a stream once its work is done."""
        self._call(self._api.cuStreamDestroy, stream)

    def is_stream_done(self, stream: int) -> bool:
        """Whether all work in a stream is done."""
        code = self._query(stream)[0]
        if code == NOT_READY:
            return False
        if code:
            raise self._error(code, "cuStreamQuery")
        return True

    def synchronize_stream(self, stream: int) -> None:
        """Wait for a stream's work."""
        self._call(self._api.cuStreamSynchronize, stream)

    def copy_to_device(self, address: int, host_address: int, size_bytes: int, stream: int) -> None:
        """From memory of this process, which is pinned."""
        code = self._to_device(address, host_address, size_bytes, stream)[0]
        if code:
            raise self._error(code, "cuMemcpyHtoDAsync")

    def copy_to_host(self, host_address: int, address: int, size_bytes: int, stream: int) -> None:
        """To memory of this process, which is pinned."""
        code = self._to_host(host_address, address, size_bytes, stream)[0]
        if code:
            raise self._error(code, "cuMemcpyDtoHAsync")

    def copy_on_device(self, address: int, source: int, size_bytes: int, stream: int) -> None:
        """From one place on the device to another."""
        self._call(self._api.cuMemcpyDtoDAsync, address, source, size_bytes, stream)

    def set_memory(self, address: int, value: int, size_bytes: int, stream: int) -> None:
        """A byte into all of a range."""
        self._call(self._api.cuMemsetD8Async, address, value, size_bytes, stream)

    def write_value(self, address: int, value: int, stream: int) -> None:
        """A u32 to an address that the device sees, when everything before it in the stream is done and visible."""
        code = self._write(stream, address, value, _DEFAULT)[0]
        if code:
            raise self._error(code, "cuStreamWriteValue32")

    def launch(
        self,
        function: int,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        shared_bytes: int,
        stream: int,
        parameters: int,
        parameter_bytes: int,
    ) -> None:
        """A kernel; ``parameters`` is where its block of parameters lies in this process, taken before this returns."""
        extra = 0
        if parameter_bytes:
            self._extra[1] = parameters
            self._parameter_bytes.value = parameter_bytes
            extra = self._extra_address
        code = self._launch_kernel(function, *grid, *block, shared_bytes, stream, 0, extra)[0]
        if code:
            raise self._error(code, "cuLaunchKernel")

    # --- modules ----------------------------------------------------------------------------------------

    def load_module(self, code: bytes) -> int:
        """Load machine code, or assemble a text. The error of one that is refused has the assembler's log."""
        api = self._api
        log = bytearray(_LOG_BYTES)
        names = [api.CUjit_option.CU_JIT_ERROR_LOG_BUFFER, api.CUjit_option.CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES]
        result, *values = api.cuModuleLoadDataEx(code + b"\0", len(names), names, [log, len(log)])
        if result:
            raise self._error(result, "cuModuleLoadDataEx", log.split(b"\0")[0].decode("utf-8", "replace").strip())
        return int(values[0])

    def unload_module(self, module: int) -> None:
        """Forget a module, of which nothing runs."""
        self._call(self._api.cuModuleUnload, module)

    def function(self, module: int, name: str) -> int:
        """A kernel of a module."""
        return int(self._call(self._api.cuModuleGetFunction, module, name.encode()))

    def allow_shared(self, function: int, size_bytes: int) -> None:
        """Let launches of a kernel have so much dynamic shared memory."""
        attribute = self._api.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        self._call(self._api.cuFuncSetAttribute, function, attribute, size_bytes)

    def max_threads(self, function: int) -> int:
        """How many threads a block of this kernel can have, by the registers that it takes."""
        attribute = self._api.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK
        return int(self._call(self._api.cuFuncGetAttribute, attribute, function))

    def parameter_bytes(self, function: int) -> int:
        """How many bytes of parameters a kernel has."""
        end = 0
        for number in range(_PARAMETERS_MAX):
            code, *values = self._api.cuFuncGetParamInfo(function, number)
            if code == INVALID_VALUE:  # there are no more
                break
            if code:
                raise self._error(code, "cuFuncGetParamInfo")
            end = max(end, int(values[0]) + int(values[1]))
        return end

    # --- time -------------------------------------------------------------------------------------------

    def create_event(self) -> int:
        """An event that keeps the time."""
        return int(self._call(self._api.cuEventCreate, _DEFAULT))

    def destroy_event(self, event: int) -> None:
        """Forget an event."""
        self._call(self._api.cuEventDestroy, event)

    def record(self, event: int, stream: int) -> None:
        """Have an event happen when the stream's work so far is done."""
        self._call(self._api.cuEventRecord, event, stream)

    def elapsed_ms(self, start: int, end: int) -> float:
        """Between two events that have happened, in milliseconds."""
        return float(self._call(self._api.cuEventElapsedTime, start, end))

    # --- results ----------------------------------------------------------------------------------------

    def _call(self, function: Callable[..., tuple[Any, ...]], *arguments: Any) -> Any:
        """What a function gives besides its result: nothing, one value, or several. Raises :class:`DriverError`."""
        code, *values = function(*arguments)
        if code:
            raise self._error(code, function.__name__)
        return values[0] if len(values) == 1 else values

    def _error(self, code: Any, call: str, log: str = "") -> DriverError:
        number = int(code)
        # A driver newer than the bindings has results that those do not know.
        name = getattr(code, "name", "CUDA_ERROR_UNKNOWN")
        return DriverError(number, name, call, log)
