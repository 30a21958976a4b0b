"""What requests and answers look like as JSON. The API's description is generated from these types."""

from __future__ import annotations

import binascii
import math
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

import msgspec

from tensor_wasm.errors import InvalidArguments, InvalidBase64, InvalidJson, TooManyArguments
from tensor_wasm.node import Function, InvocationResult
from tensor_wasm.tenancy import TENANT_MAX

#: No function takes more arguments. Counted before they are decoded: a number such as 1e308 takes 13 µs, in which
#: nothing else of the node runs, and a body has room for ten million of them.
ARGUMENTS_MAX = 1_000
#: What names and base64 look like, for the API's description; the node and :func:`decode_base64` check them.
NAME_PATTERN = "^[A-Za-z0-9._-]{1,128}$"
BASE64_PATTERN = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"


def told(description: str, **schema: object) -> msgspec.Meta:
    """What the API's description says of a field. ``schema`` is only said: nothing is checked by it here."""
    return msgspec.Meta(description=description, extra_json_schema=schema)


_SpecialNumber = Annotated[str, told("What JSON has no number for.", enum=["NaN", "Infinity", "-Infinity"])]
_Argument = Annotated[
    int | float | _SpecialNumber,
    told('A number, exact at any size; or one of the strings "NaN", "Infinity", "-Infinity".'),
]
#: A tenant as the API's description gives it.
Tenant = Annotated[
    int,
    msgspec.Meta(
        ge=0,
        description="The tenant, an unsigned 64-bit number.",
        extra_json_schema={"format": "uint64", "maximum": TENANT_MAX},
    ),
]
Seconds = Annotated[float, told("When it was made, in seconds since 1970.")]
FunctionId = Annotated[str, told("The function's id.", format="uuid")]
InstanceId = Annotated[str, told("The instance's id.", format="uuid")]
FunctionName = Annotated[str, told("The function's name. Several may have the same.", pattern=NAME_PATTERN)]


_Request = TypeVar("_Request")


class FunctionSettings(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """How a function runs."""

    prewarm: Annotated[
        str | None,
        told("An export without parameters that is run once, now: every instance starts from the state at its end."),
    ] = None


class DeployRequest(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A module to deploy. The same can be sent raw as `application/wasm`, with the name in the query."""

    name: FunctionName
    wasm_b64: Annotated[
        str, told("The module, in base64.", contentEncoding="base64", contentMediaType="application/wasm")
    ]
    settings: Annotated[FunctionSettings | None, told("How it runs; the usual way when left out.")] = None


class InvokeRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What to call."""

    export: Annotated[str | None, told("The exported function to call; `run`, else `_start`, when null.")] = None
    args: Annotated[
        list[_Argument], told("Its arguments; each becomes the type that the export declares.", maxItems=ARGUMENTS_MAX)
    ] = []
    input_b64: Annotated[
        str | None,
        told("Bytes for the guest's `read-input`, in base64.", contentEncoding="base64", pattern=BASE64_PATTERN),
    ] = None
    deadline_ms: Annotated[
        int | None,
        told(
            "Ends the call after so many milliseconds; at most, and when null, the node's"
            " `TENSOR_WASM_INVOKE_DEADLINE_S`.",
            minimum=1,
        ),
    ] = None


class Deployed(msgspec.Struct):
    """A function that was deployed."""

    id: FunctionId


class ExportDescription(msgspec.Struct):
    """An exported function, with WebAssembly's names of types."""

    name: Annotated[str, told("Its name.")]
    parameters: Annotated[Sequence[str], told("Types of its parameters: `i32`, `i64`, `f32`, `f64`, `v128` …")]
    results: Annotated[Sequence[str], told("Types of its results.")]


class ImportDescription(msgspec.Struct):
    """A function that the module imports."""

    module: Annotated[str, told("The module it comes from, such as `wasi:cuda/host@0.2.0`.")]
    name: Annotated[str, told("Its name there.")]


class FunctionDescription(msgspec.Struct):
    """A deployed function."""

    id: FunctionId
    name: FunctionName
    tenant: Tenant
    digest: Annotated[str, told("BLAKE3 of the module, in hexadecimal.", pattern="^[0-9a-f]{64}$")]
    size_bytes: Annotated[int, told("Size of the module.", minimum=0)]
    created_at: Annotated[float, told("When it was deployed, in seconds since 1970.")]
    exports: Annotated[Sequence[ExportDescription], told("The functions it exports.")]
    imports: Annotated[Sequence[ImportDescription], told("The functions it imports.")]
    memory_pages: Annotated[int, told("Size of its memory at the start, in pages of 64 KiB.", minimum=0)]
    settings: Annotated[FunctionSettings, told("How it runs.")]


class FunctionList(msgspec.Struct):
    """A page of functions, oldest first."""

    functions: Annotated[list[FunctionDescription], told("The functions of this page.")]
    next: Annotated[str | None, told("Goes into `after` for the following page; null on the last one.", format="uuid")]


class Invoked(msgspec.Struct, omit_defaults=True):
    """An invocation that returned."""

    result: Annotated[
        Annotated[str, told("The export returns nothing.", enum=["ok"])] | list[_Argument],
        told('"ok" for an export that returns nothing, else the list of its values.'),
    ]
    function_id: FunctionId
    instance_id: Annotated[str, told("The id of the instance that ran it.", format="uuid")]
    duration_ms: Annotated[float, told("How long it ran, in milliseconds.", minimum=0)]
    launches: Annotated[int, told("Kernels it launched.", minimum=0)]
    stdout: Annotated[str, told("What the guest wrote to its standard output; left out when nothing.")] = ""
    stderr: Annotated[str, told("What the guest wrote to its standard error; left out when nothing.")] = ""
    dropped_output_bytes: Annotated[
        int, told("Bytes of output beyond what is kept; left out when none.", minimum=0)
    ] = 0


class StreamEvent(msgspec.Struct):
    """A Server-Sent Event of an answer that streams: chunks, then `done` or `error`."""

    event: Annotated[str, told("What it is.", enum=["chunk", "done", "error"])]
    data: Annotated[
        str,
        told(
            'JSON: `{"chunk_b64": …}` with the bytes that the guest emitted, an `Invoked`, or an `ErrorAnswer`.',
            contentMediaType="application/json",
        ),
    ]


class Health(msgspec.Struct):
    """The process answers."""

    status: Annotated[str, told("Always `ok`.", enum=["ok"])]


class Readiness(msgspec.Struct):
    """The node may get work."""

    status: Annotated[str, told("Always `ready`.", enum=["ready"])]
    reasons: Annotated[list[str], told("Why changes fail while invocations go on: a full disk. Else empty.")]


class ErrorBody(msgspec.Struct):
    """`kind` is part of the contract, `message` is for people."""

    kind: Annotated[str, told("What happened, for programs; each answer of an operation lists those it may have.")]
    message: Annotated[str, told("The same for people, and what to change. May change between releases.")]
    request_id: Annotated[str, told("As `X-Request-Id`: the node's log has it.")]


class ErrorAnswer(msgspec.Struct):
    """Every answer that is not 2xx."""

    error: Annotated[ErrorBody, told("What happened.")]


_ENCODER = msgspec.json.Encoder()
encode = _ENCODER.encode

_invoke_decoder = msgspec.json.Decoder(InvokeRequest)
_arguments_decoder = msgspec.json.Decoder(list[_Argument])


class _InvokeEnvelope(msgspec.Struct, forbid_unknown_fields=True):
    """An :class:`InvokeRequest` whose arguments were only passed over."""

    export: str | None = None
    args: msgspec.Raw = msgspec.Raw(b"[]")
    input_b64: str | None = None
    deadline_ms: int | None = None


_envelope_decoder = msgspec.json.Decoder(_InvokeEnvelope)
#: In so few bytes no arguments take long to decode.
_SMALL_BYTES = 4096

_ARGUMENTS_MAX_BYTES = 64 * 1024

#: Base64 is decoded in pieces: a piece holds the GIL, and with it the event loop, for less than a millisecond.
_BASE64_PIECE = 1 << 20
_MESSAGE_MAX = 300
_OUT_OF_RANGE = re.compile(r"out of range - at `\$\.args\[(\d+)\]`")


def decoder(kind: type[_Request], empty: bytes = b"") -> Callable[[bytes], _Request]:
    """What decodes bodies of a kind, and raises :class:`InvalidJson` which says where. ``empty`` stands for no body."""
    decode = msgspec.json.Decoder(kind).decode

    def decoded(body: bytes) -> _Request:
        try:
            return decode(body or empty)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise invalid_json(error) from None

    return decoded


decode_deploy = decoder(DeployRequest)


def decode_invoke(body: bytes) -> InvokeRequest:
    """Raises :class:`InvalidJson` which says where; :class:`InvalidArguments` for a number that no type holds."""
    try:
        if len(body) <= _SMALL_BYTES:
            return _invoke_decoder.decode(body) if body else InvokeRequest()
        envelope = _envelope_decoder.decode(body)
        return InvokeRequest(envelope.export, _arguments(envelope.args), envelope.input_b64, envelope.deadline_ms)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        found = _OUT_OF_RANGE.search(str(error))
        if found is not None:
            raise InvalidArguments(f"argument {found[1]} is out of the range of every type") from None
        raise invalid_json(error) from None


def _arguments(raw: msgspec.Raw) -> list[Any]:
    size_bytes = memoryview(raw).nbytes
    if size_bytes > _ARGUMENTS_MAX_BYTES:
        raise TooManyArguments(f"the arguments have {size_bytes} bytes: at most {_ARGUMENTS_MAX_BYTES}")
    count = bytes(raw).count(b",") + 1
    if count > ARGUMENTS_MAX:
        raise TooManyArguments(f"{count} arguments were given: no function takes more than {ARGUMENTS_MAX}")
    try:
        return _arguments_decoder.decode(raw)
    except msgspec.ValidationError as error:
        text = str(error)
        found = "`$" in text
        raise msgspec.ValidationError(text.replace("`$", "`$.args") if found else f"{text} - at `$.args`") from None


def invalid_json(error: Exception) -> InvalidJson:
    """What the decoder found, in words."""
    if isinstance(error, UnicodeDecodeError):
        return InvalidJson("the body is not UTF-8: encode text as UTF-8, and bytes as base64")
    if isinstance(error, RecursionError):
        return InvalidJson("the body is nested too deeply")
    text = str(error)
    if len(text) > _MESSAGE_MAX:
        text = f"{text[: _MESSAGE_MAX // 2]} … {text[-_MESSAGE_MAX // 2 :]}"
    return InvalidJson(text)


def decode_base64(text: str, field: str) -> bytes:
    """The bytes of a ``*_b64`` field: the standard alphabet, padded, nothing else. Raises :class:`InvalidBase64`."""
    if len(text) % 4:
        raise InvalidBase64(f"{field}: {len(text)} characters are not a multiple of 4; is the padding (=) cut off?")
    pieces = []
    for start in range(0, len(text), _BASE64_PIECE):
        piece = text[start : start + _BASE64_PIECE]
        try:
            decoded = binascii.a2b_base64(piece, strict_mode=True)
        except ValueError:
            raise InvalidBase64(f"{field}: not base64 (A-Z a-z 0-9 + / with = at the end, no line breaks)") from None
        if start + _BASE64_PIECE < len(text) and len(decoded) * 4 != _BASE64_PIECE * 3:
            raise InvalidBase64(f"{field}: padding (=) before the end")
        pieces.append(decoded)
    # The library lets whole groups of padding pass.
    if text.endswith("==="):
        raise InvalidBase64(f"{field}: more padding (=) than base64 has")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def encode_invoked(result: InvocationResult) -> bytes:
    """The answer to an invocation that returned. Integers exactly, what is no finite number as a string."""
    values: list[Any] = result.results
    for value in values:
        if type(value) is float and not math.isfinite(value):
            values = [_special(value) for value in values]
            break
    return encode(
        Invoked(
            values or "ok",
            result.function_id,
            result.instance_id,
            round(result.duration_s * 1e3, 3),
            result.launches,
            result.stdout.decode("utf-8", "replace") if result.stdout else "",
            result.stderr.decode("utf-8", "replace") if result.stderr else "",
            result.dropped_output_bytes,
        )
    )


def _special(value: float) -> int | float | str:
    if isinstance(value, int) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def describe(function: Function) -> FunctionDescription:
    """A function as the API shows it."""
    return FunctionDescription(
        id=function.id,
        name=function.name,
        tenant=function.tenant,
        digest=function.digest,
        size_bytes=function.size_bytes,
        created_at=function.created_at,
        exports=[ExportDescription(e.name, e.parameters, e.results) for e in function.exports],
        imports=[ImportDescription(i.module, i.name) for i in function.imports],
        memory_pages=function.memory_pages,
        settings=FunctionSettings(function.prewarm),
    )
