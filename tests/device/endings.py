"""What ends launches from outside."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

import tensor_wasm as tw


def interrupt_after(seconds: float, number: int = signal.SIGINT) -> threading.Timer:
    """Send this process a signal."""
    timer = threading.Timer(seconds, os.kill, (os.getpid(), number))
    timer.start()
    return timer


def assert_closing_ends(dev: tw.OpenDevice, launch: Callable[[], None]) -> None:
    """Close a device while another thread is in a launch that never ends."""
    ended: list[BaseException] = []

    def occupy() -> None:
        try:
            launch()
        except tw.errors.TensorWasmError as error:
            ended.append(error)

    thread = threading.Thread(target=occupy)
    thread.start()
    time.sleep(0.2)
    dev.close()
    thread.join(5)
    assert isinstance(ended[0], tw.errors.Terminated)
