"""Asks a node for /healthz all the time, and samples its memory: ``python -m security.watcher HOST PORT PID``.

A process of its own, so that the attacker's work does not count as the node's. For each line on stdin it writes the
worst since the one before as a JSON object, and begins anew.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time

from security.attacked import resident_bytes

_PAUSE_S = 0.005
_TIMEOUT_S = 30.0
_BODY = b'{"status":"ok"}'
_REQUEST = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def main() -> None:
    host, port, pid = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    connection: socket.socket | None = None
    answers_s: list[float]
    worst, answers_s = _nothing(), []
    while True:
        began = time.perf_counter()
        ready, _, _ = select.select([sys.stdin], [], [], _PAUSE_S)
        if ready:
            if not sys.stdin.readline():
                return
            answers_s.sort()
            if answers_s:
                worst["health_s"], worst["usual_s"] = answers_s[-1], answers_s[len(answers_s) * 99 // 100]
            print(json.dumps(worst), flush=True)
            worst, answers_s = _nothing(), []
        else:
            worst["late_s"] = max(worst["late_s"], time.perf_counter() - began - _PAUSE_S)
        began = time.perf_counter()
        try:
            if connection is None:
                connection = socket.create_connection((host, port), timeout=_TIMEOUT_S)
            connection.sendall(_REQUEST)
            answer = b""
            while not answer.endswith(_BODY):
                piece = connection.recv(65_536)
                if not piece:
                    raise ConnectionError
                answer += piece
            worst["resident_bytes"] = max(worst["resident_bytes"], resident_bytes(pid))
        except (OSError, ValueError):
            worst["missed"] += 1
            if connection is not None:
                connection.close()
            connection = None
        answers_s.append(time.perf_counter() - began)


def _nothing() -> dict[str, float]:
    return {"health_s": 0.0, "usual_s": 0.0, "late_s": 0.0, "resident_bytes": 0, "missed": 0}


if __name__ == "__main__":
    main()
