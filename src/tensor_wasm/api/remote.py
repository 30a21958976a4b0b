"""How a client of the Python API speaks: failures as errors of the Python API, streams as events."""

from __future__ import annotations

import binascii
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tensor_wasm.api import readers
from tensor_wasm.api.errors import AnswerTimeout, Unreachable
from tensor_wasm.api.events import MalformedEvent, events
from tensor_wasm.api.readers import Malformed
from tensor_wasm.api.refusals import Kinds
from tensor_wasm.api.streams import Stream
from tensor_wasm.api.transport import Transport, decode
from tensor_wasm.errors import ConfigurationError, TensorWasmError


class NodeTransport(Transport):
    """Requests whose failures are errors of the Python API."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._kinds = Kinds()

    def connect_error(self, reason: str) -> TensorWasmError:
        """Nobody listens there."""
        return Unreachable(f"no answer from {self.url}: {reason}")

    def tls_error(self, error: ssl.SSLError) -> TensorWasmError:
        """No secure connection."""
        reason = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else error.reason or str(error)
        return Unreachable(f"{self.url}: TLS failed: {reason}")

    def broken_error(self, reason: str) -> TensorWasmError:
        """The connection broke before the answer was whole."""
        return Unreachable(f"the connection to {self.url} broke: {reason}")

    def late_error(self) -> TensorWasmError:
        """No answer in time."""
        return AnswerTimeout(f"{self.url} gave no answer in time")

    def stranger_error(self) -> TensorWasmError:
        """What answers is no node."""
        return Unreachable(f"what answers at {self.url} is not a TensorWasm node")

    def refusal_error(
        self, status: int, kind: str, message: str, request_id: str | None, retry_after: str | None
    ) -> TensorWasmError:
        """The node answered with an error."""
        return self._kinds.error(kind, message, status, request_id, retry_after)


class EventStream(Stream):
    """A stream that comes as Server-Sent Events."""

    def __init__(self, transport: Transport, opened: ExitStack, pieces: Iterator[bytes]) -> None:
        self._transport = transport
        self._opened = opened
        self._events = events(pieces)
        self._is_over = False

    def __next__(self) -> bytes:
        if self._is_over:
            raise StopIteration
        try:
            while True:
                name, data = next(self._events, ("", b""))
                if name == "chunk":
                    return self._chunk(data)
                if name in ("done", "error", ""):
                    self._end(name, decode(data))
                    raise StopIteration
        except MalformedEvent:
            self.close()
            raise self._transport.stranger_error() from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Leave it: the connection is closed, and the node ends the guest."""
        self._is_over = True
        self._opened.close()

    def _chunk(self, data: bytes) -> bytes:
        found = decode(data)
        try:
            return binascii.a2b_base64(found["chunk_b64"], strict_mode=True)
        except (TypeError, KeyError, ValueError):
            raise self._transport.stranger_error() from None

    def _end(self, name: str, found: Any) -> None:
        if not name:
            raise self._transport.broken_error("the stream ended early")
        if name == "error":
            raise self._transport.told_error(found)
        try:
            self._result = readers.result_of(found)
        except (Malformed, AttributeError):
            raise self._transport.stranger_error() from None
        for _ in self._events:  # nothing: but the connection can be used again
            pass


def because(error: ValueError) -> str:
    """What a URL's error adds to the sentence that says how one looks."""
    return f": {error}" if str(error) else ""


def tls_context(
    ca_cert: str | Path | None, client_cert: str | Path | None, client_key: str | Path | None
) -> ssl.SSLContext:
    """How to connect. Raises :class:`ConfigurationError` that names the files which cannot be used."""
    if client_key is not None and client_cert is None:
        raise ConfigurationError("client_key needs client_cert: the certificate that the key belongs to")
    try:
        context = ssl.create_default_context(cafile=ca_cert)
        context.set_alpn_protocols(["http/1.1"])
        if client_cert is not None:
            context.load_cert_chain(client_cert, client_key, _refuse_passphrase)
    except (OSError, ValueError) as error:
        files = ", ".join(str(file) for file in (ca_cert, client_cert, client_key) if file is not None)
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"{files} cannot be read as certificates and keys (PEM): {reason}") from error
    return context


def _refuse_passphrase() -> str:
    """Called for a key that is locked. Without it OpenSSL would ask the terminal."""
    raise ConfigurationError("the key has a passphrase: give one without (openssl pkey -in KEY -out NEW)")
