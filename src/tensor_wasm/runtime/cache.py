"""Compiled modules by content, in memory and on disk.

Loading compiled code is running it, so a file is only ever loaded when its MAC under the node's own key holds: a
tenant, or another program with the same user's rights but without the key, cannot plant code. A file whose MAC does
not hold is ignored and written anew.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from blake3 import blake3

from tensor_wasm.errors import InternalError
from tensor_wasm.runtime.engine import CONFIGURATION, Engine, Module

_MAC_BYTES = 32


class SealedFiles:
    """Files in one directory, each sealed by a MAC over its name and content under ``key`` (32 bytes)."""

    def __init__(self, directory: Path, key: bytes) -> None:
        self._directory = directory
        self._key = key
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def read(self, name: str) -> bytes | None:
        """The content of ``name``, or None when there is none that the key vouches for."""
        try:
            data = (self._directory / name).read_bytes()
        except OSError:
            return None
        seal, content = data[:_MAC_BYTES], data[_MAC_BYTES:]
        return content if hmac.compare_digest(seal, self._seal(name, content)) else None

    def write(self, name: str, content: bytes) -> None:
        """Store ``content``. A cache: an error of the disk (full, read-only) loses only time."""
        with contextlib.suppress(OSError):
            descriptor, temporary = tempfile.mkstemp(dir=self._directory, prefix=".new-")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(self._seal(name, content))
                    file.write(content)
                Path(temporary).replace(self._directory / name)
            except OSError:
                Path(temporary).unlink()

    def _seal(self, name: str, content: bytes) -> bytes:
        return blake3(name.encode() + b"\0" + content, key=self._key).digest()


class ModuleCache:
    """Compiles each module once: concurrent callers of the same bytes wait for one compilation."""

    def __init__(self, engine: Engine, files: SealedFiles, capacity: int = 512) -> None:
        self._engine = engine
        self._files = files
        self._capacity = capacity
        self._modules: OrderedDict[str, Module] = OrderedDict()
        self._lock = threading.Lock()
        self._busy: dict[str, threading.Lock] = {}

    def get(self, digest: str, wasm: bytes | Callable[[], bytes]) -> Module:
        """The compiled module of ``wasm``, whose BLAKE3 is ``digest``; ``wasm`` may be how to read it.

        Raises :class:`InvalidWasm` when it does not compile.
        """
        with self._lock:
            module = self._modules.get(digest)
            if module is not None:
                self._modules.move_to_end(digest)
                return module
            busy = self._busy.setdefault(digest, threading.Lock())
        with busy:
            module = self._modules.get(digest)
            if module is None:
                module = self._load(digest, wasm)
                with self._lock:
                    self._modules[digest] = module
                    while len(self._modules) > self._capacity:
                        self._modules.popitem(last=False)
        with self._lock:
            self._busy.pop(digest, None)
        return module

    def _load(self, digest: str, wasm: bytes | Callable[[], bytes]) -> Module:
        name = blake3(f"{CONFIGURATION}\0{digest}".encode()).hexdigest()
        compiled = self._files.read(name)
        if compiled is not None:
            with contextlib.suppress(InternalError):  # made by another build of Wasmtime or for another processor
                return self._engine.deserialize(compiled)
        module = self._engine.compile(wasm() if callable(wasm) else wasm)
        self._files.write(name, module.serialize())
        return module
