"""CUDA C on NumPy arrays, without a GPU: a script, and a notebook for editors that know `# %%` cells."""

# %% [markdown]
# # CUDA C on NumPy arrays, without a GPU
#
# Compile a kernel, run it, compare with NumPy.

# ruff: noqa: INP001, T201 - a notebook: no package, and it prints what it does.

# %%
import ctypes
import importlib.util
import time
from pathlib import Path

import numpy as np

import tensor_wasm as tw

# %% [markdown]
# ## A kernel
#
# y = a·x + y. The grid may be smaller than the arrays: each thread goes on in steps of the whole grid.

# %%
SOURCE = r"""
extern "C" __global__ void saxpy(float a, const float *x, float *y, unsigned count)
{
    const unsigned step = gridDim.x * blockDim.x;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step)
        y[i] = a * x[i] + y[i];
}
"""

# %% [markdown]
# ## To PTX
#
# NVRTC, NVIDIA's compiler as a library, needs neither a GPU nor a CUDA installation: `pip install nvidia-cuda-nvrtc`.


# %%
def load_nvrtc() -> ctypes.CDLL:
    """The library from the Python package of NVRTC."""
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(place) for place in spec.submodule_search_locations or ()] if spec else []
    found = sorted(path for folder in folders for path in folder.glob("*/lib/libnvrtc.so.*"))
    if not found:
        raise SystemExit("NVRTC is not installed: pip install nvidia-cuda-nvrtc")
    return ctypes.CDLL(str(found[-1]))


def compile_cuda(source: str, architecture: str) -> bytes:
    """CUDA C to PTX."""
    nvrtc = load_nvrtc()

    def text(program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        nvrtc[f"nvrtcGet{what}Size"](program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        nvrtc[f"nvrtcGet{what}"](program, buffer)
        return buffer.value

    program = ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None)
    options = (ctypes.c_char_p * 1)(f"--gpu-architecture={architecture}".encode())
    failed = nvrtc.nvrtcCompileProgram(program, len(options), options)
    result = text(program, "ProgramLog" if failed else "PTX")
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    if failed:
        raise SystemExit(result.decode())
    return result


# %%
device = tw.open_device("cpu")
print(f"device: {device.info.name}, takes PTX up to {device.info.sm}")

ptx = compile_cuda(SOURCE, device.info.sm.replace("sm_", "compute_"))
saxpy = device.load_ptx(ptx)
for name, kind, size in saxpy.parameters:
    print(f"  {name}: {kind}, {size} bytes")

# %% [markdown]
# ## Launch it on NumPy arrays
#
# Arrays go in as pointers; those that can be written hold the result afterwards. Python numbers take the type of
# their parameter.

# %%
count = 1_000_003
rng = np.random.default_rng(2024)
x = rng.random(count, np.float32)
y = rng.random(count, np.float32)
expected = np.float32(2.5) * x + y

saxpy.launch(grid=256, block=256, args=[2.5, x, y, count])
worst = np.abs(y - expected).max()
print(f"largest difference from NumPy: {worst:.1e}")
assert np.allclose(y, expected, rtol=1e-6)

# %% [markdown]
# ## Keep arrays on the device
#
# From launch to launch nothing is copied.

# %%
with device.array(x) as kept_x, device.array(np.zeros_like(x)) as kept_y:
    started = time.perf_counter()
    for _ in range(10):
        saxpy.launch(grid=256, block=256, args=[1.0, kept_x, kept_y, count])
    print(f"10 launches: {(time.perf_counter() - started) * 1e3:.1f} ms")
    assert np.allclose(kept_y.to_numpy(), 10 * x, rtol=1e-5)

# %% [markdown]
# ## A mistake
#
# One element too many: the kernel ends, and the error says where.

# %%
try:
    saxpy.launch(grid=256, block=256, args=[1.0, x[:1000], y[:1000], 1001])
except tw.errors.KernelFault as fault:
    print(fault)

device.close()
print("ok")
