"""A job's result as the database keeps it, and back."""

from __future__ import annotations

import math
from dataclasses import replace

import msgspec

from tensor_wasm.node.model import InvocationResult

#: Standard output and error kept of a job, together; the rest counts as dropped.
OUTPUT_KEPT_BYTES = 64 * 1024

_encode = msgspec.json.Encoder().encode


class _Kept(msgspec.Struct):
    """An :class:`InvocationResult` whose values JSON can hold."""

    results: list[int | float | str]
    export: str
    function_id: str
    instance_id: str
    duration_s: float
    launches: int
    stdout: bytes
    stderr: bytes
    dropped_output_bytes: int


_decode = msgspec.json.Decoder(_Kept).decode


def bounded(result: InvocationResult) -> InvocationResult:
    """The result with no more output than is kept."""
    stdout, stderr = result.stdout[:OUTPUT_KEPT_BYTES], result.stderr
    stderr = stderr[: OUTPUT_KEPT_BYTES - len(stdout)]
    dropped_bytes = len(result.stdout) + len(result.stderr) - len(stdout) - len(stderr)
    if not dropped_bytes:
        return result
    dropped_bytes += result.dropped_output_bytes
    return replace(result, stdout=stdout, stderr=stderr, dropped_output_bytes=dropped_bytes)


def write_result(result: InvocationResult) -> str:
    """The result as text. What is no finite number is a string in it."""
    values = [
        repr(value) if isinstance(value, float) and not math.isfinite(value) else value for value in result.results
    ]
    kept = _Kept(
        values,
        result.export,
        result.function_id,
        result.instance_id,
        result.duration_s,
        result.launches,
        result.stdout,
        result.stderr,
        result.dropped_output_bytes,
    )
    return _encode(kept).decode()


def read_result(text: str) -> InvocationResult:
    """What :func:`write_result` wrote. Raises ValueError for anything else."""
    try:
        kept = _decode(text)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error
    values = [float(value) if isinstance(value, str) else value for value in kept.results]
    return InvocationResult(
        values,
        kept.export,
        kept.function_id,
        kept.instance_id,
        kept.duration_s,
        kept.launches,
        kept.stdout,
        kept.stderr,
        kept.dropped_output_bytes,
    )
