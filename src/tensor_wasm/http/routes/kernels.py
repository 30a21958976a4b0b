"""Signed kernels: publish, list, describe and verify, delete."""

from __future__ import annotations

from tensor_wasm.abi.limits import PTX_MAX_BYTES
from tensor_wasm.errors import (
    AlreadyRegistered,
    BadSignature,
    BodyTooLarge,
    CapacityExhausted,
    DeadlineExceeded,
    DigestMismatch,
    InvalidBase64,
    InvalidJson,
    InvalidManifest,
    InvalidName,
    NotFound,
    NotReady,
    PtxError,
    QuotaExceeded,
    RequestError,
    UnsupportedMediaType,
)
from tensor_wasm.http import examples, kernel_example, wire, wire_kernels
from tensor_wasm.http.media import JSON, media_type
from tensor_wasm.http.operations import Answer, Audience, Call, Example, Operation, Parameter
from tensor_wasm.http.query import read_limit, read_query
from tensor_wasm.node import Node
from tensor_wasm.store import KernelRecord
from tensor_wasm.store.manifest import MANIFEST_MAX_BYTES

_PAGE = 100
_PAGE_MAX = 1000
#: Both in base64, and what is around them.
_BODY_BYTES_MAX = (PTX_MAX_BYTES + MANIFEST_MAX_BYTES) * 4 // 3 + 4096
_RESOURCE_MAX = 200


class Kernels:
    """The handlers; each leaves what may block to the node's background threads."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def publish(self, call: Call) -> Answer:
        """POST /kernels."""
        media_type(call.headers, JSON)
        body = await call.body(_BODY_BYTES_MAX)
        record = await self._node.intake.in_background(call.tenant, self._publish, body, call.tenant)
        call.resource = f"{record.name}/{record.version}"
        call.detail = {"digest": record.digest, "publisher": record.publisher, "size_bytes": record.size_bytes}
        location = f"/kernels/{record.name}/{record.version}".encode()
        return Answer(wire.encode(wire_kernels.describe_published(record)), 201, headers=((b"location", location),))

    def _publish(self, body: bytes, tenant: int) -> KernelRecord:
        request = wire_kernels.decode_publish(body)
        manifest = wire.decode_base64(request.manifest_b64, "manifest_b64")
        signature = wire.decode_base64(request.signature_b64, "signature_b64")
        return self._node.kernels.publish(tenant, manifest, signature, wire.decode_base64(request.ptx_b64, "ptx_b64"))

    async def list(self, call: Call) -> Answer:
        """GET /kernels."""
        query = read_query(call, "limit", "after")
        limit = read_limit(query.get("limit"), _PAGE, _PAGE_MAX)
        return Answer(
            await self._node.intake.in_background(call.tenant, self._page, call.tenant, limit, query.get("after"))
        )

    def _page(self, tenant: int, limit: int, after: str | None) -> bytes:
        return wire.encode(wire_kernels.describe_page(self._node.kernels.list(tenant, limit, after)))

    async def show(self, call: Call) -> Answer:
        """GET /kernels/:name/:version."""
        text = read_query(call, "text").get("text", "0")
        if text not in ("0", "1"):
            raise RequestError("text must be 0 or 1")
        name, version = call.parameters["name"], call.parameters["version"]
        return Answer(
            await self._node.intake.in_background(call.tenant, self._describe, call.tenant, name, version, text == "1")
        )

    def _describe(self, tenant: int, name: str, version: str, with_text: bool) -> bytes:
        view, ptx = self._node.kernels.show(tenant, name, version)
        return wire_kernels.encode_kernel(view, ptx if with_text else None)

    async def delete(self, call: Call) -> Answer:
        """DELETE /kernels/:name/:version."""
        name, version = call.parameters["name"], call.parameters["version"]
        call.resource = f"{name}/{version}"[:_RESOURCE_MAX]
        await self._node.intake.in_background(call.tenant, self._node.kernels.delete, call.tenant, name, version)
        return Answer(b"", 204)


#: A kernel's name and its version, as `next` has them.
_PLACE_PATTERN = f"{wire.NAME_PATTERN.rstrip('$')}/{wire_kernels.VERSION_PATTERN.lstrip('^')}"


def operations(node: Node) -> list[Operation]:
    """The operations on kernels."""
    handlers = Kernels(node)
    text = {"type": "string"}
    limit = {"type": "integer", "minimum": 1, "maximum": _PAGE_MAX, "default": _PAGE}
    place = {"type": "string", "pattern": _PLACE_PATTERN}
    one = {"name": kernel_example.NAME, "version": kernel_example.VERSION}
    summary = wire_kernels.KernelSummary(
        name=kernel_example.NAME,
        version=kernel_example.VERSION,
        digest=kernel_example.DIGEST,
        size_bytes=kernel_example.SIZE_BYTES,
        publisher=kernel_example.PUBLISHER,
        created_at=examples.MOMENT,
    )
    return [
        Operation(
            method="POST",
            path="/kernels",
            handler=handlers.publish,
            audience=Audience.TENANT,
            summary="Publish a signed kernel under a name and version that never change again",
            status=201,
            request=wire_kernels.PublishRequest,
            response=wire_kernels.Published,
            response_headers=(Parameter("Location", "The path of the new kernel.", text),),
            errors=(
                InvalidJson, InvalidBase64, InvalidManifest, InvalidName, DigestMismatch, BadSignature, PtxError,
                AlreadyRegistered, UnsupportedMediaType, BodyTooLarge, NotReady, QuotaExceeded, CapacityExhausted,
                DeadlineExceeded,
            ),
            examples=(
                Example(
                    summary="A kernel that adds one to each element",
                    request=wire_kernels.PublishRequest(
                        kernel_example.MANIFEST_B64, kernel_example.SIGNATURE_B64, kernel_example.PTX_B64
                    ),
                    answer=wire_kernels.Published(
                        kernel_example.NAME, kernel_example.VERSION, kernel_example.DIGEST
                    ),
                ),
            ),
            event="kernel.publish",
        ),
        Operation(
            method="GET",
            path="/kernels",
            handler=handlers.list,
            audience=Audience.TENANT,
            summary="List the tenant's kernels, by name and version",
            response=wire_kernels.KernelList,
            query=(
                Parameter("limit", "Kernels of a page.", limit),
                Parameter("after", "What the page before gave as `next`.", place),
            ),
            errors=(RequestError, CapacityExhausted, DeadlineExceeded),
            examples=(
                Example(
                    summary="A page that is the last",
                    parameters={"limit": 10},
                    answer=wire_kernels.KernelList([summary], None),
                ),
            ),
        ),
        Operation(
            method="GET",
            path="/kernels/{name}/{version}",
            handler=handlers.show,
            audience=Audience.TENANT,
            summary="Describe a kernel, and say whether what is kept of it can be trusted",
            response=wire_kernels.KernelDescription,
            query=(
                Parameter("text", "1: the answer has the PTX too.", {"type": "string", "enum": ["0", "1"]}),
            ),
            errors=(RequestError, NotFound, CapacityExhausted, DeadlineExceeded),
            examples=(
                Example(
                    summary="A kernel",
                    parameters=one,
                    answer=wire_kernels.KernelDescription(
                        name=kernel_example.NAME,
                        version=kernel_example.VERSION,
                        tenant=1,
                        digest=kernel_example.DIGEST,
                        size_bytes=kernel_example.SIZE_BYTES,
                        publisher=kernel_example.PUBLISHER,
                        created_at=examples.MOMENT,
                        manifest_b64=kernel_example.MANIFEST_B64,
                        signature_b64=kernel_example.SIGNATURE_B64,
                        verified=True,
                        sm="sm_70",
                        entry_points=["add_one"],
                        published_at="2026-01-01T00:00:00Z",
                    ),
                ),
            ),
        ),
        Operation(
            method="DELETE",
            path="/kernels/{name}/{version}",
            handler=handlers.delete,
            audience=Audience.TENANT,
            summary="Delete a kernel; guests that have loaded it keep it",
            status=204,
            errors=(NotFound, CapacityExhausted, DeadlineExceeded),
            examples=(Example(summary="A kernel", parameters=one),),
            event="kernel.delete",
        ),
    ]  # fmt: skip
