"""What the bindings are told, by a module in their place: nothing of NVIDIA's is needed."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from enum import IntEnum
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tensor_wasm.device.cuda.bindings import ENVIRONMENT, CudaDriver, prepare
from tensor_wasm.device.cuda.driver import DriverError


class Result(IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_INVALID_PTX = 218
    CUDA_ERROR_NOT_READY = 600
    CUDA_ERROR_ILLEGAL_ADDRESS = 700


#: What functions give besides their result.
GIVEN: dict[str, tuple[Any, ...]] = {
    "cuDriverGetVersion": (13000,),
    "cuDeviceGetCount": (2,),
    "cuDeviceGet": (1,),
    "cuDeviceGetName": (b"A GPU\0\0\0",),
    "cuDeviceGetUuid": (SimpleNamespace(bytes=bytes(range(16))),),
    "cuDeviceTotalMem": (1 << 34,),
    "cuDeviceGetAttribute": (9,),
    "cuCtxCreate": (0xC0,),
    "cuCtxGetDevice": (1,),
    "cuMemGetAllocationGranularity": (1 << 21,),
    "cuMemGetInfo": (5, 6),
    "cuMemAddressReserve": (1 << 40,),
    "cuMemCreate": (0x3E3,),
    "cuMemHostGetDevicePointer": (1 << 41,),
    "cuStreamCreate": (0x57,),
    "cuModuleLoadDataEx": (0x40D,),
    "cuModuleGetFunction": (0xF0,),
    "cuFuncGetAttribute": (640,),
    "cuEventCreate": (0xE0,),
    "cuEventElapsedTime": (1.5,),
}


class Names:
    """An enumeration whose members are their own names."""

    def __getattr__(self, name: str) -> str:
        return name


class Numbers:
    """One whose members are numbers."""

    CU_CTX_SCHED_SPIN = 1
    CU_STREAM_NON_BLOCKING = 1


class Api(ModuleType):
    """``cuda.bindings.driver`` so far as it is used: it writes down what is called, and gives what it is told to."""

    CU_MEMHOSTREGISTER_PORTABLE = 1
    CU_MEMHOSTREGISTER_DEVICEMAP = 2
    CUctx_flags = CUstream_flags = Numbers
    CUdevice_attribute = CUmemAllocationGranularity_flags = CUmemAllocationType = CUmemLocationType = Names()
    CUmemAccess_flags = CUjit_option = CUfunction_attribute = Names()
    CUmemLocation = CUmemAllocationProp = CUmemAccessDesc = SimpleNamespace

    def __init__(self, version: int) -> None:
        super().__init__("cuda.bindings.driver")
        self.CUDA_VERSION = version
        self.calls: list[tuple[Any, ...]] = []
        self.results: dict[str, Result] = {}
        self.log = b""
        #: Where a kernel's parameters are, and how many bytes each has.
        self.parameters: list[tuple[int, int]] = []
        self.found: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cu"):
            raise AttributeError(name)

        def function(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append((name, *arguments))
            if name == "cuInit":
                self.found = dict(os.environ)
            if name == "cuLaunchKernel":
                self.found["parameters"] = self._parameters(arguments[-1])
            if name == "cuModuleLoadDataEx" and self.log:
                arguments[3][0][: len(self.log)] = self.log
            result = self.results.get(name, Result.CUDA_SUCCESS)
            given = GIVEN.get(name, ())
            if name == "cuFuncGetParamInfo" and not result:
                number = arguments[1]
                given = self.parameters[number] if number < len(self.parameters) else ()
                result = Result.CUDA_SUCCESS if given else Result.CUDA_ERROR_INVALID_VALUE
            return (result, *(given if not result else (None,) * len(given)))

        function.__name__ = name
        return function

    def _parameters(self, extra: int) -> bytes | None:
        """What a launch's ``extra`` leads to."""
        if not extra:
            return None
        words = (ctypes.c_uint64 * 5).from_address(extra)
        assert (words[0], words[2], words[4]) == (1, 2, 0)
        return ctypes.string_at(words[1], ctypes.c_size_t.from_address(words[3]).value)

    def named(self, name: str) -> list[tuple[Any, ...]]:
        """The arguments of each call of a function."""
        return [call[1:] for call in self.calls if call[0] == name]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Api]:
    def install(version: int = 13050) -> Api:
        api = Api(version)
        for name in ENVIRONMENT:
            monkeypatch.delenv(name, raising=False)
        package, bindings = ModuleType("cuda"), ModuleType("cuda.bindings")
        bindings.driver = api
        for module in (package, bindings, api):
            monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(os, "environ", os.environ.copy())
        return api

    return install


@pytest.fixture
def api(install: Callable[..., Api]) -> Api:
    return install()


@pytest.fixture
def driver(api: Api) -> CudaDriver:
    return CudaDriver()


def test_the_package_is_only_needed_by_whoever_makes_a_driver(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(ImportError):
        CudaDriver()


def test_the_driver_starts_with_what_it_reads_from_the_environment(driver, api):
    assert api.calls[0] == ("cuInit", 0)
    assert {name: api.found[name] for name in ENVIRONMENT} == dict(ENVIRONMENT)


def test_what_the_user_has_set_stays():
    environ = {"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}
    prepare(environ)
    assert environ["CUDA_DEVICE_ORDER"] == "FASTEST_FIRST"
    assert environ.keys() == ENVIRONMENT.keys()


@pytest.mark.parametrize(("version", "expected"), [(12080, (1, 1)), (12090, (1, 1)), (13000, (None, 1, 1))])
def test_a_context_is_made_by_either_form_of_the_call(install, version, expected):
    api = install(version)
    assert CudaDriver().create_context(1) == 0xC0
    assert api.named("cuCtxCreate") == [expected]


def test_facts_are_text_and_numbers(driver):
    facts = driver.facts(1)
    assert (facts.index, facts.name, facts.sm, facts.memory_bytes) == (1, "A GPU", "sm_99", 1 << 34)
    assert facts.uuid == "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f"


def test_memory_of_the_current_gpu_is_mapped_for_reading_and_writing(driver, api):
    memory = driver.create_memory(1 << 21)
    (size, properties, flags) = api.named("cuMemCreate")[0]
    assert (size, properties.type, flags) == (1 << 21, "CU_MEM_ALLOCATION_TYPE_PINNED", 0)
    assert (properties.location.type, properties.location.id) == ("CU_MEM_LOCATION_TYPE_DEVICE", 1)
    driver.map_memory(1 << 40, 1 << 21, memory, 0)
    assert api.named("cuMemMap") == [(1 << 40, 1 << 21, 0, 0x3E3, 0)]
    (address, size, accesses, count) = api.named("cuMemSetAccess")[0]
    assert (address, size, count, accesses[0].location.id) == (1 << 40, 1 << 21, 1, 1)
    assert accesses[0].flags == "CU_MEM_ACCESS_FLAGS_PROT_READWRITE"
    assert not api.named("cuMemUnmap")


def test_what_cannot_be_made_accessible_does_not_stay_mapped(driver, api):
    api.results["cuMemSetAccess"] = Result.CUDA_ERROR_INVALID_VALUE
    with pytest.raises(DriverError, match="cuMemSetAccess"):
        driver.map_memory(1 << 40, 1 << 21, 0x3E3, 0)
    assert api.named("cuMemUnmap") == [(1 << 40, 1 << 21)]


def test_pages_are_pinned_for_all_contexts_and_seen_by_the_device(driver, api):
    assert driver.register_host(4096, 8192) == 1 << 41
    assert api.named("cuMemHostRegister") == [(4096, 8192, 3)]


def test_pages_that_the_device_cannot_see_do_not_stay_pinned(driver, api):
    api.results["cuMemHostGetDevicePointer"] = Result.CUDA_ERROR_INVALID_VALUE
    with pytest.raises(DriverError, match="cuMemHostGetDevicePointer"):
        driver.register_host(4096, 8192)
    assert api.named("cuMemHostUnregister") == [(4096,)]


def test_a_launch_gives_its_block_of_parameters(driver, api):
    block = ctypes.create_string_buffer(b"\1\2\3\4\5", 5)
    driver.launch(0xF0, (1, 2, 3), (4, 5, 6), 7, 0x57, ctypes.addressof(block), 5)
    assert api.found["parameters"] == b"\1\2\3\4\5"
    assert api.named("cuLaunchKernel")[0][:-1] == (0xF0, 1, 2, 3, 4, 5, 6, 7, 0x57, 0)


def test_a_launch_without_parameters_gives_none(driver, api):
    block = ctypes.create_string_buffer(4)
    driver.launch(0xF0, (1, 1, 1), (1, 1, 1), 0, 0x57, ctypes.addressof(block), 4)
    driver.launch(0xF0, (1, 1, 1), (1, 1, 1), 0, 0x57, 0, 0)
    assert api.found["parameters"] is None


def test_a_stream_is_done_not_done_or_lost(driver, api):
    assert driver.is_stream_done(0x57)
    api.results["cuStreamQuery"] = Result.CUDA_ERROR_NOT_READY
    assert not driver.is_stream_done(0x57)
    api.results["cuStreamQuery"] = Result.CUDA_ERROR_ILLEGAL_ADDRESS
    with pytest.raises(DriverError) as caught:
        driver.is_stream_done(0x57)
    assert caught.value.is_sticky
    assert (caught.value.code, caught.value.name) == (700, "CUDA_ERROR_ILLEGAL_ADDRESS")


def test_a_text_that_is_refused_has_the_assemblers_log(driver, api):
    api.log, api.results["cuModuleLoadDataEx"] = b"ptxas : line 7\n", Result.CUDA_ERROR_INVALID_PTX
    with pytest.raises(DriverError) as caught:
        driver.load_module(b".version 8.0")
    assert (caught.value.code, caught.value.log) == (218, "ptxas : line 7")
    text, count, names, values = api.named("cuModuleLoadDataEx")[0]
    assert text == b".version 8.0\0"
    assert names == ["CU_JIT_ERROR_LOG_BUFFER", "CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES"]
    assert (count, len(values[0])) == (2, values[1])


def test_the_bytes_of_parameters_are_asked_of_each(driver, api):
    assert driver.parameter_bytes(0xF0) == 0
    api.parameters = [(0, 8), (16, 4)]
    assert driver.parameter_bytes(0xF0) == 20


def every_call(driver: CudaDriver) -> dict[str, Callable[[], Any]]:
    """Each call of the protocol, by the function of the driver's behind it."""
    one = (1, 1, 1)
    return {
        "cuDriverGetVersion": driver.version,
        "cuDeviceGetCount": driver.count,
        "cuDeviceGetName": lambda: driver.facts(0),
        "cuCtxCreate": lambda: driver.create_context(0),
        "cuCtxSetCurrent": lambda: driver.use_context(1),
        "cuCtxDestroy": lambda: driver.destroy_context(1),
        "cuMemGetAllocationGranularity": driver.granularity,
        "cuMemGetInfo": driver.memory_info,
        "cuMemAddressReserve": lambda: driver.reserve(1, 2),
        "cuMemAddressFree": lambda: driver.release(1, 2),
        "cuMemCreate": lambda: driver.create_memory(1),
        "cuMemRelease": lambda: driver.destroy_memory(1),
        "cuMemMap": lambda: driver.map_memory(1, 2, 3, 0),
        "cuMemUnmap": lambda: driver.unmap_memory(1, 2),
        "cuMemHostRegister": lambda: driver.register_host(1, 2),
        "cuMemHostUnregister": lambda: driver.unregister_host(1),
        "cuStreamCreate": driver.create_stream,
        "cuStreamDestroy": lambda: driver.destroy_stream(1),
        "cuStreamQuery": lambda: driver.is_stream_done(1),
        "cuStreamSynchronize": lambda: driver.synchronize_stream(1),
        "cuMemcpyHtoDAsync": lambda: driver.copy_to_device(1, 2, 3, 4),
        "cuMemcpyDtoHAsync": lambda: driver.copy_to_host(1, 2, 3, 4),
        "cuMemcpyDtoDAsync": lambda: driver.copy_on_device(1, 2, 3, 4),
        "cuMemsetD8Async": lambda: driver.set_memory(1, 2, 3, 4),
        "cuStreamWriteValue32": lambda: driver.write_value(1, 2, 3),
        "cuLaunchKernel": lambda: driver.launch(1, one, one, 0, 2, 0, 0),
        "cuModuleLoadDataEx": lambda: driver.load_module(b""),
        "cuModuleUnload": lambda: driver.unload_module(1),
        "cuModuleGetFunction": lambda: driver.function(1, "k"),
        "cuFuncSetAttribute": lambda: driver.allow_shared(1, 2),
        "cuFuncGetAttribute": lambda: driver.max_threads(1),
        "cuFuncGetParamInfo": lambda: driver.parameter_bytes(1),
        "cuEventCreate": driver.create_event,
        "cuEventDestroy": lambda: driver.destroy_event(1),
        "cuEventRecord": lambda: driver.record(1, 2),
        "cuEventElapsedTime": lambda: driver.elapsed_ms(1, 2),
    }


def test_every_call_that_fails_says_so(driver, api):
    for name, call in every_call(driver).items():
        call()
        api.results = {name: Result.CUDA_ERROR_ILLEGAL_ADDRESS}
        with pytest.raises(DriverError, match=name):
            call()
        api.results = {}
