"""Warm starts: a function whose setting names an export has that run once, and every instance starts from there."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass

from tensor_wasm.errors import InvalidArguments
from tensor_wasm.node.exports import choose_export
from tensor_wasm.node.instances import Instances
from tensor_wasm.node.modules import Modules
from tensor_wasm.node.sandbox import Call, Image, Sandbox, Workshop
from tensor_wasm.node.storage import Storage
from tensor_wasm.runtime import asleep
from tensor_wasm.runtime.image import ImageWriter
from tensor_wasm.store import FunctionRecord, SnapshotStore

#: States that are kept: each has a file open. One that was dropped is made anew by the next call.
_KEPT_IMAGES = 256


@dataclass(frozen=True, slots=True)
class _Warm:
    """A function's state; its file lives as long as somebody has the image."""

    image: Image
    tenant: int
    size_bytes: int


class WarmStarts:
    """The states that functions' instances start from. Safe for threads.

    A state counts as stored bytes of its tenant while it is kept. ``longest_ns`` is how long making one may take.
    """

    def __init__(
        self,
        workshop: Workshop,
        instances: Instances,
        modules: Modules,
        store: SnapshotStore,
        storage: Storage,
        longest_ns: int,
    ) -> None:
        self._workshop = workshop
        self._instances = instances
        self._modules = modules
        self._store = store
        self._storage = storage
        self._longest_ns = longest_ns
        self._warm: OrderedDict[str, _Warm] = OrderedDict()
        self._making: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def image(self, function: FunctionRecord) -> Image:
        """A function's state, made now if it is not there: one call makes it, others wait for that.

        Raises an :class:`~tensor_wasm.errors.EndingError` when its export does not return,
        :class:`~tensor_wasm.errors.MissingExport`, :class:`InvalidArguments`,
        :class:`~tensor_wasm.errors.InvalidSnapshot` when its state cannot be told.
        """
        with self._lock:
            found = self._find(function.id)
            making = self._making.setdefault(function.id, threading.Lock()) if found is None else None
        if found is not None:
            return found.image
        assert making is not None
        with asleep():
            making.acquire()
        try:
            with self._lock:
                found = self._find(function.id)
            if found is None:
                found = self._make(function)
                self._keep(function.id, found)
            return found.image
        finally:
            making.release()
            with self._lock:
                self._making.pop(function.id, None)

    def drop(self, function_id: str) -> None:
        """Forget the state of a function that is gone."""
        with self._lock:
            found = self._warm.pop(function_id, None)
        if found is not None:
            self._storage.give(found.tenant, found.size_bytes)

    def _find(self, function_id: str) -> _Warm | None:
        found = self._warm.get(function_id)
        if found is not None:
            self._warm.move_to_end(function_id)
        return found

    def _keep(self, function_id: str, made: _Warm) -> None:
        with self._lock:
            self._warm[function_id] = made
            dropped = self._warm.popitem(last=False)[1] if len(self._warm) > _KEPT_IMAGES else None
        if dropped is not None:
            self._storage.give(dropped.tenant, dropped.size_bytes)

    def _make(self, function: FunctionRecord) -> _Warm:
        module = self._modules.observable(function.digest)
        export = choose_export(module, function.prewarm)
        if export.parameters:
            raise InvalidArguments(f"prewarm names {export.name}, which takes arguments: it is called without any")
        deadline_ns = time.monotonic_ns() + self._longest_ns
        call = Call(function.id, function.tenant, export.name, (), b"", deadline_ns)
        limit_bytes = self._workshop.limits.memory_bytes
        live = self._instances.open(function, export.name, deadline_ns, limit_bytes)
        try:
            sandbox = Sandbox(self._workshop, live, module, call)
            try:
                sandbox.run(call, export, ())
                sandbox.end_call()
                return self._capture(sandbox, function.tenant)
            finally:
                sandbox.close()
        finally:
            self._instances.close(live)

    def _capture(self, sandbox: Sandbox, tenant: int) -> _Warm:
        file = self._store.own_file()
        taken_bytes = sandbox.memory_bytes
        statistics = self._workshop.statistics
        with self._storage.taking(tenant, taken_bytes), statistics.writing_snapshot(is_capture=True):
            writer = ImageWriter(file.descriptor)
            state, device = sandbox.capture(writer)
        self._storage.count(tenant, writer.size_bytes - taken_bytes)
        return _Warm(Image(state, device, file.descriptor, file), tenant, writer.size_bytes)
