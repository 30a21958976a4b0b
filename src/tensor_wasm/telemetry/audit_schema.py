"""What a line of the audit log holds: the record, its JSON, and the schema that describes both.

Fields are described on :class:`AuditRecord`, events and what their ``detail`` holds in the table ``EVENTS``, outcomes
by the error tree. A line is one JSON object of at most :data:`LINE_MAX_BYTES`. Whatever a client put into a name, the
line has no control character, no line separator and nothing that moves a terminal: those are escaped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

import msgspec

from tensor_wasm.errors import TensorWasmError

#: A line with its newline. As much as a pipe takes in one piece (POSIX, ``PIPE_BUF`` on Linux): other writers of the
#: same pipe cannot tear it.
LINE_MAX_BYTES = 4096

#: What ``outcome`` says of a call that was not refused and did not fail.
OK = "ok"

_U64_MAX = (1 << 64) - 1
#: Lengths that strings are cut to, one after another, until a line is short enough.
_CUTS = (256, 64, 16)
_CUT_MARK = "…"

#: A value in ``detail``. None is an override that was removed.
DetailValue = str | int | float | bool | None


def moment() -> str:
    """Now, as RFC 3339 writes it: UTC, with microseconds."""
    second, rest_ns = divmod(time.time_ns(), 1_000_000_000)
    return f"{_second(second)}.{rest_ns // 1000:06d}Z"


@lru_cache(maxsize=4)
def _second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def _described(text: str, **more: object) -> msgspec.Meta:
    return msgspec.Meta(description=text, extra_json_schema=more)


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One call that changed state, ran a guest, or was refused; or a job that ended. Never holds a secret.

    ``detail`` must not be changed once it is given here.
    """

    time: Annotated[
        str,
        _described(
            "When the line was made, which is when the answer was known: RFC 3339, UTC, with microseconds.",
            format="date-time",
            pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$",
        ),
    ] = msgspec.field(default_factory=moment)
    request_id: Annotated[
        str,
        _described("The answer's `X-Request-Id`, which the node's log has too; of a job, the one it was started by."),
    ]
    event: Annotated[str, _described("What was asked for.")]
    method: Annotated[
        str | None,
        _described("HTTP method; `other` for one that the node does not know; null when it was no HTTP call."),
    ]
    route: Annotated[
        str | None,
        _described("Route as a template (`/functions/:id`); `other` for no known one; null when it was no HTTP call."),
    ]
    status: Annotated[
        int | None,
        _described("Status of the HTTP answer; null when it was no HTTP call.", minimum=100, maximum=599),
    ]
    outcome: Annotated[str, _described("`ok`, or the kind of the error, as in the answer.")]
    tenant: Annotated[
        int | None,
        _described(
            "The tenant that the call acted for or, of an administrator, on; null when it was not known yet, or "
            "none is concerned. It has all 64 bits: some JSON readers round it.",
            minimum=0,
            maximum=_U64_MAX,
        ),
    ] = None
    token: Annotated[
        str | None,
        _described(
            "Id of the caller's token, never the token; empty on a node without tokens; null when none was known."
        ),
    ] = None
    client: Annotated[str | None, _described("Address that the connection came from; null when it has none.")] = None
    resource: Annotated[
        str | None,
        _described("Id of what was acted on, as the event says; null when there is none, or it was not made."),
    ] = None
    detail: Annotated[
        dict[str, DetailValue],
        _described("More of the event: the members that it has, or some of them when the call was refused."),
    ] = {}


# --- events -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Detail:
    """A member of ``detail``: its name, its JSON types joined by "|", what it says."""

    name: str
    type: str
    description: str


@dataclass(frozen=True, slots=True)
class Event:
    """A row of ``EVENTS``: ``resource`` says whose id the line has, empty for none."""

    name: str
    meaning: str
    resource: str = ""
    detail: tuple[Detail, ...] = ()


#: A member that any refused call may have.
RETRY_AFTER = Detail("retry_after_s", "integer", "Of a refused call: seconds after which it may be made again.")

_EXPORT = Detail("export", "string", "The export that was called.")
_FUNCTION_ID = Detail("function_id", "string", "The function that ran.")
_FUNCTION_ID_BOUND = Detail("function_id", "string", "The function that answers from now on.")
_DURATION = Detail("duration_ms", "number", "How long it ran.")
_LAUNCHES = Detail("launches", "integer", "Kernels that it launched.")
_TOKEN = (
    Detail("name", "string", "The token's name."),
    Detail("scope", "string", "What the token allows: `tenant=1,2`, `tenant=*` or `role=admin`."),
)
_REMOVED = "null where the override was removed."

#: Every event there is, in the order of the documentation.
EVENTS: tuple[Event, ...] = (
    Event(
        "function.deploy",
        "A function was deployed, or that was refused.",
        "the new function",
        (
            Detail("name", "string", "The function's name."),
            Detail("size_bytes", "integer", "Size of the module."),
        ),
    ),
    Event("function.delete", "A function was deleted, or that was refused.", "the function"),
    Event(
        "function.invoke",
        "A function was called, or that was refused. Calls that were not refused are there when "
        "`TENSOR_WASM_AUDIT_INVOCATIONS` is on.",
        "the function",
        (_EXPORT, Detail("instance_id", "string", "The instance that ran it."), _DURATION, _LAUNCHES),
    ),
    Event(
        "instance.spawn", "An instance was made to be kept, or that was refused.", "the new instance", (_FUNCTION_ID,)
    ),
    Event("instance.delete", "A kept instance was ended by its tenant, or that was refused.", "the instance"),
    Event(
        "instance.invoke",
        "A kept instance was called, or that was refused. Calls that were not refused are there when "
        "`TENSOR_WASM_AUDIT_INVOCATIONS` is on.",
        "the instance",
        (_EXPORT, Detail("instance_id", "string", "The instance that ran it."), _DURATION, _LAUNCHES),
    ),
    Event(
        "kernel.publish",
        "A signed kernel was published, or that was refused.",
        "the new kernel: its name, `/`, its version",
        (
            Detail("digest", "string", "BLAKE3 of the PTX."),
            Detail("publisher", "string", "The public key that signed it."),
            Detail("size_bytes", "integer", "Size of the PTX."),
        ),
    ),
    Event("kernel.delete", "A kernel was deleted, or that was refused.", "the kernel: its name, `/`, its version"),
    Event(
        "instance.terminate",
        "An operator ended a live instance, or was refused.",
        "the instance",
        (
            _FUNCTION_ID,
            Detail("ended", "boolean", "Whether it had ended when the answer was given."),
            Detail("took_ms", "number", "Time from the order to the end."),
        ),
    ),
    Event(
        "model.set",
        "A model was bound to a function, or that was refused.",
        "the model, by its name",
        (_FUNCTION_ID_BOUND, Detail("export", "string|null", "The export that answers; null for the usual one.")),
    ),
    Event("model.delete", "A model was unbound, or that was refused.", "the model, by its name"),
    Event(
        "snapshot.create",
        "A kept instance was captured, or that was refused.",
        "the instance",
        (
            Detail("snapshot_id", "string", "The new snapshot."),
            Detail("size_bytes", "integer", "Bytes of the captured memories."),
        ),
    ),
    Event(
        "snapshot.restore",
        "An instance was made from a snapshot, or that was refused.",
        "the snapshot",
        (Detail("instance_id", "string", "The new instance."),),
    ),
    Event(
        "snapshot.import",
        "A snapshot file was taken, or that was refused.",
        "the new snapshot",
        (Detail("size_bytes", "integer", "Bytes of the captured memories."),),
    ),
    Event("snapshot.delete", "A snapshot was deleted, or that was refused.", "the snapshot"),
    Event("token.create", "A token was made, or that was refused.", "the new token", _TOKEN),
    Event(
        "token.revoke",
        "A token was revoked, or that was refused; from the next request on it is unknown.",
        "the token",
        _TOKEN,
    ),
    Event(
        "tenant.change",
        "A tenant's quotas were changed, or that was refused. `tenant` is null for the defaults of all tenants.",
        "the tenant as text, or `default`",
        (
            Detail("weight", "integer|null", f"New share of permits and workers; {_REMOVED}"),
            Detail("permits", "integer|null", f"New limit of kernel launches in flight; {_REMOVED}"),
            Detail("instances", "integer|null", f"New limit of live instances; {_REMOVED}"),
            Detail("guest_memory_bytes", "integer|null", f"New limit of its instances' memory; {_REMOVED}"),
            Detail("gpu_memory_bytes", "integer|null", f"New limit of device memory; {_REMOVED}"),
            Detail("functions", "integer|null", f"New limit of deployed functions; {_REMOVED}"),
            Detail("stored_bytes", "integer|null", f"New limit of bytes on the node's disk; {_REMOVED}"),
            Detail("rate_qps", "number|null", f"New limit of requests a second; {_REMOVED}"),
            Detail("rate_burst", "integer|null", f"New limit of requests at once; {_REMOVED}"),
            Detail("cuda", "boolean|null", f"Whether its guests may launch kernels from now on; {_REMOVED}"),
        ),
    ),
    Event(
        "node.drain",
        "The node was told to stop taking work, or that was refused.",
        detail=(
            Detail("timeout_s", "number", "How long running work was given."),
            Detail("drained", "boolean", "Whether all of it finished by itself."),
            Detail("ended", "integer", "Instances that were ended when the time was over."),
            Detail("waited_s", "number", "How long that took."),
        ),
    ),
    Event(
        "job.create",
        "A background job was accepted, or that was refused.",
        "the new job",
        (_FUNCTION_ID,),
    ),
    Event(
        "job.cancel",
        "A background job was cancelled, or that was refused. When it was running its end follows.",
        "the job",
        (Detail("status", "string", "Where it stood when the answer was given."),),
    ),
    Event(
        "job.end",
        "A job ended, however it did.",
        "the job",
        (_FUNCTION_ID, _EXPORT, _DURATION, _LAUNCHES),
    ),
    Event(
        "device.restart",
        "A GPU lost everything that was on it, of every tenant, and starts anew; no call asked for that. `tenant` is"
        " the one whose kernel caused it, null where none did or nobody knows; `request_id` is empty.",
        "the device",
        (
            Detail("reason", "string", "What happened."),
            Detail("kernel", "string|null", "The kernel that caused it."),
            Detail(
                "victims",
                "string",
                "The other tenants that had something on the GPU, as decimal numbers with commas between them.",
            ),
        ),
    ),
    Event(
        "request",
        "Any other call that was refused: one that only reads, a route or a method that does not exist, bytes that are "
        "no request.",
    ),
)


# --- the line ---------------------------------------------------------------------------------------------

_ENCODER = msgspec.json.Encoder()


def encode(record: AuditRecord) -> bytes:
    """The record's line, newline included.

    Strings that make it longer than :data:`LINE_MAX_BYTES` are cut, and end in "…". A lone surrogate, which UTF-8
    cannot hold, becomes the six characters of its escape. Raises TypeError or ValueError for values that are none of
    the fields' types and not JSON.
    """
    line = _object(record)
    if len(line) >= LINE_MAX_BYTES:
        line = _shortened(record)
    return line + b"\n"


def _object(record: AuditRecord) -> bytes:
    try:
        line = _ENCODER.encode(record)
    except UnicodeEncodeError:
        line = _ENCODER.encode(_with_strings(record, _repaired))
    # The encoder escapes what JSON demands, which is all below the space; there is more that breaks or hides lines.
    return line if line.isascii() and b"\x7f" not in line else _visible(line)


def _visible(line: bytes) -> bytes:
    """The line with everything unprintable escaped: DEL, C1 controls, U+2028 and 2029, marks that turn text around."""
    return "".join(c if c.isprintable() else _escaped(c) for c in line.decode()).encode()


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def _shortened(record: AuditRecord) -> bytes:
    for length in _CUTS:
        line = _object(_with_strings(record, lambda text, length=length: _cut(text, length)))  # type: ignore[misc]
        if len(line) < LINE_MAX_BYTES:
            return line
    # Only a detail of very many members is left: at most 12 bytes for a character, and the fields are few.
    bare = msgspec.structs.replace(record, detail={})
    return _object(_with_strings(bare, lambda text: _cut(text, _CUTS[-1])))


def _with_strings(record: AuditRecord, change: Callable[[str], str]) -> AuditRecord:
    """The record with ``change`` applied to every string in it."""

    def changed(value: Any) -> Any:
        return change(value) if isinstance(value, str) else value

    fields = {name: changed(value) for name, value in msgspec.structs.asdict(record).items()}
    fields["detail"] = {changed(name): changed(value) for name, value in record.detail.items()}
    return AuditRecord(**fields)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + _CUT_MARK


def _repaired(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


# --- the schema -------------------------------------------------------------------------------------------


def outcomes() -> dict[str, str]:
    """Every outcome with its meaning: ``ok``, and each kind of the error tree."""
    found = {OK: "The call did what it says."}
    waiting: list[type[TensorWasmError]] = [TensorWasmError]
    while waiting:
        error = waiting.pop(0)
        # Later ones are further down in the tree and say more.
        if error.__module__ == TensorWasmError.__module__ and "kind" in vars(error) and error is not TensorWasmError:
            found[error.kind] = " ".join((error.__doc__ or "").partition("\n\n")[0].replace("``", "`").split())
        waiting += error.__subclasses__()
    return found


def schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a line: every field, event, outcome and member of ``detail``."""
    properties = dict(msgspec.json.schema(AuditRecord)["$defs"]["AuditRecord"]["properties"])
    for described in properties.values():
        described.pop("default", None)
    properties["event"] = _one_of(properties["event"], {event.name: event.meaning for event in EVENTS})
    properties["outcome"] = _one_of(properties["outcome"], outcomes())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A line of TensorWasm's audit log",
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
        "oneOf": [_event_schema(event) for event in EVENTS],
    }


def _one_of(described: Mapping[str, Any], meanings: Mapping[str, str]) -> dict[str, Any]:
    choices = [{"const": name, "description": meaning} for name, meaning in meanings.items()]
    return {"description": described["description"], "oneOf": choices}


def _event_schema(event: Event) -> dict[str, Any]:
    """What lines of one event have in ``resource`` and ``detail``."""
    members = {
        row.name: {"type": types if len(types := row.type.split("|")) > 1 else row.type, "description": row.description}
        for row in (*event.detail, RETRY_AFTER)
    }
    resource = {"description": f"Id of {event.resource}."} if event.resource else {"type": "null"}
    return {
        "properties": {
            "event": {"const": event.name},
            "resource": resource,
            "detail": {"type": "object", "properties": members, "additionalProperties": False},
        }
    }
