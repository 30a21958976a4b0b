"""What a node keeps on disk: functions, tokens and tenants in a database, artifacts by content, the node's own key."""

from tensor_wasm.store.artifacts import ArtifactStore
from tensor_wasm.store.database import Database
from tensor_wasm.store.home import check_database
from tensor_wasm.store.key import node_key
from tensor_wasm.store.lock import HomeLock
from tensor_wasm.store.registry import FunctionRecord, Registry
from tensor_wasm.store.tenants import TenantStore
from tensor_wasm.store.tokens import TokenRecord, TokenStore

__all__ = [
    "ArtifactStore",
    "Database",
    "FunctionRecord",
    "HomeLock",
    "Registry",
    "TenantStore",
    "TokenRecord",
    "TokenStore",
    "check_database",
    "node_key",
]
