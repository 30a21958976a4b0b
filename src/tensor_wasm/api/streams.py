"""What a guest emits, as it comes: iterate it; then ``result`` is there."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from tensor_wasm.api.model import Result

_TOO_EARLY = "the stream has not ended: take every chunk first"


class Stream:
    """The chunks of one call, each as the guest emitted it; for one reader.

    Iterating raises what the call came to, so a stream that ends is whole. Leave it early with :meth:`close`, or by a
    ``with`` block: the guest is then told, and ended if it goes on.
    """

    _result: Result | None = None

    @property
    def result(self) -> Result:
        """What the call returned. Raises RuntimeError before the last chunk was taken."""
        if self._result is None:
            raise RuntimeError(_TOO_EARLY)
        return self._result

    def close(self) -> None:
        """Leave it. Safe to call twice."""
        raise NotImplementedError

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncStream:
    """As :class:`Stream`, for ``async for`` and ``async with``."""

    _result: Result | None = None

    @property
    def result(self) -> Result:
        """What the call returned. Raises RuntimeError before the last chunk was taken."""
        if self._result is None:
            raise RuntimeError(_TOO_EARLY)
        return self._result

    async def close(self) -> None:
        """Leave it. Safe to call twice."""
        raise NotImplementedError

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
