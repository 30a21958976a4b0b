"""A client of a node's HTTP API for the commands: JSON as it comes, failures in the command line's words."""

from __future__ import annotations

import base64
import contextlib
import ssl
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO
from urllib.parse import quote, urlencode

from tensor_wasm.api.transport import ANSWER_TIMEOUT_S, Address, Transport, UserInUrlError, split_url
from tensor_wasm.cli.failures import ExitCode, Failure, exit_code_of, unreachable, usage
from tensor_wasm.cli.tls import TlsFiles

#: Publishing waits for a turn, and for compilers.
_PUBLISH_TIMEOUT_S = 300.0
#: Snapshots have gigabytes, which are written, or read and checked, before the answer.
_SNAPSHOT_TIMEOUT_S = 600.0


class Client(Transport):
    """Talks to one node as one caller. Raises :class:`Failure` for everything that is not a success."""

    def __init__(
        self, server: str, token: str | None = None, tenant: int | None = None, tls: TlsFiles | None = None
    ) -> None:
        address = _address(server)
        self._is_tls = address.is_tls
        self._tls_files = tls or TlsFiles()
        super().__init__(server, address, self._tls_files.context() if address.is_tls else None, token, tenant)

    def deploy(self, name: str, wasm: bytes, prewarm: str | None = None) -> dict[str, Any]:
        """Deploy a module, whose instances start from where the export ``prewarm`` ends; the node's answer."""
        path = f"/functions?{urlencode({'name': name} | ({} if prewarm is None else {'prewarm': prewarm}))}"
        timeout_s = ANSWER_TIMEOUT_S if prewarm is None else _PUBLISH_TIMEOUT_S
        return self.json("POST", path, wasm, {"Content-Type": "application/wasm"}, timeout_s)

    def invoke(self, function_id: str, request: Mapping[str, object], deadline_s: float | None) -> dict[str, Any]:
        """Call a function; the node's answer. Waits past the deadline, since the node is who keeps it."""
        timeout_s = None if deadline_s is None else deadline_s + ANSWER_TIMEOUT_S
        return self.json_of("POST", f"/functions/{quote(function_id, safe='')}/invoke", request, timeout_s)

    def submit(self, function_id: str, request: Mapping[str, object]) -> dict[str, Any]:
        """Make a background job of a call; the node's answer, with the job's id."""
        answer = self.json_of("POST", f"/functions/{quote(function_id, safe='')}/invoke-async", request)
        if not isinstance(answer.get("job_id"), str):
            raise self.stranger_error()
        return answer

    def jobs(self, status: str | None = None, page_size: int = 100) -> Iterator[dict[str, Any]]:
        """Every job of the tenant, or every one that stands there, oldest first, page by page."""
        return self._pages("jobs", {} if status is None else {"status": status}, page_size)

    def job(self, job_id: str) -> dict[str, Any]:
        """A job, with its result once it has completed."""
        return self.json("GET", f"/jobs/{quote(job_id, safe='')}")

    def cancel_job(self, job_id: str) -> dict[str, Any]:
        """Cancel a job; the node's answer, with where it stands."""
        return self.json("DELETE", f"/jobs/{quote(job_id, safe='')}")

    def functions(self, page_size: int = 100) -> Iterator[dict[str, Any]]:
        """Every function of the tenant, oldest first, page by page."""
        return self._pages("functions", {}, page_size)

    def _pages(self, name: str, filters: Mapping[str, str], page_size: int) -> Iterator[dict[str, Any]]:
        """Every item of a list, page by page."""
        after: str | None = None
        while True:
            query = {**filters, "limit": str(page_size)} | ({"after": after} if after else {})
            page = self.json("GET", f"/{name}?{urlencode(query)}")
            items = self.items(page, name)
            yield from items
            following = page.get("next")
            if not items or not isinstance(following, str) or following == after:
                return
            after = following

    def function(self, function_id: str) -> dict[str, Any]:
        """Describe a function."""
        return self.json("GET", f"/functions/{quote(function_id, safe='')}")

    def delete(self, function_id: str) -> None:
        """Delete a function."""
        self.checked(self.request("DELETE", f"/functions/{quote(function_id, safe='')}"))

    def call_events(
        self, path: str, request: Mapping[str, object], deadline_s: float | None
    ) -> contextlib.AbstractContextManager[Iterator[bytes]]:
        """Call what has this path, for the bytes of the Server-Sent Events that the node answers with."""
        timeout_s = None if deadline_s is None else deadline_s + ANSWER_TIMEOUT_S
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        return self.stream("POST", path, self.encoded(request), headers, timeout_s)

    @staticmethod
    def stream_path(function_id: str) -> str:
        """Where a function is called for what it emits."""
        return f"/functions/{quote(function_id, safe='')}/invoke-stream"

    # --- kernels ----------------------------------------------------------------------------------------

    def publish_kernel(self, manifest: bytes, signature: bytes, ptx: bytes) -> dict[str, Any]:
        """Publish a signed kernel, which the node compiles before it answers; its answer."""
        parts = {"manifest_b64": manifest, "signature_b64": signature, "ptx_b64": ptx}
        request: dict[str, object] = {name: base64.b64encode(data).decode() for name, data in parts.items()}
        return self.json_of("POST", "/kernels", request, _PUBLISH_TIMEOUT_S)

    def kernels(self, page_size: int = 100) -> Iterator[dict[str, Any]]:
        """Every kernel of the tenant, by name and version, page by page."""
        return self._pages("kernels", {}, page_size)

    def kernel(self, name: str, version: str, *, with_text: bool = False) -> dict[str, Any]:
        """Describe a kernel; with its PTX if that is wanted."""
        return self.json("GET", _kernel_path(name, version) + ("?text=1" if with_text else ""))

    def delete_kernel(self, name: str, version: str) -> None:
        """Delete a kernel."""
        self.checked(self.request("DELETE", _kernel_path(name, version)))

    # --- kept instances ---------------------------------------------------------------------------------

    def spawn(self, function_id: str, idle_timeout_s: float | None, deadline_s: float | None) -> dict[str, Any]:
        """Make an instance and keep it; the node's answer."""
        request: dict[str, object] = {"function_id": function_id}
        if idle_timeout_s is not None:
            request["idle_timeout_s"] = idle_timeout_s
        if deadline_s is not None:
            request["deadline_ms"] = max(round(deadline_s * 1000), 1)
        timeout_s = None if deadline_s is None else deadline_s + ANSWER_TIMEOUT_S
        return self.json_of("POST", "/instances", request, timeout_s)

    def kept_instances(self) -> list[dict[str, Any]]:
        """The tenant's kept instances, oldest first."""
        return self.items(self.json("GET", "/instances"), "instances")

    def call(self, instance_id: str, request: Mapping[str, object], deadline_s: float | None) -> dict[str, Any]:
        """Call a kept instance; the node's answer."""
        timeout_s = None if deadline_s is None else deadline_s + ANSWER_TIMEOUT_S
        return self.json_of("POST", self.instance_path(instance_id), request, timeout_s)

    @staticmethod
    def instance_path(instance_id: str) -> str:
        """Where a kept instance is called."""
        return f"/instances/{quote(instance_id, safe='')}/invoke"

    def delete_instance(self, instance_id: str) -> None:
        """End a kept instance."""
        self.checked(self.request("DELETE", f"/instances/{quote(instance_id, safe='')}"))

    # --- snapshots --------------------------------------------------------------------------------------

    def capture(self, instance_id: str) -> dict[str, Any]:
        """Keep the state of a kept instance; the node's answer, with the snapshot's id."""
        path = f"/instances/{quote(instance_id, safe='')}/snapshot"
        answer = self.json("POST", path, timeout_s=_SNAPSHOT_TIMEOUT_S)
        if not isinstance(answer.get("snapshot_id"), str):
            raise self.stranger_error()
        return answer

    def restore(self, snapshot_id: str, idle_timeout_s: float | None) -> dict[str, Any]:
        """Make a kept instance from a snapshot; the node's answer, with the instance's id."""
        request = {} if idle_timeout_s is None else {"idle_timeout_s": idle_timeout_s}
        answer = self.json_of("POST", f"{_snapshot_path(snapshot_id)}/restore", request, _SNAPSHOT_TIMEOUT_S)
        if not isinstance(answer.get("instance_id"), str):
            raise self.stranger_error()
        return answer

    def snapshots(self) -> list[dict[str, Any]]:
        """The tenant's snapshots, oldest first."""
        return self.items(self.json("GET", "/snapshots"), "snapshots")

    def snapshot_file(self, snapshot_id: str) -> contextlib.AbstractContextManager[Iterator[bytes]]:
        """A snapshot as a file, in pieces as they come."""
        return self.stream("GET", _snapshot_path(snapshot_id), None, {"Accept": "*/*"}, _SNAPSHOT_TIMEOUT_S)

    def upload_snapshot(self, snapshot_id: str, file: BinaryIO, size_bytes: int | None) -> dict[str, Any]:
        """Upload a snapshot file under a new id, as it is read; the node's answer. ``size_bytes`` None: not known."""
        headers = {"Content-Type": "application/octet-stream"}
        if size_bytes is not None:
            headers["Content-Length"] = str(size_bytes)
        return self.json("PUT", _snapshot_path(snapshot_id), file, headers, _SNAPSHOT_TIMEOUT_S)

    def delete_snapshot(self, snapshot_id: str) -> None:
        """Delete a snapshot."""
        self.checked(self.request("DELETE", _snapshot_path(snapshot_id)))

    # --- the node itself --------------------------------------------------------------------------------

    def metrics(self) -> str:
        """The node's metrics in Prometheus' text format."""
        answer = self.checked(self.request("GET", "/metrics", headers={"Accept": "text/plain"}))
        return answer.body.decode(errors="replace")

    # --- administration ---------------------------------------------------------------------------------

    def observe(self, timeout_s: float) -> dict[str, Any]:
        """The node's whole state."""
        answer = self.json("GET", "/admin/observe", timeout_s=timeout_s)
        if not isinstance(answer.get("schema"), str):
            raise self.stranger_error()
        return answer

    def instances(self, tenant: int | None) -> list[dict[str, Any]]:
        """Live instances, of one tenant or of all."""
        query = "" if tenant is None else f"?{urlencode({'tenant': str(tenant)})}"
        return self.items(self.json("GET", f"/admin/instances{query}"), "instances")

    def terminate(self, instance_id: str) -> dict[str, Any]:
        """End an instance; the node's answer, which says whether it has ended."""
        return self.json("POST", f"/admin/instances/{quote(instance_id, safe='')}/terminate")

    def models(self, tenant: int | None) -> list[dict[str, Any]]:
        """Models, of one tenant or of all."""
        query = "" if tenant is None else f"?{urlencode({'tenant': str(tenant)})}"
        return self.items(self.json("GET", f"/admin/models{query}"), "models")

    def set_model(self, tenant: int, name: str, function_id: str, export: str | None) -> dict[str, Any]:
        """Have a function answer a model; the model as it then is."""
        request = {"function_id": function_id} | ({} if export is None else {"export": export})
        return self.json_of("PUT", f"/admin/models/{tenant}/{quote(name, safe='')}", request)

    def delete_model(self, tenant: int, name: str) -> None:
        """Unbind a model."""
        self.checked(self.request("DELETE", f"/admin/models/{tenant}/{quote(name, safe='')}"))

    def tenants(self) -> dict[str, Any]:
        """The quotas of every tenant with what it holds, and the defaults."""
        answer = self.json("GET", "/admin/tenants")
        self.items(answer, "tenants")
        return answer

    def tenant(self, tenant: int | None) -> dict[str, Any]:
        """A tenant's quotas and what it holds; None: the defaults."""
        return self.json("GET", _tenant_path(tenant))

    def change_tenant(self, tenant: int | None, changes: Mapping[str, int | float | bool | None]) -> dict[str, Any]:
        """Change quotas of a tenant, or the defaults (None); a quota's None takes the default again."""
        return self.json_of("PATCH", _tenant_path(tenant), changes)

    def tokens(self) -> list[dict[str, Any]]:
        """Every token of the node, without secrets."""
        return self.items(self.json("GET", "/admin/tokens"), "tokens")

    def create_token(self, name: str | None, scope: str) -> dict[str, Any]:
        """Make a token; the node's answer holds its secret, which it gives only now."""
        answer = self.json_of("POST", "/admin/tokens", {"scope": scope} | ({} if name is None else {"name": name}))
        if not isinstance(answer.get("token"), str):
            raise self.stranger_error()
        return answer

    def revoke_token(self, token_id: str) -> None:
        """Have a token be none, at once."""
        self.checked(self.request("DELETE", f"/admin/tokens/{quote(token_id, safe='')}"))

    def drain(self, drain_timeout_s: float | None) -> dict[str, Any]:
        """Have the node take no more work and finish what runs; its report, when that is done."""
        body = {} if drain_timeout_s is None else {"timeout_s": drain_timeout_s}
        timeout_s = None if drain_timeout_s is None else drain_timeout_s + ANSWER_TIMEOUT_S
        return self.json_of("POST", "/admin/drain", body, timeout_s)

    # --- what goes wrong --------------------------------------------------------------------------------

    def connect_error(self, reason: str) -> Failure:
        """Nobody listens there."""
        hint = "start a node with 'tensor-wasm serve', or name another with --server"
        return unreachable(f"no answer from {self.url}: {reason}; {hint}")

    def tls_error(self, error: ssl.SSLError) -> Failure:
        """No secure connection."""
        return self._tls_files.failure(self.url, error)

    def broken_error(self, reason: str) -> Failure:
        """The connection broke before the answer was whole."""
        plain_hint = "if the node serves HTTPS, write https:// in --server"
        hint = self._tls_files.hint() if self._is_tls else plain_hint
        return unreachable(f"the connection to {self.url} broke: {reason}{hint and '; '}{hint}")

    def late_error(self) -> Failure:
        """No answer in time."""
        return Failure("timeout", f"{self.url} gave no answer in time", ExitCode.DEADLINE)

    def stranger_error(self) -> Failure:
        """What answers is no node."""
        return unreachable(f"what answers at {self.url} is not a TensorWasm node")

    def refusal_error(
        self,
        status: int,
        kind: str,
        message: str,
        request_id: str | None,
        retry_after: str | None,  # noqa: ARG002 - the message says it
    ) -> Failure:
        """The node answered with an error."""
        return Failure(kind, message, exit_code_of(kind, status), request_id)


def _kernel_path(name: str, version: str) -> str:
    return f"/kernels/{quote(name, safe='')}/{quote(version, safe='')}"


def _snapshot_path(snapshot_id: str) -> str:
    return f"/snapshots/{quote(snapshot_id, safe='')}"


def _tenant_path(tenant: int | None) -> str:
    return f"/admin/tenants/{'default' if tenant is None else tenant}"


def _address(server: str) -> Address:
    """The parts of a server's URL. Raises a usage failure."""
    wanted = "the server (--server, TENSOR_WASM_SERVER) must look like http://HOST:PORT"
    try:
        return split_url(server)
    except UserInUrlError as error:
        raise usage(f"{wanted}; give a token with TENSOR_WASM_TOKEN, not in the URL") from error
    except ValueError as error:
        raise usage(f"{wanted}{error and ': '}{error}") from error
