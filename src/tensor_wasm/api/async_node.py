"""A node in this process, for programs with an event loop."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar
from uuid import uuid4

from blake3 import blake3

from tensor_wasm import node as nodes
from tensor_wasm.api.chunks import Chunks
from tensor_wasm.api.convert import function_of, job_of, kept_of, kernel_of, result_of, snapshot_of, verified_of
from tensor_wasm.api.files import SnapshotFile, opened_snapshot, write_snapshot
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
from tensor_wasm.api.requests import (
    STATUSES,
    call_request,
    check_deadline,
    check_key,
    check_status,
    check_tenant,
)
from tensor_wasm.api.signing import SignedKernel
from tensor_wasm.api.streams import AsyncStream
from tensor_wasm.config import load

_Result = TypeVar("_Result")

#: Functions read at once.
_PAGE = 100


class AsyncNode:
    """A node in this process. Use it by ``async with``, or call :meth:`open` first and :meth:`close` at the end.

    The same as :class:`Node`, which describes its arguments and methods; nothing blocks the event loop. Cancelling a
    task ends the guest that it waits for.
    """

    def __init__(
        self,
        home: str | Path | None = None,
        device: str | None = None,
        *,
        tenant: int | None = None,
        **settings: object,
    ) -> None:
        self._config = load(os.environ, {"home": home, "device": device, **settings}).config
        self._own_tenant = check_tenant(tenant)
        self._opened: nodes.Node | None = None

    async def open(self) -> None:
        """Open the node's home and start it. Raises :class:`~tensor_wasm.errors.StoreError`."""
        self._opened = await asyncio.to_thread(nodes.Node, self._config)
        self._opened.job_queue.start(lambda _: None)

    async def close(self) -> None:
        """End what still runs and give everything back. Safe to call twice."""
        if self._opened is not None:
            await asyncio.to_thread(self._opened.close)

    async def __aenter__(self) -> Self:
        await self.open()
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
        owner = self._tenant(tenant)
        key = check_key(idempotency_key)
        return function_of(await self._background(owner, self._deploy, owner, name, bytes(wasm), prewarm, key))

    def _deploy(self, tenant: int, name: str, wasm: bytes, prewarm: str | None, key: str | None) -> nodes.Function:
        if key is None:
            return self._node.functions.deploy(name, wasm, tenant, prewarm)
        bound = _bind(tenant, key, ["deploy", name, prewarm], wasm)
        before = self._node.functions.made_before(bound)
        if before is not None:
            return self._node.functions.show(before, tenant)
        return self._node.functions.deploy_once(name, wasm, tenant, bound, prewarm).function

    async def functions(self, *, tenant: int | None = None) -> AsyncIterator[Function]:
        """As :meth:`Node.functions`, for ``async for``."""
        owner = self._tenant(tenant)
        after: str | None = None
        while True:
            page = await self._background(owner, self._node.functions.list, owner, _PAGE, after)
            for found in page.items:
                yield function_of(found)
            after = page.next
            if after is None:
                return

    async def function(self, id: str, *, tenant: int | None = None) -> Function:  # noqa: A002 - the field's word
        """As :meth:`Node.function`."""
        owner = self._owner(id, tenant)
        return function_of(await self._background(owner, self._node.functions.show, id, owner))

    async def delete(self, id: str, *, tenant: int | None = None) -> None:  # noqa: A002
        """As :meth:`Node.delete`."""
        owner = self._owner(id, tenant)
        await self._background(owner, self._node.functions.delete, id, owner)

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
        request = call_request(export, args, input, deadline)
        return result_of(
            await self._node.invocations.invoke_async(
                id,
                request.export,
                request.args,
                tenant=self._owner(id, tenant),
                input=request.input,
                deadline_s=request.deadline_s,
            )
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
        request = call_request(export, args, input, deadline)
        owner, node = self._owner(id, tenant), self._node
        chunks = Chunks(
            lambda stream: node.invocations.invoke_async(
                id,
                request.export,
                request.args,
                tenant=owner,
                input=request.input,
                deadline_s=request.deadline_s,
                stream=stream,
            )
        )
        await chunks.begin()
        return chunks

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
        owner = self._owner(id, tenant)
        kept = await self._node.spawner.spawn_async(
            id, tenant=owner, idle_timeout_s=idle_timeout, deadline_s=check_deadline(deadline)
        )
        return AsyncInstance(self, kept.id, owner)

    async def instances(self, *, tenant: int | None = None) -> list[KeptInstance]:
        """As :meth:`Node.instances`."""
        return [kept_of(found) for found in self._node.kept.list(self._tenant(tenant))]

    async def instance(self, id: str, *, tenant: int | None = None) -> AsyncInstance:  # noqa: A002
        """As :meth:`Node.instance`."""
        owner = self._owner(id, tenant)
        return AsyncInstance(self, self._node.kept.show(id, owner).id, owner)

    async def describe_instance(self, id: str, *, tenant: int | None = None) -> KeptInstance:  # noqa: A002
        """As :meth:`Node.describe_instance`."""
        return kept_of(self._node.kept.show(id, self._owner(id, tenant)))

    async def delete_instance(self, id: str, *, tenant: int | None = None) -> None:  # noqa: A002
        """As :meth:`Node.delete_instance`."""
        owner = self._owner(id, tenant)
        await self._background(owner, self._node.kept.delete, id, owner)

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
        request = call_request(export, args, input, deadline)
        return result_of(
            await self._node.kept.call_async(
                id,
                request.export,
                request.args,
                tenant=self._owner(id, tenant),
                input=request.input,
                deadline_s=request.deadline_s,
            )
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
        request = call_request(export, args, input, deadline)
        owner, node = self._owner(id, tenant), self._node
        chunks = Chunks(
            lambda stream: node.kept.call_async(
                id,
                request.export,
                request.args,
                tenant=owner,
                input=request.input,
                deadline_s=request.deadline_s,
                stream=stream,
            )
        )
        await chunks.begin()
        return chunks

    # --- snapshots --------------------------------------------------------------------------------------

    async def snapshot(self, id: str, *, tenant: int | None = None) -> Captured:  # noqa: A002
        """As :meth:`Node.snapshot`."""
        owner = self._owner(id, tenant)
        found = await self._background(owner, self._node.snapshots.capture, id, owner)
        return Captured(found.id, found.size_bytes, found.sha)

    async def restore(
        self,
        id: str,  # noqa: A002
        *,
        idle_timeout: float | None = None,
        tenant: int | None = None,
    ) -> AsyncInstance:
        """As :meth:`Node.restore`."""
        owner = self._owner(id, tenant)
        kept = await self._node.spawner.restore_async(id, tenant=owner, idle_timeout_s=idle_timeout)
        return AsyncInstance(self, kept.id, owner)

    async def snapshots(self, *, tenant: int | None = None) -> list[Snapshot]:
        """As :meth:`Node.snapshots`."""
        return [snapshot_of(found) for found in self._node.snapshots.list(self._tenant(tenant))]

    async def delete_snapshot(self, id: str, *, tenant: int | None = None) -> None:  # noqa: A002
        """As :meth:`Node.delete_snapshot`."""
        owner = self._owner(id, tenant)
        await self._background(owner, self._node.snapshots.delete, id, owner)

    async def export_snapshot(self, id: str, file: SnapshotFile, *, tenant: int | None = None) -> int:  # noqa: A002
        """As :meth:`Node.export_snapshot`."""
        parts = await self._background(0, self._node.snapshot_files.export, id, self._owner(id, tenant))
        return await asyncio.to_thread(write_snapshot, file, parts)

    async def import_snapshot(self, file: SnapshotFile, *, tenant: int | None = None) -> Snapshot:
        """As :meth:`Node.import_snapshot`."""
        owner = self._tenant(tenant)

        def take() -> nodes.Snapshot:
            with opened_snapshot(file) as source:
                return self._node.snapshot_files.import_(str(uuid4()), source, owner)

        return snapshot_of(await asyncio.to_thread(take))

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
        request = call_request(export, args, input, deadline)
        owner, key = self._owner(id, tenant), check_key(idempotency_key)
        asked = ["submit", id, request.export, request.args, request.deadline_s]
        submission = await self._node.jobs.submit(
            id,
            request.export,
            request.args,
            tenant=owner,
            input=request.input,
            deadline_s=request.deadline_s,
            key=None if key is None else await self._background(owner, _bind, owner, key, asked, request.input),
        )
        return AsyncJob(self, submission.job_id, STATUSES[0], owner)

    async def jobs(self, *, status: str | None = None, tenant: int | None = None) -> AsyncIterator[JobDescription]:
        """As :meth:`Node.jobs`, for ``async for``."""
        owner, wanted = self._tenant(tenant), check_status(status)
        after: str | None = None
        while True:
            page = await self._background(
                owner, self._node.jobs.list, owner, _PAGE, after, None if wanted is None else nodes.JobStatus(wanted)
            )
            for found in page.items:
                yield job_of(found)
            after = page.next
            if after is None:
                return

    async def job(self, id: str, *, tenant: int | None = None) -> AsyncJob:  # noqa: A002
        """As :meth:`Node.job`."""
        owner = await self._job_owner(id, tenant)
        found = await self.describe_job(id, tenant=owner)
        return AsyncJob(self, found.id, found.status, owner)

    async def describe_job(self, id: str, *, tenant: int | None = None) -> JobDescription:  # noqa: A002
        """As :meth:`Node.describe_job`."""
        owner = await self._job_owner(id, tenant)
        return job_of(await self._background(owner, self._node.jobs.show, id, owner))

    async def cancel_job(self, id: str, *, tenant: int | None = None) -> str:  # noqa: A002
        """As :meth:`Node.cancel_job`."""
        return (await self._node.jobs.cancel(id, await self._job_owner(id, tenant))).status.value

    # --- signed kernels ---------------------------------------------------------------------------------

    async def publish_kernel(self, kernel: SignedKernel, *, tenant: int | None = None) -> PublishedKernel:
        """As :meth:`Node.publish_kernel`."""
        owner = self._tenant(tenant)
        return kernel_of(
            await self._background(
                owner, self._node.kernels.publish, owner, kernel.manifest, kernel.signature, kernel.ptx
            )
        )

    async def kernels(self, *, tenant: int | None = None) -> AsyncIterator[PublishedKernel]:
        """As :meth:`Node.kernels`, for ``async for``."""
        owner = self._tenant(tenant)
        after: str | None = None
        while True:
            page = await self._background(owner, self._node.kernels.list, owner, _PAGE, after)
            for found in page.items:
                yield kernel_of(found)
            after = page.next
            if after is None:
                return

    async def kernel(self, name: str, version: str, *, tenant: int | None = None) -> VerifiedKernel:
        """As :meth:`Node.kernel`."""
        owner = self._tenant(tenant)
        view, _ = await self._background(owner, self._node.kernels.show, owner, name, version)
        return verified_of(view)

    async def delete_kernel(self, name: str, version: str, *, tenant: int | None = None) -> None:
        """As :meth:`Node.delete_kernel`."""
        owner = self._tenant(tenant)
        await self._background(owner, self._node.kernels.delete, owner, name, version)

    # --- whose ------------------------------------------------------------------------------------------

    @property
    def _node(self) -> nodes.Node:
        if self._opened is None:
            raise RuntimeError("the node is not open: use `async with`, or await open() first")
        return self._opened

    async def _background(self, tenant: int, function: Callable[..., _Result], *args: object) -> _Result:
        return await self._node.intake.in_background(tenant, function, *args)

    def _tenant(self, tenant: int | None) -> int:
        """For whom something is made or listed."""
        chosen = self._own_tenant if tenant is None else check_tenant(tenant)
        return 0 if chosen is None else chosen

    def _owner(self, id: str, tenant: int | None) -> int:  # noqa: A002
        """Whose thing of this id is meant: without a tenant, whosever it is."""
        chosen = self._own_tenant if tenant is None else check_tenant(tenant)
        if chosen is not None:
            return chosen
        node = self._node
        for found in (node.functions.owner_of(id), node.kept.owner_of(id), node.snapshots.owner_of(id)):
            if found is not None:
                return found
        return 0

    async def _job_owner(self, id: str, tenant: int | None) -> int:  # noqa: A002
        """As :meth:`_owner`, of a job, which only the disk knows."""
        chosen = self._own_tenant if tenant is None else check_tenant(tenant)
        if chosen is not None:
            return chosen
        owner = await self._background(0, self._node.jobs.owner_of, id)
        return 0 if owner is None else owner


def _bind(tenant: int, key: str, asked: list[object], data: bytes) -> nodes.IdempotencyKey:
    """The key with the hash of what it is for. Over HTTP that is the request as it came, so a key is for one way."""
    return nodes.IdempotencyKey(tenant, key, blake3(json.dumps(asked).encode() + b"\n").update(data).digest())
