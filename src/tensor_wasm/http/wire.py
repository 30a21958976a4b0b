"""What requests and answers look like as JSON. The API's description is generated from these types."""

from __future__ import annotations

import binascii
import math
import re
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from tensor_wasm.errors import InvalidArguments, InvalidBase64, InvalidJson, TooManyArguments
from tensor_wasm.node import Function, InvocationResult

_Base64 = Annotated[str, msgspec.Meta(extra_json_schema={"contentEncoding": "base64"})]
_Argument = Annotated[
    int | float | str,
    msgspec.Meta(description='A number, exact at any size; or one of the strings "NaN", "Infinity", "-Infinity".'),
]
#: A tenant as the API's description gives it.
Tenant = Annotated[int, msgspec.Meta(ge=0, extra_json_schema={"format": "uint64"})]


class DeployRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A module to deploy. The same can be sent raw as `application/wasm`, with the name in the query."""

    name: str
    wasm_b64: _Base64


class InvokeRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What to call. `export` defaults to `run`, then `_start`; `deadline_ms` to the node's longest."""

    export: str | None = None
    args: list[_Argument] = []
    input_b64: _Base64 | None = None
    deadline_ms: int | None = None


class Deployed(msgspec.Struct):
    """A function that was deployed."""

    id: str


class ExportDescription(msgspec.Struct):
    """An exported function, with WebAssembly's names of types."""

    name: str
    parameters: Sequence[str]
    results: Sequence[str]


class ImportDescription(msgspec.Struct):
    """A function that the module imports."""

    module: str
    name: str


class FunctionDescription(msgspec.Struct):
    """A deployed function. `digest` is the BLAKE3 of the module, `created_at` in seconds since 1970.

    `memory_pages` is the size of its memory at the start, in pages of 64 KiB.
    """

    id: str
    name: str
    tenant: Tenant
    digest: str
    size_bytes: int
    created_at: float
    exports: Sequence[ExportDescription]
    imports: Sequence[ImportDescription]
    memory_pages: int


class FunctionList(msgspec.Struct):
    """A page of functions, oldest first. `next`, when not null, goes into `after` for the following page."""

    functions: list[FunctionDescription]
    next: str | None


class Invoked(msgspec.Struct, omit_defaults=True):
    """An invocation that returned: `result` is "ok", or the list of the export's values."""

    result: str | list[_Argument]
    function_id: str
    instance_id: str
    duration_ms: float
    launches: int
    stdout: str = ""
    stderr: str = ""
    dropped_output_bytes: int = 0


class Health(msgspec.Struct):
    """The process answers."""

    status: str


class Readiness(msgspec.Struct):
    """Whether the node should get work; `reasons` says why not."""

    status: str
    reasons: list[str]


class ErrorBody(msgspec.Struct):
    """`kind` is part of the contract, `message` is for people."""

    kind: str
    message: str
    request_id: str


class ErrorAnswer(msgspec.Struct):
    """Every answer that is not 2xx."""

    error: ErrorBody


_ENCODER = msgspec.json.Encoder()
encode = _ENCODER.encode

_deploy_decoder = msgspec.json.Decoder(DeployRequest)
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

#: No function takes more arguments. Counted before they are decoded: a number such as 1e308 takes 13 µs, in which
#: nothing else of the node runs, and a body has room for ten million of them.
_ARGUMENTS_MAX = 1_000
_ARGUMENTS_MAX_BYTES = 64 * 1024

#: Base64 is decoded in pieces: a piece holds the GIL, and with it the event loop, for less than a millisecond.
_BASE64_PIECE = 1 << 20
_MESSAGE_MAX = 300
_OUT_OF_RANGE = re.compile(r"out of range - at `\$\.args\[(\d+)\]`")


def decode_deploy(body: bytes) -> DeployRequest:
    """Raises :class:`InvalidJson` which says where."""
    try:
        return _deploy_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise invalid_json(error) from None


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
    if count > _ARGUMENTS_MAX:
        raise TooManyArguments(f"{count} arguments were given: no function takes more than {_ARGUMENTS_MAX}")
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
    )
