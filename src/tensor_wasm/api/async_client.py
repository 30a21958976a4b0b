"""A client of a node over HTTP, for programs with an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from tensor_wasm.api.client import Client
from tensor_wasm.api.files import SnapshotFile
from tensor_wasm.api.handles import AsyncInstance
from tensor_wasm.api.jobs import AsyncJob
from tensor_wasm.api.model import (
    Captured,
    Function,
    JobDescription,
    KeptInstance,
    PublishedKernel,
    Result,
    Snapshot,
    VerifiedKernel,
)
from tensor_wasm.api.signing import SignedKernel
from tensor_wasm.api.streams import AsyncStream, Stream
from tensor_wasm.api.transport import Interrupter

_Result = TypeVar("_Result")

#: Requests at once; others wait.
_THREADS = 64


class AsyncClient:
    """As :class:`Client`, which describes its arguments, with the methods of :class:`AsyncNode`.

    Requests run on threads, at most 64 at once. Cancelling a task breaks its request off, and the node ends the guest.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        tenant: int | None = None,
        ca_cert: str | Path | None = None,
        client_cert: str | Path | None = None,
        client_key: str | Path | None = None,
    ) -> None:
        self._client = Client(
            url, token=token, tenant=tenant, ca_cert=ca_cert, client_cert=client_cert, client_key=client_key
        )
        self._threads = ThreadPoolExecutor(_THREADS, "tensor-wasm-client")

    async def close(self) -> None:
        """Close the connections that are kept. Safe to call twice."""
        self._client.close()
        self._threads.shutdown(wait=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # --- functions --------------------------------------------------------------------------------------

    async def deploy(
        self,
        name: str,
        wasm: bytes,
        *,
        prewarm: str | None = None,
        idempotency_key: str | None = None,
        tenant: int | None = None,
    ) -> Function:
        """As :meth:`Node.deploy`."""
        return await self._run(
            lambda client: client.deploy(name, wasm, prewarm=prewarm, idempotency_key=idempotency_key, tenant=tenant)
        )

    async def functions(self, *, tenant: int | None = None) -> AsyncIterator[Function]:
        """As :meth:`Node.functions`, for ``async for``."""
        found = self._client.functions(tenant=tenant)
        while (function := await self._run(lambda _: next(found, None))) is not None:
            yield function

    async def function(self, id: str, *, tenant: int | None = None) -> Function:  # noqa: A002 - the field's word
        """As :meth:`Node.function`."""
        return await self._run(lambda client: client.function(id, tenant=tenant))

    async def delete(self, id: str, *, tenant: int | None = None) -> None:  # noqa: A002
        """As :meth:`Node.delete`."""
        await self._run(lambda client: client.delete(id, tenant=tenant))

    # --- calls ------------------------------------------------------------------------------------------

    async def invoke(
        self,
        id: str,  # noqa: A002
        export: str | None = None,
        args: Sequence[object] = (),
        *,
        input: bytes = b"",  # noqa: A002
        deadline: float | None = None,
        tenant: int | None = None,
    ) -> Result:
        """As :meth:`Node.invoke`."""
        return await self._run(
            lambda client: client.invoke(id, export, args, input=input, deadline=deadline, tenant=tenant)
        )

    async def stream(
        self,
        id: str,  # noqa: A002
        export: str | None = None,
        args: Sequence[object] = (),
        *,
        input: bytes = b"",  # noqa: A002
        deadline: float | None = None,
        tenant: int | None = None,
    ) -> AsyncStream:
        """As :meth:`Node.stream`."""
        return await self._stream(
            lambda client: client.stream(id, export, args, input=input, deadline=deadline, tenant=tenant)
        )

    # --- kept instances ---------------------------------------------------------------------------------

    async def spawn(
        self,
        id: str,  # noqa: A002
        *,
        idle_timeout: float | None = None,
        deadline: float | None = None,
        tenant: int | None = None,
    ) -> AsyncInstance:
        """As :meth:`Node.spawn`."""
        spawned = await self._run(
            lambda client: client.spawn(id, idle_timeout=idle_timeout, deadline=deadline, tenant=tenant)
        )
        return AsyncInstance(self, spawned.id, tenant)

    async def instances(self, *, tenant: int | None = None) -> list[KeptInstance]:
        """As :meth:`Node.instances`."""
        return await self._run(lambda client: client.instances(tenant=tenant))

    async def instance(self, id: str, *, tenant: int | None = None) -> AsyncInstance:  # noqa: A002
        """As :meth:`Node.instance`."""
        return AsyncInstance(self, (await self.describe_instance(id, tenant=tenant)).id, tenant)

    async def describe_instance(self, id: str, *, tenant: int | None = None) -> KeptInstance:  # noqa: A002
        """As :meth:`Node.describe_instance`."""
        return await self._run(lambda client: client.describe_instance(id, tenant=tenant))

    async def delete_instance(self, id: str, *, tenant: int | None = None) -> None:  # noqa: A002
        """As :meth:`Node.delete_instance`."""
        await self._run(lambda client: client.delete_instance(id, tenant=tenant))

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
        """As :meth:`Node.call`."""
        return await self._run(
            lambda client: client.call(id, export, args, input=input, deadline=deadline, tenant=tenant)
        )

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
        """As :meth:`Node.stream_call`."""
        return await self._stream(
            lambda client: client.stream_call(id, export, args, input=input, deadline=deadline, tenant=tenant)
        )

    # --- snapshots --------------------------------------------------------------------------------------

    async def snapshot(self, id: str, *, tenant: int | None = None) -> Captured:  # noqa: A002
        """As :meth:`Node.snapshot`."""
        return await self._run(lambda client: client.snapshot(id, tenant=tenant))

    async def restore(
        self,
        id: str,  # noqa: A002
        *,
        idle_timeout: float | None = None,
        tenant: int | None = None,
    ) -> AsyncInstance:
        """As :meth:`Node.restore`."""
        restored = await self._run(lambda client: client.restore(id, idle_timeout=idle_timeout, tenant=tenant))
        return AsyncInstance(self, restored.id, tenant)

    async def snapshots(self, *, tenant: int | None = None) -> list[Snapshot]:
        """As :meth:`Node.snapshots`."""
        return await self._run(lambda client: client.snapshots(tenant=tenant))

    async def delete_snapshot(self, id: str, *, tenant: int | None = None) -> None:  # noqa: A002
        """As :meth:`Node.delete_snapshot`."""
        await self._run(lambda client: client.delete_snapshot(id, tenant=tenant))

    async def export_snapshot(self, id: str, file: SnapshotFile, *, tenant: int | None = None) -> int:  # noqa: A002
        """As :meth:`Node.export_snapshot`."""
        return await self._run(lambda client: client.export_snapshot(id, file, tenant=tenant))

    async def import_snapshot(self, file: SnapshotFile, *, tenant: int | None = None) -> Snapshot:
        """As :meth:`Node.import_snapshot`."""
        return await self._run(lambda client: client.import_snapshot(file, tenant=tenant))

    # --- background jobs --------------------------------------------------------------------------------

    async def submit(
        self,
        id: str,  # noqa: A002
        export: str | None = None,
        args: Sequence[object] = (),
        *,
        input: bytes = b"",  # noqa: A002
        deadline: float | None = None,
        idempotency_key: str | None = None,
        tenant: int | None = None,
    ) -> AsyncJob:
        """As :meth:`Node.submit`."""
        submitted = await self._run(
            lambda client: client.submit(
                id,
                export,
                args,
                input=input,
                deadline=deadline,
                idempotency_key=idempotency_key,
                tenant=tenant,
            )
        )
        return AsyncJob(self, submitted.id, submitted.status, tenant)

    async def jobs(self, *, status: str | None = None, tenant: int | None = None) -> AsyncIterator[JobDescription]:
        """As :meth:`Node.jobs`, for ``async for``."""
        found = self._client.jobs(status=status, tenant=tenant)
        while (job := await self._run(lambda _: next(found, None))) is not None:
            yield job

    async def job(self, id: str, *, tenant: int | None = None) -> AsyncJob:  # noqa: A002
        """As :meth:`Node.job`."""
        found = await self.describe_job(id, tenant=tenant)
        return AsyncJob(self, found.id, found.status, tenant)

    async def describe_job(self, id: str, *, tenant: int | None = None) -> JobDescription:  # noqa: A002
        """As :meth:`Node.describe_job`."""
        return await self._run(lambda client: client.describe_job(id, tenant=tenant))

    async def cancel_job(self, id: str, *, tenant: int | None = None) -> str:  # noqa: A002
        """As :meth:`Node.cancel_job`."""
        return await self._run(lambda client: client.cancel_job(id, tenant=tenant))

    # --- signed kernels ---------------------------------------------------------------------------------

    async def publish_kernel(self, kernel: SignedKernel, *, tenant: int | None = None) -> PublishedKernel:
        """As :meth:`Node.publish_kernel`."""
        return await self._run(lambda client: client.publish_kernel(kernel, tenant=tenant))

    async def kernels(self, *, tenant: int | None = None) -> AsyncIterator[PublishedKernel]:
        """As :meth:`Node.kernels`, for ``async for``."""
        found = self._client.kernels(tenant=tenant)
        while (kernel := await self._run(lambda _: next(found, None))) is not None:
            yield kernel

    async def kernel(self, name: str, version: str, *, tenant: int | None = None) -> VerifiedKernel:
        """As :meth:`Node.kernel`."""
        return await self._run(lambda client: client.kernel(name, version, tenant=tenant))

    async def delete_kernel(self, name: str, version: str, *, tenant: int | None = None) -> None:
        """As :meth:`Node.delete_kernel`."""
        await self._run(lambda client: client.delete_kernel(name, version, tenant=tenant))

    # --- threads ----------------------------------------------------------------------------------------

    async def _run(self, request: Callable[[Client], _Result]) -> _Result:
        interrupter = Interrupter()
        return await in_thread(self._threads, lambda: request(self._client.interruptible(interrupter)), interrupter)

    async def _stream(self, request: Callable[[Client], Stream]) -> AsyncStream:
        interrupter = Interrupter()
        stream = await in_thread(self._threads, lambda: request(self._client.interruptible(interrupter)), interrupter)
        return _Threaded(self._threads, stream, interrupter)


class _Threaded(AsyncStream):
    """A stream that threads read."""

    def __init__(self, threads: ThreadPoolExecutor, stream: Stream, interrupter: Interrupter) -> None:
        self._threads = threads
        self._stream = stream
        self._interrupter = interrupter

    async def __anext__(self) -> bytes:
        chunk = await in_thread(self._threads, lambda: next(self._stream, None), self._interrupter)
        if chunk is None:
            self._result = self._stream.result
            raise StopAsyncIteration
        return chunk

    async def close(self) -> None:
        self._stream.close()


async def in_thread(threads: ThreadPoolExecutor, work: Callable[[], _Result], interrupter: Interrupter) -> _Result:
    """What ``work`` gives on a thread; a task that is cancelled breaks its request off, and waits for that."""
    future = asyncio.wrap_future(threads.submit(work))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        interrupter.interrupt()
        await asyncio.wait([future])
        if not future.cancelled():
            future.exception()  # it was looked at
        raise
