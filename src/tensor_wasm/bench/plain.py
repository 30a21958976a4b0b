"""The peers: the same work written the plain way, with wasmtime-py's public API and the standard library.

Nothing here is naive on purpose: engine, module and linker are made once; what remains is what the public API costs.
"""

from __future__ import annotations

import asyncio
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import wasmtime

from tensor_wasm.abi import CUDA_MODULES

_SAMPLE_BYTES = 8


class PlainGuest:
    """The benchmark guest with its launch answered by a Python host function.

    ``kernel`` is what a launch runs: a Python function of the guest's memory.
    """

    def __init__(self, wasm: bytes, kernel: Callable[[Any], None]) -> None:
        self._permits = threading.Semaphore(64)
        self._kernel = kernel
        self.launches = 0
        self.latency_s = 0.0
        engine = wasmtime.Engine()
        module = wasmtime.Module(engine, wasm)
        self._store = wasmtime.Store(engine)
        self._store.set_wasi(wasmtime.WasiConfig())
        linker = wasmtime.Linker(engine)
        linker.define_wasi()
        for item in module.imports:
            if item.module in CUDA_MODULES and isinstance(item.type, wasmtime.FuncType):
                answer = self._launch if item.name == "wasi_cuda_launch" else _zero
                linker.define_func(item.module, str(item.name), item.type, answer)
        exports = linker.instantiate(self._store, module).exports(self._store)
        self._exports: Any = exports
        self._memory: Any = exports["memory"]

    def call(self, export: str, *args: int) -> int:
        """Call an export."""
        return int(self._exports[export](self._store, *args))

    def samples(self, count: int) -> tuple[int, ...]:
        """The first ``count`` samples, nanoseconds, of the last timed loop."""
        start = self.call("samples_ptr")
        data = self._memory.read(self._store, start, start + count * _SAMPLE_BYTES)
        return struct.unpack(f"<{count}Q", data)

    def memory_array(self) -> Any:
        """Guest memory as a NumPy array of bytes."""
        pointer = self._memory.data_ptr(self._store)
        return np.ctypeslib.as_array(pointer, shape=(self._memory.data_len(self._store),))

    def _launch(self, *_values: int) -> int:
        entered = time.perf_counter()
        with self._permits:
            self._kernel(self)
        self.latency_s += time.perf_counter() - entered
        self.launches += 1
        return 0


def _zero(*_values: int) -> int:
    return 0


class PlainInstances:
    """A module without imports that is instantiated and called afresh each time."""

    def __init__(self, wasm: bytes) -> None:
        self._engine = wasmtime.Engine()
        self._module = wasmtime.Module(self._engine, wasm)

    def invoke(self, export: str, *args: int) -> Any:
        """A new store and instance, one call."""
        store = wasmtime.Store(self._engine)
        function: Any = wasmtime.Instance(store, self._module, []).exports(store)[export]
        return function(store, *args)


def plain_application(wasm: bytes, export: str, args: list[int], threads: int) -> Any:
    """An ASGI application: POST anything runs the export in a fresh instance through ``run_in_executor``."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    instances = PlainInstances(wasm)
    pool = ThreadPoolExecutor(threads)

    async def invoke(request: Request) -> JSONResponse:
        await request.json()
        loop = asyncio.get_running_loop()
        result = await loop.run_in_executor(pool, lambda: instances.invoke(export, *args))
        return JSONResponse({"result": [result]})

    return Starlette(routes=[Route("/functions/{id}/invoke", invoke, methods=["POST"])])
