"""A kept instance in the caller's hands, plain and for an event loop."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from tensor_wasm.api.model import Captured, KeptInstance, Result
from tensor_wasm.api.streams import AsyncStream, Stream
from tensor_wasm.errors import NotFound


class Keeper(Protocol):
    """A :class:`Node` or :class:`Client`, as far as an instance needs it."""

    def call(
        self,
        id: str,  # noqa: A002 - the field's word
        export: str | None = None,
        args: Sequence[object] = (),
        *,
        input: bytes = b"",  # noqa: A002
        deadline: float | None = None,
        tenant: int | None = None,
    ) -> Result:
        """Call it."""
        ...

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
        """Call it for what it emits."""
        ...

    def describe_instance(self, id: str, *, tenant: int | None = None) -> KeptInstance:  # noqa: A002
        """How it is."""
        ...

    def delete_instance(self, id: str, *, tenant: int | None = None) -> None:  # noqa: A002
        """End it."""
        ...

    def snapshot(self, id: str, *, tenant: int | None = None) -> Captured:  # noqa: A002
        """Capture it."""
        ...


class AsyncKeeper(Protocol):
    """As :class:`Keeper`, for an event loop."""

    async def call(
        self,
        id: str,  # noqa: A002
        export: str | None = None,
        args: Sequence[object] = (),
        *,
        input: bytes = b"",  # noqa: A002
        deadline: float | None = None,
        tenant: int | None = None,
    ) -> Result:
        """Call it."""
        ...

    async def stream_call(
        self,
        id: str,  # noqa: A002
        export: str | None = None,
        args: Sequence[object] = (),
        *,
        input: bytes = b"",  # noqa: A002
        deadline: float | None = None,
        tenant: int | None = None,
    ) -> AsyncStream:
        """Call it for what it emits."""
        ...

    async def describe_instance(self, id: str, *, tenant: int | None = None) -> KeptInstance:  # noqa: A002
        """How it is."""
        ...

    async def delete_instance(self, id: str, *, tenant: int | None = None) -> None:  # noqa: A002
        """End it."""
        ...

    async def snapshot(self, id: str, *, tenant: int | None = None) -> Captured:  # noqa: A002
        """Capture it."""
        ...


class Instance:
    """A kept instance: its memory stays from call to call. One call at a time; a second one gets :class:`Busy`.

    At the end of a ``with`` block it is ended. Without one it ends when it was idle for long enough.
    """

    __slots__ = ("_keeper", "_tenant", "id")

    def __init__(self, keeper: Keeper, id: str, tenant: int | None) -> None:  # noqa: A002
        self._keeper = keeper
        self._tenant = tenant
        self.id = id

    def call(
        self,
        export: str | None = None,
        args: Sequence[object] = (),
        *,
        input: bytes = b"",  # noqa: A002
        deadline: float | None = None,
    ) -> Result:
        """Call an export, as ``invoke`` does. An :class:`~tensor_wasm.errors.EndingError` is the instance's end too."""
        return self._keeper.call(self.id, export, args, input=input, deadline=deadline, tenant=self._tenant)

    def stream(
        self,
        export: str | None = None,
        args: Sequence[object] = (),
        *,
        input: bytes = b"",  # noqa: A002
        deadline: float | None = None,
    ) -> Stream:
        """Call an export and take what it emits while it runs. Leaving the stream early ends the instance."""
        return self._keeper.stream_call(self.id, export, args, input=input, deadline=deadline, tenant=self._tenant)

    def describe(self) -> KeptInstance:
        """How it is at the moment. Raises :class:`~tensor_wasm.errors.NotFound` when it has ended."""
        return self._keeper.describe_instance(self.id, tenant=self._tenant)

    def snapshot(self) -> Captured:
        """Keep its whole state on the node's disk, for ``restore``. It is there once this has returned."""
        return self._keeper.snapshot(self.id, tenant=self._tenant)

    def close(self) -> None:
        """End it, also while it answers a call. Safe to call twice."""
        with contextlib.suppress(NotFound):
            self._keeper.delete_instance(self.id, tenant=self._tenant)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Instance(id={self.id!r})"


class AsyncInstance:
    """As :class:`Instance`, for an event loop."""

    __slots__ = ("_keeper", "_tenant", "id")

    def __init__(self, keeper: AsyncKeeper, id: str, tenant: int | None) -> None:  # noqa: A002
        self._keeper = keeper
        self._tenant = tenant
        self.id = id

    async def call(
        self,
        export: str | None = None,
        args: Sequence[object] = (),
        *,
        input: bytes = b"",  # noqa: A002
        deadline: float | None = None,
    ) -> Result:
        """As :meth:`Instance.call`. Cancelling the task ends the guest, and so the instance."""
        return await self._keeper.call(self.id, export, args, input=input, deadline=deadline, tenant=self._tenant)

    async def stream(
        self,
        export: str | None = None,
        args: Sequence[object] = (),
        *,
        input: bytes = b"",  # noqa: A002
        deadline: float | None = None,
    ) -> AsyncStream:
        """As :meth:`Instance.stream`."""
        return await self._keeper.stream_call(
            self.id, export, args, input=input, deadline=deadline, tenant=self._tenant
        )

    async def describe(self) -> KeptInstance:
        """As :meth:`Instance.describe`."""
        return await self._keeper.describe_instance(self.id, tenant=self._tenant)

    async def snapshot(self) -> Captured:
        """As :meth:`Instance.snapshot`."""
        return await self._keeper.snapshot(self.id, tenant=self._tenant)

    async def close(self) -> None:
        """As :meth:`Instance.close`."""
        with contextlib.suppress(NotFound):
            await self._keeper.delete_instance(self.id, tenant=self._tenant)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncInstance(id={self.id!r})"
