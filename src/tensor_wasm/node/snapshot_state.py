"""What a snapshot keeps besides the bytes of its memories, as text, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tensor_wasm.errors import InvalidSnapshot
from tensor_wasm.runtime.state import InstanceState, decode_places, encode_places
from tensor_wasm.store import FunctionRecord, SnapshotRecord

#: The form of ``state`` in rows and files.
STATE_FORMAT = 1


def encode_state(state: InstanceState, device: Mapping[str, Any] | None, function_id: str) -> str:
    """What is in no memory, as JSON."""
    return json.dumps(
        {
            "format": STATE_FORMAT,
            "function_id": function_id,
            "memory_bytes": state.memory_bytes,
            "variables": [bits.hex() for bits in state.variables],
            "tables": encode_places(state.tables),
            "device": device,
        },
        separators=(",", ":"),
    )


def decode_state(text: str) -> tuple[InstanceState, Mapping[str, Any] | None, str]:
    """The state, what the guest has on the device, and the id of the function. Raises :class:`InvalidSnapshot`."""
    try:
        fields = json.loads(text)
        if fields["format"] != STATE_FORMAT:
            raise InvalidSnapshot("the snapshot's state is of another form than this release writes")
        variables = tuple(bytes.fromhex(bits) for bits in fields["variables"])
        memory_bytes, function_id = int(fields["memory_bytes"]), str(fields["function_id"])
        if not 0 <= memory_bytes <= 1 << 32:
            raise InvalidSnapshot("the snapshot's memory has a size that no memory has")
        device = fields["device"]
        if device is not None and not isinstance(device, dict):
            raise InvalidSnapshot("the snapshot's device state cannot be read")
        return InstanceState(memory_bytes, variables, decode_places(fields["tables"])), device, function_id
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InvalidSnapshot("the snapshot's state cannot be read") from None


def function_of(record: SnapshotRecord) -> FunctionRecord:
    """The function that was captured, which may be gone by now."""
    _, _, function_id = decode_state(record.state)
    return FunctionRecord(function_id, record.tenant, record.function_name, record.module_digest, 0, record.created_at)
