"""Result codes of ``wasi:cuda``: 0 is success, everything else is negative."""

from __future__ import annotations

from enum import IntEnum


class Code(IntEnum):
    """A result a guest sees. The value is the ABI; the comment is when it is given."""

    OK = 0
    NOT_AVAILABLE = -1  # the tenant has no GPU capability
    INVALID_POINTER = -2  # a range outside guest memory
    UNKNOWN_KERNEL = -3
    MALFORMED_PTX = -4  # not PTX, unsupported, or no such entry
    LAUNCH_FAILED = -5
    QUOTA_EXCEEDED = -6
    INTERNAL = -7
    INVALID_DIMENSIONS = -8
    INVALID_ARGUMENTS = -9
    ARGV_TOO_LARGE = -10
    INVALID_HANDLE = -11
    SATURATED = -12  # no permit within the allowed wait, or no compiler free
    DEADLINE = -13  # too little of the invocation's time is left to start a launch


#: What each code means to a guest's author, for `last_error` when the gate refuses without asking the host.
CODE_TEXTS: dict[Code, str] = {
    Code.OK: "",
    Code.NOT_AVAILABLE: "not available: this tenant may not use the device",
    Code.INVALID_POINTER: "invalid pointer: the range is not inside guest memory",
    Code.UNKNOWN_KERNEL: "unknown kernel id: use one that wasi_cuda_load_ptx returned in this instance",
    Code.MALFORMED_PTX: "malformed PTX",
    Code.LAUNCH_FAILED: "launch failed",
    Code.QUOTA_EXCEEDED: "quota exceeded",
    Code.INTERNAL: "internal error",
    Code.INVALID_DIMENSIONS: (
        "invalid dimensions: every grid and block axis must be at least 1, a block at most 1024 x 1024 x 64 and 1024"
        " threads, grid y and z at most 65535, shared memory at most 233472 bytes, and the kernel's .maxntid and"
        " .reqntid must hold"
    ),
    Code.INVALID_ARGUMENTS: "invalid arguments: argv must hold one record for each kernel parameter, of its type",
    Code.ARGV_TOO_LARGE: "argv is too large: at most 4096 bytes and 128 records",
    Code.INVALID_HANDLE: "invalid device handle",
    Code.SATURATED: "saturated: no permit within the allowed wait, or no compiler free: try again later",
    Code.DEADLINE: "deadline: less than 50 ms of the invocation are left",
}
