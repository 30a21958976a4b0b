"""The application: deploy, describe, delete, invoke, drain. Every use case, no protocol."""

from tensor_wasm.host import Stream
from tensor_wasm.node.administration import Administration, TenantView, Termination, Usage
from tensor_wasm.node.instances import InstanceView
from tensor_wasm.node.job_model import EndedJob, JobPage, Submission
from tensor_wasm.node.job_results import read_result
from tensor_wasm.node.kernels import KernelPage, KernelView
from tensor_wasm.node.model import (
    DeviceRestart,
    Export,
    Function,
    Import,
    InvocationResult,
    KeptInstance,
    Page,
    Snapshot,
)
from tensor_wasm.node.models import MODEL_NAME_PATTERN, Model, Models
from tensor_wasm.node.node import Node
from tensor_wasm.node.origin import ORIGIN, Origin
from tensor_wasm.node.statistics import Distribution, Statistics, StatisticsView
from tensor_wasm.node.streamed import FAREWELL_S, StreamedCall
from tensor_wasm.store import IdempotencyKey, JobRecord, JobStatus

__all__ = [
    "Administration",
    "DeviceRestart",
    "Distribution",
    "EndedJob",
    "Export",
    "FAREWELL_S",
    "Function",
    "IdempotencyKey",
    "Import",
    "InstanceView",
    "InvocationResult",
    "JobPage",
    "JobRecord",
    "JobStatus",
    "KeptInstance",
    "KernelPage",
    "KernelView",
    "MODEL_NAME_PATTERN",
    "Model",
    "Models",
    "Node",
    "ORIGIN",
    "Origin",
    "Page",
    "Snapshot",
    "Statistics",
    "StatisticsView",
    "Submission",
    "Stream",
    "StreamedCall",
    "TenantView",
    "Termination",
    "Usage",
    "read_result",
]
