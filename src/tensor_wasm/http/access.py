"""Who may call what: tokens and tenants; and, on a node without tokens, that no web page calls it."""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Mapping

from blake3 import blake3

from tensor_wasm.config import Config
from tensor_wasm.errors import ConfigurationError, Forbidden, InvalidTenant, Misdirected, Unauthorized
from tensor_wasm.tenancy import ANYBODY, Principal, TokenBook, parse_tenant

Headers = Mapping[bytes, bytes]

_WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not bound to
_REMEMBERED_HOSTS = 64


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine and nobody else's."""
    if host.lower().rstrip(".") == "localhost":
        return True
    address = _address(host)
    return address is not None and address.is_loopback


class Access:
    """The rules of one node. Raises :class:`ConfigurationError` for settings that would open it to the network."""

    def __init__(self, config: Config, tokens: TokenBook) -> None:
        self._tokens = tokens
        self._is_reachable = not is_loopback(config.listen_host)
        self._metrics_token = None if config.api_metrics_token is None else _hash(config.api_metrics_token.encode())
        self._listen_host = config.listen_host.lower()
        self._good_hosts: set[bytes] = set()
        if self.is_exposed and not config.dev_mode:
            raise ConfigurationError(
                f"TENSOR_WASM_LISTEN_ADDR={config.listen_addr} can be reached from other machines and there are no"
                " tokens: set TENSOR_WASM_API_TOKENS, or make one with `tensor-wasm admin token create` while it"
                " listens on 127.0.0.1, or leave it there, or, on a network of your own only,"
                " set TENSOR_WASM_DEV_MODE=1"
            )

    @property
    def is_open(self) -> bool:
        """Whether there are no tokens, so that every caller is admin. Ends with the first token that is made."""
        return self._tokens.is_empty

    @property
    def is_exposed(self) -> bool:
        """Whether it is open to other machines."""
        return self._is_reachable and self.is_open

    def check_origin(self, headers: Headers) -> None:
        """On a node without tokens: refuse what a web page may have sent. Raises :class:`Misdirected`.

        A page of another site is seen by its ``Origin``; one whose name was made to point here (DNS rebinding) by
        its ``Host``.
        """
        if not self.is_open:
            return
        host = headers.get(b"host", b"")
        if host not in self._good_hosts:
            if not self._is_own(host):
                raise Misdirected(
                    "a node without tokens answers only under a loopback name or its own address: check the Host"
                    " header, or set TENSOR_WASM_API_TOKENS"
                )
            if len(self._good_hosts) < _REMEMBERED_HOSTS:
                self._good_hosts.add(host)
        origin = headers.get(b"origin")
        if origin is not None and origin.lower() not in (b"http://" + host.lower(), b"https://" + host.lower()):
            raise Misdirected("a node without tokens does not answer pages of other sites (Origin header)")

    def principal(self, headers: Headers) -> Principal:
        """Who calls. Raises :class:`Unauthorized`."""
        if self.is_open:
            return ANYBODY
        token = _bearer(headers)
        if token is None:
            raise Unauthorized("send a token: Authorization: Bearer TOKEN")
        principal = self._tokens.find(token)
        if principal is None:
            raise Unauthorized("the token is not known to this node")
        return principal

    def check_admin(self, principal: Principal) -> None:
        """Raises :class:`Forbidden` for who may not administer the node."""
        if not principal.is_admin:
            raise Forbidden("this needs a token with role=admin")

    def tenant(self, principal: Principal, headers: Headers) -> int:
        """For whom: the tenant that ``X-TensorWasm-Tenant`` names, else the token's only one, else 0.

        Raises :class:`InvalidTenant`, :class:`Forbidden`.
        """
        text = headers.get(b"x-tensorwasm-tenant")
        tenant = principal.default_tenant if text is None else parse_tenant(text.decode("latin-1"))
        if tenant is None:
            raise InvalidTenant("X-TensorWasm-Tenant must be a decimal number from 0 to 18446744073709551615")
        if principal.tenants is not None and tenant not in principal.tenants:
            raise Forbidden("the token does not allow this tenant: name one it does in X-TensorWasm-Tenant")
        return tenant

    def check_metrics(self, headers: Headers) -> None:
        """Raises :class:`Unauthorized` when metrics have a token and the caller has not."""
        if self._metrics_token is None:
            return
        token = _bearer(headers)
        if token is None or not hmac.compare_digest(_hash(token), self._metrics_token):
            raise Unauthorized("metrics need their own token: Authorization: Bearer TOKEN")

    def _is_own(self, header: bytes) -> bool:
        host = _host(header.decode("latin-1"))
        if host is None:
            return False
        if is_loopback(host) or host == self._listen_host:
            return True
        if not self.is_exposed:
            return False
        # A rebinding attack comes under a name; by its bare address only the node itself can be meant.
        return _address(host) is not None or (self._listen_host in _WILDCARDS and host == socket.gethostname().lower())


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _host(header: str) -> str | None:
    """The host of a ``Host`` header, without port and brackets; None when it is malformed."""
    if header.startswith("["):
        host, bracket, port = header[1:].partition("]")
        if not bracket or _address(host) is None:
            return None
    else:
        host, colon, port = header.partition(":")
        port = colon + port
    if port and not (port[0] == ":" and port[1:].isascii() and port[1:].isdigit()):
        return None
    return host.lower() or None


def _bearer(headers: Headers) -> bytes | None:
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    token = token.strip()
    return token if scheme.lower() == b"bearer" and token else None


def _hash(token: bytes) -> bytes:
    return blake3(token).digest()
