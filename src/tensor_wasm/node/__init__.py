"""The application: deploy, describe, delete, invoke, drain. Every use case, no protocol."""

from tensor_wasm.node.administration import Administration, TenantView, Termination, Usage
from tensor_wasm.node.instances import InstanceView
from tensor_wasm.node.model import Export, Function, Import, InvocationResult, Page
from tensor_wasm.node.node import Node
from tensor_wasm.node.statistics import Distribution, Statistics, StatisticsView

__all__ = [
    "Administration",
    "Distribution",
    "Export",
    "Function",
    "Import",
    "InstanceView",
    "InvocationResult",
    "Node",
    "Page",
    "Statistics",
    "StatisticsView",
    "TenantView",
    "Termination",
    "Usage",
]
