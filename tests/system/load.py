"""A little of everything that a node does, again and again: what gives its metrics, rules and panels data."""

from __future__ import annotations

import base64
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from system.soak import guests
from tensor_wasm.cli.client import Client
from tensor_wasm.cli.failures import Failure

#: For :class:`system.prometheus.Prometheus` beside it. Five minutes of a rule are ten seconds then: rates need two
#: scrapes, and a slow machine loses some.
FACTOR = 30
PATIENCE_S = 180.0


class Tenant:
    """Who makes the node do a little of everything, again and again."""

    def __init__(self, client: Client, number: int) -> None:
        self._client = client
        self._function = client.deploy(f"load{number}", guests.guest())["id"]
        self._kernels = itertools.count(number * 1_000_000)
        # It stays, with its device memory.
        hoarder = client.spawn(self._function, 300, None)["id"]
        client.call(hoarder, {"export": "hoard", "args": [16 << 20]}, None)

    def deeds(self) -> tuple[Callable[[], object], ...]:
        """One after the other; ``_fail`` is answered with a 500."""
        return (self._probe, self._launch, self._stream, self._keep, self._submit, self._fail)

    def _invoke(self, export: str, *arguments: int, data: bytes = b"") -> None:
        request: dict[str, object] = {"export": export, "args": list(arguments)}
        if data:
            request["input_b64"] = base64.b64encode(data).decode()
        self._client.invoke(self._function, request, None)

    def _probe(self) -> None:
        self._client.request("GET", "/healthz")

    def _launch(self) -> None:
        for text in (guests.numbered_ptx(next(self._kernels)), guests.NOTHING, guests.FAULT):
            self._invoke("kernel", 4, 32, 0, len(text), 1, data=text + b"k")

    def _stream(self) -> None:
        request = {"export": "emit", "args": [10, 100]}
        with self._client.call_events(self._client.stream_path(self._function), request, None) as parts:
            for _ in parts:
                pass

    def _keep(self) -> None:
        instance = self._client.spawn(self._function, 30, None)["id"]
        self._client.call(instance, {"export": "step"}, None)
        snapshot = self._client.capture(instance)["snapshot_id"]
        self._client.delete_instance(instance)
        restored = self._client.restore(snapshot, 30)["instance_id"]
        self._client.delete_instance(restored)
        self._client.delete_snapshot(snapshot)

    def _submit(self) -> None:
        self._client.submit(self._function, {"export": "add", "args": [1, 2]})

    def _fail(self) -> None:
        self._invoke("trap")


@contextmanager
def load(client: Client) -> Iterator[None]:
    """Two tenants' worth of work, until the end; what is refused or fails is part of it."""
    over = threading.Event()

    def work(number: int) -> None:
        tenant = Tenant(client, number)
        while not over.is_set():
            for deed in tenant.deeds():
                try:
                    deed()
                except Failure:
                    over.wait(0.01)

    threads = [threading.Thread(target=work, args=(number,), name=f"load {number}") for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
