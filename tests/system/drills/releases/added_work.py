"""A faulty release: each launch does more before its kernel, some 200 µs of it.

Run with its version before the arguments of ``tensor-wasm``.
"""

from __future__ import annotations

import sys
from typing import Any

import tensor_wasm

#: Turns of a loop in the gate. Each waits for the one before, so it takes a nanosecond or more.
TURNS = 200_000


def main() -> int:
    """Change the gate, then be the command."""
    tensor_wasm.__version__ = sys.argv.pop(1)
    from tensor_wasm.cli import main as command
    from tensor_wasm.dispatch import gate_module
    from tensor_wasm.wasm import Body, Label, ValType

    real = gate_module._check_request

    def with_more(body: Body, launch: Any, refused: Label) -> None:
        real(body, launch, refused)
        value, left = body.local(ValType.I32), body.local(ValType.I32)
        body.i32_const(TURNS)
        body.set(left)
        with body.loop() as again:
            body.get(value)
            body.i32_const(1664525)
            body.op("i32.mul")
            body.get(left)
            body.op("i32.xor")
            body.set(value)
            body.get(left)
            body.i32_const(1)
            body.op("i32.sub")
            body.tee(left)
            body.br_if(again)
        # What is computed must be used, or the compiler leaves it out: it never is this number with this bit.
        body.get(value)
        body.get(launch.slot)
        body.op("i32.or", "i32.eqz")
        with body.if_():
            body.op("unreachable")

    gate_module._check_request = with_more
    return command()


if __name__ == "__main__":
    raise SystemExit(main())
