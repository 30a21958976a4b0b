"""How an answer of OpenAI's routes is told: as a whole, or in chunks."""

from __future__ import annotations

import time
import uuid

from tensor_wasm.http import wire_openai
from tensor_wasm.http.wire import encode
from tensor_wasm.node import Model

DONE = b"data: [DONE]\n\n"
_FINGERPRINT_DIGITS = 10


class Voice:
    """How one answer is told: as a whole, or in chunks. The subclasses are the two kinds of answers."""

    prefix: str

    def __init__(self, model: Model, *, tells_usage: bool) -> None:
        self._identity = f"{self.prefix}-{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._model = model.name
        self._fingerprint = f"fp_{(model.digest or '')[:_FINGERPRINT_DIGITS]}"
        self._tells_usage = tells_usage

    def whole(self, text: str, finish: str | None, usage: wire_openai.Usage) -> bytes:
        """The answer in one piece."""
        raise NotImplementedError

    def first(self) -> bytes:
        """What comes before the first part."""
        return b""

    def part(self, text: str, finish: str | None = None) -> bytes:
        """More text, or why there is no more."""
        raise NotImplementedError

    def last(self, usage: wire_openai.Usage) -> bytes:
        """What comes after the last part."""
        raise NotImplementedError


class CompletionVoice(Voice):
    """Of ``/v1/completions``."""

    prefix = "cmpl"

    def whole(self, text: str, finish: str | None, usage: wire_openai.Usage) -> bytes:
        """The answer in one piece."""
        return encode(self._completion([wire_openai.CompletionChoice(text, finish)], usage))

    def part(self, text: str, finish: str | None = None) -> bytes:
        """More text, or why there is no more."""
        return _event(self._completion([wire_openai.CompletionChoice(text, finish)], None))

    def last(self, usage: wire_openai.Usage) -> bytes:
        """What comes after the last part."""
        return (_event(self._completion([], usage)) if self._tells_usage else b"") + DONE

    def _completion(
        self, choices: list[wire_openai.CompletionChoice], usage: wire_openai.Usage | None
    ) -> wire_openai.Completion:
        answer = wire_openai.Completion(
            self._identity, "text_completion", self._created, self._model, choices, self._fingerprint
        )
        if usage is not None or self._tells_usage:
            answer.usage = usage
        return answer


class ChatVoice(Voice):
    """Of ``/v1/chat/completions``."""

    prefix = "chatcmpl"

    def whole(self, text: str, finish: str | None, usage: wire_openai.Usage) -> bytes:
        """The answer in one piece."""
        choices = [wire_openai.ChatChoice(wire_openai.ChatMessage(text), finish)]
        return encode(
            wire_openai.ChatCompletion(self._identity, self._created, self._model, choices, usage, self._fingerprint)
        )

    def first(self) -> bytes:
        """What comes before the first part: who speaks."""
        return self._chunk(wire_openai.ChatDelta("assistant", ""), None)

    def part(self, text: str, finish: str | None = None) -> bytes:
        """More text, or why there is no more."""
        return self._chunk(wire_openai.ChatDelta(content=text) if text else wire_openai.ChatDelta(), finish)

    def last(self, usage: wire_openai.Usage) -> bytes:
        """What comes after the last part."""
        return (_event(self._answer([], usage)) if self._tells_usage else b"") + DONE

    def _chunk(self, delta: wire_openai.ChatDelta, finish: str | None) -> bytes:
        return _event(self._answer([wire_openai.ChatChunkChoice(delta, finish)], None))

    def _answer(
        self, choices: list[wire_openai.ChatChunkChoice], usage: wire_openai.Usage | None
    ) -> wire_openai.ChatCompletionChunk:
        answer = wire_openai.ChatCompletionChunk(
            self._identity, "chat.completion.chunk", self._created, self._model, choices, self._fingerprint
        )
        if self._tells_usage:
            answer.usage = usage
        return answer


def _event(value: wire_openai.Completion | wire_openai.ChatCompletionChunk) -> bytes:
    return b"data: %b\n\n" % encode(value)
