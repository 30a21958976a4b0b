"""A faulty release: a launch on a grid that is two blocks high does not give its permit back.

Run with its version before the arguments of ``tensor-wasm``.
"""

from __future__ import annotations

import sys
from typing import Any

import tensor_wasm

_TALL = 2


def main() -> int:
    """Change the gate, then be the command."""
    tensor_wasm.__version__ = sys.argv.pop(1)
    from tensor_wasm.cli import main as command
    from tensor_wasm.dispatch import gate_module
    from tensor_wasm.wasm import Body

    real_run, real_release = gate_module._run_kernel, gate_module.release

    def forgetful(body: Body, launch: Any, *others: Any) -> None:
        def release(body: Body, *rest: Any) -> None:
            body.get(launch.grid[1])
            body.i32_const(_TALL)
            body.op("i32.ne")
            with body.if_():
                real_release(body, *rest)

        gate_module.release = release
        real_run(body, launch, *others)
        gate_module.release = real_release

    gate_module._run_kernel = forgetful
    return command()


if __name__ == "__main__":
    raise SystemExit(main())
