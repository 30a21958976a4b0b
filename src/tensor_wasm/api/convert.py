"""What a node of this process gives, as the types of the Python API."""

from __future__ import annotations

from tensor_wasm.api import model
from tensor_wasm.node import Function, InvocationResult, JobRecord, KeptInstance, KernelView, Snapshot, read_result
from tensor_wasm.store import KernelOutline, KernelRecord


def function_of(found: Function) -> model.Function:
    """A function."""
    return model.Function(
        id=found.id,
        name=found.name,
        tenant=found.tenant,
        digest=found.digest,
        size_bytes=found.size_bytes,
        created_at=found.created_at,
        exports=tuple(model.Export(one.name, tuple(one.parameters), tuple(one.results)) for one in found.exports),
        imports=tuple(model.Import(one.module, one.name) for one in found.imports),
        memory_pages=found.memory_pages,
        prewarm=found.prewarm,
    )


def result_of(found: InvocationResult) -> model.Result:
    """The result of a call."""
    return model.Result(
        results=list(found.results),
        function_id=found.function_id,
        instance_id=found.instance_id,
        duration=found.duration_s,
        launches=found.launches,
        stdout=found.stdout.decode("utf-8", "replace"),
        stderr=found.stderr.decode("utf-8", "replace"),
        dropped_output_bytes=found.dropped_output_bytes,
    )


def kept_of(found: KeptInstance) -> model.KeptInstance:
    """A kept instance."""
    return model.KeptInstance(
        id=found.id,
        tenant=found.tenant,
        function_id=found.function_id,
        function_name=found.function_name,
        state=found.state,
        created_at=found.created_at,
        calls=found.calls,
        idle_timeout=found.idle_timeout_s,
        idle_left=found.idle_left_s,
        memory_bytes=found.memory_bytes,
        gpu_memory_bytes=found.gpu_memory_bytes,
    )


def job_of(found: JobRecord) -> model.JobDescription:
    """A job."""
    return model.JobDescription(
        id=found.id,
        function_id=found.function_id,
        export=found.export,
        status=found.status.value,
        created_at=found.created_at,
        started_at=found.started_at,
        finished_at=found.finished_at,
        error_kind=found.error_kind,
        error_message=found.error_message,
        result=None if found.result is None else result_of(read_result(found.result)),
    )


def kernel_of(found: KernelRecord | KernelOutline) -> model.PublishedKernel:
    """A kernel as lists show it."""
    return model.PublishedKernel(
        name=found.name,
        version=found.version,
        digest=found.digest,
        size_bytes=found.size_bytes,
        publisher=found.publisher,
        created_at=found.created_at,
    )


def verified_of(found: KernelView) -> model.VerifiedKernel:
    """A kernel that was verified."""
    record, manifest = found.record, found.manifest
    return model.VerifiedKernel(
        name=record.name,
        version=record.version,
        digest=record.digest,
        size_bytes=record.size_bytes,
        publisher=record.publisher,
        created_at=record.created_at,
        tenant=record.tenant,
        is_verified=found.refusal is None,
        reason=found.refusal or "",
        sm="" if manifest is None else manifest.sm,
        entry_points=() if manifest is None else tuple(manifest.entry_points),
        manifest=record.manifest,
        signature=record.signature,
    )


def snapshot_of(found: Snapshot) -> model.Snapshot:
    """A snapshot."""
    return model.Snapshot(
        id=found.id,
        tenant=found.tenant,
        function_id=found.function_id,
        function_name=found.function_name,
        module_digest=found.module_digest,
        size_bytes=found.size_bytes,
        sha=found.sha,
        created_at=found.created_at,
    )
