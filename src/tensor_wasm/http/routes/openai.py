"""OpenAI's routes: completions, chats, models. A model is a name of the tenant's that a function answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from tensor_wasm.errors import (
    BodyTooLarge,
    Cancelled,
    CapacityExhausted,
    DeadlineExceeded,
    DeviceRestarting,
    GuestTrap,
    InvalidJson,
    MissingExport,
    ModelNotFound,
    NotFound,
    NotReady,
    QuotaExceeded,
    Saturated,
    TensorWasmError,
    Terminated,
    UnsupportedMediaType,
)
from tensor_wasm.http import examples, prompts, streaming, wire_openai
from tensor_wasm.http.generated import Generated
from tensor_wasm.http.media import JSON, media_type
from tensor_wasm.http.operations import Answer, Audience, Call, Example, Operation, StreamedAnswer
from tensor_wasm.http.prompts import Prompt
from tensor_wasm.http.refusals import told
from tensor_wasm.http.streaming import Chunks
from tensor_wasm.http.voices import DONE, ChatVoice, CompletionVoice, Voice
from tensor_wasm.http.wire import encode
from tensor_wasm.http.wire_openai import ChatCompletionRequest, CompletionRequest
from tensor_wasm.node import InvocationResult, Model, Node, Stream

#: Bodies up to this are decoded on the event loop, larger ones by another thread.
_SMALL_BYTES = 64 * 1024
_STREAM_HEADERS = ((b"cache-control", b"no-store"), (b"x-accel-buffering", b"no"))
_CALL_ERRORS: tuple[type[TensorWasmError], ...] = (
    ModelNotFound, InvalidJson, UnsupportedMediaType, BodyTooLarge, MissingExport, GuestTrap, DeadlineExceeded,
    Terminated, QuotaExceeded, Cancelled, Saturated, CapacityExhausted, NotReady, DeviceRestarting,
)  # fmt: skip


class OpenAI:
    """The handlers."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def complete(self, call: Call) -> Answer | StreamedAnswer:
        """POST /v1/completions."""
        prompt = await self._read(call, prompts.of_completion)
        return await self._answer(call, prompt, CompletionVoice)

    async def chat(self, call: Call) -> Answer | StreamedAnswer:
        """POST /v1/chat/completions."""
        prompt = await self._read(call, prompts.of_chat)
        return await self._answer(call, prompt, ChatVoice)

    async def list(self, call: Call) -> Answer:
        """GET /v1/models."""
        found = [model for model in self._node.models.list(call.tenant) if model.function_name is not None]
        return Answer(encode(wire_openai.ModelObjects([_describe(model) for model in found])))

    async def show(self, call: Call) -> Answer:
        """GET /v1/models/:model."""
        return Answer(encode(_describe(self._node.models.resolve(call.tenant, call.parameters["model"]))))

    async def _read(self, call: Call, read: Callable[[bytes], Prompt]) -> Prompt:
        media_type(call.headers, JSON)
        body = await call.body(wire_openai.BODY_BYTES_MAX)
        if len(body) <= _SMALL_BYTES:
            return read(body)
        return await self._node.intake.in_background(call.tenant, read, body)

    async def _answer(self, call: Call, prompt: Prompt, voice_of: type[Voice]) -> Answer | StreamedAnswer:
        model = self._node.models.resolve(call.tenant, prompt.model)
        call.resource = model.function_id
        voice = voice_of(model, tells_usage=prompt.tells_usage)
        generated = Generated(prompt.tokens_max, prompt.stops)
        chunks = Chunks(lambda stream: self._start(model, prompt, stream, call.tenant), call.receive)
        try:
            # What fails before the first chunk is an answer like any other.
            first = await anext(chunks, None)
            if prompt.is_streamed:
                body = _events(call, chunks, first, generated, voice, prompt)
                return StreamedAnswer(body, streaming.EVENT_STREAM, _STREAM_HEADERS, chunks.close)
            text = "".join([text async for text in _texts(chunks, first, generated)])
            await _end(call, chunks)
        except BaseException:
            await chunks.close()
            raise
        return Answer(voice.whole(text, generated.finish, _usage(prompt, generated)))

    async def _start(self, model: Model, prompt: Prompt, stream: Stream, tenant: int) -> InvocationResult:
        try:
            return await self._node.invocations.invoke_async(
                model.function_id, model.export, tenant=tenant, input=prompt.input, stream=stream
            )
        except NotFound:
            raise ModelNotFound("the model's function is not there any more") from None


async def _texts(chunks: Chunks, first: bytes | None, generated: Generated) -> AsyncIterator[str]:
    """The text of the answer in its parts. Raises what the invocation came to before the text had ended."""
    chunk = first
    while chunk is not None and generated.finish is None:
        if text := generated.take(chunk):
            yield text
        if generated.finish is None:
            chunk = await anext(chunks, None)
    if generated.finish is None and (text := generated.end()):
        yield text


async def _events(
    call: Call, chunks: Chunks, first: bytes | None, generated: Generated, voice: Voice, prompt: Prompt
) -> AsyncIterator[bytes]:
    try:
        if before := voice.first():
            yield before
        async for text in _texts(chunks, first, generated):
            yield voice.part(text)
    except Cancelled:
        raise
    except TensorWasmError as error:
        call.failure = error
        message = told(error, call.id)
        yield b"data: %b\n\n" % wire_openai.error_body(error.kind, message, error.http_status, error)
        return
    yield voice.part("", generated.finish) + voice.last(_usage(prompt, generated))
    await _end(call, chunks)


async def _end(call: Call, chunks: Chunks) -> None:
    """The text has ended; the guest may not have."""
    await chunks.leave()
    if chunks.result is not None:
        streaming.note(call, chunks.result)


def _usage(prompt: Prompt, generated: Generated) -> wire_openai.Usage:
    return wire_openai.Usage(prompt.prompt_tokens, generated.tokens, prompt.prompt_tokens + generated.tokens)


def _describe(model: Model) -> wire_openai.ModelObject:
    return wire_openai.ModelObject(model.name, int(model.created_at), f"tenant-{model.tenant}")


_MODEL = wire_openai.ModelObject("storyteller", int(examples.MOMENT), "tenant-1")
_USAGE = wire_openai.Usage(14, 6, 20)
_IDENTITY = "8f14e45fceea4f0da3f0c1d2e3b4a596"
_FINGERPRINT = "fp_0d66d411a2"


def _stream(kind: str, part: str, last: str) -> str:
    """An answer in events, as the API's description shows it."""
    about = f'"id":"…-{_IDENTITY}",{kind},"created":{int(examples.MOMENT)},"model":"storyteller"'
    chunks = ((part, "null"), (last, '"stop"'))
    return "".join(
        f'data: {{{about},"choices":[{{{what},"finish_reason":{finish},"index":0,"logprobs":null}}],'
        f'"system_fingerprint":"{_FINGERPRINT}"}}\n\n'
        for what, finish in chunks
    ) + DONE.decode("ascii")


def operations(node: Node) -> list[Operation]:
    """OpenAI's operations."""
    handlers = OpenAI(node)
    return [
        Operation(
            method="POST",
            path="/v1/completions",
            handler=handlers.complete,
            audience=Audience.TENANT,
            summary="Go on with a text, by a model of the tenant's",
            request=CompletionRequest,
            response=wire_openai.Completion,
            other_types=("text/event-stream",),
            errors=_CALL_ERRORS,
            examples=(
                Example(
                    summary="A few characters",
                    request=CompletionRequest(
                        model="storyteller", prompt="Once there was", max_tokens=6, temperature=0.7, seed=1
                    ),
                    answer=wire_openai.Completion(
                        f"cmpl-{_IDENTITY}",
                        "text_completion",
                        int(examples.MOMENT),
                        "storyteller",
                        [wire_openai.CompletionChoice(" a gre", "length")],
                        _FINGERPRINT,
                        _USAGE,
                    ),
                ),
                Example(
                    summary="In events",
                    request=CompletionRequest(model="storyteller", prompt="Once there was", max_tokens=6, stream=True),
                    answer=_stream('"object":"text_completion"', '"text":" a"', '"text":""'),
                    answer_type="text/event-stream",
                ),
            ),
            event="function.invoke",
            is_routine=True,
        ),
        Operation(
            method="POST",
            path="/v1/chat/completions",
            handler=handlers.chat,
            audience=Audience.TENANT,
            summary="Answer a chat, by a model of the tenant's",
            request=ChatCompletionRequest,
            response=wire_openai.ChatCompletion,
            other_types=("text/event-stream",),
            errors=_CALL_ERRORS,
            examples=(
                Example(
                    summary="A question",
                    request=ChatCompletionRequest(
                        model="storyteller", messages=[wire_openai.Message("user", "How are you?")], temperature=0
                    ),
                    answer=wire_openai.ChatCompletion(
                        f"chatcmpl-{_IDENTITY}",
                        int(examples.MOMENT),
                        "storyteller",
                        [wire_openai.ChatChoice(wire_openai.ChatMessage("I am well, thank you."), "stop")],
                        wire_openai.Usage(36, 21, 57),
                        _FINGERPRINT,
                    ),
                ),
                Example(
                    summary="In events",
                    request=ChatCompletionRequest(
                        model="storyteller", messages=[wire_openai.Message("user", "Hello.")], stream=True
                    ),
                    answer=_stream('"object":"chat.completion.chunk"', '"delta":{"content":"H"}', '"delta":{}'),
                    answer_type="text/event-stream",
                ),
            ),
            event="function.invoke",
            is_routine=True,
        ),
        Operation(
            method="GET",
            path="/v1/models",
            handler=handlers.list,
            audience=Audience.TENANT,
            summary="List the tenant's models",
            response=wire_openai.ModelObjects,
            examples=(Example(summary="One model", answer=wire_openai.ModelObjects([_MODEL])),),
        ),
        Operation(
            method="GET",
            path="/v1/models/{model}",
            handler=handlers.show,
            audience=Audience.TENANT,
            summary="Describe a model",
            response=wire_openai.ModelObject,
            errors=(ModelNotFound,),
            has_open_end=True,
            examples=(Example(summary="A model", parameters={"model": "storyteller"}, answer=_MODEL),),
        ),
    ]
