"""A client of a node over HTTP, with the methods of :class:`Node`."""

from __future__ import annotations

import binascii
import copy
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlencode
from uuid import uuid4

from tensor_wasm.api import readers
from tensor_wasm.api.files import SnapshotFile, left_bytes, opened_snapshot, write_snapshot
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
from tensor_wasm.api.readers import Malformed
from tensor_wasm.api.remote import EventStream, NodeTransport, because, tls_context
from tensor_wasm.api.requests import (
    STATUSES,
    CallRequest,
    call_request,
    check_deadline,
    check_key,
    check_status,
    check_tenant,
)
from tensor_wasm.api.signing import SignedKernel
from tensor_wasm.api.streams import Stream
from tensor_wasm.api.transport import ANSWER_TIMEOUT_S, Body, Interrupter, split_url
from tensor_wasm.errors import ConfigurationError, InvalidName, NotFound

_Read = TypeVar("_Read")

#: Functions read at once.
_PAGE = 100
#: What ids are made of. Anything else would be another path.
_ID = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)
_PLAIN = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
#: Some work waits for a turn, for compilers or the disk.
_LONG_S = 300.0
_EVENTS = {"Accept": "text/event-stream"}


class Client:
    """A node elsewhere, as one caller. For any number of threads; connections are kept and used again.

    ``url`` is like ``http://127.0.0.1:8080``. ``token`` says who asks. ``tenant`` is whom the methods act for; without
    it, here and in a call, the node takes the token's only tenant, else 0. For ``https``, ``ca_cert`` is a file (PEM)
    of authorities to trust instead of the system's, ``client_cert`` and ``client_key`` what to show a node that asks.

    Errors are those of :class:`Node`, as :mod:`tensor_wasm.errors` has them, with ``request_id`` for the node's log;
    besides, :class:`~tensor_wasm.Unreachable`, :class:`~tensor_wasm.AnswerTimeout` and
    :class:`~tensor_wasm.RemoteError`. Raises :class:`~tensor_wasm.errors.ConfigurationError` for what cannot be used.
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
        try:
            address = split_url(url)
        except ValueError as error:
            raise ConfigurationError(f"the URL of a node must look like http://HOST:PORT{because(error)}") from error
        if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
            raise ConfigurationError("a token must be printable ASCII without spaces")
        tls = tls_context(ca_cert, client_cert, client_key) if address.is_tls else None
        self._transport = NodeTransport(url, address, tls, token, check_tenant(tenant))
        self._interrupter: Interrupter | None = None

    def close(self) -> None:
        """Close the connections that are kept. Safe to call twice."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def interruptible(self, interrupter: Interrupter) -> Self:
        """This client, on the same connections, for one caller whose requests another thread may break off."""
        view = copy.copy(self)
        view._interrupter = interrupter  # noqa: SLF001 - our own
        return view

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
        """As :meth:`Node.deploy`."""
        if not isinstance(name, str):
            raise InvalidName("a name is text")
        query = {"name": name} | ({} if prewarm is None else {"prewarm": prewarm})
        path = f"/functions?{urlencode(query, errors='replace')}"
        headers = {"Content-Type": "application/wasm"} | _key(idempotency_key)
        answer = self._json("POST", path, bytes(wasm), headers, tenant)
        return self.function(self._read(lambda item: readers.text(item, "id"), answer), tenant=tenant)

    def functions(self, *, tenant: int | None = None) -> Iterator[Function]:
        """As :meth:`Node.functions`."""
        return self._pages("functions", {}, readers.function_of, tenant)

    def function(self, id: str, *, tenant: int | None = None) -> Function:  # noqa: A002 - the field's word
        """As :meth:`Node.function`."""
        return self._read(readers.function_of, self._json("GET", _path("functions", id), tenant=tenant))

    def delete(self, id: str, *, tenant: int | None = None) -> None:  # noqa: A002
        """As :meth:`Node.delete`."""
        self._done("DELETE", _path("functions", id), tenant)

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
        """As :meth:`Node.invoke`. Breaking off, by Ctrl-C for example, ends the guest."""
        return self._called(_path("functions", id, "invoke"), call_request(export, args, input, deadline), tenant)

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
        """As :meth:`Node.stream`."""
        path = _path("functions", id, "invoke-stream")
        return self._streamed(path, call_request(export, args, input, deadline), tenant)

    # --- kept instances ---------------------------------------------------------------------------------

    def spawn(
        self,
        id: str,  # noqa: A002
        *,
        idle_timeout: float | None = None,
        deadline: float | None = None,
        tenant: int | None = None,
    ) -> Instance:
        """As :meth:`Node.spawn`."""
        _path("functions", id)  # an id that is none
        deadline = check_deadline(deadline)
        request: dict[str, object] = {"function_id": id} | _deadline(deadline)
        if idle_timeout is not None:
            request["idle_timeout_s"] = _finite(idle_timeout)
        answer = self._json_of("/instances", request, deadline, tenant)
        return Instance(self, self._read(lambda item: readers.text(item, "id"), answer), tenant)

    def instances(self, *, tenant: int | None = None) -> list[KeptInstance]:
        """As :meth:`Node.instances`."""
        answer = self._json("GET", "/instances", tenant=tenant)
        return [self._read(readers.kept_of, item) for item in self._transport.items(answer, "instances")]

    def instance(self, id: str, *, tenant: int | None = None) -> Instance:  # noqa: A002
        """As :meth:`Node.instance`."""
        return Instance(self, self.describe_instance(id, tenant=tenant).id, tenant)

    def describe_instance(self, id: str, *, tenant: int | None = None) -> KeptInstance:  # noqa: A002
        """As :meth:`Node.describe_instance`."""
        return self._read(readers.kept_of, self._json("GET", _path("instances", id), tenant=tenant))

    def delete_instance(self, id: str, *, tenant: int | None = None) -> None:  # noqa: A002
        """As :meth:`Node.delete_instance`."""
        self._done("DELETE", _path("instances", id), tenant)

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
        """As :meth:`Node.call`."""
        return self._called(_path("instances", id, "invoke"), call_request(export, args, input, deadline), tenant)

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
        """As :meth:`Node.stream_call`."""
        path = _path("instances", id, "invoke")
        return self._streamed(path, call_request(export, args, input, deadline), tenant)

    # --- snapshots --------------------------------------------------------------------------------------

    def snapshot(self, id: str, *, tenant: int | None = None) -> Captured:  # noqa: A002
        """As :meth:`Node.snapshot`."""
        path = _path("instances", id, "snapshot")
        return self._read(readers.captured_of, self._json("POST", path, tenant=tenant, timeout_s=_LONG_S))

    def restore(
        self,
        id: str,  # noqa: A002
        *,
        idle_timeout: float | None = None,
        tenant: int | None = None,
    ) -> Instance:
        """As :meth:`Node.restore`."""
        request = {} if idle_timeout is None else {"idle_timeout_s": _finite(idle_timeout)}
        answer = self._json_of(_path("snapshots", id, "restore"), request, _LONG_S, tenant)
        return Instance(self, self._read(lambda item: readers.text(item, "instance_id"), answer), tenant)

    def snapshots(self, *, tenant: int | None = None) -> list[Snapshot]:
        """As :meth:`Node.snapshots`."""
        answer = self._json("GET", "/snapshots", tenant=tenant)
        return [self._read(readers.snapshot_of, item) for item in self._transport.items(answer, "snapshots")]

    def delete_snapshot(self, id: str, *, tenant: int | None = None) -> None:  # noqa: A002
        """As :meth:`Node.delete_snapshot`."""
        self._done("DELETE", _path("snapshots", id), tenant)

    def export_snapshot(self, id: str, file: SnapshotFile, *, tenant: int | None = None) -> int:  # noqa: A002
        """As :meth:`Node.export_snapshot`."""
        path, headers = _path("snapshots", id), {"Accept": "*/*"} | _tenant(tenant)
        with self._transport.stream("GET", path, None, headers, _LONG_S, self._interrupter) as parts:
            return write_snapshot(file, parts)

    def import_snapshot(self, file: SnapshotFile, *, tenant: int | None = None) -> Snapshot:
        """As :meth:`Node.import_snapshot`."""
        with opened_snapshot(file) as source:
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(left_bytes(source))}
            answer = self._json("PUT", _path("snapshots", str(uuid4())), source, headers, tenant, _LONG_S)
        return self._read(readers.snapshot_of, answer)

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
        """As :meth:`Node.submit`."""
        headers = {"Content-Type": "application/json"} | _key(idempotency_key)
        body = self._transport.encoded(_body(call_request(export, args, input, deadline)))
        answer = self._json("POST", _path("functions", id, "invoke-async"), body, headers, tenant)
        return Job(self, self._read(lambda item: readers.text(item, "job_id"), answer), STATUSES[0], tenant)

    def jobs(self, *, status: str | None = None, tenant: int | None = None) -> Iterator[JobDescription]:
        """As :meth:`Node.jobs`."""
        query = {} if check_status(status) is None else {"status": str(status)}
        return self._pages("jobs", query, readers.job_of, tenant)

    def job(self, id: str, *, tenant: int | None = None) -> Job:  # noqa: A002
        """As :meth:`Node.job`."""
        found = self.describe_job(id, tenant=tenant)
        return Job(self, found.id, found.status, tenant)

    def describe_job(self, id: str, *, tenant: int | None = None) -> JobDescription:  # noqa: A002
        """As :meth:`Node.describe_job`."""
        return self._read(readers.job_of, self._json("GET", _path("jobs", id), tenant=tenant))

    def cancel_job(self, id: str, *, tenant: int | None = None) -> str:  # noqa: A002
        """As :meth:`Node.cancel_job`."""
        answer = self._json("DELETE", _path("jobs", id), tenant=tenant)
        return self._read(lambda item: readers.text(item, "status"), answer)

    # --- signed kernels ---------------------------------------------------------------------------------

    def publish_kernel(self, kernel: SignedKernel, *, tenant: int | None = None) -> PublishedKernel:
        """As :meth:`Node.publish_kernel`."""
        request = {
            name: binascii.b2a_base64(data, newline=False).decode()
            for name, data in (
                ("manifest_b64", kernel.manifest),
                ("signature_b64", kernel.signature),
                ("ptx_b64", kernel.ptx),
            )
        }
        self._json_of("/kernels", request, _LONG_S, tenant)
        return _published(self.kernel(kernel.name, kernel.version, tenant=tenant))

    def kernels(self, *, tenant: int | None = None) -> Iterator[PublishedKernel]:
        """As :meth:`Node.kernels`."""
        return self._pages("kernels", {}, readers.kernel_of, tenant)

    def kernel(self, name: str, version: str, *, tenant: int | None = None) -> VerifiedKernel:
        """As :meth:`Node.kernel`."""
        return self._read(readers.verified_of, self._json("GET", _kernel_path(name, version), tenant=tenant))

    def delete_kernel(self, name: str, version: str, *, tenant: int | None = None) -> None:
        """As :meth:`Node.delete_kernel`."""
        self._done("DELETE", _kernel_path(name, version), tenant)

    # --- requests ---------------------------------------------------------------------------------------

    def _pages(
        self,
        name: str,
        query: Mapping[str, str],
        reader: Callable[[Mapping[str, object]], _Read],
        tenant: int | None,
    ) -> Iterator[_Read]:
        """Everything of a list, page by page."""
        after: str | None = None
        while True:
            asked = {"limit": str(_PAGE)} | dict(query) | ({"after": after} if after else {})
            page = self._json("GET", f"/{name}?{urlencode(asked)}", tenant=tenant)
            items = self._transport.items(page, name)
            for item in items:
                yield self._read(reader, item)
            following = page.get("next")
            if not items or not isinstance(following, str) or following == after:
                return
            after = following

    def _called(self, path: str, request: CallRequest, tenant: int | None) -> Result:
        return self._read(readers.result_of, self._json_of(path, _body(request), request.deadline_s, tenant))

    def _streamed(self, path: str, request: CallRequest, tenant: int | None) -> Stream:
        body = self._transport.encoded(_body(request))
        headers = {"Content-Type": "application/json"} | _EVENTS | _tenant(tenant)
        opened = ExitStack()
        pieces = opened.enter_context(
            self._transport.stream(
                "POST", path, body, headers, timeout_s=_patience_s(request.deadline_s), interrupter=self._interrupter
            )
        )
        return EventStream(self._transport, opened, pieces)

    def _json(
        self,
        method: str,
        path: str,
        body: Body = None,
        headers: Mapping[str, str] | None = None,
        tenant: int | None = None,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> dict[str, Any]:
        headers = dict(headers or {}) | _tenant(tenant)
        return self._transport.json(method, path, body, headers, timeout_s, self._interrupter)

    def _json_of(
        self, path: str, request: Mapping[str, object], deadline_s: float | None, tenant: int | None
    ) -> dict[str, Any]:
        return self._transport.json_of(
            "POST", path, request, _patience_s(deadline_s), _tenant(tenant), interrupter=self._interrupter
        )

    def _done(self, method: str, path: str, tenant: int | None) -> None:
        self._transport.checked(
            self._transport.request(method, path, headers=_tenant(tenant), interrupter=self._interrupter)
        )

    def _read(self, reader: Callable[[Mapping[str, object]], _Read], item: Mapping[str, object]) -> _Read:
        try:
            return reader(item)
        except Malformed:
            raise self._transport.stranger_error() from None


def _path(*parts: str) -> str:
    """The path of a route. Raises :class:`NotFound` for what is no id."""
    if not all(isinstance(part, str) and _ID.fullmatch(part) for part in parts):
        raise NotFound("there is nothing of that id: it is not like an id at all")
    return "".join(f"/{part}" for part in parts)


def _kernel_path(name: str, version: str) -> str:
    """The path of a kernel. Raises :class:`NotFound` for what names none."""
    if not all(isinstance(text, str) and _PLAIN.fullmatch(text) and text.strip(".") for text in (name, version)):
        raise NotFound("there is no such kernel: it has no kernel's name and version")
    return f"/kernels/{name}/{version}"


def _published(found: VerifiedKernel) -> PublishedKernel:
    return PublishedKernel(found.name, found.version, found.digest, found.size_bytes, found.publisher, found.created_at)


def _tenant(tenant: int | None) -> dict[str, str]:
    return {} if check_tenant(tenant) is None else {"X-TensorWasm-Tenant": str(tenant)}


def _key(key: str | None) -> dict[str, str]:
    return {} if check_key(key) is None else {"Idempotency-Key": str(key)}


def _finite(seconds: float) -> float:
    """A number that JSON has; what it has not the node refuses in any case."""
    return seconds if math.isfinite(seconds) else -1.0


def _deadline(deadline_s: float | None) -> dict[str, object]:
    return {} if deadline_s is None else {"deadline_ms": max(math.ceil(deadline_s * 1e3), 1)}


def _patience_s(deadline_s: float | None) -> float | None:
    """How long to wait for an answer: past the deadline, since the node is who keeps it."""
    return None if deadline_s is None else deadline_s + ANSWER_TIMEOUT_S


def _body(request: CallRequest) -> dict[str, object]:
    body: dict[str, object] = {"args": request.args} | _deadline(request.deadline_s)
    if request.export is not None:
        body["export"] = request.export
    if request.input:
        body["input_b64"] = binascii.b2a_base64(request.input, newline=False).decode()
    return body
