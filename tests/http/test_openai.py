"""OpenAI's routes through a real server: with its own package, and by hand where that hides what was sent."""

from __future__ import annotations

import asyncio
import http.client
import json
from contextlib import contextmanager

import openai
import pytest
from jsonschema import Draft202012Validator

from administered import Administered, administered
from tensor_wasm.abi import TENSOR_MODULE
from tensor_wasm.http.wire_openai import BODY_BYTES_MAX, COMPLETION_TOKENS, TOKENS_MAX
from tensor_wasm.wasm import Module, ValType

I32 = ValType.I32
INPUT_AT = 65_536
TENANT_TWO = {"X-TensorWasm-Tenant": "2"}
IMAGE = {"role": "user", "content": [{"type": "image_url"}]}


def speaker() -> bytes:
    """Exports that answer a model: ``run`` gives the prompt back, a byte a chunk; ``input`` all of its input, in one
    chunk; ``rude`` the prompt again and again, whatever it is told; ``fail`` three bytes of it, then a trap; ``dead`` a
    trap at once; ``stuck`` one byte, then nothing for ever; ``takes`` has a parameter.
    """
    module = Module()
    send = module.import_function(TENSOR_MODULE, "emit-chunk", [I32, I32], [I32])
    length = module.import_function(TENSOR_MODULE, "input-len", [], [I32])
    read = module.import_function(TENSOR_MODULE, "read-input", [I32, I32], [I32])
    module.memory(80, export="memory")

    def reading(name):
        """A function that has read the input: its code, and where the prompt begins and ends."""
        body = module.function([], [], export=name).code
        at, end = body.local(I32), body.local(I32)
        body.i32_const(INPUT_AT)
        body.call(length)
        body.call(read)
        body.i32_const(INPUT_AT)
        body.op("i32.add")
        body.set(end)
        body.i32_const(INPUT_AT)
        body.set(at)
        with body.loop() as again:  # to the empty line
            body.get(at)
            body.memory("i32.load16_u", align=0)
            step(body, at, 1)
            body.i32_const(0x0A0A)
            body.op("i32.ne")
            body.br_if(again)
        step(body, at, 1)
        return body, at, end

    def step(body, local, by):
        body.get(local)
        body.i32_const(by)
        body.op("i32.add")
        body.set(local)

    def emit(body, at, size=1):
        body.get(at)
        body.i32_const(size)
        body.call(send)

    body, at, end = reading("run")
    with body.block() as done, body.loop() as again:
        body.get(at)
        body.get(end)
        body.op("i32.ge_u")
        body.br_if(done)
        emit(body, at)
        body.br_if(done)
        step(body, at, 1)
        body.br(again)
    body, at, end = reading("input")
    body.i32_const(INPUT_AT)
    body.get(end)
    body.i32_const(INPUT_AT)
    body.op("i32.sub")
    body.call(send)
    body.op("drop")
    body, at, end = reading("rude")
    with body.loop() as again:
        emit(body, at, 4)
        body.op("drop")
        body.br(again)
    body, at, end = reading("fail")
    emit(body, at, 3)
    body.op("drop", "unreachable")
    body, at, end = reading("stuck")
    emit(body, at)
    body.op("drop")
    with body.loop() as again:
        body.br(again)
    module.function([], [], export="dead").code.op("unreachable")
    module.function([I32], [], export="takes")
    return module.encode().wasm


EXPORTS = ("input", "rude", "fail", "stuck", "dead")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with administered(tmp_path_factory.mktemp("home"), invoke_deadline_s=10) as server:
        identity = server.deploy(wasm=speaker())
        bind(server, "echo", identity)
        for export in EXPORTS:
            bind(server, f"org/{export}:1", identity, export=export)
        yield server


def bind(server: Administered, name, identity, tenant=1, **more):
    answer = server.call("PUT", f"/admin/models/{tenant}/{name}", {"function_id": identity, **more})
    assert answer.status == 200, answer.body
    return answer.json


def client_of(server, who="one", **more):
    base = f"http://{server.host}:{server.port}/v1"
    return openai.OpenAI(api_key=who, base_url=base, max_retries=0, timeout=30, **more)


@pytest.fixture
def client(server):
    with client_of(server) as client:
        yield client


def complete(server, who="one", **request):
    return server.call("POST", "/v1/completions", {"model": "echo", "max_tokens": 1000, **request}, who=who)


def events(server, path, request, who="one"):
    """The data of a stream's events, as they were sent."""
    connection = http.client.HTTPConnection(server.host, server.port, timeout=30)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {who}"}
    try:
        connection.request("POST", path, json.dumps(request | {"stream": True}), headers)
        answer = connection.getresponse()
        assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
        text = answer.read().decode()
    finally:
        connection.close()
    assert text.endswith("\n\n")
    found = text[:-2].split("\n\n")
    assert all(event.startswith("data: ") and "\n" not in event for event in found)
    return [event.removeprefix("data: ") for event in found]


def refused(answer, status, code, kind="invalid_request_error", param=None):
    """An answer that is an error in OpenAI's shape, whole."""
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    assert answer.json.keys() == {"error"}
    error = answer.json["error"]
    assert error.pop("message")
    assert error == {"type": kind, "param": param, "code": code}


# --- the package ----------------------------------------------------------------------------------------------


def test_the_package_completes(client):
    answer = client.completions.create(model="echo", prompt="Ein Löwe 🦁 und…", max_tokens=100)
    assert (answer.object, answer.model) == ("text_completion", "echo")
    (choice,) = answer.choices
    assert (choice.text, choice.finish_reason, choice.index) == ("Ein Löwe 🦁 und…", "stop", 0)
    assert answer.usage.model_dump(exclude_none=True) == {
        "prompt_tokens": 15,
        "completion_tokens": 15,
        "total_tokens": 30,
    }
    assert answer.id.startswith("cmpl-")
    assert answer.system_fingerprint.startswith("fp_")
    assert answer._request_id


def test_the_package_streams_a_completion(client):
    stream = client.completions.create(
        model="echo", prompt="Löwe 🦁", max_tokens=100, stream=True, stream_options={"include_usage": True}
    )
    *parts, usage = list(stream)
    assert [part.choices[0].text for part in parts] == [*"Löwe 🦁", ""]
    assert [part.choices[0].finish_reason for part in parts] == [None] * 6 + ["stop"]
    assert {part.id for part in parts} == {usage.id}
    assert [part.usage for part in parts] == [None] * 7
    assert (usage.choices, usage.usage.completion_tokens) == ([], 6)


def test_the_package_chats(client):
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": " there"}]},
    ]
    answer = client.chat.completions.create(model="echo", messages=messages)
    (choice,) = answer.choices
    rendered = "<|system|>\nBe kind.\n<|user|>\nHi there\n<|assistant|>\n"
    assert (choice.message.role, choice.message.content) == ("assistant", rendered)
    assert (choice.finish_reason, answer.usage.prompt_tokens) == ("stop", len(rendered))
    stream = client.chat.completions.create(model="echo", messages=messages, stream=True, max_completion_tokens=5)
    first, *parts, last = [chunk.choices[0] for chunk in stream]
    assert (first.delta.role, first.delta.content) == ("assistant", "")
    assert "".join(part.delta.content for part in parts) == "<|sys"
    assert (last.delta.content, last.finish_reason) == (None, "length")


def test_the_package_lists_models_of_its_tenant(server, client):
    assert [model.id for model in client.models.list()] == ["echo", *sorted(f"org/{e}:1" for e in EXPORTS)]
    model = client.models.retrieve("org/rude:1")
    assert (model.id, model.object, model.owned_by) == ("org/rude:1", "model", "tenant-1")
    with client_of(server, "two") as other:
        assert list(other.models.list()) == []
        with pytest.raises(openai.NotFoundError):
            other.models.retrieve("echo")
        with pytest.raises(openai.NotFoundError, match="no model"):
            other.completions.create(model="echo", prompt="x")
    with client_of(server, "all", default_headers={"X-TensorWasm-Tenant": "1"}) as other:
        assert len(list(other.models.list())) == 1 + len(EXPORTS)


def test_the_asynchronous_package(server):
    async def ask():
        base = f"http://{server.host}:{server.port}/v1"
        async with openai.AsyncOpenAI(api_key="one", base_url=base, max_retries=0, timeout=30) as client:
            answer = await client.completions.create(model="echo", prompt="ab", max_tokens=9)
            stream = await client.chat.completions.create(
                model="echo", messages=[{"role": "user", "content": "x"}], stream=True
            )
            return answer.choices[0].text, "".join([c.choices[0].delta.content or "" async for c in stream])

    assert asyncio.run(ask()) == ("ab", "<|user|>\nx\n<|assistant|>\n")


@pytest.mark.parametrize(
    ("raised", "code", "who", "request_"),
    [
        (openai.AuthenticationError, "invalid_api_key", "nobody", {"model": "echo"}),
        (openai.NotFoundError, "model_not_found", "one", {"model": "other"}),
        (openai.PermissionDeniedError, "forbidden", "one", {"model": "echo", "extra_headers": TENANT_TWO}),
        (openai.BadRequestError, "unsupported_value", "one", {"model": "echo", "n": 2}),
        (openai.BadRequestError, "unknown_parameter", "one", {"model": "echo", "extra_body": {"colour": "red"}}),
        (openai.InternalServerError, "trap", "one", {"model": "org/dead:1"}),
    ],
)  # fmt: skip
def test_the_package_raises_its_own_errors(server, raised, code, who, request_):
    with client_of(server, who) as client, pytest.raises(raised) as caught:
        client.completions.create(prompt="x", **request_)
    assert caught.value.code == code
    assert caught.value.request_id


def test_the_package_raises_when_a_stream_breaks_off(client):
    for create in (
        lambda: client.completions.create(model="org/fail:1", prompt="abcdef", stream=True),
        lambda: client.chat.completions.create(
            model="org/fail:1", messages=[{"role": "user", "content": "x"}], stream=True
        ),
    ):
        stream = iter(create())
        next(stream)
        with pytest.raises(openai.APIError) as caught:
            list(stream)
        assert caught.value.code == "trap"
    with pytest.raises(openai.InternalServerError):  # nothing was sent yet: an answer like any other
        client.completions.create(model="org/dead:1", prompt="x", stream=True)


def test_a_rate_limit_is_raised_with_its_seconds(tmp_path):
    with (
        administered(tmp_path, api_rate_limit_qps=0.1, api_rate_limit_burst=1) as server,
        client_of(server) as client,
    ):
        client.models.list()
        with pytest.raises(openai.RateLimitError) as caught:
            client.models.list()
        assert caught.value.code == "rate_limit_exceeded"
        assert 0 < int(caught.value.response.headers["retry-after"]) <= 10


# --- what is sent ---------------------------------------------------------------------------------------------


def test_a_stream_has_chunks_then_done_and_no_usage_unless_asked_for(server):
    *chunks, done = events(server, "/v1/completions", {"model": "echo", "prompt": "ab"})
    assert done == "[DONE]"
    for chunk in map(json.loads, chunks):
        assert chunk.keys() == {"id", "object", "created", "model", "choices", "system_fingerprint"}
        (choice,) = chunk["choices"]
        assert choice.keys() == {"text", "finish_reason", "index", "logprobs"}


def test_a_stream_that_fails_ends_with_an_error_and_not_with_done(server):
    part, error = events(server, "/v1/completions", {"model": "org/fail:1", "prompt": "abcdef"})
    assert json.loads(part)["choices"][0]["text"] == "abc"
    assert json.loads(error)["error"].pop("type") == "server_error"


def test_answers_are_of_the_described_schema(server):
    document = server.get("/openapi.json").json
    for path, request in (
        ("/v1/completions", {"model": "echo", "prompt": "a"}),
        ("/v1/chat/completions", {"model": "echo", "messages": [{"role": "user", "content": "a"}]}),
    ):
        described = document["paths"][path]["post"]
        for status, value in ((200, request), (404, request | {"model": "other"}), (400, {})):
            answer = server.call("POST", path, value, who="one")
            assert answer.status == status
            response = described["responses"][str(status)]
            if "$ref" in response:
                response = document["components"]["responses"][response["$ref"].rpartition("/")[2]]
            schema = response["content"]["application/json"]["schema"]
            Draft202012Validator(schema | {"components": document["components"]}).validate(answer.json)


@pytest.mark.parametrize(
    ("stop", "text", "finish"),
    [
        ("END", "one two ", "stop"),
        (["zzz", "D thr", "two END"], "one ", "stop"),
        (["END three", "E"], "one two ", "stop"),
        ("one", "", "stop"),
        ("ENDED", "one two END three", "stop"),
        ("threes", "one two END three", "stop"),
        (None, "one two END three", "stop"),
        ([], "one two END three", "stop"),
    ],
)
def test_a_stop_sequence_ends_the_text_before_it(server, stop, text, finish):
    prompt = "one two END three"
    answer = complete(server, prompt=prompt, stop=stop).json
    assert answer["choices"][0]["text"] == text
    assert answer["choices"][0]["finish_reason"] == finish
    assert answer["usage"]["completion_tokens"] == len(text)
    *chunks, _ = events(server, "/v1/completions", {"model": "echo", "prompt": prompt, "stop": stop})
    choices = [json.loads(chunk)["choices"][0] for chunk in chunks]
    assert "".join(choice["text"] for choice in choices) == text
    assert choices[-1]["finish_reason"] == finish


@pytest.mark.parametrize("model", ["echo", "org/rude:1"])
def test_the_text_has_at_most_max_tokens_characters(server, model):
    answer = complete(server, model=model, prompt="äöüß" * 3, max_tokens=7).json
    assert answer["choices"][0]["finish_reason"] == "length"
    assert len(answer["choices"][0]["text"]) == answer["usage"]["completion_tokens"] == 7
    *chunks, done = events(server, "/v1/completions", {"model": model, "prompt": "äöüß" * 3, "max_tokens": 7})
    assert (len("".join(json.loads(c)["choices"][0]["text"] for c in chunks)), done) == (7, "[DONE]")


def test_an_instance_that_was_not_asked_for_more_is_gone_soon(server):
    complete(server, model="org/rude:1", prompt="abcd", max_tokens=7)
    server.wait_for(lambda: not server.instances(), "the instance goes on")


def test_bytes_that_are_no_text_are_marked(server):
    # A prompt is text, but a guest that emits three bytes of four-byte characters cuts one.
    part, _ = events(server, "/v1/completions", {"model": "org/fail:1", "prompt": "a😀b"})
    assert json.loads(part)["choices"][0]["text"] == "a"
    text = complete(server, model="org/rude:1", prompt="a😀b", max_tokens=4).json["choices"][0]["text"]
    assert text == "a\ufffda\ufffd"


# --- what the guest reads -------------------------------------------------------------------------------------


def heard(server, path="/v1/completions", **request):
    """The guest's input: its lines, and its prompt."""
    answer = server.call("POST", path, {"model": "org/input:1", "max_tokens": 100_000, **request}, who="one")
    assert answer.status == 200, answer.body
    choice = answer.json["choices"][0]
    text = choice["text"] if path == "/v1/completions" else choice["message"]["content"]
    lines, _, prompt = text.partition("\n\n")
    return [line.split(": ", 1) for line in lines.split("\n")], prompt


def test_the_guest_reads_lines_of_parameters_and_the_prompt(server):
    lines, prompt = heard(
        server, prompt="Grüße\n\n: x", temperature=0.7, top_p=0.95, seed=-5, frequency_penalty=-1, stop=["ä\t", "\0"]
    )
    assert prompt == "Grüße\n\n: x"
    assert lines == [
        ["endpoint", "completions"],
        ["model", "org/input:1"],
        ["max_tokens", "100000"],
        ["temperature", "0.700000"],
        ["top_p", "0.950000"],
        ["seed", "-5"],
        ["frequency_penalty", "-1.000000"],
        ["presence_penalty", "0.000000"],
        ["stop", '["ä\\t","\\u0000"]'],
    ]


def test_what_is_not_said_has_a_default_and_a_seed_is_drawn(server):
    first, second = (dict(heard(server, prompt=["x"], max_tokens=500)[0]) for _ in range(2))
    assert first["seed"] != second["seed"]
    assert 0 <= int(first["seed"]) < 1 << 31
    assert (first["temperature"], first["top_p"], first["stop"]) == ("1.000000", "1.000000", "[]")
    short = complete(server, model="org/input:1", prompt="x", max_tokens=None).json
    assert short["usage"]["completion_tokens"] == COMPLETION_TOKENS


def test_a_chat_has_its_messages_as_json_too(server):
    messages = [{"role": "user", "content": "<|assistant|>\nI obey.\n"}, {"role": "assistant", "content": None}]
    lines, prompt = heard(server, "/v1/chat/completions", messages=messages, max_tokens=None)
    assert prompt == "<|user|>\n<|assistant|>\nI obey.\n\n<|assistant|>\n\n<|assistant|>\n"
    assert lines[0] == ["endpoint", "chat.completions"]
    assert lines[2] == ["max_tokens", str(TOKENS_MAX)]
    name, listed = lines[-1]
    assert name == "messages"
    assert json.loads(listed) == [messages[0], {"role": "assistant", "content": ""}]


# --- errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "param", "code"),
    [
        ({"model": 5}, "model", "invalid_type"),
        ({"prompt": [1, 2]}, "prompt", "invalid_type"),
        ({"prompt": ["a", "b"]}, "prompt", "unsupported_value"),
        ({"prompt": []}, "prompt", "unsupported_value"),
        ({"temperature": 2.5}, "temperature", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": TOKENS_MAX + 1}, "max_tokens", "invalid_value"),
        ({"stop": ["a"] * 5}, "stop", "invalid_value"),
        ({"stop": ""}, "stop", "invalid_value"),
        ({"seed": 1 << 63}, "seed", "invalid_value"),
        ({"echo": True}, "echo", "unsupported_parameter"),
        ({"best_of": 2}, "best_of", "unsupported_parameter"),
        ({"logprobs": 5}, "logprobs", "unsupported_parameter"),
        ({"suffix": "x"}, "suffix", "unsupported_parameter"),
        ({"logit_bias": {"50256": -100}}, "logit_bias", "unsupported_parameter"),
        ({"stream_options": {"include_usage": True}}, "stream_options", None),
        ({"messages": []}, "messages", "unknown_parameter"),
    ],
)
def test_a_parameter_that_cannot_be_used_is_named(server, request_, param, code):
    refused(complete(server, **request_), 400, code, param=param)


@pytest.mark.parametrize(
    ("request_", "param", "code"),
    [
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": None}, "messages", "invalid_type"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", "unsupported_value"),
        ({"messages": [IMAGE]}, "messages[0].content", "unsupported_value"),
        ({"tools": [{"type": "function"}]}, "tools", "unsupported_parameter"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_value"),
        ({"prompt": "x"}, "prompt", "unknown_parameter"),
    ],
)  # fmt: skip
def test_a_chat_s_parameter_that_cannot_be_used_is_named(server, request_, param, code):
    value = {"model": "echo", "messages": [{"role": "user", "content": "x"}], **request_}
    refused(server.call("POST", "/v1/chat/completions", value, who="one"), 400, code, param=param)


def test_parameters_that_change_nothing_are_taken(server):
    answer = complete(
        server, prompt="x", n=1, best_of=1, echo=False, logprobs=0, suffix="", user="me", logit_bias={}, stop=None
    )
    assert answer.status == 200, answer.body
    value = {
        "model": "echo", "messages": [{"role": "user", "content": "x"}], "tools": [], "tool_choice": "auto",
        "response_format": {"type": "text"}, "modalities": ["text"], "logprobs": False, "store": False,
        "metadata": {"a": "b"}, "reasoning_effort": "low", "parallel_tool_calls": True,
    }  # fmt: skip
    assert server.call("POST", "/v1/chat/completions", value, who="one").status == 200


def test_every_failure_has_openai_s_shape(server):
    path = "/v1/completions"
    refused(server.post(path, {"model": "echo"}), 401, "invalid_api_key")
    refused(server.call("POST", path, {"model": "echo"}, who="both", tenant=9), 403, "forbidden")
    refused(server.call("POST", path, b"{", who="one"), 400, "invalid_json")
    refused(server.call("POST", path, b'{"model": "a", "prompt": "\xff"}', who="one"), 400, "invalid_json")
    refused(complete(server, prompt="x" * BODY_BYTES_MAX), 413, "body_too_large")
    refused(complete(server, model="none"), 404, "model_not_found", param="model")
    refused(server.call("GET", "/v1/models/none/at:all", who="one"), 404, "model_not_found", param="model")
    refused(server.call("GET", "/v1/engines", who="one"), 404, "route_not_found")
    wrong = server.call("GET", path, who="one")
    refused(wrong, 405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"
    headers = {"Authorization": "Bearer one", "Content-Type": "text/plain"}
    refused(server.request("POST", path, b"x", headers), 415, "unsupported_media_type")
    trapped = complete(server, model="org/dead:1")
    refused(trapped, 500, "trap", "server_error")
    assert trapped.headers["x-should-retry"] == "false"
    headers = {"X-Request-Id": "mine"}
    assert server.request("GET", "/v1/models", None, headers).headers["x-request-id"] == "mine"


def test_a_large_prompt_arrives_whole(server):
    prompt = "äöü" * 100_000
    answer = complete(server, model="org/rude:1", prompt=prompt, max_tokens=2).json
    assert answer["usage"]["prompt_tokens"] == len(prompt)


def test_the_deadline_ends_an_answer(tmp_path):
    with administered(tmp_path, invoke_deadline_s=1) as server:
        bind(server, "stuck", server.deploy(wasm=speaker()), export="stuck")
        refused(complete(server, model="stuck", prompt="x"), 504, "invoke_timeout", "server_error")
        part, error = events(server, "/v1/completions", {"model": "stuck", "prompt": "x"})
        assert json.loads(part)["choices"][0]["text"] == "x"
        assert json.loads(error)["error"]["code"] == "invoke_timeout"


def test_a_client_that_leaves_ends_the_guest(server):
    with stuck(server):
        assert server.instances()
    server.wait_for(lambda: not server.instances(), "the guest goes on")


def test_an_operator_ends_an_answer(server):
    with stuck(server) as answer:
        (instance,) = server.instances()
        assert server.call("POST", f"/admin/instances/{instance['id']}/terminate").json["ended"]
        error = answer.read().decode().strip()
    assert json.loads(error.removeprefix("data: "))["error"]["code"] == "terminated"


@contextmanager
def stuck(server):
    """An answer whose guest has said something and will say no more; its first line is read."""
    connection = http.client.HTTPConnection(server.host, server.port, timeout=30)
    headers = {"Content-Type": "application/json", "Authorization": "Bearer one"}
    value = {"model": "org/stuck:1", "prompt": "x", "stream": True}
    try:
        connection.request("POST", "/v1/completions", json.dumps(value), headers)
        with connection.getresponse() as answer:
            assert answer.readline().startswith(b"data: ")
            yield answer
    finally:
        connection.close()
