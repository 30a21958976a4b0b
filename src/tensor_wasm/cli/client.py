"""A client of a node's HTTP API for the commands.

On the standard library's ``http.client``: a command then starts 0.3 s sooner than on httpx, and no proxy of the
environment stands between a command and a node on the same machine.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from tensor_wasm.cli.failures import ExitCode, Failure, exit_code_of, unreachable, usage
from tensor_wasm.cli.tls import TlsFiles

CONNECT_TIMEOUT_S = 10.0
#: How long an answer may take that waits for no guest.
ANSWER_TIMEOUT_S = 60.0
#: A node's answers are small; what is longer is not a node's.
_MAX_ANSWER_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer of any status."""

    status: int
    body: bytes
    request_id: str | None


class Client:
    """Talks to one node as one caller. Raises :class:`Failure` for everything that is not a success."""

    def __init__(
        self, server: str, token: str | None = None, tenant: int | None = None, tls: TlsFiles | None = None
    ) -> None:
        self.server = server
        scheme, self._host, self._port, self._prefix = _split(server)
        self._tls = tls or TlsFiles()
        self._tls_context = self._tls.context() if scheme == "https" else None
        self._headers: dict[str, str] = {"Accept": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        if tenant is not None:
            self._headers["X-TensorWasm-Tenant"] = str(tenant)

    def deploy(self, name: str, wasm: bytes) -> dict[str, Any]:
        """Deploy a module; the node's answer."""
        path = f"/functions?{urlencode({'name': name})}"
        return self._json("POST", path, wasm, {"Content-Type": "application/wasm"})

    def invoke(self, function_id: str, request: Mapping[str, object], deadline_s: float | None) -> dict[str, Any]:
        """Call a function; the node's answer. Waits past the deadline, since the node is who keeps it."""
        timeout_s = None if deadline_s is None else deadline_s + ANSWER_TIMEOUT_S
        return self._json_of("POST", f"/functions/{quote(function_id, safe='')}/invoke", request, timeout_s)

    def functions(self, page_size: int = 100) -> Iterator[dict[str, Any]]:
        """Every function of the tenant, oldest first, page by page."""
        after: str | None = None
        while True:
            query = {"limit": str(page_size)} | ({"after": after} if after else {})
            page = self._json("GET", f"/functions?{urlencode(query)}")
            items = self._items(page, "functions")
            yield from items
            following = page.get("next")
            if not items or not isinstance(following, str) or following == after:
                return
            after = following

    def function(self, function_id: str) -> dict[str, Any]:
        """Describe a function."""
        return self._json("GET", f"/functions/{quote(function_id, safe='')}")

    def delete(self, function_id: str) -> None:
        """Delete a function."""
        self._checked(self.request("DELETE", f"/functions/{quote(function_id, safe='')}"))

    def metrics(self) -> str:
        """The node's metrics in Prometheus' text format."""
        answer = self._checked(self.request("GET", "/metrics", headers={"Accept": "text/plain"}))
        return answer.body.decode(errors="replace")

    # --- administration ---------------------------------------------------------------------------------

    def instances(self, tenant: int | None) -> list[dict[str, Any]]:
        """Live instances, of one tenant or of all."""
        query = "" if tenant is None else f"?{urlencode({'tenant': str(tenant)})}"
        return self._items(self._json("GET", f"/admin/instances{query}"), "instances")

    def terminate(self, instance_id: str) -> dict[str, Any]:
        """End an instance; the node's answer, which says whether it has ended."""
        return self._json("POST", f"/admin/instances/{quote(instance_id, safe='')}/terminate")

    def tenants(self) -> dict[str, Any]:
        """The quotas of every tenant with what it holds, and the defaults."""
        answer = self._json("GET", "/admin/tenants")
        self._items(answer, "tenants")
        return answer

    def tenant(self, tenant: int | None) -> dict[str, Any]:
        """A tenant's quotas and what it holds; None: the defaults."""
        return self._json("GET", _tenant_path(tenant))

    def change_tenant(self, tenant: int | None, changes: Mapping[str, int | float | bool | None]) -> dict[str, Any]:
        """Change quotas of a tenant, or the defaults (None); a quota's None takes the default again."""
        return self._json_of("PATCH", _tenant_path(tenant), changes)

    def tokens(self) -> list[dict[str, Any]]:
        """Every token of the node, without secrets."""
        return self._items(self._json("GET", "/admin/tokens"), "tokens")

    def create_token(self, name: str | None, scope: str) -> dict[str, Any]:
        """Make a token; the node's answer holds its secret, which it gives only now."""
        answer = self._json_of("POST", "/admin/tokens", {"scope": scope} | ({} if name is None else {"name": name}))
        if not isinstance(answer.get("token"), str):
            raise self._not_a_node()
        return answer

    def revoke_token(self, token_id: str) -> None:
        """Have a token be none, at once."""
        self._checked(self.request("DELETE", f"/admin/tokens/{quote(token_id, safe='')}"))

    def drain(self, drain_timeout_s: float | None) -> dict[str, Any]:
        """Have the node take no more work and finish what runs; its report, when that is done."""
        body = {} if drain_timeout_s is None else {"timeout_s": drain_timeout_s}
        timeout_s = None if drain_timeout_s is None else drain_timeout_s + ANSWER_TIMEOUT_S
        return self._json_of("POST", "/admin/drain", body, timeout_s)

    # --- requests ---------------------------------------------------------------------------------------

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = ANSWER_TIMEOUT_S,
    ) -> Answer:
        """One request on a connection of its own; the answer whatever its status."""
        connection = self._connect()
        try:
            assert connection.sock is not None
            connection.sock.settimeout(timeout_s)
            # It may refuse before it has taken all, and then the reason is there to be read.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
                connection.request(method, self._prefix + path, body, self._headers | dict(headers or {}))
            response = connection.getresponse()
            content = response.read(_MAX_ANSWER_BYTES + 1)
        except TimeoutError as error:
            raise Failure("timeout", f"{self.server} gave no answer in time", ExitCode.DEADLINE) from error
        except ssl.SSLError as error:  # in TLS 1.3 a client's certificate is judged only after its handshake
            raise self._tls.failure(self.server, error) from error
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
            plain_hint = "if the node serves HTTPS, write https:// in --server"
            hint = plain_hint if self._tls_context is None else self._tls.hint()
            raise unreachable(f"the connection to {self.server} broke: {reason}{hint and '; '}{hint}") from error
        finally:
            connection.close()
        if len(content) > _MAX_ANSWER_BYTES:
            raise self._not_a_node()
        return Answer(response.status, content, response.headers.get("X-Request-Id"))

    def _connect(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection
        if self._tls_context is not None:
            connection = http.client.HTTPSConnection(
                self._host, self._port, timeout=CONNECT_TIMEOUT_S, context=self._tls_context
            )
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=CONNECT_TIMEOUT_S)
        try:
            connection.connect()
        except ssl.SSLError as error:
            raise self._tls.failure(self.server, error) from error
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            hint = "start a node with 'tensor-wasm serve', or name another with --server"
            raise unreachable(f"no answer from {self.server}: {reason}; {hint}") from error
        return connection

    def _json_of(
        self, method: str, path: str, value: Mapping[str, object], timeout_s: float | None = ANSWER_TIMEOUT_S
    ) -> dict[str, Any]:
        body = json.dumps(value, allow_nan=False).encode()
        return self._json(method, path, body, {"Content-Type": "application/json"}, timeout_s)

    def _json(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = ANSWER_TIMEOUT_S,
    ) -> dict[str, Any]:
        answer = self._checked(self.request(method, path, body, headers, timeout_s))
        decoded = _decode(answer.body)
        if not isinstance(decoded, dict):
            raise self._not_a_node()
        return decoded

    def _checked(self, answer: Answer) -> Answer:
        if 200 <= answer.status < 300:
            return answer
        decoded = _decode(answer.body)
        error = decoded.get("error") if isinstance(decoded, dict) else None
        if not isinstance(error, dict):
            raise self._not_a_node()
        kind, message = str(error.get("kind", "unknown")), str(error.get("message", ""))
        request_id = error.get("request_id", answer.request_id)
        raise Failure(kind, message, exit_code_of(kind, answer.status), None if request_id is None else str(request_id))

    def _items(self, answer: Mapping[str, object], name: str) -> list[dict[str, Any]]:
        items = answer.get(name)
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise self._not_a_node()
        return items

    def _not_a_node(self) -> Failure:
        return unreachable(f"what answers at {self.server} is not a TensorWasm node")


def _tenant_path(tenant: int | None) -> str:
    return f"/admin/tenants/{'default' if tenant is None else tenant}"


def _decode(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _split(server: str) -> tuple[str, str, int | None, str]:
    """Scheme, host, port and path prefix of a server's URL."""
    wanted = "the server (--server, TENSOR_WASM_SERVER) must look like http://HOST:PORT"
    try:
        parts = urlsplit(server)
        port = parts.port
    except ValueError as error:
        raise usage(f"{wanted}: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise usage(wanted)
    if parts.username is not None or parts.password is not None:
        raise usage(f"{wanted}; give a token with TENSOR_WASM_TOKEN, not in the URL")
    if not (server.isascii() and server.isprintable() and " " not in server):
        raise usage(wanted)
    return parts.scheme, parts.hostname, port, parts.path.rstrip("/")
