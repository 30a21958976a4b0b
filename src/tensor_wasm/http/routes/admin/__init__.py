"""The operator's resources, a file each. Every operation needs a token with role=admin."""

from tensor_wasm.config import Config
from tensor_wasm.http.operations import Operation
from tensor_wasm.http.routes.admin import drain, instances, models, observe, tenants, tokens
from tensor_wasm.node import Node
from tensor_wasm.telemetry.observer import Observer


def operations(node: Node, config: Config, observer: Observer) -> list[Operation]:
    """All of the operator's operations."""
    return [
        *instances.operations(node),
        *tenants.operations(node),
        *tokens.operations(node),
        *models.operations(node),
        *observe.operations(observer),
        *drain.operations(node, config),
    ]
