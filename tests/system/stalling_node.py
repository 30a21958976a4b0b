"""``tensor-wasm`` with a fault: GET /readyz holds the event loop until the file that ``STALL_UNTIL`` names is there."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from tensor_wasm.cli import main
from tensor_wasm.http.operations import Answer, Call
from tensor_wasm.http.routes.probes import Probes


async def ready(_self: Probes, _call: Call) -> Answer:
    """Never hands the loop back."""
    while not Path(os.environ["STALL_UNTIL"]).exists():
        time.sleep(0.05)
    return Answer(b"{}")


if __name__ == "__main__":
    Probes.ready = ready  # type: ignore[method-assign]
    raise SystemExit(main(sys.argv[1:]))
