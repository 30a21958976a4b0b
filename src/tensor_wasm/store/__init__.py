"""What a node keeps on disk: a database of functions, jobs and tenants, artifacts by content, the node's own key."""

from tensor_wasm.store.artifacts import ArtifactStore
from tensor_wasm.store.database import Database
from tensor_wasm.store.files import concerns
from tensor_wasm.store.group import Group
from tensor_wasm.store.home import check_database
from tensor_wasm.store.idempotency import IdempotencyKey, IdempotencyStore
from tensor_wasm.store.jobs import Changes, JobEnd, JobRecord, JobRequest, JobStatus, JobStore, NewJob
from tensor_wasm.store.kernels import KernelOutline, KernelRecord, KernelStore
from tensor_wasm.store.key import node_key
from tensor_wasm.store.lock import HomeLock
from tensor_wasm.store.models import ModelRecord, ModelStore
from tensor_wasm.store.registry import FunctionRecord, Registry
from tensor_wasm.store.shared import SharedArtifacts
from tensor_wasm.store.snapshots import OwnFile, SnapshotOutline, SnapshotRecord, SnapshotStore
from tensor_wasm.store.tenants import TenantStore
from tensor_wasm.store.tokens import TokenRecord, TokenStore

__all__ = [
    "ArtifactStore",
    "Changes",
    "Database",
    "FunctionRecord",
    "Group",
    "HomeLock",
    "ModelRecord",
    "ModelStore",
    "IdempotencyKey",
    "IdempotencyStore",
    "JobEnd",
    "JobRecord",
    "JobRequest",
    "JobStatus",
    "JobStore",
    "KernelOutline",
    "KernelRecord",
    "KernelStore",
    "NewJob",
    "OwnFile",
    "Registry",
    "SharedArtifacts",
    "SnapshotOutline",
    "SnapshotRecord",
    "SnapshotStore",
    "TenantStore",
    "TokenRecord",
    "TokenStore",
    "check_database",
    "concerns",
    "node_key",
]
