"""A process of its own that asks for /healthz all the time: how long the node takes, and how late this process is.

    python -m system.soak.health HOST PORT

Runs until its standard input ends, and writes JSON then.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from dataclasses import asdict

from system.soak.tally import Spread

_INTERVAL_S = 0.02
_TIMEOUT_S = 30.0
_REQUEST = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
_END = b'"ok"}'


def main() -> None:
    host, port = sys.argv[1], int(sys.argv[2])
    took_s: list[float] = []
    late_s: list[float] = []
    missed = 0
    connection: socket.socket | None = None
    while True:
        began = time.perf_counter()
        if select.select([sys.stdin], [], [], _INTERVAL_S)[0]:
            break
        late_s.append(max(time.perf_counter() - began - _INTERVAL_S, 0.0))
        began = time.perf_counter()
        try:
            if connection is None:
                connection = socket.create_connection((host, port), timeout=_TIMEOUT_S)
            connection.sendall(_REQUEST)
            answer = b""
            while not answer.endswith(_END):
                piece = connection.recv(65_536)
                if not piece:
                    raise ConnectionError
                answer += piece
        except OSError:
            missed += 1
            if connection is not None:
                connection.close()
            connection = None
        took_s.append(time.perf_counter() - began)
    if connection is not None:
        connection.close()
    print(json.dumps({"took": asdict(Spread.of(took_s)), "late": asdict(Spread.of(late_s)), "missed": missed}))


if __name__ == "__main__":
    main()
