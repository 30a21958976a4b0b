"""What a node keeps on disk: the registry of functions, artifacts by content, the node's own key."""

from tensor_wasm.store.artifacts import ArtifactStore
from tensor_wasm.store.key import node_key
from tensor_wasm.store.lock import HomeLock
from tensor_wasm.store.registry import FunctionRecord, Registry

__all__ = ["ArtifactStore", "FunctionRecord", "HomeLock", "Registry", "node_key"]
