"""An event loop on a thread of its own, for plain functions that wait for what runs there."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

_Result = TypeVar("_Result")

#: How long those may go on who still wait when all is closed.
_SETTLE_S = 1.0


class Portal:
    """Runs coroutines for other threads. :meth:`close` when no call runs any more."""

    def __init__(self, name: str) -> None:
        self._loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, _Result]) -> _Result:
        """What a coroutine gives. Ctrl-C, or another exception in the thread that waits, cancels it.

        Raises RuntimeError once it is closed.
        """
        if self._loop.is_closed():
            coroutine.close()
            raise RuntimeError("the node is closed")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """End the loop and its thread. Safe to call twice."""
        if self._loop.is_closed():
            return
        self.run(_settle())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _settle() -> None:
    """Let everybody who still waits have an answer."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        _, waiting = await asyncio.wait(others, timeout=_SETTLE_S)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
