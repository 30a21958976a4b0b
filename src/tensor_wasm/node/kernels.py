"""The registry of signed kernels: publish, list, show, delete, and what guests load by name.

A kernel is trusted when its manifest is the one that was signed, by a key that may publish here, and its text has the
manifest's digest. That is looked at whenever a kernel comes from the disk, not only when it was published: a file that
somebody changed, and a publisher who is no longer allowed, are then no good.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from blake3 import blake3

from tensor_wasm.abi.limits import PTX_MAX_BYTES
from tensor_wasm.device.compilers import Compilers
from tensor_wasm.device.protocol import Device
from tensor_wasm.errors import (
    AlreadyRegistered,
    BadSignature,
    BodyTooLarge,
    DeadlineExceeded,
    DigestMismatch,
    InvalidManifest,
    InvalidName,
    NotFound,
    QuotaExceeded,
    RequestError,
    StoreError,
)
from tensor_wasm.host import PublishedKernel
from tensor_wasm.node.intake import Intake
from tensor_wasm.node.storage import Storage
from tensor_wasm.ptx import target_of
from tensor_wasm.runtime import Recent
from tensor_wasm.store import KernelOutline, KernelRecord, KernelStore, SharedArtifacts
from tensor_wasm.store.manifest import Manifest, check_name, decode_manifest

_log = logging.getLogger("tensor_wasm.node")

#: Kernels of one tenant.
KERNELS_MAX = 10_000
#: Verified texts kept in memory: their number, and their bytes together.
_KEPT_TEXTS = 256
_KEPT_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class KernelView:
    """A kernel as it is kept, and what was found when it was verified just now.

    ``manifest`` is None when it cannot be read any more; ``refusal`` says why the kernel is not trusted, None when it
    is.
    """

    record: KernelRecord
    manifest: Manifest | None
    refusal: str | None


@dataclass(frozen=True, slots=True)
class KernelPage:
    """A page of kernels; ``next`` is what to pass as ``after`` for the following one, None at the end."""

    items: list[KernelOutline]
    next: str | None


class Kernels:
    """The published kernels of a node. Every call may touch the disk.

    ``publishers`` are the public keys whose kernels are taken; with none it is anybody's while ``is_open`` says that
    the node has no tokens, and else nobody's. Compiling what one call publishes takes ``compile_limit_s`` at most.
    """

    def __init__(
        self,
        store: KernelStore,
        artifacts: SharedArtifacts,
        storage: Storage,
        device: Device,
        compilers: Compilers,
        intake: Intake,
        *,
        publishers: frozenset[str],
        is_open: Callable[[], bool],
        compile_limit_s: float,
    ) -> None:
        self._store = store
        self._artifacts = artifacts
        self._storage = storage
        self._device = device
        self._compilers = compilers
        self._intake = intake
        self._publishers = publishers
        self._is_open = is_open
        self._compile_limit_s = compile_limit_s
        self._lock = threading.Lock()  # publish and delete: what they count is as what they keep
        self._counts: Counter[int] = Counter()
        self._texts: Recent[KernelRecord, PublishedKernel] = Recent(_KEPT_TEXTS, _KEPT_BYTES, _text_bytes)
        self._texts_lock = threading.Lock()
        for outline in store.all():
            self._counts[outline.tenant] += 1
            storage.count(outline.tenant, outline.stored_bytes)
            artifacts.hold([outline.digest])

    def publish(self, tenant: int, manifest_bytes: bytes, signature: bytes, ptx: bytes) -> KernelRecord:
        """Verify, compile and keep a kernel. When this returns it survives a crash, and its name is taken.

        Raises :class:`InvalidManifest`, :class:`InvalidName`, :class:`DigestMismatch`, :class:`BadSignature`,
        :class:`AlreadyRegistered`, :class:`~tensor_wasm.errors.PtxError`, :class:`QuotaExceeded`,
        :class:`BodyTooLarge`, :class:`DeadlineExceeded`, :class:`~tensor_wasm.errors.CapacityExhausted`,
        :class:`~tensor_wasm.errors.NotReady`.
        """
        self._intake.check_open()
        if len(ptx) > PTX_MAX_BYTES:
            raise BodyTooLarge(f"the PTX has {len(ptx)} bytes; at most {PTX_MAX_BYTES} are taken")
        manifest = decode_manifest(manifest_bytes)
        if blake3(ptx).hexdigest() != manifest.digest:
            raise DigestMismatch("the manifest's digest is not the BLAKE3 of the PTX that came with it")
        self._check_signature(manifest, manifest_bytes, signature)
        if self._store.get(tenant, manifest.name, manifest.version) is not None:
            raise _taken(manifest)
        record = KernelRecord(
            tenant=tenant,
            name=manifest.name,
            version=manifest.version,
            digest=manifest.digest,
            size_bytes=len(ptx),
            manifest=manifest_bytes,
            signature=signature,
            publisher=manifest.publisher.text,
            created_at=time.time(),
        )
        self._check_count(tenant)
        self._storage.check(tenant, record.stored_bytes)  # before the work, which is what an attacker wants
        self._compile(tenant, manifest, ptx)
        with self._lock:
            self._check_count(tenant)
            with self._storage.taking(tenant, record.stored_bytes), self._artifacts.putting(ptx):
                if not self._store.add(record):
                    raise _taken(manifest)
            self._counts[tenant] += 1
        return record

    def list(self, tenant: int, limit: int, after: str | None = None) -> KernelPage:
        """A page of a tenant's kernels by name and version. Raises :class:`RequestError` for a bad ``after``."""
        outlines = self._store.list(tenant, limit + 1, None if after is None else _place(after))
        items = outlines[:limit]
        return KernelPage(items, f"{items[-1].name}/{items[-1].version}" if len(outlines) > limit else None)

    def show(self, tenant: int, name: str, version: str) -> tuple[KernelView, bytes | None]:
        """A kernel, verified as it is on the disk now, and its text if that is whole. Raises :class:`NotFound`."""
        record = self._find(tenant, name, version)
        manifest: Manifest | None = None
        ptx: bytes | None = None
        refusal: str | None = None
        try:
            manifest = _manifest_of(record)
            ptx = self._artifacts.get(record.digest)
            self._check_signature(manifest, record.manifest, record.signature)
        except BadSignature as error:
            refusal = error.message
        except StoreError as error:  # its text has paths
            _log.error("the text of kernel %s %s: %s", name, version, error)
            refusal = "its text is missing from the node, or damaged: publish it again under another version"
        return KernelView(record, manifest, refusal), ptx

    def delete(self, tenant: int, name: str, version: str) -> None:
        """Forget a kernel; guests that have loaded it keep it. Raises :class:`NotFound`."""
        with self._lock:
            record = self._find(tenant, name, version)
            if not self._store.delete(tenant, name, version):
                raise _unknown()
            self._counts[tenant] -= 1
            if not self._counts[tenant]:
                del self._counts[tenant]
            self._storage.give(tenant, record.stored_bytes)
            self._artifacts.release(record.digest)

    def published(self, tenant: int, name: str, version: str) -> PublishedKernel | None:
        """The text of a trusted kernel, for a guest; None when the tenant has none of that name and version.

        Raises :class:`BadSignature` for one that is not trusted any more, :class:`StoreError` for one that cannot be
        read.
        """
        try:
            check_name(name, version)
        except InvalidName:
            return None
        record = self._store.get(tenant, name, version)
        if record is None:
            return None
        self._check_publisher(record.publisher)
        with self._texts_lock:  # a record is all that was verified: one that was changed is another
            known = self._texts.get(record)
        if known is not None:
            return known
        manifest = _manifest_of(record)
        self._check_signature(manifest, record.manifest, record.signature)
        found = PublishedKernel(self._artifacts.get(record.digest), manifest.entry_points)
        with self._texts_lock:
            self._texts.put(record, found)
        return found

    # --- checks -----------------------------------------------------------------------------------------

    def _find(self, tenant: int, name: str, version: str) -> KernelRecord:
        try:
            check_name(name, version)
        except InvalidName:
            raise _unknown() from None
        record = self._store.get(tenant, name, version)
        if record is None:
            raise _unknown()
        return record

    def _check_signature(self, manifest: Manifest, manifest_bytes: bytes, signature: bytes) -> None:
        self._check_publisher(manifest.publisher.text)
        if not manifest.publisher.verify(signature, manifest_bytes):
            raise BadSignature("the signature is not that of the manifest's bytes by the publisher that it names")

    def _check_publisher(self, publisher: str) -> None:
        if self._publishers:
            if publisher not in self._publishers:
                raise BadSignature("the publisher's key is not one of TENSOR_WASM_KERNEL_PUBLISHERS on this node")
        elif not self._is_open():
            raise BadSignature(
                "this node takes nobody's kernels: its operator sets TENSOR_WASM_KERNEL_PUBLISHERS to the public keys"
                " of those who may publish"
            )

    def _check_count(self, tenant: int) -> None:
        if self._counts[tenant] >= KERNELS_MAX:
            raise QuotaExceeded(f"the tenant has {KERNELS_MAX} kernels, as many as it may: delete one first")

    def _compile(self, tenant: int, manifest: Manifest, ptx: bytes) -> None:
        """Have every entry point compiled: what cannot run here is not taken, and what can is then in the cache."""
        target = target_of(ptx)
        if target != manifest.sm:
            raise InvalidManifest(f"manifest: sm is {manifest.sm}, the PTX's .target is {target[:64]}")
        until_s = time.monotonic() + self._compile_limit_s

        def late() -> DeadlineExceeded | None:
            if time.monotonic() < until_s:
                return None
            return DeadlineExceeded(
                f"compiling all entry points takes longer than {self._compile_limit_s:g} s: publish fewer in one text"
            )

        with self._compilers.acting_for(tenant):
            for entry in manifest.entry_points:
                error = late()
                if error is not None:
                    raise error
                self._device.load(ptx, entry, late)


def _manifest_of(record: KernelRecord) -> Manifest:
    """The manifest that is kept, if the row is of the kernel that it describes. Raises :class:`BadSignature`."""
    try:
        manifest = decode_manifest(record.manifest)
    except (InvalidManifest, InvalidName):
        raise BadSignature("what is kept of the kernel's manifest cannot be read") from None
    described = (manifest.name, manifest.version, manifest.digest, manifest.publisher.text)
    if described != (record.name, record.version, record.digest, record.publisher):
        raise BadSignature("what is kept of the kernel is not what its manifest describes")
    return manifest


def _place(after: str) -> tuple[str, str]:
    name, _, version = after.partition("/")
    try:
        check_name(name, version)
    except InvalidName:
        raise RequestError("`after` must be what the page before gave as `next`") from None
    return name, version


def _taken(manifest: Manifest) -> AlreadyRegistered:
    return AlreadyRegistered(
        f"{manifest.name} {manifest.version} is published, and what is published does not change: publish another"
        " version"
    )


def _unknown() -> NotFound:
    return NotFound("no such kernel for this tenant")


def _text_bytes(kernel: PublishedKernel) -> int:
    return len(kernel.ptx)
