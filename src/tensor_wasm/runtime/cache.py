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
from collections.abc import Callable, Iterator
from pathlib import Path

from blake3 import blake3

from tensor_wasm.errors import InternalError
from tensor_wasm.runtime.engine import CONFIGURATION, Engine, Module
from tensor_wasm.runtime.recent import Recent

_MAC_BYTES = 32
#: Serialized code of what a cache keeps in memory.
KEPT_CODE_BYTES = 384 << 20
#: Files of one directory, together; each counts as a whole number of blocks, so that there are not too many of them.
KEPT_FILES_BYTES = 1 << 30
_BLOCK_BYTES = 16 << 10


class SealedFiles:
    """Files in one directory, each sealed by a MAC over its name and content under ``key`` (32 bytes).

    Together they have about ``bytes_max`` bytes at most: what is deployed and deleted must not fill the disk. The files
    go first that were written, or read as far as the system notes it, the longest time ago.
    """

    def __init__(self, directory: Path, key: bytes, bytes_max: int = KEPT_FILES_BYTES) -> None:
        self._directory = directory
        self._prefix = os.path.join(directory, "")  # noqa: PTH118 - a path of pathlib's takes 25 µs to join and open
        self._key = key
        self._bytes_max = bytes_max
        self._size_bytes: int | None = None  # not known before the first write
        self._size_lock = threading.Lock()
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def read(self, name: str) -> bytes | None:
        """The content of ``name``, or None when there is none that the key vouches for."""
        try:
            data = _read_all(self._prefix + name)
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
            else:
                self._count(_MAC_BYTES + len(content))

    def _count(self, size_bytes: int) -> None:
        """A file was written. Makes room where there are too many. Raises :class:`OSError`."""
        with self._size_lock:
            if self._size_bytes is None:
                self._size_bytes = sum(size for _, size, _ in self._files())
            else:
                # One that was there before counts twice until files are counted.
                self._size_bytes += _blocks(size_bytes)
            if self._size_bytes > self._bytes_max:
                self._make_room()

    def _make_room(self) -> None:
        """Delete the oldest files, more than there must: so that all are looked at seldom."""
        files = sorted(self._files())
        self._size_bytes = sum(size for _, size, _ in files)
        for _, size, path in files:
            if self._size_bytes <= self._bytes_max * 3 // 4:
                return
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108 - of the paths that scandir gives
            self._size_bytes -= size

    def _files(self) -> Iterator[tuple[float, int, str]]:
        """When each file was used, its size, its path."""
        with os.scandir(self._prefix) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    yield max(status.st_atime, status.st_mtime), _blocks(status.st_size), entry.path

    def _seal(self, name: str, content: bytes) -> bytes:
        seal = blake3(name.encode() + b"\0", key=self._key)
        seal.update(content)  # by itself: a copy of much code holds the interpreter lock
        return seal.digest()


def _blocks(size_bytes: int) -> int:
    return -(-size_bytes // _BLOCK_BYTES) * _BLOCK_BYTES


def _read_all(path: str) -> bytes:
    """A file's content. Raises :class:`OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = [os.read(descriptor, os.fstat(descriptor).st_size)]
        while part := os.read(descriptor, 1 << 20):  # it grew, or a read was cut short
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


#: Gives the serialized machine code of a module that it compiled elsewhere, or None: the cache then compiles it here.
Compile = Callable[[bytes], bytes | None]


class ModuleCache:
    """Compiles each module once: concurrent callers of the same bytes wait for one compilation.

    ``compile_elsewhere`` is asked first to compile a module: in another process, by an engine like this one. What it
    gives is run: it must be trusted as Wasmtime itself is.
    """

    def __init__(
        self,
        engine: Engine,
        files: SealedFiles,
        count_max: int = 512,
        bytes_max: int = KEPT_CODE_BYTES,
        compile_elsewhere: Compile | None = None,
    ) -> None:
        self._engine = engine
        self._files = files
        self._compile_elsewhere = compile_elsewhere
        self._modules: Recent[str, Module] = Recent(count_max, bytes_max, lambda module: module.code_bytes)
        self._lock = threading.Lock()
        self._busy: dict[str, threading.Lock] = {}

    def get(self, digest: str, wasm: bytes | Callable[[], bytes]) -> Module:
        """The compiled module of ``wasm``, whose BLAKE3 is ``digest``; ``wasm`` may be how to read it.

        Raises :class:`InvalidWasm` when it does not compile.
        """
        with self._lock:
            module = self._modules.get(digest)
            if module is not None:
                return module
            busy = self._busy.setdefault(digest, threading.Lock())
        try:
            with busy:
                module = self._modules.peek(digest)
                return module if module is not None else self._keep(digest, self._load(digest, wasm))
        finally:
            with self._lock:
                self._busy.pop(digest, None)

    def find(self, digest: str) -> Module | None:
        """The module whose bytes have this BLAKE3 when it is in memory or on disk. Compiles nothing."""
        with self._lock:
            module = self._modules.get(digest)
            if module is not None:
                return module
        module = self._read(_file_name(digest))
        return None if module is None else self._keep(digest, module)

    def put(self, digest: str, code: bytes) -> Module:
        """Take in the serialized machine code of a module that was compiled elsewhere, and keep it on disk too.

        The code is run: see :class:`ModuleCache`. Raises :class:`InternalError` when this Wasmtime cannot use it.
        """
        module = self._keep(digest, self._engine.deserialize(code))
        self._files.write(_file_name(digest), code)
        return module

    def forget(self, digest: str) -> None:
        """Let go of a module that nobody needs any more; who runs it keeps it. Its file stays."""
        with self._lock:
            self._modules.drop(digest)

    def _keep(self, digest: str, module: Module) -> Module:
        """Keep a module in memory; the one to use, which is another when somebody was faster."""
        with self._lock:
            found = self._modules.get(digest)
            if found is not None:
                return found
            self._modules.put(digest, module)
        return module

    def _load(self, digest: str, wasm: bytes | Callable[[], bytes]) -> Module:
        name = _file_name(digest)
        module = self._read(name)
        if module is not None:
            return module
        source = wasm() if callable(wasm) else wasm
        code = None if self._compile_elsewhere is None else self._compile_elsewhere(source)
        if code is None:
            module = self._engine.compile(source)
            code = module.serialize()
        else:
            module = self._engine.deserialize(code)
        self._files.write(name, code)
        return module

    def _read(self, name: str) -> Module | None:
        code = self._files.read(name)
        if code is not None:
            with contextlib.suppress(InternalError):  # made by another build of Wasmtime or for another processor
                return self._engine.deserialize(code)
        return None


def _file_name(digest: str) -> str:
    return blake3(f"{CONFIGURATION}\0{digest}".encode()).hexdigest()
