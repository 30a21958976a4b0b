"""TLS of the command line: which files it takes, and what to do when a handshake fails."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from tensor_wasm.cli.failures import Failure, unreachable, usage
from tensor_wasm.cli.output import safe

#: OpenSSL's codes (x509_vfy.h) for a certificate that has another name, and the one for an expired certificate.
_OTHER_NAME_CODES = (62, 64)
_EXPIRED_CODE = 10
#: What a part of OpenSSL's reason tells, and what to do about it. The first that is found is taken.
_ADVICE = (
    ("CERTIFICATE_REQUIRED", "the node asks for a client certificate: give --client-cert and --client-key"),
    ("HANDSHAKE_FAILURE", "the node may ask for a client certificate: give --client-cert and --client-key"),
    ("ALERT", "the node does not accept the client certificate (--client-cert)"),
    ("WRONG_VERSION_NUMBER", "what answers there is no TLS server: write http:// in --server for plain HTTP"),
    ("RECORD_LAYER_FAILURE", "what answers there is no TLS server: write http:// in --server for plain HTTP"),
)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Files (PEM) of an ``https`` server's client. Without ``ca_cert`` the system's authorities are trusted."""

    ca_cert: str | None = None
    client_cert: str | None = None
    client_key: str | None = None

    def context(self) -> ssl.SSLContext:
        """How to connect. Raises a usage failure that names the file which cannot be used."""
        if "" in (self.ca_cert, self.client_cert, self.client_key):
            raise usage("the name of a file cannot be empty (--ca-cert, --client-cert, --client-key)")
        if self.client_key is not None and self.client_cert is None:
            raise usage("--client-key needs --client-cert: the certificate that the key belongs to")
        try:
            context = ssl.create_default_context(cafile=self.ca_cert)
        except (OSError, ValueError) as error:
            raise _unusable("--ca-cert", self.ca_cert, "certificates (PEM)", error) from error
        context.set_alpn_protocols(["http/1.1"])
        if self.client_cert is not None:
            try:
                context.load_cert_chain(self.client_cert, self.client_key, _refuse_passphrase)
            except (OSError, ValueError) as error:
                given = self.client_cert if self.client_key is None else f"{self.client_cert}, {self.client_key}"
                wanted = "a certificate and its private key (PEM)"
                raise _unusable("--client-cert, --client-key", given, wanted, error) from error
        return context

    def failure(self, server: str, error: ssl.SSLError) -> Failure:
        """The failure of a handshake with ``server``, with what to do about it."""
        reason = error.reason or str(error)
        advice = next((advice for text, advice in _ADVICE if text in reason), "")
        if isinstance(error, ssl.SSLEOFError):
            advice = self.hint()
        elif isinstance(error, ssl.SSLCertVerificationError):
            reason = error.verify_message
            advice = self._advice_on_certificate(error.verify_code)
        return unreachable(f"{server}: TLS failed: {reason}{advice and '; '}{advice}")

    def hint(self) -> str:
        """What may be wrong when a node closes a connection without a word."""
        if self.client_cert is not None:
            return ""
        return "if the node asks for a client certificate, give --client-cert and --client-key"

    def _advice_on_certificate(self, code: int) -> str:
        if code in _OTHER_NAME_CODES:
            return "name the node in --server as its certificate does"
        if code == _EXPIRED_CODE:
            return "the node needs a new certificate"
        if self.ca_cert is None:
            return "name the authority that signed the node's certificate with --ca-cert"
        return "--ca-cert must have the authority that signed the node's certificate"


def _refuse_passphrase() -> str:
    """Called for a key that is locked. Without it OpenSSL would ask the terminal, in scripts too."""
    raise usage("the key (--client-key) has a passphrase: give one without (openssl pkey -in KEY -out NEW)")


def _unusable(options: str, files: str | None, wanted: str, error: Exception) -> Failure:
    reason = "" if isinstance(error, ssl.SSLError) else f": {getattr(error, 'strerror', None) or error}"
    return usage(f"{safe(files or '')} cannot be read as {wanted} ({options}){reason}")
