"""A node in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from tensor_wasm.api.async_node import AsyncNode
from tensor_wasm.api.handles import Instance
from tensor_wasm.api.model import Function, KeptInstance, Result
from tensor_wasm.api.portal import Portal
from tensor_wasm.api.streams import AsyncStream, Stream


class Node:
    """A node in this process: it keeps functions in a directory, and runs each call in a sandbox. For any thread.

    ``home`` and ``device`` are settings; the others are keywords too, by their name without ``TENSOR_WASM_`` and in
    small letters (``invoke_deadline_s=5``). What is not given comes from the environment. A home is for one node at a
    time. Raises :class:`~tensor_wasm.errors.ConfigurationError` and :class:`~tensor_wasm.errors.StoreError`.

    ``tenant`` is whom the node's methods act for. Without it, here and in a call, new functions are tenant 0's, lists
    are of tenant 0, and an id is found whosever it is: a program that passes on ids of others names their tenant.

    A context manager: :meth:`close` ends what still runs. Ctrl-C ends the guest that the main thread waits for.
    """

    def __init__(
        self,
        home: str | Path | None = None,
        device: str | None = None,
        *,
        tenant: int | None = None,
        **settings: object,
    ) -> None:
        self._node = AsyncNode(home, device, tenant=tenant, **settings)
        with ExitStack() as opened:
            self._portal = Portal("tensor-wasm-node")
            opened.callback(self._portal.close)
            self._portal.run(self._node.open())
            opened.callback(lambda: self._portal.run(self._node.close()))
            self._closing = opened.pop_all()

    def close(self) -> None:
        """End what still runs and give everything back. Safe to call twice."""
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- functions --------------------------------------------------------------------------------------

    def deploy(self, name: str, wasm: bytes, *, tenant: int | None = None) -> Function:
        """Keep a WebAssembly module as a new function. It is on the disk once this has returned.

        Names have 1 to 128 characters of ``A-Z a-z 0-9 . _ -`` and need not be unique. Raises
        :class:`~tensor_wasm.errors.InvalidName`, :class:`~tensor_wasm.errors.InvalidWasm`,
        :class:`~tensor_wasm.errors.QuotaExceeded`.
        """
        return self._portal.run(self._node.deploy(name, wasm, tenant=tenant))

    def functions(self, *, tenant: int | None = None) -> Iterator[Function]:
        """A tenant's functions, oldest first."""
        found = self._node.functions(tenant=tenant)

        async def following() -> Function | None:
            return await anext(found, None)

        while (function := self._portal.run(following())) is not None:
            yield function

    def function(self, id: str, *, tenant: int | None = None) -> Function:  # noqa: A002 - the field's word
        """A function by its id. Raises :class:`~tensor_wasm.errors.NotFound`."""
        return self._portal.run(self._node.function(id, tenant=tenant))

    def delete(self, id: str, *, tenant: int | None = None) -> None:  # noqa: A002
        """Delete a function; calls of it that run finish. Raises :class:`~tensor_wasm.errors.NotFound`."""
        self._portal.run(self._node.delete(id, tenant=tenant))

    # --- calls ------------------------------------------------------------------------------------------

    def invoke(
        self,
        id: str,  # noqa: A002
        export: str | None = None,
        args: Sequence[object] = (),
        *,
        input: bytes = b"",  # noqa: A002
        deadline: float | None = None,
        tenant: int | None = None,
    ) -> Result:
        """Call an export of a function in a fresh instance.

        ``export`` is ``run``, else ``_start``, when None. ``args`` are ints, floats and NumPy scalars; each becomes
        exactly the type that the export declares, or the call is refused. ``input`` is what the guest's ``read-input``
        gives. ``deadline`` is in seconds; at most, and when None, what the node allows.

        Raises an :class:`~tensor_wasm.errors.EndingError` when the guest does not return: a
        :class:`~tensor_wasm.errors.GuestTrap`, :class:`~tensor_wasm.errors.DeadlineExceeded`, and others. A
        :class:`~tensor_wasm.errors.RequestError` when the call cannot be made, a
        :class:`~tensor_wasm.errors.CapacityError` when it may be made later.
        """
        return self._portal.run(self._node.invoke(id, export, args, input=input, deadline=deadline, tenant=tenant))

    def stream(
        self,
        id: str,  # noqa: A002
        export: str | None = None,
        args: Sequence[object] = (),
        *,
        input: bytes = b"",  # noqa: A002
        deadline: float | None = None,
        tenant: int | None = None,
    ) -> Stream:
        """Call an export as :meth:`invoke` does, and take what it emits while it runs.

        Returns with the guest's first chunk or with its end. Raises what :meth:`invoke` does, and so does iterating.
        """
        chunks = self._node.stream(id, export, args, input=input, deadline=deadline, tenant=tenant)
        return _Chunks(self._portal, self._portal.run(chunks))

    # --- kept instances ---------------------------------------------------------------------------------

    def spawn(
        self,
        id: str,  # noqa: A002
        *,
        idle_timeout: float | None = None,
        deadline: float | None = None,
        tenant: int | None = None,
    ) -> Instance:
        """Make an instance of a function and keep it between calls, until it was idle for ``idle_timeout`` seconds.

        ``deadline`` is for the module's start function. Raises as :meth:`invoke`.
        """
        spawned = self._portal.run(self._node.spawn(id, idle_timeout=idle_timeout, deadline=deadline, tenant=tenant))
        return Instance(self, spawned.id, tenant)

    def instances(self, *, tenant: int | None = None) -> list[KeptInstance]:
        """A tenant's kept instances, oldest first."""
        return self._portal.run(self._node.instances(tenant=tenant))

    def instance(self, id: str, *, tenant: int | None = None) -> Instance:  # noqa: A002
        """A kept instance by its id. Raises :class:`~tensor_wasm.errors.NotFound`."""
        return Instance(self, self._portal.run(self._node.instance(id, tenant=tenant)).id, tenant)

    def describe_instance(self, id: str, *, tenant: int | None = None) -> KeptInstance:  # noqa: A002
        """As :meth:`Instance.describe`."""
        return self._portal.run(self._node.describe_instance(id, tenant=tenant))

    def delete_instance(self, id: str, *, tenant: int | None = None) -> None:  # noqa: A002
        """End a kept instance, also while it answers a call. Raises :class:`~tensor_wasm.errors.NotFound`."""
        self._portal.run(self._node.delete_instance(id, tenant=tenant))

    def call(
        self,
        id: str,  # noqa: A002
        export: str | None = None,
        args: Sequence[object] = (),
        *,
        input: bytes = b"",  # noqa: A002
        deadline: float | None = None,
        tenant: int | None = None,
    ) -> Result:
        """As :meth:`Instance.call`. Raises as :meth:`invoke`, and :class:`~tensor_wasm.errors.Busy`."""
        return self._portal.run(self._node.call(id, export, args, input=input, deadline=deadline, tenant=tenant))

    def stream_call(
        self,
        id: str,  # noqa: A002
        export: str | None = None,
        args: Sequence[object] = (),
        *,
        input: bytes = b"",  # noqa: A002
        deadline: float | None = None,
        tenant: int | None = None,
    ) -> Stream:
        """As :meth:`Instance.stream`."""
        chunks = self._node.stream_call(id, export, args, input=input, deadline=deadline, tenant=tenant)
        return _Chunks(self._portal, self._portal.run(chunks))


class _Chunks(Stream):
    """A stream on the node's event loop, read from another thread."""

    def __init__(self, portal: Portal, chunks: AsyncStream) -> None:
        self._portal = portal
        self._chunks = chunks

    def __next__(self) -> bytes:
        async def following() -> bytes | None:
            return await anext(self._chunks, None)

        chunk = self._portal.run(following())
        if chunk is None:
            self._result = self._chunks.result
            raise StopIteration
        return chunk

    def close(self) -> None:
        self._portal.run(self._chunks.close())
