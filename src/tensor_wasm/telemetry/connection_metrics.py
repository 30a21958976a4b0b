"""Counts of clients' connections."""

from __future__ import annotations

from tensor_wasm.telemetry.families import Family, Metric, labels_text, sample

CONNECTIONS = Family("http_connections", "gauge", "Clients' connections, TLS handshakes included.")
CLOSED = Family(
    "http_connections_closed_total", "counter", "Connections closed for there were too many, by reason.", ("reason",)
)


class ConnectionMetrics:
    """Counted on the event loop, read from any thread.

    ``open`` connections there are, ``refused`` ones that found no room, and those closed without a request under way
    to make room for others: ``idle`` ones between two requests, ``silent`` ones that asked nothing yet.
    """

    def __init__(self) -> None:
        self.open = 0
        self.refused = 0
        self.idle = 0
        self.silent = 0

    def collect(self) -> list[Metric]:
        """The two families."""
        closed = {"idle": self.idle, "refused": self.refused, "silent": self.silent}
        lines = [sample(CLOSED, labels_text(reason=reason), count) for reason, count in closed.items()]
        return [Metric(CONNECTIONS, sample(CONNECTIONS, "", self.open)), Metric(CLOSED, "".join(lines))]
