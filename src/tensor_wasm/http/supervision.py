"""What a node tells the service manager that started it (systemd's notify protocol, sd_notify(3)): it is ready, it
stops, its event loop turns.

The pings come from the event loop itself: one that is stalled sends none, and the manager ends and restarts the node.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping

_MICROSECONDS = 1e6
#: Pings within the time that the manager allows: one that comes late does not cost the node its life.
_PINGS = 4


class Supervision:
    """The manager's socket, if there is one: every call does nothing where nobody supervises.

    ``address`` is the socket's path, or begins with ``@`` for an abstract one. ``watchdog_s`` is how long the manager
    waits for a ping, None when it asks for none.
    """

    def __init__(self, address: str | None = None, watchdog_s: float | None = None) -> None:
        self._address = address
        self._watchdog_s = watchdog_s
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    def of(cls, environ: Mapping[str, str], pid: int | None = None) -> Supervision:
        """Read what a manager left in the environment for this process. What makes no sense is as if it were not."""
        address = environ.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return cls()
        allowed = environ.get("WATCHDOG_USEC", "")
        meant_for = environ.get("WATCHDOG_PID", "") or str(os.getpid() if pid is None else pid)
        is_watched = allowed.isascii() and allowed.isdigit() and int(allowed) > 0
        is_ours = meant_for == str(os.getpid() if pid is None else pid)
        return cls(address, int(allowed) / _MICROSECONDS if is_watched and is_ours else None)

    @property
    def ping_interval_s(self) -> float | None:
        """How often the event loop pings, None when nobody waits for it."""
        return None if self._watchdog_s is None else self._watchdog_s / _PINGS

    def started(self, status: str) -> None:
        """The node takes requests; from now on the running event loop pings. To be called on the loop."""
        self._tell(f"READY=1\nSTATUS={status}\n")
        if self._address is not None and self._watchdog_s is not None:
            self._ping(asyncio.get_running_loop())

    def stopping(self, status: str) -> None:
        """The node drains. Pings go on: a drain may hang too."""
        self._tell(f"STOPPING=1\nSTATUS={status}\n")

    def close(self) -> None:
        """Ping no more; to be called on the loop."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ping(self, loop: asyncio.AbstractEventLoop) -> None:
        self._tell("WATCHDOG=1\n")
        assert self.ping_interval_s is not None
        self._timer = loop.call_later(self.ping_interval_s, self._ping, loop)

    def _tell(self, text: str) -> None:
        if self._address is None:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        # A manager that is gone or does not listen changes nothing for those whom the node serves.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.setblocking(False)
            channel.sendto(text.encode("utf-8", "replace"), address)
