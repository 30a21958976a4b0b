"""What a caller is told of an error, in an answer of its own or in the middle of one."""

from __future__ import annotations

import logging

from tensor_wasm.errors import CapacityError, EndingError, KernelError, RequestError, TensorWasmError

_log = logging.getLogger("tensor_wasm.http")

#: What is told of an error that is the node's own.
GENERIC = "the node failed; its log has the details under this request id"
#: Errors whose message was written for the caller. Of all others only the log learns more than their kind.
_TOLD = (RequestError, EndingError, CapacityError, KernelError)


def told(error: TensorWasmError, request_id: str) -> str:
    """The message of an error for its caller; the log gets what the caller is not told."""
    if isinstance(error, _TOLD):
        return error.message
    _log.error("a request failed: %s", error, exc_info=error, extra={"request_id": request_id})
    return GENERIC
