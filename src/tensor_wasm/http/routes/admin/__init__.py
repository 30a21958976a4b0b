"""The operator's resources, a file each. Every operation needs a token with role=admin."""

from tensor_wasm.config import Config
from tensor_wasm.http.operations import Operation
from tensor_wasm.http.routes.admin import drain, instances, models, tenants, tokens
from tensor_wasm.node import Node


def operations(node: Node, config: Config) -> list[Operation]:
    """All of the operator's operations."""
    return [
        *instances.operations(node),
        *tenants.operations(node),
        *tokens.operations(node),
        *models.operations(node),
        *drain.operations(node, config),
    ]
