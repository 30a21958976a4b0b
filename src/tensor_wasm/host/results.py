"""What calls of ``wasi:cuda`` come to: codes, and the text of the latest failure."""

from __future__ import annotations

from typing import Any

from tensor_wasm.abi import Code
from tensor_wasm.abi.codes import CODE_TEXTS
from tensor_wasm.abi.limits import LAST_ERROR_MAX_BYTES
from tensor_wasm.host.guest import Guest

#: What the host leaves in the gate's `last code` after a failure of its own: the text is then the guest's.
_TEXT_IS_HERE = 1
_REFUSALS = frozenset(int(code) for code in Code if code < 0)


def finish(guest: Guest, code: int, text: str | None = None) -> int:
    """Note what a call came to, for ``last_error``; the code, to be returned."""
    guest.take_printed()
    guest.error_text = b"" if code >= 0 else _cut(text or CODE_TEXTS[Code(code)])
    if guest.gate is not None:
        guest.gate.set_last_code(_TEXT_IS_HERE if code < 0 else Code.OK)
    return code


def refuse_for_quota(guest: Guest, text: str | None = None) -> int:
    """As :func:`finish`, for a call that a limit refuses; counted as such."""
    guest.count_quota()
    return finish(guest, Code.QUOTA_EXCEEDED, text)


def _cut(text: str) -> bytes:
    """At most ``LAST_ERROR_MAX_BYTES`` of UTF-8, ending on a character's boundary."""
    return text.encode("utf-8", "replace")[:LAST_ERROR_MAX_BYTES].decode("utf-8", "ignore").encode()


def _last_error(guest: Guest) -> bytes:
    code = _TEXT_IS_HERE if guest.gate is None else guest.gate.last_code
    if code == _TEXT_IS_HERE:
        return guest.error_text
    return _cut(CODE_TEXTS[Code(code)]) if code in _REFUSALS else b""


def last_error_len(guest: Guest, values: Any) -> None:
    """``wasi_cuda_last_error_len``."""
    values[0].i32 = len(_last_error(guest))


def last_error_copy(guest: Guest, values: Any) -> None:
    """``wasi_cuda_last_error_copy``."""
    # Reading the text does not change it, nor does failing to.
    values[0].i32 = copy_text(guest, _last_error(guest), values[0].i32, values[1].i32)


def copy_text(guest: Guest, text: bytes, pointer: int, room_bytes: int) -> int:
    """Copy as much of a text into guest memory as fits; how many bytes, or a code."""
    length = min(len(text), max(room_bytes, 0))
    target = guest.window(pointer, length) if room_bytes >= 0 else None
    if target is None:
        return Code.INVALID_POINTER
    target[:] = text[:length]
    return length
