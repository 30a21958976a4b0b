"""What a node of this process gives, as the types of the Python API."""

from __future__ import annotations

from tensor_wasm.api import model
from tensor_wasm.node import Function, InvocationResult, KeptInstance


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
