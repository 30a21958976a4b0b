"""Ed25519: keys in files, signatures, and the key that a node signs with.

``cryptography`` is imported when a key is first used: commands that sign nothing start without it.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from blake3 import blake3

from tensor_wasm.config import PUBLIC_KEY_PREFIX, is_public_key
from tensor_wasm.errors import StoreError
from tensor_wasm.store.files import make_directory, sync_directory, unusable, write_durably

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SIGNATURE_BYTES = 64
#: The file of a node's own key, in its home.
NODE_KEY_NAME = "signing.key"

_KEY_BYTES = 32
_FILE_MAX_BYTES = 16 << 10
_FINGERPRINT_DIGITS = 16
_PUBLIC_LINE = re.compile(r"\S{1,128}\n?", re.ASCII)
#: The high bit of a key's last byte is the sign of x.
_SIGN_BIT = 0x80
#: Points of order 1, 2, 4 and 8 as y, without the sign of x. Under such a key anybody can sign a part of all messages,
#: or all; OpenSSL takes them. The list is that of libsodium (ge25519_has_small_order).
_SMALL_ORDER = frozenset(
    bytes.fromhex(digits)
    for digits in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    )
)


class KeyFileError(ValueError):
    """A key, or the file of one, that cannot be used; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """Whose signature it is: the 32 bytes of an Ed25519 key. One text for each key."""

    raw: bytes

    @property
    def text(self) -> str:
        """``ed25519:BASE64``, as settings and manifests have it."""
        return PUBLIC_KEY_PREFIX + base64.b64encode(self.raw).decode()

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits to tell keys apart by eye. Not to be trusted in place of the key."""
        return blake3(self.raw).hexdigest()[:_FINGERPRINT_DIGITS]

    def verify(self, signature: bytes, data: bytes) -> bool:
        """Whether this key signed exactly these bytes."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        if len(signature) != SIGNATURE_BYTES:
            return False
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, data)
        except InvalidSignature:
            return False
        return True


class SigningKey:
    """A private key. Its representation does not show it."""

    __slots__ = ("_key", "public")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> SigningKey:
        """A new key."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls(Ed25519PrivateKey.generate())

    def sign(self, data: bytes) -> bytes:
        """The signature of these bytes: 64 bytes, the same every time."""
        return self._key.sign(data)

    def pem(self) -> bytes:
        """The key as PEM (PKCS #8, no passphrase)."""
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def read_public_key(text: str) -> PublicKey:
    """The key of ``ed25519:BASE64``. Raises :class:`KeyFileError` for anything else."""
    if not is_public_key(text):
        raise KeyFileError(f"a public key looks like {PUBLIC_KEY_PREFIX} and 44 characters of base64")
    raw = base64.b64decode(text.removeprefix(PUBLIC_KEY_PREFIX), validate=True)
    if raw[:-1] + bytes([raw[-1] & ~_SIGN_BIT]) in _SMALL_ORDER:
        raise KeyFileError("that public key is of small order: anybody could sign under it")
    return PublicKey(raw)


def read_signing_key(pem: bytes) -> SigningKey:
    """The key of a PEM text. Raises :class:`KeyFileError`, which never shows the text."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem, None)
    except TypeError:
        raise KeyFileError("the key has a passphrase: give one without (openssl pkey -in KEY -out NEW)") from None
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFileError("it holds no private key in PEM; `tensor-wasm kernel keygen FILE` makes one") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError("the key is not of Ed25519; `tensor-wasm kernel keygen FILE` makes one that is")
    return SigningKey(key)


# --- files --------------------------------------------------------------------------------------------------


def make_key_files(path: Path) -> SigningKey:
    """Make a key: ``path`` gets it with mode 0600, ``path`` with ``.pub`` the public key. Both are then on the disk.

    Raises FileExistsError when either is there: a key is never overwritten. Raises OSError.
    """
    key = SigningKey.generate()
    public_path = path.with_name(path.name + ".pub")
    _write_new(path, key.pem(), 0o600)
    try:
        _write_new(public_path, f"{key.public.text}\n".encode(), 0o644)
    except BaseException:
        path.unlink()
        raise
    sync_directory(path.parent)
    return key


def load_key_file(path: Path) -> SigningKey:
    """The private key in a file that only its owner may read. Raises :class:`KeyFileError`, OSError."""
    data, mode = _bounded(path)
    if mode & 0o077:
        raise KeyFileError(f"others may read the file (mode {mode:04o}): run `chmod 600` on it")
    return read_signing_key(data)


def load_public_key(text_or_path: str) -> PublicKey:
    """The public key that is written out, or the one in a file of one line. Raises :class:`KeyFileError`, OSError."""
    if text_or_path.startswith(PUBLIC_KEY_PREFIX):
        return read_public_key(text_or_path)
    data, _ = _bounded(Path(text_or_path))
    try:
        line = data.decode("ascii")
    except UnicodeDecodeError:
        line = ""
    if not _PUBLIC_LINE.fullmatch(line):
        raise KeyFileError(f"the file must hold one line, {PUBLIC_KEY_PREFIX} and the key")
    return read_public_key(line.rstrip("\n"))


def node_signing_key(home: Path) -> SigningKey:
    """The key that a node signs with, in ``home/signing.key``, made at the first use.

    Two processes that make it at the same moment get the same key. Raises :class:`StoreError` when the file is damaged,
    or others than its owner may read or write it.
    """
    make_directory(home)
    path = home / NODE_KEY_NAME
    try:
        try:
            data, mode = _bounded(path)
        except FileNotFoundError:
            write_durably(path, SigningKey.generate().pem(), replace=False)
            data, mode = _bounded(path)
        if mode & 0o077:
            raise StoreError(f"{path} may be read by others (mode {mode:04o}): run `chmod 600` on it")
        return read_signing_key(data)
    except OSError as error:
        raise unusable(path, error) from error
    except KeyFileError:
        raise StoreError(
            f"{path} is damaged: restore it from a backup, or remove it; the node then makes a new key, and takes"
            " nothing any more that it signed with the old one"
        ) from None


def decode_signature(text: str) -> bytes:
    """The 64 bytes of a signature in base64. Raises :class:`KeyFileError`."""
    try:
        signature = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        signature = b""
    if len(signature) != SIGNATURE_BYTES:
        raise KeyFileError(f"a signature has {SIGNATURE_BYTES} bytes, in base64")
    return signature


def _bounded(path: Path) -> tuple[bytes, int]:
    """A small regular file's bytes and mode; never waits, as reading a pipe would. Raises OSError, KeyFileError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise KeyFileError("it is no regular file")
        data = os.read(descriptor, _FILE_MAX_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(data) > _FILE_MAX_BYTES:
        raise KeyFileError("it is too long for the file of a key")
    return data, stat.S_IMODE(mode)


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file that is not there yet; nothing is left of it when that fails."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise
