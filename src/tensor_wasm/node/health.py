"""Whether a node can work: why it should get none now, and why part of it fails."""

from __future__ import annotations

import logging
from pathlib import Path

from tensor_wasm.device.protocol import Device
from tensor_wasm.errors import StoreError
from tensor_wasm.node.functions import Functions
from tensor_wasm.node.intake import Intake
from tensor_wasm.store import concerns

_log = logging.getLogger("tensor_wasm.node")


class Health:
    """The health of the node at ``home``. Every call asks the disk."""

    def __init__(self, home: Path, device: Device, functions: Functions, intake: Intake) -> None:
        self._home = home
        self._device = device
        self._functions = functions
        self._intake = intake

    def readiness(self) -> list[str]:
        """Why the node should get no work now; empty when it is ready."""
        reasons = [] if self._intake.is_open else ["draining"]
        gpu = self._device.gpu
        if gpu is not None and not gpu.is_ready:
            reasons.append("the device starts anew")
        try:
            self._functions.check()
        except StoreError:
            reasons.append("the store cannot be read")  # the path and the cause are for the log, not for callers
            _log.exception("the store cannot be read")
        return reasons

    def concerns(self) -> list[str]:
        """Why changes fail while invocations go on; empty when they do not."""
        return concerns(self._home)
