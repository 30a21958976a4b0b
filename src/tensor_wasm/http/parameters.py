"""Reading requests of OpenAI's: what is wrong with a parameter is told as its API tells it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from tensor_wasm.errors import InvalidJson
from tensor_wasm.http.wire import invalid_json
from tensor_wasm.http.wire_openai import (
    MESSAGES_MAX,
    ROLES,
    SEED_MAX,
    SEED_MIN,
    STOP_CHARACTERS_MAX,
    STOPS_MAX,
    TEMPERATURE_MAX,
    TOKENS_MAX,
    ChatCompletionRequest,
    CompletionRequest,
    ContentPart,
    InvalidParameter,
    Parameters,
)

_Request = TypeVar("_Request", bound=Parameters)
_UNKNOWN = re.compile(r"unknown field `(.*?)`")
_PLACE = re.compile(r"at `\$\.(\w+)")
_NAME_SHOWN = 64

#: Parameters of OpenAI's that would change the answer, and their values that do not.
_UNSUPPORTED: Sequence[tuple[str, Sequence[object]]] = (
    ("logit_bias", ({},)),
    ("best_of", (1,)),
    ("echo", (False,)),
    ("logprobs", (False, 0)),
    ("top_logprobs", (0,)),
    ("suffix", ("",)),
    ("modalities", (["text"],)),
    ("tools", ([],)),
    ("tool_choice", ("none", "auto")),
    ("functions", ([],)),
    ("function_call", ("none", "auto")),
    ("audio", ()),
    ("web_search_options", ()),
)


def _decode(decoder: msgspec.json.Decoder[_Request], body: bytes) -> _Request:
    try:
        request = decoder.decode(body or b"{}")
    except msgspec.ValidationError as error:
        raise _invalid(str(invalid_json(error))) from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidJson(f"the body cannot be read as JSON: {invalid_json(error)}") from None
    _check(request)
    return request


def _invalid(text: str) -> InvalidParameter:
    """What the decoder found wrong with one of the parameters."""
    unknown = _UNKNOWN.search(text)
    if unknown is not None and "at `$" not in text:
        name = unknown[1][:_NAME_SHOWN]
        return InvalidParameter(f"Unrecognized request argument supplied: {name}", name, "unknown_parameter")
    missing = re.search(r"missing required field `(\w+)`", text)
    if missing is not None and "at `$" not in text:
        return InvalidParameter(f"you must provide {missing[1]}", missing[1], "missing_required_parameter")
    place = _PLACE.search(text)
    return InvalidParameter(text, None if place is None else place[1], "invalid_type")


def _check(request: Parameters) -> None:
    """Refuse values that are out of range, and what this node cannot do. Raises :class:`InvalidParameter`."""
    for name, low, high in (
        ("max_tokens", 1, TOKENS_MAX),
        ("max_completion_tokens", 1, TOKENS_MAX),
        ("temperature", 0, TEMPERATURE_MAX),
        ("top_p", 0, 1),
        ("seed", SEED_MIN, SEED_MAX),
        ("frequency_penalty", -2, 2),
        ("presence_penalty", -2, 2),
    ):
        value = getattr(request, name, None)
        if value is not None and not low <= value <= high:
            raise InvalidParameter(f"{name} must be from {low} to {high}", name, "invalid_value")
    if request.n not in (None, 1):
        raise InvalidParameter("n must be 1: one answer is given for a request", "n", "unsupported_value")
    if request.stream_options is not None and not request.stream:
        raise InvalidParameter("stream_options is only for answers with stream set to true", "stream_options")
    for name, harmless in _UNSUPPORTED:
        value = getattr(request, name, None)
        if value is not None and value not in harmless:
            raise InvalidParameter(f"{name} is not supported here", name, "unsupported_parameter")
    form = request.response_format if isinstance(request, ChatCompletionRequest) else None
    if form is not None and form.type != "text":
        raise InvalidParameter("response_format must be text", "response_format", "unsupported_value")
    stops(request)


def stops(request: Parameters) -> list[str]:
    """The texts before which the answer ends. Raises :class:`InvalidParameter`."""
    given = request.stop
    found = [] if given is None else [given] if isinstance(given, str) else given
    if len(found) > STOPS_MAX:
        raise InvalidParameter(f"stop has {len(found)} sequences: at most {STOPS_MAX}", "stop", "invalid_value")
    if not all(0 < len(text) <= STOP_CHARACTERS_MAX for text in found):
        raise InvalidParameter(f"a stop sequence has 1 to {STOP_CHARACTERS_MAX} characters", "stop", "invalid_value")
    return list(found)


def prompt_of(request: CompletionRequest) -> str:
    """The text to go on with. Raises :class:`InvalidParameter`."""
    prompt = request.prompt
    if isinstance(prompt, list):
        if len(prompt) != 1:
            raise InvalidParameter("prompt must be one text: send a request for each", "prompt", "unsupported_value")
        return prompt[0]
    return prompt or ""


def messages_of(request: ChatCompletionRequest) -> list[tuple[str, str]]:
    """Role and text of each message. Raises :class:`InvalidParameter`."""
    if not 0 < len(request.messages) <= MESSAGES_MAX:
        raise InvalidParameter(f"messages must be 1 to {MESSAGES_MAX}", "messages", "invalid_value")
    found = []
    for number, message in enumerate(request.messages):
        place = f"messages[{number}]"
        if message.role not in ROLES:
            raise InvalidParameter(
                f"{place}.role must be one of {', '.join(ROLES)}", f"{place}.role", "unsupported_value"
            )
        if message.tool_calls:
            raise InvalidParameter("tools are not supported here", f"{place}.tool_calls", "unsupported_parameter")
        found.append((message.role, _text(message.content, f"{place}.content")))
    return found


def _text(content: str | list[ContentPart] | None, place: str) -> str:
    if not isinstance(content, list):
        return content or ""
    if any(part.type != "text" for part in content):
        raise InvalidParameter("only parts of type text are supported here", place, "unsupported_value")
    return "".join(part.text or "" for part in content)


_completion_decoder = msgspec.json.Decoder(CompletionRequest)
_chat_decoder = msgspec.json.Decoder(ChatCompletionRequest)


def decode_completion(body: bytes) -> CompletionRequest:
    """Raises :class:`InvalidParameter`, :class:`InvalidJson`."""
    return _decode(_completion_decoder, body)


def decode_chat(body: bytes) -> ChatCompletionRequest:
    """Raises :class:`InvalidParameter`, :class:`InvalidJson`."""
    return _decode(_chat_decoder, body)
