"""Snapshots in one file, to carry them from node to node: signed, compressed, and checked before they are believed.

::

    magic, 8 bytes | version, u16 | 0, u16 | length of the header, u32 | header, JSON | signature, 64 bytes | content

Numbers are little endian. The signature (Ed25519) is of everything before it; the header names the key, and has the
digest and the size of each part of the content, which is one zstd stream: the module, then the snapshot's own file.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, BinaryIO

import msgspec
from blake3 import blake3

from tensor_wasm.errors import (
    SnapshotDamaged,
    SnapshotSignatureInvalid,
    SnapshotTruncated,
    SnapshotVersion,
)
from tensor_wasm.store.signing import SIGNATURE_BYTES, KeyFileError, PublicKey, SigningKey, read_public_key

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

VERSION = 1
_MAGIC = b"TWSNAP\r\n"
_HEAD = struct.Struct("<8sHHI")
#: A header has the state of variables and tables: some megabytes at most.
_HEADER_MAX_BYTES = 8 << 20
_BLOCK_BYTES = 1 << 20
_LEVEL = 1
#: A reader keeps so much (2^n bytes) of what it has inflated; level 1 uses 2^19.
_WINDOW_LOG_MAX = 23


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of its content.

    ``module_digest`` and ``sha`` are BLAKE3 (hex) of the module and of the snapshot's own file, ``state`` the JSON of
    what is in no memory, ``key`` who signed it.
    """

    function_name: str
    module_digest: str
    module_bytes: int
    sha: str
    size_bytes: int
    state: str
    created_at: float
    key: str

    def encode(self) -> bytes:
        """As the file has it."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps(fields, separators=(",", ":")).encode()


def write(header: Header, key: SigningKey, parts: Iterator[bytes]) -> Iterator[bytes]:
    """The file, piece by piece; ``parts`` are the module and the snapshot's own file."""
    body = header.encode()
    head = _HEAD.pack(_MAGIC, VERSION, 0, len(body)) + body
    yield head + key.sign(head)
    compressor = zstd.ZstdCompressor(level=_LEVEL)
    for part in parts:
        compressed = compressor.compress(part)
        if compressed:
            yield compressed
    yield compressor.flush()


class SnapshotReader:
    """Reads a file: first its header, which is signed by a key in ``trusted``, then its content.

    Raises :class:`SnapshotTruncated`, :class:`SnapshotVersion`, :class:`SnapshotSignatureInvalid`,
    :class:`SnapshotDamaged`.
    """

    def __init__(self, file: BinaryIO, is_trusted: Callable[[PublicKey], bool]) -> None:
        self._file = file
        head = self._read(_HEAD.size)
        magic, version, _, header_bytes = _HEAD.unpack(head)
        if magic != _MAGIC:
            raise SnapshotDamaged("this is no snapshot file: it does not begin as one")
        if version != VERSION:
            age = "a newer" if version > VERSION else "an older"
            raise SnapshotVersion(f"the snapshot file has version {version}, {age} one; this release reads {VERSION}")
        if header_bytes > _HEADER_MAX_BYTES:
            raise SnapshotDamaged(f"the snapshot's header has {header_bytes} bytes: at most {_HEADER_MAX_BYTES}")
        body = self._read(header_bytes)
        signature = self._read(SIGNATURE_BYTES)
        self.header = _decode(body)
        try:
            key = read_public_key(self.header.key)
        except KeyFileError:
            raise SnapshotSignatureInvalid("the snapshot names no key that could have signed it") from None
        if not is_trusted(key):
            raise SnapshotSignatureInvalid(
                f"the snapshot is signed by {key.text}, which this node does not trust; its operator can add the key"
                " to TENSOR_WASM_SNAPSHOT_KEYS"
            )
        if not key.verify(signature, head + body):
            raise SnapshotSignatureInvalid("the snapshot's signature does not fit its header: it was altered")

    def module(self) -> bytes:
        """The module; to be called first."""
        self._pieces = self._inflate(self.header.module_bytes + self.header.size_bytes)
        self._rest = b""
        module = b"".join(self._take(self.header.module_bytes))
        if blake3(module).hexdigest() != self.header.module_digest:
            raise SnapshotDamaged("the module in the snapshot is not the one that was signed")
        return module

    def content(self) -> Iterator[bytes]:
        """The snapshot's own file, after the module. It is not to be believed before :meth:`check`."""
        yield from self._take(self.header.size_bytes)
        if next(self._pieces, b""):
            raise SnapshotDamaged("the snapshot's content is longer than was signed")

    def check(self, digest: str) -> None:
        """Check the BLAKE3 (hex) of what :meth:`content` gave: whoever keeps that has hashed it already."""
        if digest != self.header.sha:
            raise SnapshotDamaged("the snapshot's content is not what was signed")

    def _take(self, size_bytes: int) -> Iterator[bytes]:
        left = size_bytes
        while left:
            piece = self._rest or next(self._pieces, b"")
            if not piece:
                raise SnapshotDamaged("the snapshot's content is shorter than was signed")
            self._rest = piece[left:]
            piece = piece[:left]
            left -= len(piece)
            yield piece

    def _inflate(self, most_bytes: int) -> Iterator[bytes]:
        """The content, never more than one block beyond what was announced."""
        decompressor = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG_MAX})
        inflated = 0
        try:
            while not decompressor.eof:
                data = b""
                if decompressor.needs_input:
                    data = self._file.read(_BLOCK_BYTES)
                    if not data:
                        raise SnapshotTruncated("the snapshot file ends in the middle of its content")
                piece = decompressor.decompress(data, _BLOCK_BYTES)
                inflated += len(piece)
                if inflated > most_bytes:
                    raise SnapshotDamaged("the snapshot's content is longer than was signed")
                if piece:
                    yield piece
        except zstd.ZstdError as error:
            raise SnapshotDamaged(f"the snapshot's content cannot be inflated: {error}") from None
        if decompressor.unused_data or self._file.read(1):
            raise SnapshotDamaged("the snapshot file goes on after its end")

    def _read(self, size_bytes: int) -> bytes:
        data = self._file.read(size_bytes)
        if len(data) != size_bytes:
            raise SnapshotTruncated("the snapshot file ends in the middle of its header")
        return data


class _Fields(msgspec.Struct, forbid_unknown_fields=True):
    """A header as JSON. Anybody may have written it: nothing is made of what is not one of these."""

    function_name: str
    module_digest: str
    module_bytes: Annotated[int, msgspec.Meta(ge=0)]
    sha: str
    size_bytes: Annotated[int, msgspec.Meta(ge=0)]
    state: str
    created_at: float
    key: str


_decoder = msgspec.json.Decoder(_Fields)


def _decode(body: bytes) -> Header:
    try:
        fields = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise SnapshotDamaged(f"the snapshot's header is none: {error}") from None
    return Header(**msgspec.structs.asdict(fields))
