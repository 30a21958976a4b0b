"""``wasi_cuda_load_named``: which kernel of the registry a guest means, and whether it may have it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from tensor_wasm.abi import Code
from tensor_wasm.abi.limits import ENTRY_MAX_BYTES
from tensor_wasm.errors import BadSignature, StoreError
from tensor_wasm.host.guest import Guest
from tensor_wasm.host.results import finish, refuse_for_quota

_log = logging.getLogger("tensor_wasm.host")

#: How much of a name a message tells.
_NAME_SHOWN = 128


def find(guest: Guest, pointers: Sequence[int], lengths: Sequence[int]) -> tuple[bytes, str] | int:
    """The PTX and the entry that a guest names by name, version and entry; or the code that it gets instead."""
    if not guest.is_capable:
        return finish(guest, Code.NOT_AVAILABLE)
    for length, what in zip(lengths, ("kernel's name", "kernel's version", "entry name"), strict=True):
        if length < 0:
            return finish(guest, Code.INVALID_POINTER)
        if length > ENTRY_MAX_BYTES:
            return refuse_for_quota(guest, f"quota exceeded: a {what} may have {ENTRY_MAX_BYTES} bytes, not {length}")
    windows = [guest.window(pointer, length) for pointer, length in zip(pointers, lengths, strict=True)]
    if any(window is None for window in windows):
        return finish(guest, Code.INVALID_POINTER)
    try:
        name, version, entry = (bytes(window or b"").decode() for window in windows)
    except UnicodeDecodeError as error:
        return finish(guest, Code.INVALID_ARGUMENTS, f"invalid arguments: a name is not UTF-8: {error.reason}")
    return _look_up(guest, name, version, entry)


def _look_up(guest: Guest, name: str, version: str, entry: str) -> tuple[bytes, str] | int:
    try:
        kernel = guest.services.published(guest.tenant, name, version)
    except BadSignature as error:
        return finish(guest, Code.MALFORMED_PTX, f"refused: {error}")
    except StoreError as error:  # its text has paths
        _log.error("a published kernel cannot be read: %s", error)
        return finish(guest, Code.INTERNAL, "internal error: the node cannot read this kernel")
    if kernel is None:
        shown = f"{name[:_NAME_SHOWN]} {version[:_NAME_SHOWN]}"
        return finish(guest, Code.UNKNOWN_KERNEL, f"unknown kernel: this tenant has published no {shown}")
    if entry not in kernel.entry_points:
        names = ", ".join(kernel.entry_points)
        return finish(guest, Code.MALFORMED_PTX, f"no such entry in the kernel's manifest; it has {names}")
    return kernel.ptx, entry
