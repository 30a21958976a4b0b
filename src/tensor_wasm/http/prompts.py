"""What a guest that answers for a model reads as its input: lines of parameters, an empty line, and the prompt.

A line is a name, a colon, a space and a value; the lines are always there, in this order. Numbers have no exponent,
lists are JSON without line breaks. The prompt is all the rest, as UTF-8: of a chat, its messages in the default
template.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from tensor_wasm.http import wire_openai
from tensor_wasm.http.wire import encode
from tensor_wasm.http.wire_openai import ChatCompletionRequest, CompletionRequest

_SEED_BITS = 31


@dataclass(frozen=True, slots=True)
class Prompt:
    """A guest's input, and what of the request bounds its answer. A token is a character."""

    input: bytes
    prompt_tokens: int
    tokens_max: int
    stops: Sequence[str]


def render(messages: Sequence[tuple[str, str]]) -> str:
    """Messages as the default template has them: ``<|role|>``, a line with what is said, and whose turn it is."""
    said = "".join(f"<|{role}|>\n{text}\n" for role, text in messages)
    return f"{said}<|assistant|>\n"


def of_completion(request: CompletionRequest) -> Prompt:
    """Raises :class:`~tensor_wasm.http.wire_openai.InvalidParameter`."""
    tokens_max = request.max_tokens or wire_openai.COMPLETION_TOKENS
    return _prompt("completions", request, tokens_max, wire_openai.prompt_of(request), [])


def of_chat(request: ChatCompletionRequest) -> Prompt:
    """Raises :class:`~tensor_wasm.http.wire_openai.InvalidParameter`."""
    tokens_max = request.max_completion_tokens or request.max_tokens or wire_openai.TOKENS_MAX
    messages = wire_openai.messages_of(request)
    listed = encode([{"role": role, "content": text} for role, text in messages])
    return _prompt("chat.completions", request, tokens_max, render(messages), [b"messages: " + listed])


def _prompt(
    endpoint: str,
    request: CompletionRequest | ChatCompletionRequest,
    tokens_max: int,
    prompt: str,
    more: Sequence[bytes],
) -> Prompt:
    stops = wire_openai.stops(request)
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
    return Prompt(b"\n".join(lines), len(prompt), tokens_max, stops)


def _number(value: float | None, usual: float) -> bytes:
    return f"{usual if value is None else value:.6f}".encode()
