"""What a launch of ``vector_add`` over 1,024 elements costs, all in."""

from __future__ import annotations

from pathlib import Path

from tensor_wasm.bench.dispatch import VECTOR_ADD, timed
from tensor_wasm.bench.plain import PlainGuest
from tensor_wasm.bench.report import Report
from tensor_wasm.bench.sandbox import Workshop, guest_wasm

_WARM_UP = 2_000
_ELEMENTS = 1024


def measure(home: Path, count: int) -> Report:
    """Time ``count`` launches; the peer is a Python host function that adds with NumPy on guest memory."""
    report = Report("kernel")
    wasm = guest_wasm()
    workshop = Workshop(home, wasm)
    with workshop.guest() as kept:
        kept.run("prepare", VECTOR_ADD)
        kept.run("launch_loop", _WARM_UP)
        report.add(
            "vector_add, 1,024 elements", timed(kept, count), "us", bar="P50 <= 3 us", peer="NumPy host function"
        )
    workshop.close()
    plain = PlainGuest(wasm, _add)
    plain.call("prepare", VECTOR_ADD)
    report.add("NumPy host function", timed(plain, count // 10), "us")
    return report


def _add(guest: PlainGuest) -> None:
    memory = guest.memory_array()[: 12 * _ELEMENTS].view("f4")
    first, second, third = memory[:_ELEMENTS], memory[_ELEMENTS : 2 * _ELEMENTS], memory[2 * _ELEMENTS :]
    # The place of the arrays does not change the cost; the sums go where nothing is read.
    _ = first + second + third[0]
