"""The engine and its one configuration, the epoch ticker, and compiled modules."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import threading
import time
from collections.abc import Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import wasmtime

from tensor_wasm.config import cores
from tensor_wasm.errors import InternalError, InvalidWasm
from tensor_wasm.runtime import bindings as native
from tensor_wasm.runtime.memory import MemoryPool

if TYPE_CHECKING:
    from tensor_wasm.runtime.store import Store

#: Length of an epoch. A running store looks at its flags every ``CHECK_TICKS`` epochs unless it says otherwise, so an
#: order to end takes effect within 50 ms and one tick. Where the engine is told of orders (:meth:`Engine.order`) it may
#: be ``CHECK_TICKS_MAX``: each look enters Python, and takes its lock.
EPOCH_TICK_S = 0.01
CHECK_TICKS = 5
CHECK_TICKS_MAX = 100

#: How long other stores rest at most while an order is carried out, and how long at a time: not less, for fifty of them
#: that wake every millisecond keep the interpreter lock to themselves.
_REST_MAX_S = 0.02
_REST_S = 0.01
#: At how many ticks stores look after :meth:`Engine.look_soon`.
_LOOKS = 5

#: What compiled code depends on besides the module's bytes; part of every cache key.
CONFIGURATION = f"wasmtime {version('wasmtime')}; epochs simd relaxed-deterministic threads shared no-cow host-memory 1"


def _configuration(pool: MemoryPool) -> wasmtime.Config:
    config = wasmtime.Config()
    config.epoch_interruption = True
    config.wasm_threads = True
    config.shared_memory = True
    config.wasm_simd = True
    config.wasm_relaxed_simd = True
    config.wasm_relaxed_simd_deterministic = True  # `relaxed_madd` is then an exact fma on every machine
    config.wasm_multi_memory = True
    config.wasm_memory64 = False
    config.wasm_gc = False
    # With host-created memory a copy-on-write image makes Wasmtime abort the process at the first data segment.
    config.memory_init_cow = False
    native.config_host_memory_creator(ctypes.cast(config.ptr(), ctypes.c_void_p), ctypes.byref(pool.creator))
    return config


class Module:
    """Compiled code, of ``code_bytes`` when serialized, as far as that is known. Freed with the last reference."""

    __slots__ = ("_engine", "code_bytes", "pointer")

    def __init__(self, engine: Engine, pointer: int, code_bytes: int = 0) -> None:
        self.code_bytes = code_bytes
        self._engine = engine  # the engine must outlive its modules
        self.pointer = pointer

    def serialize(self) -> bytes:
        """The compiled code as bytes for :meth:`Engine.deserialize`."""
        vector = native.ByteVector()
        error = native.module_serialize(self.pointer, ctypes.byref(vector))
        if error:
            raise InternalError(f"compiled code cannot be serialized: {native.take_error(error)}")
        data = ctypes.string_at(vector.data, vector.size)
        native.byte_vec_delete(ctypes.byref(vector))
        self.code_bytes = len(data)
        return data

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, TypeError):  # at interpreter exit the bindings may be gone
            native.module_delete(self.pointer)


class Engine:
    """One Wasmtime engine: its memory pool, its stores by key, and a thread that advances the epoch.

    Nothing is process-global: two engines in one process do not share state.
    """

    def __init__(self) -> None:
        self.pool = MemoryPool()
        self._engine = wasmtime.Engine(_configuration(self.pool))
        self.pointer: int = ctypes.cast(self._engine.ptr(), ctypes.c_void_p).value or 0
        #: Live stores by the key that is their data in C; callbacks find their store here.
        self.stores: dict[int, Store] = {}
        self.keys: Iterator[int] = itertools.count(1)
        self.epoch_callback = native.EpochCallback(self._on_epoch)
        self.stdout_callback = native.OutputCallback(self._on_stdout)
        self.stderr_callback = native.OutputCallback(self._on_stderr)
        #: The type of an immutable i32 global; lives as long as the engine.
        self.i32_constant: int = native.globaltype_new(native.valtype_new(native.VALUE_I32), 0)
        self._rest_until_s = 0.0
        self._looks = 0
        self._orders = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._ticker: threading.Thread | None = None

    def start(self) -> None:
        """Start advancing the epoch. Without it no deadline and no termination takes effect."""
        if self._ticker is None:
            self._ticker = threading.Thread(target=self._tick, name="epoch-ticker", daemon=True)
            self._ticker.start()

    def close(self) -> None:
        """Stop the ticker and give kept reservations back. Stores must have been closed."""
        self._stop.set()
        if self._ticker is not None:
            self._ticker.join()
            self._ticker = None
        self.pool.close()

    def order(self) -> None:
        """An order to end was given to a store: have every running one look at its flags at its next chance.

        They look at each tick until :meth:`carried_out`: one may have been about to go on when the order was given. A
        store that goes on rests for a moment: with many more of them than cores, the one that is to end would wait for
        its turn on a core for longer than an order may take.
        """
        with self._lock:
            self._orders += 1
        if len(self.stores) > cores():
            self._rest_until_s = time.monotonic() + _REST_MAX_S
        self._skip_ahead()

    def carried_out(self) -> None:
        """One of the orders was carried out."""
        with self._lock:
            self._orders -= 1
        self._rest_until_s = 0.0

    def look_soon(self) -> None:
        """Have every running store look at its flags at the next ticks, without rest: for what may be asked often."""
        self._looks = _LOOKS

    def _skip_ahead(self) -> None:
        for _ in range(CHECK_TICKS_MAX):
            native.engine_increment_epoch(self.pointer)

    def compile(self, wasm: bytes) -> Module:
        """Compile and validate a module; releases the GIL. Raises :class:`InvalidWasm` with Wasmtime's reason."""
        out = ctypes.c_void_p()
        error = native.module_new(self.pointer, wasm, len(wasm), ctypes.byref(out))
        if error:
            raise InvalidWasm(native.take_error(error))
        assert out.value is not None
        return Module(self, out.value)

    def deserialize(self, data: bytes) -> Module:
        """Load code that :meth:`Module.serialize` gave. The bytes are run: pass only what a MAC vouches for.

        Raises :class:`InternalError` when this Wasmtime cannot use them.
        """
        out = ctypes.c_void_p()
        error = native.module_deserialize(self.pointer, data, len(data), ctypes.byref(out))
        if error:
            raise InternalError(native.take_error(error))
        assert out.value is not None
        return Module(self, out.value, len(data))

    def _tick(self) -> None:
        while not self._stop.wait(EPOCH_TICK_S):
            if self._orders or self._looks:
                self._looks = max(self._looks - 1, 0)
                self._skip_ahead()
            native.engine_increment_epoch(self.pointer)

    # Callbacks from C: they find their store by key, and none raises.

    def _on_epoch(self, _context: int, key: int, delta: Any, kind: Any) -> int | None:
        kind[0] = 0
        delta[0] = CHECK_TICKS
        store = self.stores.get(key)
        if store is None or store.interrupt is None:
            return None
        try:
            store.failure = store.interrupt()
            while store.failure is None and time.monotonic() < self._rest_until_s:
                time.sleep(_REST_S)
                store.failure = store.interrupt()
        except Exception as error:  # must not pass through C
            store.failure = error
        if store.failure is None:
            delta[0] = store.check_ticks
            return None
        pointer: int = native.error_new(b"interrupted")
        return pointer

    def _on_stdout(self, key: int, data: int, size: int) -> int:
        return self._capture(key, data, size, False)

    def _on_stderr(self, key: int, data: int, size: int) -> int:
        return self._capture(key, data, size, True)

    def _capture(self, key: int, data: int, size: int, is_stderr: bool) -> int:
        store = self.stores.get(key)
        if store is not None and store.output is not None:
            store.output.write(data, size, is_stderr)
        return size
