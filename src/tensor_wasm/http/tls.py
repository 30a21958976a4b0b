"""TLS on the node: the files that the settings name, and what is made of them for each new connection."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Never

from tensor_wasm.config import Config
from tensor_wasm.errors import ConfigurationError

_log = logging.getLogger("tensor_wasm.http")

_CERT, _KEY, _CLIENT_CA = "TENSOR_WASM_TLS_CERT", "TENSOR_WASM_TLS_KEY", "TENSOR_WASM_TLS_CLIENT_CA"
#: TLS 1.2 with forward secrecy and authenticated encryption only; TLS 1.3 has nothing else.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
#: OpenSSL's reasons for a key that is not the certificate's: of the same kind, of another kind.
_MISMATCHES = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")

#: What a client may still send after its handshake was refused, on the way when it was.
_DROPPED_BYTES_MAX = 64 * 1024

#: Set for the task of a handshake: called once with the reason when it fails. The alert is on its way then.
on_refusal: ContextVar[Callable[[ssl.SSLError], None]] = ContextVar("on_refusal")


class _Side(ssl.SSLObject):
    """The node's side of a connection.

    The event loop cuts a connection whose handshake fails, and with it the alert that tells the client why. So it
    hears of no failure here, only that more is to be read: it sends the alert, and whoever is told by ``on_refusal``
    ends the connection. What comes until then is dropped; if that is much, the connection is cut after all.
    """

    incoming: ssl.MemoryBIO
    _is_refused = False
    _dropped_bytes = 0

    def do_handshake(self) -> None:
        """Go on with what has come."""
        if self._is_refused:
            self._dropped_bytes += len(self.incoming.read())
            if self._dropped_bytes > _DROPPED_BYTES_MAX:
                raise ssl.SSLError("the client goes on after its handshake was refused")
            raise ssl.SSLWantReadError
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            refuse = on_refusal.get(None)
            if refuse is None:
                raise
            self._is_refused = True
            self.incoming.read()
            refuse(error)
            raise ssl.SSLWantReadError from error


class _Context(ssl.SSLContext):
    """Makes sides that know where their bytes come from."""

    sslobject_class = _Side

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        side = super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        assert isinstance(side, _Side)
        side.incoming = incoming
        return side


class Tls:
    """The certificate, key and client authorities of a node. :attr:`context` is for connections that begin now.

    :meth:`reload` makes a new context, which knows nothing of the old one: no authority that was removed, and no
    session that was begun under it. Connections that stand go on.

    Raises :class:`ConfigurationError`, which names the setting, for files that cannot be used.
    """

    def __init__(self, cert: Path, key: Path, client_ca: Path | None) -> None:
        self._cert = cert
        self._key = key
        self._client_ca = client_ca
        self._context = self._load()

    @property
    def context(self) -> ssl.SSLContext:
        """How to greet a client that comes now."""
        return self._context

    def reload(self) -> None:
        """Read the files again, for connections that begin from now on. From any thread.

        Raises :class:`ConfigurationError` when they cannot be used; then what was read before stays in use.
        """
        try:
            self._context = self._load()
        except ConfigurationError as error:
            raise ConfigurationError(f"{error}; what was read before stays in use") from error

    def _load(self) -> ssl.SSLContext:
        context = _Context(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_CIPHERS)
        context.set_alpn_protocols(["http/1.1"])
        # A session that is resumed shows no certificate: one that expired or was revoked meanwhile would be let in.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
        _load_certificate(context, self._cert, self._key)
        if self._client_ca is not None:
            _load_authorities(context, self._client_ca)
        valid_until = _check(context, self._cert)
        if valid_until is not None:
            _log.info(
                "TLS: the certificate is valid until %s; clients %s",
                valid_until,
                "need no certificate" if self._client_ca is None else "need a certificate",
            )
        return context


def tls_for(config: Config) -> Tls | None:
    """The TLS side that the settings ask for; None for plain HTTP.

    Raises :class:`ConfigurationError` for settings that do not fit together, and for files that cannot be used.
    """
    cert, key, client_ca = config.tls_cert, config.tls_key, config.tls_client_ca
    if cert is None and key is None and client_ca is None:
        return None
    if cert is None:
        given = _CLIENT_CA if key is None else _KEY
        raise ConfigurationError(
            f"{given} is set and {_CERT} is not: set {_CERT} and {_KEY} to serve HTTPS, or unset {given}"
        )
    if key is None:
        raise ConfigurationError(f"{_CERT} is set and {_KEY} is not: name the certificate's private key there")
    return Tls(cert, key, client_ca)


def _load_certificate(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    _check_certificates(_CERT, cert)
    _check_readable(_KEY, key)
    try:
        context.load_cert_chain(cert, key, _refuse_passphrase)
    except _HasPassphrase as error:
        raise ConfigurationError(
            f"{_KEY}={key}: has a passphrase; give a key without one (openssl pkey -in KEY -out NEW)"
        ) from error
    except ssl.SSLError as error:
        if error.reason is None:
            raise ConfigurationError(f"{_KEY}={key}: is no private key in PEM form; give one") from error
        if error.reason in _MISMATCHES:
            raise ConfigurationError(
                f"{_KEY}={key}: is not the key of the first certificate in {_CERT}={cert}; give the two that belong"
                " together, and in a chain the node's own certificate first"
            ) from error
        reason = error.reason.lower().replace("_", " ")
        raise ConfigurationError(f"{_CERT}={cert}: is refused ({reason}); give another certificate") from error
    except OSError as error:
        raise ConfigurationError(f"{_CERT}={cert}, {_KEY}={key}: {error.strerror}") from error


def _load_authorities(context: ssl.SSLContext, path: Path) -> None:
    _check_certificates(_CLIENT_CA, path)
    try:
        context.load_verify_locations(path)
    except OSError as error:
        raise _no_certificates(_CLIENT_CA, path) from error
    context.verify_mode = ssl.CERT_REQUIRED
    # An authority that is named is trusted, whether or not another has signed it.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if context.cert_store_stats()["crl"]:
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


def _check_readable(variable: str, path: Path) -> None:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise ConfigurationError(f"{variable}={path}: {error.strerror}; name a file that the node can read") from error


def _check_certificates(variable: str, path: Path) -> None:
    """That a file has certificates and nothing broken. ``load_cert_chain`` does not tell it from a bad key."""
    _check_readable(variable, path)
    reader = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        reader.load_verify_locations(path)
    except OSError as error:  # ssl.SSLError too
        raise _no_certificates(variable, path) from error
    if not reader.cert_store_stats()["x509"]:
        raise _no_certificates(variable, path)


def _no_certificates(variable: str, path: Path) -> ConfigurationError:
    return ConfigurationError(f"{variable}={path}: has no certificates in PEM form, or a broken one; give another file")


class _HasPassphrase(Exception):
    pass


def _refuse_passphrase() -> Never:
    """Called for a key that is locked. Without it OpenSSL would ask the terminal."""
    raise _HasPassphrase


def _check(context: ssl.SSLContext, cert: Path) -> str | None:
    """Shake hands in memory with a client that trusts the certificate as such: until when it is valid.

    What the client objects to (an expired certificate, one that is not for servers) is a warning, and None comes back:
    the node can serve, and some clients do not look.
    """
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    client_context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client_context.load_verify_locations(cert)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    client = client_context.wrap_bio(to_client, to_server)
    try:
        while not _has_shaken_hands(client):
            if not to_server.pending:
                raise ssl.SSLError("the handshake does not go on")
            _has_shaken_hands(server)
    except ssl.SSLCertVerificationError as error:
        _log.warning(
            "%s=%s: clients will refuse it: %s; put another there and send SIGHUP", _CERT, cert, error.verify_message
        )
        return None
    except ssl.SSLError as error:
        raise ConfigurationError(f"{_CERT}={cert}: cannot be served ({error}); give another certificate") from error
    shown = client.getpeercert()
    assert shown is not None
    end = str(shown["notAfter"])
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(end), UTC).strftime("%Y-%m-%d %H:%M UTC")


def _has_shaken_hands(side: ssl.SSLObject) -> bool:
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True
