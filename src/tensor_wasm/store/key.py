"""The node's own key: what it seals its caches with."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tensor_wasm.errors import StoreError
from tensor_wasm.store.files import make_directory, unusable, write_durably

KEY_BYTES = 32


def node_key(home: Path) -> bytes:
    """The 32 random bytes in ``home/node.key``, made at the first use.

    Two processes that make it at the same moment get the same key: only one file can be linked to the name. Raises
    :class:`StoreError` when the file has another size, or others than its owner may read or write it.
    """
    make_directory(home)
    path = home / "node.key"
    key = _read(path)
    if key is None:
        write_durably(path, os.urandom(KEY_BYTES), replace=False)
        key = _read(path)
    if key is None:
        raise StoreError(f"{path} was removed while the node started: start it again")
    return key


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            key = file.read(KEY_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unusable(path, error) from error
    if mode & 0o077:
        raise StoreError(f"{path} may be read by others (mode {mode:04o}): run `chmod 600` on it, or remove it")
    if len(key) != KEY_BYTES:
        raise StoreError(f"{path} is damaged: remove it, and the node makes a new key and compiles its cache anew")
    return key
