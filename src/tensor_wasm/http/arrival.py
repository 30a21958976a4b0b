"""How long a request lay in the socket before the event loop came to read it.

A loop that something blocks reads nothing meanwhile, so a clock that starts when it reads would call every answer
quick. The system knows better: it notes when a connection last received data.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

#: Where the protocol leaves it for the application, in the scope's extensions, in seconds.
WAITED = "tensor_wasm.waited_s"
#: The system counts in ticks of up to 10 ms, so one that passes between arriving and reading says nothing.
_TICK_MS = 10
#: Linux's ``struct tcp_info`` up to ``tcpi_last_data_recv``, in milliseconds.
_INFO_BYTES = 56
_LAST_RECEIVED = struct.Struct("=52xI")
_TCP_INFO: int | None = getattr(socket, "TCP_INFO", None)


def connection_of(transport: asyncio.Transport) -> socket.socket | None:
    """The connection to ask, None where the system cannot tell."""
    connection: Any = transport.get_extra_info("socket")
    is_tcp = connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6)
    return connection if is_tcp and _TCP_INFO is not None and hasattr(connection, "getsockopt") else None


def waited_s(connection: socket.socket | None) -> float:
    """How long what came last on a connection has lain there, in seconds; 0 where nobody knows. Costs 2 µs."""
    if connection is None or _TCP_INFO is None:
        return 0.0
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _INFO_BYTES)
        waited_ms: int = _LAST_RECEIVED.unpack(info)[0]
    except (OSError, struct.error):  # it was closed meanwhile, or is another system's
        return 0.0
    return waited_ms / 1000 if waited_ms > _TICK_MS else 0.0
