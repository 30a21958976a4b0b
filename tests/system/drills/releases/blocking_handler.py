"""A faulty release: ``GET /functions`` waits for something without handing the event loop back.

Run with its version before the arguments of ``tensor-wasm``.
"""

from __future__ import annotations

import sys
import time

import tensor_wasm

BLOCKED_S = 0.2


def main() -> int:
    """Change the handler, then be the command."""
    tensor_wasm.__version__ = sys.argv.pop(1)
    from tensor_wasm.cli import main as command
    from tensor_wasm.http.operations import Answer, Call
    from tensor_wasm.http.routes.functions import Functions

    real = Functions.list

    async def blocking(self: Functions, call: Call) -> Answer:
        time.sleep(BLOCKED_S)
        return await real(self, call)

    Functions.list = blocking  # type: ignore[method-assign]
    return command()


if __name__ == "__main__":
    raise SystemExit(main())
