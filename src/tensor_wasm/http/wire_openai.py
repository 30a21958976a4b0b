"""What requests, answers and errors of OpenAI's API look like as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from tensor_wasm.errors import RateLimited, RequestError, TensorWasmError, Unauthorized
from tensor_wasm.http.wire import encode, told
from tensor_wasm.node import MODEL_NAME_PATTERN

#: Longest request. Prompts are text; what is larger is not one.
BODY_BYTES_MAX = 4 << 20
#: Most tokens of one answer. A token is a character.
TOKENS_MAX = 1 << 20
#: What a completion has when it does not say: OpenAI's default is 16 of its tokens, some 64 characters.
COMPLETION_TOKENS = 64
STOPS_MAX = 4
STOP_CHARACTERS_MAX = 256
MESSAGES_MAX = 2048
TEMPERATURE_MAX = 2.0
#: A seed is a number of 64 bits with a sign.
SEED_MIN, SEED_MAX = -(1 << 63), (1 << 63) - 1

ROLES = ("system", "developer", "user", "assistant")


class InvalidParameter(RequestError):
    """A parameter of a request cannot be used: ``param`` names it, ``code`` is OpenAI's word for why."""

    def __init__(self, text: str, param: str | None, code: str | None = None) -> None:
        self.param = param
        self.code = code
        super().__init__(text)


# --- requests ---------------------------------------------------------------------------------------------

_ModelName = Annotated[
    str, told("A model of the tenant; `GET /v1/models` lists them.", pattern=f"^{MODEL_NAME_PATTERN}$")
]
_Stop = Annotated[
    str | list[str] | None,
    told(f"Up to {STOPS_MAX} texts of at most {STOP_CHARACTERS_MAX} characters. The answer ends before the first."),
]
_NotTaken = "Not supported: only the value that changes nothing is taken."
_PassedOver = "Taken and passed over."


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    """How an answer is streamed."""

    include_usage: Annotated[bool | None, told("Whether a last chunk has the usage.")] = None
    include_obfuscation: Annotated[bool | None, told(_PassedOver)] = None


class Parameters(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What both kinds of request have."""

    model: _ModelName
    max_tokens: Annotated[int | None, told("Most tokens to answer. A token is a character.", minimum=1)] = None
    temperature: Annotated[float | None, told("0 to 2; 1 when null.", minimum=0, maximum=2)] = None
    top_p: Annotated[float | None, told("0 to 1; 1 when null.", minimum=0, maximum=1)] = None
    stop: _Stop = None
    seed: Annotated[int | None, told("A number of 64 bits with a sign; drawn by the node when null.")] = None
    stream: Annotated[bool | None, told("Whether to answer in Server-Sent Events.")] = None
    stream_options: Annotated[StreamOptions | None, told("Only with `stream`.")] = None
    n: Annotated[int | None, told("Answers to give: 1.", minimum=1, maximum=1)] = None
    frequency_penalty: Annotated[float | None, told("-2 to 2; the guest is told.", minimum=-2, maximum=2)] = None
    presence_penalty: Annotated[float | None, told("-2 to 2; the guest is told.", minimum=-2, maximum=2)] = None
    logit_bias: Annotated[dict[str, float] | None, told(_NotTaken)] = None
    user: Annotated[str | None, told(_PassedOver)] = None


class CompletionRequest(Parameters, forbid_unknown_fields=True, kw_only=True):
    """Text to go on with."""

    prompt: Annotated[str | list[str] | None, told("The text, or a list of one.")] = None
    best_of: Annotated[int | None, told(_NotTaken)] = None
    echo: Annotated[bool | None, told(_NotTaken)] = None
    logprobs: Annotated[int | None, told(_NotTaken)] = None
    suffix: Annotated[str | None, told(_NotTaken)] = None


class ContentPart(msgspec.Struct):
    """A part of a message; only text is taken."""

    type: Annotated[str, told("`text`.", enum=["text"])]
    text: Annotated[str | None, told("The text.")] = None


class Message(msgspec.Struct):
    """A message of a chat."""

    role: Annotated[str, told("Who says it.", enum=list(ROLES))]
    content: Annotated[str | list[ContentPart] | None, told("What is said.")] = None
    name: Annotated[str | None, told(_PassedOver)] = None
    tool_calls: Annotated[list[Any] | None, told(_NotTaken)] = None


class ResponseFormat(msgspec.Struct):
    """The form of an answer."""

    type: Annotated[str, told("`text`.", enum=["text"])]


class ChatCompletionRequest(Parameters, forbid_unknown_fields=True, kw_only=True):
    """A chat to answer."""

    messages: Annotated[list[Message], told("What was said until now.", minItems=1, maxItems=MESSAGES_MAX)]
    max_completion_tokens: Annotated[int | None, told("As `max_tokens`, and goes before it.", minimum=1)] = None
    logprobs: Annotated[bool | None, told(_NotTaken)] = None
    top_logprobs: Annotated[int | None, told(_NotTaken)] = None
    response_format: Annotated[ResponseFormat | None, told("Only `text`.")] = None
    modalities: Annotated[list[str] | None, told('Only `["text"]`.')] = None
    tools: Annotated[list[Any] | None, told(_NotTaken)] = None
    tool_choice: Annotated[Any, told(_NotTaken)] = None
    functions: Annotated[list[Any] | None, told(_NotTaken)] = None
    function_call: Annotated[Any, told(_NotTaken)] = None
    audio: Annotated[Any, told(_NotTaken)] = None
    web_search_options: Annotated[Any, told(_NotTaken)] = None
    parallel_tool_calls: Annotated[bool | None, told(_PassedOver)] = None
    prediction: Annotated[Any, told(_PassedOver)] = None
    reasoning_effort: Annotated[str | None, told(_PassedOver)] = None
    verbosity: Annotated[str | None, told(_PassedOver)] = None
    store: Annotated[bool | None, told(_PassedOver)] = None
    metadata: Annotated[dict[str, str] | None, told(_PassedOver)] = None
    service_tier: Annotated[str | None, told(_PassedOver)] = None
    safety_identifier: Annotated[str | None, told(_PassedOver)] = None
    prompt_cache_key: Annotated[str | None, told(_PassedOver)] = None
    prompt_cache_retention: Annotated[str | None, told(_PassedOver)] = None


# --- answers ----------------------------------------------------------------------------------------------


class Usage(msgspec.Struct):
    """Counts of characters."""

    prompt_tokens: Annotated[int, told("Of the prompt, as the guest got it.", minimum=0)]
    completion_tokens: Annotated[int, told("Of the answer.", minimum=0)]
    total_tokens: Annotated[int, told("Of both.", minimum=0)]


_Object = Annotated[str, told("What this is.")]
_Identity = Annotated[str, told("An id of this answer.")]
_Created = Annotated[int, told("When it was begun, in seconds since 1970.")]
_Fingerprint = Annotated[
    str, told("Changes with the function's module: the same seed may give another answer from then on.")
]
_Finish = Annotated[
    str | None,
    told(
        "`stop`: the guest ended, or a stop sequence came; `length`: `max_tokens` were there; null while it goes on.",
        enum=["stop", "length", None],
    ),
]


class CompletionChoice(msgspec.Struct):
    """The text that follows."""

    text: Annotated[str, told("The text, or its next part.")]
    finish_reason: _Finish
    index: Annotated[int, told("Always 0.")] = 0
    logprobs: Annotated[None, told("Always null.")] = None


class Completion(msgspec.Struct, omit_defaults=True):
    """A completion, or with `stream` a part of one."""

    id: _Identity
    object: _Object
    created: _Created
    model: _ModelName
    choices: Annotated[list[CompletionChoice], told("One; none in the chunk that has the usage.")]
    system_fingerprint: _Fingerprint
    usage: Annotated[Usage | msgspec.UnsetType | None, told("How much it was.")] = msgspec.UNSET


class ChatMessage(msgspec.Struct):
    """What the model says."""

    content: Annotated[str, told("The text.")]
    role: Annotated[str, told("Always `assistant`.")] = "assistant"
    refusal: Annotated[None, told("Always null.")] = None


class ChatChoice(msgspec.Struct):
    """The answer to a chat."""

    message: Annotated[ChatMessage, told("The answer.")]
    finish_reason: _Finish
    index: Annotated[int, told("Always 0.")] = 0
    logprobs: Annotated[None, told("Always null.")] = None


class ChatCompletion(msgspec.Struct):
    """An answer to a chat."""

    id: _Identity
    created: _Created
    model: _ModelName
    choices: Annotated[list[ChatChoice], told("One.")]
    usage: Annotated[Usage, told("How much it was.")]
    system_fingerprint: _Fingerprint
    object: _Object = "chat.completion"


class ChatDelta(msgspec.Struct, omit_defaults=True):
    """The next part of an answer."""

    role: Annotated[str | msgspec.UnsetType, told("In the first chunk.")] = msgspec.UNSET
    content: Annotated[str | msgspec.UnsetType, told("More text.")] = msgspec.UNSET


class ChatChunkChoice(msgspec.Struct):
    """A part of the answer to a chat."""

    delta: Annotated[ChatDelta, told("What is new.")]
    finish_reason: _Finish
    index: Annotated[int, told("Always 0.")] = 0
    logprobs: Annotated[None, told("Always null.")] = None


class ChatCompletionChunk(msgspec.Struct, omit_defaults=True):
    """A part of an answer to a chat."""

    id: _Identity
    object: _Object
    created: _Created
    model: _ModelName
    choices: Annotated[list[ChatChunkChoice], told("One; none in the chunk that has the usage.")]
    system_fingerprint: _Fingerprint
    usage: Annotated[Usage | msgspec.UnsetType | None, told("How much it was.")] = msgspec.UNSET


class ModelObject(msgspec.Struct):
    """A model."""

    id: _ModelName
    created: Annotated[int, told("When it was bound, in seconds since 1970.")]
    owned_by: Annotated[str, told("`tenant-` and the tenant's number.")]
    object: _Object = "model"


class ModelObjects(msgspec.Struct):
    """The tenant's models."""

    data: Annotated[list[ModelObject], told("The models.")]
    object: _Object = "list"


class OpenAIError(msgspec.Struct):
    """What happened, as OpenAI's API tells it."""

    message: Annotated[str, told("For people. May change between releases.")]
    type: Annotated[
        str,
        told(
            "Whose matter it is.",
            enum=["invalid_request_error", "requests", "server_error"],
        ),
    ]
    param: Annotated[str | None, told("The parameter it is about.")]
    code: Annotated[
        str | None,
        told("For programs: the kind that other routes have in `kind`, where OpenAI has no word of its own."),
    ]


class OpenAIErrorAnswer(msgspec.Struct):
    """Every answer under `/v1` that is not 2xx."""

    error: Annotated[OpenAIError, told("What happened.")]


class DataEvent(msgspec.Struct):
    """A Server-Sent Event of an answer that streams."""

    data: Annotated[
        str, told("JSON of a chunk, or of an `OpenAIErrorAnswer`, which ends the stream; else `[DONE]` does.")
    ]


#: OpenAI's own words for what its clients know.
_CODES: Mapping[str, str] = {Unauthorized.kind: "invalid_api_key", RateLimited.kind: "rate_limit_exceeded"}


def speaks(path: str) -> bool:
    """Whether a path is one of OpenAI's, where errors have its shape."""
    return path.startswith("/v1/")


def error(kind: str, message: str, status: int, failure: TensorWasmError | None = None) -> OpenAIErrorAnswer:
    """An error in OpenAI's shape."""
    code: str | None = _CODES.get(kind, kind)
    param = None
    if isinstance(failure, InvalidParameter):
        param, code = failure.param, failure.code
    elif kind == "model_not_found":
        param = "model"
    elif kind == RequestError.kind:
        code = None
    name = "server_error" if status >= 500 else "requests" if status == 429 else "invalid_request_error"
    return OpenAIErrorAnswer(OpenAIError(message, name, param, code))


def error_body(kind: str, message: str, status: int, failure: TensorWasmError | None = None) -> bytes:
    """The body of an answer under ``/v1`` that is not 2xx."""
    return encode(error(kind, message, status, failure))
