"""NVIDIA's own bindings on a library in the driver's place: what arrives there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from device.cuda.libcuda_stand_in import FIRST, SECOND, DriverStandIn
from tensor_wasm.cli import checks
from tensor_wasm.config import load
from tensor_wasm.device.cuda import discovery

pytest.importorskip("cuda.bindings", reason="the package cuda-bindings is not installed")
pytestmark = pytest.mark.slow

CALLS = """
import ctypes, json
from tensor_wasm.device.cuda.bindings import CudaDriver
from tensor_wasm.device.cuda.driver import DriverError
driver = CudaDriver()
context = driver.create_context(1)
driver.use_context(context)
given = [driver.version(), driver.count(), driver.facts(1).uuid, driver.granularity(), driver.memory_info()]
address = driver.reserve(1 << 22, 1 << 30)
memory = driver.create_memory(1 << 21)
driver.map_memory(address, 1 << 21, memory, 0)
given.append(driver.register_host(4096, 8192))
stream = driver.create_stream()
given.append(driver.is_stream_done(stream))
driver.synchronize_stream(stream)
driver.copy_to_device(address, 4096, 10, stream)
driver.copy_to_host(4096, address, 11, stream)
driver.copy_on_device(address, address + 5, 12, stream)
driver.set_memory(address, 255, 13, stream)
driver.write_value(4096, 0xFFFF_FFFF, stream)
module = driver.load_module(b"fine")
try:
    driver.load_module(b"refused")
except DriverError as error:
    given += [error.code, error.name, error.log]
function = driver.function(module, "k")
driver.allow_shared(function, 100_000)
given += [driver.max_threads(function), driver.parameter_bytes(function)]
block = ctypes.create_string_buffer(bytes((1, 2, 3)), 3)
driver.launch(function, (1, 2, 3), (4, 5, 6), 7, stream, ctypes.addressof(block), 3)
driver.launch(function, (1, 1, 1), (1, 1, 1), 0, stream, 0, 0)
start, end = driver.create_event(), driver.create_event()
driver.record(start, stream)
given.append(driver.elapsed_ms(start, end))
driver.destroy_event(start)
driver.unload_module(module)
driver.destroy_stream(stream)
driver.unregister_host(4096)
driver.unmap_memory(address, 1 << 21)
driver.destroy_memory(memory)
driver.release(address, 1 << 22)
driver.destroy_context(context)
print(json.dumps(given))
"""
ASKED = """
cuMemGetAllocationGranularity 1 1 1 0
cuMemGetInfo
cuMemAddressReserve 4194304 1073741824 0 0
cuMemCreate 2097152 1 1 1 0
cuMemMap 7f0000000000 2097152 0 3e3 0
cuMemSetAccess 7f0000000000 2097152 1 1 3 1
cuMemHostRegister 1000 8192 3
cuMemHostGetDevicePointer 1000 0
cuStreamCreate 1
cuStreamQuery 57
cuStreamSynchronize 57
cuMemcpyHtoDAsync 7f0000000000 1000 10 57
cuMemcpyDtoHAsync 1000 7f0000000000 11 57
cuMemcpyDtoDAsync 7f0000000000 7f0000000005 12 57
cuMemsetD8Async 7f0000000000 255 13 57
cuStreamWriteValue32 57 1000 4294967295 0
cuModuleLoadDataEx 4 2
cuModuleLoadDataEx 7 2
cuModuleGetFunction 40d k
cuFuncSetAttribute f0 8 100000
cuFuncGetAttribute 0 f0
cuFuncGetParamInfo f0 0
cuFuncGetParamInfo f0 1
cuFuncGetParamInfo f0 2
cuLaunchKernel f0 1,2,3 4,5,6 7 57 0 010203
cuLaunchKernel f0 1,1,1 1,1,1 0 57 0 none
cuEventCreate 0
cuEventCreate 0
cuEventRecord e0 57
cuEventElapsedTime e0 e0
cuEventDestroy e0
cuModuleUnload 40d
cuStreamDestroy 57
cuMemHostUnregister 1000
cuMemUnmap 7f0000000000 2097152
cuMemRelease 3e3
cuMemAddressFree 7f0000000000 4194304
cuCtxDestroy c0
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> DriverStandIn:
    return DriverStandIn(tmp_path_factory.mktemp("driver"))


@pytest.fixture
def driver(library: DriverStandIn, monkeypatch: pytest.MonkeyPatch) -> DriverStandIn:
    library.say(FIRST, SECOND)
    for name, value in library.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    # The library is found by the processes that are started from here on, not by this one.
    monkeypatch.setattr(discovery, "_has_library", lambda: True)
    return library


def test_each_call_reaches_the_driver_as_it_was_meant(driver):
    done = subprocess.run([sys.executable, "-c", CALLS], check=True, capture_output=True, text=True, env=os.environ)
    given = json.loads(done.stdout)
    assert given[:3] == [13000, 2, "GPU-ff112233-4455-6677-8899-aabbccddee00"]
    assert given[3:7] == [2 << 20, [79 << 30, 80 << 30], 4096 + 0x100000000000, True]
    assert given[7:] == [218, "CUDA_ERROR_INVALID_PTX", "ptxas : line 7 is refused", 1024, 20, 1.5]
    asked = [line for line in driver.asked if not line.startswith(("cuCtxGetDevice", "cuDevice", "cuDriver"))]
    assert asked[0] == "cuInit 0"
    assert asked[1] in ("cuCtxCreate_v2 1 1", "cuCtxCreate_v4 0 1 1")
    assert asked[2] == "cuCtxSetCurrent c0"
    assert asked[3:] == ASKED.split("\n")[1:-1]


def test_gpus_are_found_by_a_process_of_its_own_and_without_a_context(driver, tmp_path):
    found = discovery.find(root=tmp_path)
    assert [(gpu.facts.index, gpu.facts.name, gpu.facts.sm) for gpu in found.gpus] == [
        (0, "First GPU", "sm_90"),
        (1, "Second", "sm_80"),
    ]
    assert found.lack is None
    assert all(gpu.lack is None for gpu in found.gpus)
    assert found.driver_version == 13000
    assert not any("cuCtx" in line or "cuMem" in line for line in driver.asked)
    assert "libcuda" not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize(
    ("lines", "part"),
    [
        (["fail cuInit 100"], "no GPU"),
        (["fail cuInit 803", FIRST], "different versions"),
        (["fail cuInit 34", FIRST], "stub"),
        (["fail cuInit 999", FIRST], "CUDA_ERROR_UNKNOWN (999)"),
        (["version 11080", FIRST], "CUDA 11.8"),
        (["version 12020", FIRST], "CUDA 12.2"),
        (["fail cuDeviceGetCount 3", FIRST], "does not start"),
    ],
)
def test_a_driver_that_does_not_work_is_explained(driver, tmp_path, lines, part):
    driver.say(*lines)
    found = discovery.find(root=tmp_path)
    assert not found.gpus
    assert part in found.lack.text
    assert found.lack.advice


def test_a_driver_that_hangs_is_given_up(driver, tmp_path):
    driver.say("hang", FIRST)
    found = discovery.find(root=tmp_path, limit_s=3)
    assert "does not answer within 3 s" in found.lack.text


@pytest.mark.parametrize(
    ("number", "part"), [(20, "Prohibited"), (102, "map memory by pages"), (99, "memory of processes")]
)
def test_a_gpu_that_lacks_something_cannot_be_used(driver, tmp_path, number, part):
    driver.say(f"lacks {number}", FIRST)
    (gpu,) = discovery.find(root=tmp_path).gpus
    assert part in gpu.lack.text


def test_doctor_shows_the_gpu(driver, tmp_path):
    config = load({"TENSOR_WASM_HOME": str(tmp_path)}).config
    status, detail, advice = checks._gpu(config)
    assert (status, advice) == (checks.Status.OK, "")
    assert detail.startswith(
        "cuda:0, First GPU (sm_90, 80.0 GiB, GPU-00112233-4455-6677-8899-aabbccddeeff); driver for CUDA 13.0"
    )
