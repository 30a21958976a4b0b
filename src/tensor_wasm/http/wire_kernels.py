"""What requests and answers about signed kernels look like as JSON. The API's description is generated from these."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Annotated

import msgspec

from tensor_wasm.http import wire
from tensor_wasm.http.wire import told
from tensor_wasm.node import KernelPage, KernelView
from tensor_wasm.store import KernelOutline, KernelRecord

VERSION_PATTERN = "^[A-Za-z0-9._-]{1,64}$"
PUBLIC_KEY_PATTERN = "^ed25519:[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$"

_Name = Annotated[str, told("The kernel's name.", pattern=wire.NAME_PATTERN)]
_Version = Annotated[str, told("Its version, any text of that form.", pattern=VERSION_PATTERN)]
_Digest = Annotated[str, told("BLAKE3 of the PTX, in hexadecimal.", pattern="^[0-9a-f]{64}$")]
_Size = Annotated[int, told("Size of the PTX.", minimum=0)]
_Publisher = Annotated[str, told("The public key that it is signed with.", pattern=PUBLIC_KEY_PATTERN)]
_Created = Annotated[float, told("When the node took it, in seconds since 1970.")]
_Manifest = Annotated[
    str, told("The bytes that were signed, in base64.", contentEncoding="base64", contentMediaType="application/json")
]
_Signature = Annotated[
    str, told("Ed25519 signature of exactly those bytes: 64 bytes, in base64.", contentEncoding="base64")
]

#: Bytes that become base64 at once; the interpreter lock is held for as long. A multiple of three.
_PIECE_BYTES = 768 << 10


class PublishRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A signed kernel to publish."""

    manifest_b64: _Manifest
    signature_b64: _Signature
    ptx_b64: Annotated[str, told("The PTX, in base64; at most 8 MiB of it.", contentEncoding="base64")]


class Published(msgspec.Struct):
    """A kernel that was published."""

    name: _Name
    version: _Version
    digest: _Digest


class KernelSummary(msgspec.Struct):
    """A kernel in a list. Whether it can be trusted is said when it is asked for by itself."""

    name: _Name
    version: _Version
    digest: _Digest
    size_bytes: _Size
    publisher: _Publisher
    created_at: _Created


class KernelList(msgspec.Struct):
    """A page of kernels, by name and version."""

    kernels: Annotated[list[KernelSummary], told("The kernels of this page.")]
    next: Annotated[str | None, told("Goes into `after` for the following page; null on the last one.")]


class KernelDescription(msgspec.Struct, omit_defaults=True):
    """A kernel as it is kept, verified when this was written."""

    name: _Name
    version: _Version
    tenant: wire.Tenant
    digest: _Digest
    size_bytes: _Size
    publisher: _Publisher
    created_at: _Created
    manifest_b64: _Manifest
    signature_b64: _Signature
    verified: Annotated[
        bool, told("Whether manifest, signature and text belong together, and the publisher may publish here.")
    ]
    sm: Annotated[str, told("The architecture that the PTX is for; empty when the manifest cannot be read.")]
    entry_points: Annotated[list[str], told("What of it may be launched, as the publisher signed.")]
    published_at: Annotated[str, told("When it was signed, by the publisher's clock: RFC 3339.")]
    reason: Annotated[str, told("Why it is not verified; left out when it is. Guests cannot load it then.")] = ""
    ptx_b64: Annotated[
        str, told("The PTX, in base64, when `text=1` asks for it and it is whole.", contentEncoding="base64")
    ] = ""


#: Raises :class:`~tensor_wasm.errors.InvalidJson` which says where.
decode_publish = wire.decoder(PublishRequest)


def describe_published(record: KernelRecord) -> Published:
    """The answer to a kernel that was published."""
    return Published(record.name, record.version, record.digest)


def summarise(outline: KernelOutline) -> KernelSummary:
    """A kernel as lists show it."""
    return KernelSummary(
        outline.name, outline.version, outline.digest, outline.size_bytes, outline.publisher, outline.created_at
    )


def describe_page(page: KernelPage) -> KernelList:
    """A page as the API shows it."""
    return KernelList([summarise(outline) for outline in page.items], page.next)


def encode_kernel(view: KernelView, ptx: bytes | None) -> bytes:
    """A kernel as the API shows it, as JSON; with its text when there is one."""
    record, manifest = view.record, view.manifest
    description = wire.encode(
        KernelDescription(
            name=record.name,
            version=record.version,
            tenant=record.tenant,
            digest=record.digest,
            size_bytes=record.size_bytes,
            publisher=record.publisher,
            created_at=record.created_at,
            manifest_b64=base64.b64encode(record.manifest).decode(),
            signature_b64=base64.b64encode(record.signature).decode(),
            verified=view.refusal is None,
            sm="" if manifest is None else manifest.sm,
            entry_points=[] if manifest is None else list(manifest.entry_points),
            published_at="" if manifest is None else manifest.published_at,
            reason=view.refusal or "",
        )
    )
    if ptx is None:
        return description
    # By itself: base64 has nothing to escape, and as one string of 11 MB it would stop the event loop.
    return b"".join((description[:-1], b',"ptx_b64":"', *_base64(ptx), b'"}'))


def _base64(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), _PIECE_BYTES):
        yield base64.b64encode(data[start : start + _PIECE_BYTES])
