"""A node's JSON as the types of the Python API. What has another shape raises :class:`Malformed`."""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from typing import Any

from tensor_wasm.api.model import (
    Captured,
    Export,
    Function,
    Import,
    JobDescription,
    KeptInstance,
    PublishedKernel,
    Result,
    Snapshot,
    VerifiedKernel,
)

_SPECIAL = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


class Malformed(ValueError):
    """What came is not what a node answers."""


def function_of(item: Mapping[str, object]) -> Function:
    """A function."""
    return Function(
        id=text(item, "id"),
        name=text(item, "name"),
        tenant=whole(item, "tenant"),
        digest=text(item, "digest"),
        size_bytes=whole(item, "size_bytes"),
        created_at=number(item, "created_at"),
        exports=tuple(
            Export(text(one, "name"), texts(one, "parameters"), texts(one, "results"))
            for one in objects(item, "exports")
        ),
        imports=tuple(Import(text(one, "module"), text(one, "name")) for one in objects(item, "imports")),
        memory_pages=whole(item, "memory_pages"),
        prewarm=_prewarm(item),
    )


def result_of(item: Mapping[str, object]) -> Result:
    """The result of a call."""
    found = item.get("result")
    values: list[Any] = [] if found == "ok" else [_value(value) for value in _list(found)]
    return Result(
        results=values,
        function_id=text(item, "function_id"),
        instance_id=text(item, "instance_id"),
        duration=number(item, "duration_ms") / 1e3,
        launches=whole(item, "launches"),
        stdout=text(item, "stdout", ""),
        stderr=text(item, "stderr", ""),
        dropped_output_bytes=whole(item, "dropped_output_bytes", 0),
    )


def kept_of(item: Mapping[str, object]) -> KeptInstance:
    """A kept instance."""
    return KeptInstance(
        id=text(item, "id"),
        tenant=whole(item, "tenant"),
        function_id=text(item, "function_id"),
        function_name=text(item, "function_name"),
        state=text(item, "state"),
        created_at=number(item, "created_at"),
        calls=whole(item, "calls"),
        idle_timeout=number(item, "idle_timeout_s"),
        idle_left=None if item.get("idle_left_s") is None else number(item, "idle_left_s"),
        memory_bytes=whole(item, "memory_bytes"),
        gpu_memory_bytes=whole(item, "gpu_memory_bytes"),
    )


def job_of(item: Mapping[str, object]) -> JobDescription:
    """A job."""
    error, result = item.get("error"), item.get("result")
    if not isinstance(error, dict | None) or not isinstance(result, dict | None):
        raise Malformed("job")
    return JobDescription(
        id=text(item, "id"),
        function_id=text(item, "function_id"),
        export=None if item.get("export") is None else text(item, "export"),
        status=text(item, "status"),
        created_at=number(item, "created_at"),
        started_at=None if item.get("started_at") is None else number(item, "started_at"),
        finished_at=None if item.get("finished_at") is None else number(item, "finished_at"),
        error_kind=None if error is None else text(error, "kind"),
        error_message=None if error is None else text(error, "message"),
        result=None if result is None else result_of(result),
    )


def kernel_of(item: Mapping[str, object]) -> PublishedKernel:
    """A kernel as lists show it."""
    return PublishedKernel(
        name=text(item, "name"),
        version=text(item, "version"),
        digest=text(item, "digest"),
        size_bytes=whole(item, "size_bytes"),
        publisher=text(item, "publisher"),
        created_at=number(item, "created_at"),
    )


def verified_of(item: Mapping[str, object]) -> VerifiedKernel:
    """A kernel that was verified."""
    return VerifiedKernel(
        name=text(item, "name"),
        version=text(item, "version"),
        digest=text(item, "digest"),
        size_bytes=whole(item, "size_bytes"),
        publisher=text(item, "publisher"),
        created_at=number(item, "created_at"),
        tenant=whole(item, "tenant"),
        is_verified=item.get("verified") is True,
        reason=text(item, "reason", ""),
        sm=text(item, "sm"),
        entry_points=texts(item, "entry_points"),
        manifest=data(item, "manifest_b64"),
        signature=data(item, "signature_b64"),
    )


def captured_of(item: Mapping[str, object]) -> Captured:
    """A snapshot that was made."""
    return Captured(id=text(item, "snapshot_id"), size_bytes=whole(item, "bytes"), sha=text(item, "sha"))


def snapshot_of(item: Mapping[str, object]) -> Snapshot:
    """A snapshot."""
    return Snapshot(
        id=text(item, "id"),
        tenant=whole(item, "tenant"),
        function_id=text(item, "function_id"),
        function_name=text(item, "function_name"),
        module_digest=text(item, "module_digest"),
        size_bytes=whole(item, "bytes"),
        sha=text(item, "sha"),
        created_at=number(item, "created_at"),
    )


def data(item: Mapping[str, object], name: str) -> bytes:
    """A field that is bytes in base64."""
    try:
        return binascii.a2b_base64(text(item, name), strict_mode=True)
    except ValueError:
        raise Malformed(name) from None


def text(item: Mapping[str, object], name: str, default: str | None = None) -> str:
    """A field that is text."""
    value = item.get(name, default)
    if not isinstance(value, str):
        raise Malformed(name)
    return value


def whole(item: Mapping[str, object], name: str, default: int | None = None) -> int:
    """A field that is a whole number."""
    value = item.get(name, default)
    if type(value) is not int:
        raise Malformed(name)
    return value


def number(item: Mapping[str, object], name: str) -> float:
    """A field that is a number."""
    value = item.get(name)
    if type(value) is not int and type(value) is not float:
        raise Malformed(name)
    return float(value)


def objects(item: Mapping[str, object], name: str) -> list[dict[str, Any]]:
    """A field that is a list of objects."""
    found = _list(item.get(name))
    if not all(isinstance(one, dict) for one in found):
        raise Malformed(name)
    return found


def texts(item: Mapping[str, object], name: str) -> tuple[str, ...]:
    """A field that is a list of texts."""
    found = _list(item.get(name))
    if not all(isinstance(one, str) for one in found):
        raise Malformed(name)
    return tuple(found)


def _prewarm(item: Mapping[str, object]) -> str | None:
    settings = item.get("settings", {})
    if not isinstance(settings, dict):
        raise Malformed("settings")
    return None if settings.get("prewarm") is None else text(settings, "prewarm")


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise Malformed("a list")
    return value


def _value(value: object) -> int | float:
    if isinstance(value, str) and value in _SPECIAL:
        return _SPECIAL[value]
    if type(value) is int or type(value) is float:
        return value
    raise Malformed("result")
