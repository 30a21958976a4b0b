"""Bad input at the front door: each gives its kind or code, a message that says what to change, and harms nothing."""

from __future__ import annotations

import base64
import json
import random
import struct
from urllib.parse import urlencode

import pytest

from system.front_door import Served, run_cli
from system.guests import INPUT, MEMORY_BYTES, guest
from tensor_wasm.abi import Code, Tag, pack
from tensor_wasm.cli.failures import Failure

UNKNOWN = "00000000-0000-4000-8000-000000000000"
HEADER = b"\0asm\x01\0\0\0"
ENTRY = b"fill"
PTX = b""".version 7.0
.target sm_70
.address_size 64
.visible .entry fill(.param .u64 target, .param .u32 value)
{
  .reg .b32 %r<4>;
  .reg .b64 %rd<2>;
  ld.param.u64 %rd0, [target];
  ld.param.u32 %r0, [value];
  st.global.u32 [%rd0], %r0;
  ret;
}
"""


def _ask(node: Served, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict]:
    answer = node.client.request(method, path, body, headers)
    return answer.status, json.loads(answer.body) if answer.body else {}


@pytest.fixture
def refused(shared_node, function_id):
    """Assert that a request is refused with a kind and a message, and that the next request works."""

    def check(kind: str, status: int, method: str, path: str, body: bytes | None = None, **headers: str) -> str:
        found, content = _ask(shared_node, method, path, body, **headers)
        error = content.get("error", {})
        assert (error.get("kind"), found) == (kind, status), content
        assert error["message"]
        assert error["request_id"]
        assert shared_node.client.invoke(function_id, {}, None)["result"] == [42]
        return error["message"]

    return check


def _json_headers() -> dict[str, str]:
    return {"Content-Type": "application/json"}


MODULES = {
    "empty": b"",
    "text": b"(module)",
    "random": random.Random(1).randbytes(1000),
    "an executable": b"\x7fELF\x02\x01\x01" + bytes(100),
    "a header cut short": HEADER[:6],
    "another version": b"\0asm\x02\0\0\0",
    "a component": b"\0asm\x0d\0\x01\0",
    "a section that ends after the file": HEADER + b"\x01\xff\xff\xff\xff\x0f",
}


@pytest.mark.parametrize("name", MODULES)
def test_what_is_not_webassembly(refused, name):
    refused("invalid_wasm", 400, "POST", "/functions?name=x", MODULES[name], **{"Content-Type": "application/wasm"})


@pytest.mark.parametrize("name", ["text", pytest.param("empty", marks=pytest.mark.slow)])
def test_what_is_not_webassembly_by_cli(shared_node, tmp_path, name):
    path = tmp_path / "bad.wasm"
    path.write_bytes(MODULES[name])
    for result in (shared_node.cli("deploy", path, "--json"), run_cli("run", path, "--json")):
        assert result.code == 1
        assert result.json["error"]["kind"] == "invalid_wasm"
        assert result.err.startswith("error: invalid_wasm: ")


def test_a_module_cut_anywhere_is_refused(shared_node, function_id):
    wasm = guest()
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    for cut in sorted(random.Random(seed).sample(range(8, len(wasm) - 1), 24)):
        status, content = _ask(
            shared_node, "POST", "/functions?name=x", wasm[:cut], **{"Content-Type": "application/wasm"}
        )
        # A cut between two sections may leave a module that is whole and smaller; then it must be one that can go.
        if status == 201:
            shared_node.client.delete(content["id"])
        else:
            assert content["error"]["kind"] == "invalid_wasm", cut
    assert shared_node.client.invoke(function_id, {}, None)["result"] == [42]


@pytest.mark.parametrize("name", ["", "a b", "a/b", "x" * 2000, "naïve", "a\nb"])
def test_a_name_that_is_none(refused, name):
    path = f"/functions?{urlencode({'name': name})}"
    refused("invalid_name", 400, "POST", path, guest(), **{"Content-Type": "application/wasm"})


def test_a_name_that_is_none_by_cli(shared_node, guest_file):
    result = shared_node.cli("deploy", guest_file, "--name", "a\x1b[2J", "--json")
    assert (result.code, result.json["error"]["kind"]) == (1, "invalid_name")
    assert "\x1b" not in result.err + result.out


def test_bad_base64(refused):
    for text in ("not base64!", "AAA", "AGFzbQEAAAA=\n?"):
        refused("invalid_base64", 400, "POST", "/functions", json.dumps({"name": "x", "wasm_b64": text}).encode(),
                **_json_headers())  # fmt: skip


def test_bad_base64_of_an_input(refused, function_id):
    body = json.dumps({"input_b64": "%%%"}).encode()
    refused("invalid_base64", 400, "POST", f"/functions/{function_id}/invoke", body, **_json_headers())


BODIES = {
    "bad UTF-8": b'{"export": "\xff\xfe"}',
    "a lone surrogate": b'{"export": "\\ud800"}',
    "not JSON": b"run it please",
    "cut": b'{"args": [1, 2',
    "an array": b"[]",
    "a string": b'"run"',
    "an unknown field": b'{"exprot": "run"}',
    "args that are no array": b'{"args": {"a": 1}}',
    "an export that is no string": b'{"export": 7}',
    "deep": b'{"args": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a bare NaN": b'{"export": "same_f64", "args": [NaN]}',
    "two documents": b"{}{}",
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_not_the_documented_json(shared_node, refused, function_id, name):
    path = f"/functions/{function_id}/invoke"
    status, content = _ask(shared_node, "POST", path, BODIES[name], **_json_headers())
    assert status == 400, content
    # An export named by a lone surrogate may be read as a name there is not.
    assert content["error"]["kind"] in {"invalid_json"} | ({"missing_export"} if name == "a lone surrogate" else set())
    assert shared_node.client.invoke(function_id, {}, None)["result"] == [42]


def test_a_huge_body(shared_node, refused, function_id, tmp_path):
    huge = bytes((1 << 20) + 1)
    refused("body_too_large", 413, "POST", "/functions?name=x", huge, **{"Content-Type": "application/wasm"})
    path = tmp_path / "huge.wasm"
    path.write_bytes(huge)
    result = shared_node.cli("deploy", path, "--json")
    assert (result.code, result.json["error"]["kind"]) == (1, "body_too_large")


def test_a_body_of_another_kind(refused):
    headers = {"Content-Type": "text/plain"}
    refused("unsupported_media_type", 415, "POST", "/functions?name=x", b"hello", **headers)


@pytest.mark.parametrize("id_", [UNKNOWN, "x", "..", "%00", "é", "a" * 1000, "1' OR '1'='1"])
def test_an_unknown_id(shared_node, function_id, id_):
    client = shared_node.client
    for ask in (client.function, client.delete, lambda unknown: client.invoke(unknown, {}, None)):
        with pytest.raises(Failure) as caught:
            ask(id_)
        assert caught.value.kind in {"not_found", "route_not_found"}
        assert caught.value.exit_code == 5
    assert shared_node.client.invoke(function_id, {}, None)["result"] == [42]


def test_an_unknown_route_and_method(refused):
    refused("route_not_found", 404, "GET", "/nothing/here")
    refused("method_not_allowed", 405, "PUT", "/functions")


@pytest.mark.parametrize("tenant", ["-1", "x", "18446744073709551616", "1.0", "0x1"])
def test_a_tenant_that_is_none(refused, tenant):
    refused("invalid_tenant", 400, "GET", "/functions", **{"X-TensorWasm-Tenant": tenant})


CALLS = {
    "a missing export": ({"export": "absent"}, "missing_export", "run"),
    "an export that is no function": ({"export": "memory"}, "missing_export", "memory"),
    "an empty export": ({"export": ""}, "missing_export", ""),
    "too few arguments": ({"export": "add", "args": [1]}, "invalid_args", "2"),
    "too many arguments": ({"export": "add", "args": [1, 2, 3]}, "too_many_args", "2"),
    "a very long list of arguments": ({"export": "add", "args": [0] * 5000}, "too_many_args", "1000"),
    "a string for a number": ({"export": "add", "args": ["1", 2]}, "invalid_args", "integer"),
    "a boolean for a number": ({"export": "add", "args": [True, 2]}, "invalid_json", "args[0]"),
    "null for a number": ({"export": "add", "args": [None, 2]}, "invalid_json", "args[0]"),
    "a fraction for an integer": ({"export": "add", "args": [1.5, 2]}, "invalid_args", "integer"),
    "an i32 too large": ({"export": "same_i32", "args": [1 << 32]}, "invalid_args", "range"),
    "an i32 too small": ({"export": "same_i32", "args": [-(1 << 31) - 1]}, "invalid_args", "range"),
    "an i64 too large": ({"export": "same_i64", "args": [1 << 64]}, "invalid_args", "range"),
    "an i64 of 400 digits": ({"export": "same_i64", "args": [10**400]}, "invalid_args", "range"),
    "an f32 too large": ({"export": "same_f32", "args": [1e39]}, "invalid_args", "range"),
    "an f64 too large": ({"export": "same_f64", "args": [10**400]}, "invalid_args", "range"),
    "a float as another string": ({"export": "same_f64", "args": ["nan"]}, "invalid_args", "NaN"),
    "a deadline of zero": ({"deadline_ms": 0}, "invalid_deadline", ""),
    "a deadline below zero": ({"deadline_ms": -5}, "invalid_deadline", ""),
    "a deadline past the node's": ({"deadline_ms": 10_001}, "invalid_deadline", "10"),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_does_not_fit(refused, function_id, name):
    request, kind, hint = CALLS[name]
    path = f"/functions/{function_id}/invoke"
    assert hint in refused(kind, 400, "POST", path, json.dumps(request).encode(), **_json_headers())


@pytest.mark.parametrize("name", ["an i64 too large", pytest.param("a missing export", marks=pytest.mark.slow)])
def test_a_call_that_does_not_fit_by_cli(shared_node, function_id, guest_file, name):
    request, kind, _ = CALLS[name]
    arguments = ["--json", "--export", request["export"], "--args", json.dumps(request.get("args", []))]
    for command in (shared_node.cli("invoke", function_id, *arguments), run_cli("run", guest_file, *arguments)):
        assert (command.code, command.json["error"]["kind"]) == (1, kind)


@pytest.mark.parametrize(
    ("export", "value"),
    [
        ("same_i64", 9007199254740993),
        ("same_i64", -(1 << 63)),
        ("same_i32", -(1 << 31)),
        ("same_f64", 0.1),
        ("same_f64", 5e-324),
        ("same_f32", 0.5),
        ("same_f64", "NaN"),
        ("same_f64", "Infinity"),
        ("same_f32", "-Infinity"),
    ],
)
def test_a_value_comes_back_exactly(shared_node, function_id, export, value):
    assert shared_node.client.invoke(function_id, {"export": export, "args": [value]}, None)["result"] == [value]


@pytest.mark.parametrize(
    ("export", "value"), [("same_i64", 9007199254740993), pytest.param("same_f64", "NaN", marks=pytest.mark.slow)]
)
def test_a_value_comes_back_exactly_by_cli(shared_node, function_id, guest_file, export, value):
    arguments = ["--json", "--export", export, "--args", json.dumps([value])]
    assert shared_node.cli("invoke", function_id, *arguments).json["result"] == [value]
    assert run_cli("run", guest_file, *arguments).json["result"] == [value]


def test_unsigned_values_are_read_as_the_same_bits(shared_node, function_id):
    for export, bits in (("same_i32", 32), ("same_i64", 64)):
        answer = shared_node.client.invoke(function_id, {"export": export, "args": [(1 << bits) - 1]}, None)
        assert answer["result"] == [-1]


def test_a_trap_and_a_deadline_end_one_invocation_only(shared_node, function_id, guest_file):
    for run in (lambda *a: shared_node.cli("invoke", function_id, *a), lambda *a: run_cli("run", guest_file, *a)):
        trapped = run("--export", "trap", "--json")
        assert (trapped.code, trapped.json["error"]["kind"]) == (1, "trap")
        late = run("--export", "spin", "--deadline", "0.3", "--json")
        assert (late.code, late.json["error"]["kind"]) == (124, "invoke_timeout")
    assert shared_node.client.invoke(function_id, {}, None)["result"] == [42]


def test_memory_past_the_limit_is_what_webassembly_says(shared_node, function_id):
    def grow(pages: int) -> object:
        return shared_node.client.invoke(function_id, {"export": "grow", "args": [pages]}, None)["result"]

    assert grow(1) == [4]
    assert grow(65_000) == [-1]
    assert grow((1 << 32) - 1) == [-1]
    assert grow(1) == [4]


# --- what a guest hands to wasi:cuda ----------------------------------------------------------------------


def _call(node: Served, function_id: str, export: str, args: list[int], data: bytes) -> int:
    request = {"export": export, "args": args, "input_b64": base64.b64encode(data).decode()}
    return int(node.client.invoke(function_id, request, None)["result"][0])


TEXTS = {
    "empty": b"",
    "random bytes": random.Random(2).randbytes(3000),
    "zeros": bytes(100),
    "bad UTF-8": PTX.replace(b"target]", b"\xff\xfe]"),
    "cut": PTX[: len(PTX) // 2],
    "an unknown opcode": PTX.replace(b"st.global.u32", b"frobnicate.u32"),
    "an unknown modifier": PTX.replace(b"st.global.u32", b"st.sideways.u32"),
    "an unknown register": PTX.replace(b", %r0;", b", %q9;"),
    "deep nesting": PTX.replace(b"ret;", b"{" * 50_000),
    "an endless name": PTX.replace(b"ret;", b"x" * 200_000),
}


@pytest.mark.parametrize("name", TEXTS)
def test_ptx_that_is_none_gives_its_code(shared_node, function_id, name):
    text = TEXTS[name][: MEMORY_BYTES - INPUT - len(ENTRY)]
    assert _call(shared_node, function_id, "load", [len(text), len(ENTRY)], text + ENTRY) == Code.MALFORMED_PTX
    assert _call(shared_node, function_id, "load", [len(PTX), len(ENTRY)], PTX + ENTRY) >= 0


def test_an_unknown_entry_and_one_that_is_no_text(shared_node, function_id):
    assert _call(shared_node, function_id, "load", [len(PTX), 4], PTX + b"none") == Code.MALFORMED_PTX
    assert _call(shared_node, function_id, "load", [len(PTX), 2], PTX + b"\xff\xfe") == Code.INVALID_ARGUMENTS


@pytest.mark.parametrize(
    ("ptx_bytes", "entry_bytes", "code"),
    [
        (-1, 4, Code.INVALID_POINTER),
        (4, -1, Code.INVALID_POINTER),
        (MEMORY_BYTES, 4, Code.INVALID_POINTER),
        ((8 << 20) + 1, 4, Code.QUOTA_EXCEEDED),
        (4, 257, Code.QUOTA_EXCEEDED),
        ((1 << 31) - 1, 4, Code.QUOTA_EXCEEDED),
    ],
)
def test_lengths_that_cannot_be(shared_node, function_id, ptx_bytes, entry_bytes, code):
    assert _call(shared_node, function_id, "load", [ptx_bytes, entry_bytes], PTX) == code


ONE = (1, 1, 1)
GOOD_ARGV = pack([(Tag.POINTER, 0, 64), (Tag.U32, 7)])
ARGV = INPUT + len(PTX) + len(ENTRY)
LAUNCHES = {
    "a good one": (ONE, ONE, 0, GOOD_ARGV, Code.OK),
    "a grid of zero": ((0, 1, 1), ONE, 0, GOOD_ARGV, Code.INVALID_DIMENSIONS),
    "a grid of 2^31": ((-(1 << 31), 1, 1), ONE, 0, GOOD_ARGV, Code.INVALID_DIMENSIONS),
    "a grid too high": ((1, 65_536, 1), ONE, 0, GOOD_ARGV, Code.INVALID_DIMENSIONS),
    "a block of zero": (ONE, (1, 0, 1), 0, GOOD_ARGV, Code.INVALID_DIMENSIONS),
    "a block too wide": (ONE, (1025, 1, 1), 0, GOOD_ARGV, Code.INVALID_DIMENSIONS),
    "a block of too many threads": (ONE, (1024, 2, 1), 0, GOOD_ARGV, Code.INVALID_DIMENSIONS),
    "negative shared memory": (ONE, ONE, -1, GOOD_ARGV, Code.INVALID_DIMENSIONS),
    "too much shared memory": (ONE, ONE, 233_473, GOOD_ARGV, Code.INVALID_DIMENSIONS),
    "no argv": (ONE, ONE, 0, b"", Code.INVALID_ARGUMENTS),
    "argv cut short": (ONE, ONE, 0, GOOD_ARGV[:-1], Code.INVALID_ARGUMENTS),
    "an unknown tag": (ONE, ONE, 0, b"\x63" + GOOD_ARGV, Code.INVALID_ARGUMENTS),
    "one record too many": (ONE, ONE, 0, GOOD_ARGV + pack([(Tag.U32, 1)]), Code.INVALID_ARGUMENTS),
    "another type": (ONE, ONE, 0, pack([(Tag.POINTER, 0, 64), (Tag.F64, 1.0)]), Code.INVALID_ARGUMENTS),
    "too many records": (ONE, ONE, 0, pack([(Tag.U32, 1)] * 129), Code.ARGV_TOO_LARGE),
    "a window at the end": (ONE, ONE, 0, pack([(Tag.POINTER, MEMORY_BYTES - 4, 4), (Tag.U32, 7)]), Code.OK),
    "a window past the end": (
        ONE,
        ONE,
        0,
        pack([(Tag.POINTER, MEMORY_BYTES - 4, 5), (Tag.U32, 7)]),
        Code.INVALID_POINTER,
    ),
    "a window that wraps": (
        ONE,
        ONE,
        0,
        pack([(Tag.POINTER, (1 << 32) - 4, 8), (Tag.U32, 7)]),
        Code.INVALID_POINTER,
    ),
}


@pytest.mark.parametrize("name", LAUNCHES)
def test_a_launch_that_cannot_be_gives_its_code(shared_node, function_id, name):
    grid, block, shared, argv, code = LAUNCHES[name]
    args = [*grid, *block, shared, ARGV, len(argv), len(PTX), len(ENTRY)]
    assert _call(shared_node, function_id, "launch", args, PTX + ENTRY + argv) == code


@pytest.mark.parametrize(
    ("pointer", "size"), [(MEMORY_BYTES, 1), (MEMORY_BYTES - 4, 14), (-1, 14), (ARGV, -1), (ARGV, (1 << 31) - 1)]
)
def test_argv_outside_memory(shared_node, function_id, pointer, size):
    args = [1, 1, 1, 1, 1, 1, 0, pointer, size, len(PTX), len(ENTRY)]
    assert _call(shared_node, function_id, "launch", args, PTX + ENTRY + GOOD_ARGV) == Code.INVALID_POINTER


def test_a_kernel_that_was_never_loaded(shared_node, function_id):
    for kernel in (0, -1, 256, (1 << 32), (1 << 63) - 1):
        assert _call(shared_node, function_id, "launch_id", [kernel], b"") == Code.UNKNOWN_KERNEL


def test_a_kernel_that_writes_past_the_end_is_a_trap_that_names_the_line(shared_node, function_id):
    argv = pack([(Tag.U64, MEMORY_BYTES), (Tag.U32, 7)])
    args = [1, 1, 1, 1, 1, 1, 0, ARGV, len(argv), len(PTX), len(ENTRY)]
    result = shared_node.cli("invoke", function_id, "--export", "launch", "--args", json.dumps(args), "--json",
                             "--input", "-", stdin=PTX + ENTRY + argv)  # fmt: skip
    assert result.code == 1
    error = result.json["error"]
    assert error["kind"] == "trap"
    line = PTX[: PTX.index(b"st.global")].count(b"\n") + 1
    assert "fill" in error["message"]
    assert f"line {line}" in error["message"]
    assert shared_node.client.invoke(function_id, {}, None)["result"] == [42]


def test_random_argv_never_harms_the_node(shared_node, function_id):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    source = random.Random(seed)
    codes = {Code.INVALID_ARGUMENTS, Code.ARGV_TOO_LARGE, Code.INVALID_POINTER, Code.OK}
    for _ in range(50):
        argv = bytearray(GOOD_ARGV + struct.pack("<I", source.getrandbits(32)))[: source.randint(0, 18)]
        if argv:
            argv[source.randrange(len(argv))] = source.getrandbits(8)
        args = [1, 1, 1, 1, 1, 1, 0, ARGV, len(argv), len(PTX), len(ENTRY)]
        data = PTX + ENTRY + bytes(argv)
        request = {"export": "launch", "args": args, "input_b64": base64.b64encode(data).decode()}
        status, content = _ask(
            shared_node, "POST", f"/functions/{function_id}/invoke", json.dumps(request).encode(), **_json_headers()
        )
        # A misaligned window is a kernel fault, which is a trap of that invocation.
        assert (status == 200 and content["result"][0] in codes) or content["error"]["kind"] == "trap", content
    assert shared_node.client.invoke(function_id, {}, None)["result"] == [42]
