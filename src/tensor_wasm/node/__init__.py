"""The application: deploy, describe, delete, invoke, drain. Every use case, no protocol."""

from tensor_wasm.node.model import Export, Function, Import, InvocationResult, Page
from tensor_wasm.node.node import Node
from tensor_wasm.node.statistics import Distribution, Statistics, StatisticsView

__all__ = [
    "Distribution",
    "Export",
    "Function",
    "Import",
    "InvocationResult",
    "Node",
    "Page",
    "Statistics",
    "StatisticsView",
]
