"""The HTTP API of a node. Holds no state of its own; every use case is the node's."""

from tensor_wasm.http.app import Application, create_app
from tensor_wasm.http.server import Server, serve

__all__ = ["Application", "Server", "create_app", "serve"]
