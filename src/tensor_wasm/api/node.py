"""A node in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from tensor_wasm.api.async_node import AsyncNode
from tensor_wasm.api.files import SnapshotFile
from tensor_wasm.api.handles import Instance
from tensor_wasm.api.jobs import Job
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
from tensor_wasm.api.portal import Portal
from tensor_wasm.api.signing import SignedKernel
from tensor_wasm.api.streams import AsyncStream, Stream

_Item = TypeVar("_Item")


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

    def deploy(
        self,
        name: str,
        wasm: bytes,
        *,
        prewarm: str | None = None,
        idempotency_key: str | None = None,
        tenant: int | None = None,
    ) -> Function:
        """Keep a WebAssembly module as a new function. It is on the disk once this has returned.

        Names have 1 to 128 characters of ``A-Z a-z 0-9 . _ -`` and need not be unique. ``prewarm`` names an export that
        is run once, now: every instance starts from the state at its end. The same deployment with the same
        ``idempotency_key`` gives the same function, for a day.

        Raises :class:`~tensor_wasm.errors.InvalidName`, :class:`~tensor_wasm.errors.InvalidWasm`,
        :class:`~tensor_wasm.errors.QuotaExceeded`, :class:`~tensor_wasm.errors.IdempotencyConflict`; with ``prewarm``
        what :meth:`invoke` does.
        """
        deploying = self._node.deploy(name, wasm, prewarm=prewarm, idempotency_key=idempotency_key, tenant=tenant)
        return self._portal.run(deploying)

    def functions(self, *, tenant: int | None = None) -> Iterator[Function]:
        """A tenant's functions, oldest first."""
        return self._each(self._node.functions(tenant=tenant))

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

    # --- snapshots --------------------------------------------------------------------------------------

    def snapshot(self, id: str, *, tenant: int | None = None) -> Captured:  # noqa: A002
        """As :meth:`Instance.snapshot`. Raises :class:`~tensor_wasm.errors.Busy` while the instance answers a call."""
        return self._portal.run(self._node.snapshot(id, tenant=tenant))

    def restore(
        self,
        id: str,  # noqa: A002
        *,
        idle_timeout: float | None = None,
        tenant: int | None = None,
    ) -> Instance:
        """Make an instance with the state of a snapshot and keep it, as :meth:`spawn` keeps a fresh one.

        Raises :class:`~tensor_wasm.errors.NotFound`, :class:`~tensor_wasm.errors.QuotaExceeded`.
        """
        restored = self._portal.run(self._node.restore(id, idle_timeout=idle_timeout, tenant=tenant))
        return Instance(self, restored.id, tenant)

    def snapshots(self, *, tenant: int | None = None) -> list[Snapshot]:
        """A tenant's snapshots, oldest first."""
        return self._portal.run(self._node.snapshots(tenant=tenant))

    def delete_snapshot(self, id: str, *, tenant: int | None = None) -> None:  # noqa: A002
        """Forget a snapshot; instances made from it go on. Raises :class:`~tensor_wasm.errors.NotFound`."""
        self._portal.run(self._node.delete_snapshot(id, tenant=tenant))

    def export_snapshot(self, id: str, file: SnapshotFile, *, tenant: int | None = None) -> int:  # noqa: A002
        """Write a snapshot, with its module, to a file that nodes which trust this one can import; the file's bytes.

        ``file`` is a path, which is there only once it is whole, or a binary file that is open for writing.
        """
        return self._portal.run(self._node.export_snapshot(id, file, tenant=tenant))

    def import_snapshot(self, file: SnapshotFile, *, tenant: int | None = None) -> Snapshot:
        """Keep the snapshot in a file, a path or a binary file that is open for reading; under a new id.

        Raises :class:`~tensor_wasm.errors.InvalidSnapshot` for one that is damaged, or signed by a node that this one
        does not trust.
        """
        return self._portal.run(self._node.import_snapshot(file, tenant=tenant))

    # --- background jobs --------------------------------------------------------------------------------

    def submit(
        self,
        id: str,  # noqa: A002
        export: str | None = None,
        args: Sequence[object] = (),
        *,
        input: bytes = b"",  # noqa: A002
        deadline: float | None = None,
        idempotency_key: str | None = None,
        tenant: int | None = None,
    ) -> Job:
        """Keep a call as a background job, which runs when its turn comes. It is on the disk once this has returned.

        ``deadline`` counts from the job's start. The same submission with the same ``idempotency_key`` gives the same
        job, for a day. Raises as :meth:`invoke` before anything runs, :class:`~tensor_wasm.errors.CapacityExhausted`
        when too many wait, :class:`~tensor_wasm.errors.IdempotencyConflict` when the key was used for another call.
        """
        submitted = self._portal.run(
            self._node.submit(
                id,
                export,
                args,
                input=input,
                deadline=deadline,
                idempotency_key=idempotency_key,
                tenant=tenant,
            )
        )
        return Job(self, submitted.id, submitted.status, tenant)

    def jobs(self, *, status: str | None = None, tenant: int | None = None) -> Iterator[JobDescription]:
        """A tenant's jobs, all or those of a status, oldest first, without results. Ended ones are kept for a while."""
        return self._each(self._node.jobs(status=status, tenant=tenant))

    def job(self, id: str, *, tenant: int | None = None) -> Job:  # noqa: A002
        """A job by its id. Raises :class:`~tensor_wasm.errors.NotFound`."""
        found = self.describe_job(id, tenant=tenant)
        return Job(self, found.id, found.status, tenant)

    def describe_job(self, id: str, *, tenant: int | None = None) -> JobDescription:  # noqa: A002
        """As :meth:`Job.describe`."""
        return self._portal.run(self._node.describe_job(id, tenant=tenant))

    def cancel_job(self, id: str, *, tenant: int | None = None) -> str:  # noqa: A002
        """As :meth:`Job.cancel`. Raises :class:`~tensor_wasm.errors.NotFound`."""
        return self._portal.run(self._node.cancel_job(id, tenant=tenant))

    # --- signed kernels ---------------------------------------------------------------------------------

    def publish_kernel(self, kernel: SignedKernel, *, tenant: int | None = None) -> PublishedKernel:
        """Publish a kernel that :func:`~tensor_wasm.sign_kernel` signed, for guests to load by its name and version.

        Raises :class:`~tensor_wasm.errors.AlreadyRegistered` for a version that there is: they never change; and
        :class:`~tensor_wasm.errors.BadSignature` when the node does not take kernels of that key.
        """
        return self._portal.run(self._node.publish_kernel(kernel, tenant=tenant))

    def kernels(self, *, tenant: int | None = None) -> Iterator[PublishedKernel]:
        """A tenant's published kernels, by name and version."""
        return self._each(self._node.kernels(tenant=tenant))

    def kernel(self, name: str, version: str, *, tenant: int | None = None) -> VerifiedKernel:
        """A published kernel, verified as it is on the disk now. Raises :class:`~tensor_wasm.errors.NotFound`."""
        return self._portal.run(self._node.kernel(name, version, tenant=tenant))

    def delete_kernel(self, name: str, version: str, *, tenant: int | None = None) -> None:
        """Delete a published kernel; guests that have loaded it keep it.

        Raises :class:`~tensor_wasm.errors.NotFound`.
        """
        self._portal.run(self._node.delete_kernel(name, version, tenant=tenant))

    # --- the event loop ---------------------------------------------------------------------------------

    def _each(self, found: AsyncIterator[_Item]) -> Iterator[_Item]:
        async def following() -> _Item | None:
            return await anext(found, None)

        while (item := self._portal.run(following())) is not None:
            yield item


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
