"""Showing how a call went, the same for a local call and one on a node."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping

from tensor_wasm.cli.output import print_guest_output, print_json, print_line, print_note, safe


def show(answer: Mapping[str, object], is_json: bool) -> None:
    """Print a call's answer: the guest's output, then each result on a line of its own; or the answer as JSON."""
    if is_json:
        print_json(answer)
        return
    for name, is_stderr in (("stdout", False), ("stderr", True)):
        text = answer.get(name)
        if isinstance(text, str):
            print_guest_output(text.encode(errors="replace"), is_stderr)
    dropped = answer.get("dropped_output_bytes")
    if dropped:
        print_note(f"note: {dropped} bytes of output were dropped; TENSOR_WASM_OUTPUT_BYTES is the limit")
    result = answer.get("result")
    for value in result if isinstance(result, list) else [result]:
        print_line(safe(str(value)))
    if sys.stderr.isatty():
        print_note(f"({_milliseconds(answer.get('duration_ms'))}, launches: {safe(str(answer.get('launches')))})")


def as_json_number(value: float) -> float | str:
    """A result as JSON carries it: NaN and infinities as strings."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _milliseconds(value: object) -> str:
    return f"{value:.3f} ms" if isinstance(value, int | float) else "? ms"
