"""What a guest that answers for a model reads as its input: lines of parameters, an empty line, and the prompt.

A line is a name, a colon, a space and a value; the lines are always there, in this order. Numbers have no exponent,
lists are JSON without line breaks. The prompt is all the rest, as UTF-8: of a chat, its messages in the default
template.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from tensor_wasm.http import parameters, wire_openai
from tensor_wasm.http.wire import encode
from tensor_wasm.http.wire_openai import ChatCompletionRequest, CompletionRequest

_SEED_BITS = 31


@dataclass(frozen=True, slots=True)
class Prompt:
    """A guest's input, and what else of a request counts. A token is a character."""

    model: str
    input: bytes
    prompt_tokens: int
    tokens_max: int
    stops: Sequence[str]
    is_streamed: bool
    tells_usage: bool


def render(messages: Sequence[tuple[str, str]]) -> str:
    """Messages as the default template has them: ``<|role|>``, a line with what is said, and whose turn it is."""
    said = "".join(f"<|{role}|>\n{text}\n" for role, text in messages)
    return f"{said}<|assistant|>\n"


def of_completion(body: bytes) -> Prompt:
    """Of a completion's request. Raises :class:`InvalidJson`, :class:`InvalidParameter`."""
    request = parameters.decode_completion(body)
    tokens_max = request.max_tokens or wire_openai.COMPLETION_TOKENS
    return _prompt("completions", request, tokens_max, parameters.prompt_of(request), [])


def of_chat(body: bytes) -> Prompt:
    """Of a chat's request. Raises as :func:`of_completion`."""
    request = parameters.decode_chat(body)
    tokens_max = request.max_completion_tokens or request.max_tokens or wire_openai.TOKENS_MAX
    messages = parameters.messages_of(request)
    listed = encode([{"role": role, "content": text} for role, text in messages])
    return _prompt("chat.completions", request, tokens_max, render(messages), [b"messages: " + listed])


def _prompt(
    endpoint: str,
    request: CompletionRequest | ChatCompletionRequest,
    tokens_max: int,
    prompt: str,
    more: Sequence[bytes],
) -> Prompt:
    stops = parameters.stops(request)
    seed = secrets.randbits(_SEED_BITS) if request.seed is None else request.seed
    lines = [
        f"endpoint: {endpoint}".encode(),
        f"model: {request.model}".encode(),
        f"max_tokens: {tokens_max}".encode(),
        b"temperature: " + _number(request.temperature, 1.0),
        b"top_p: " + _number(request.top_p, 1.0),
        f"seed: {seed}".encode(),
        b"frequency_penalty: " + _number(request.frequency_penalty, 0.0),
        b"presence_penalty: " + _number(request.presence_penalty, 0.0),
        b"stop: " + encode(stops),
        *more,
        b"",
        prompt.encode(),
    ]
    options = request.stream_options
    return Prompt(
        model=request.model,
        input=b"\n".join(lines),
        prompt_tokens=len(prompt),
        tokens_max=tokens_max,
        stops=stops,
        is_streamed=bool(request.stream),
        tells_usage=options is not None and bool(options.include_usage),
    )


def _number(value: float | None, usual: float) -> bytes:
    return f"{usual if value is None else value:.6f}".encode()
