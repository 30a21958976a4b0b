"""Floods: many invocations, much output, text that would forge a log line."""

from __future__ import annotations

import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from security.attacked import MIB, Attacked
from security.guests import I32, WASI, for_ever
from tensor_wasm.wasm import Module


def test_fan_out_of_endless_guests(node: Attacked, function: str):
    """Bound: 4 workers and a queue of 64; the rest is refused with Retry-After, and deadlines hold in the queue."""
    began = time.monotonic()
    answers = node.invoke_many(200, function, "spin", deadline_ms=1000)
    assert time.monotonic() - began < 5
    kinds = Counter(answer.kind for answer in answers)
    assert set(kinds) == {"invoke_timeout", "capacity_exhausted"}
    assert kinds["capacity_exhausted"] >= 200 - 2 * (64 + 4)
    for answer in answers:
        assert answer.status == (503 if answer.kind == "capacity_exhausted" else 504)
        assert (answer.kind == "capacity_exhausted") == ("retry-after" in answer.headers)


def test_fan_out_under_many_tenants_names(node: Attacked, function: str):
    """Bound: where anybody may name any tenant, no name gets memory, a label or a thread for ever."""
    threads, before = node.threads, node.resident_bytes
    with ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(lambda n: node.invoke(function, "nothing", X_TensorWasm_Tenant=str(10**6 + n)), range(1500))
        )
    assert {answer.status for answer in answers} == {404}
    assert node.threads <= threads + 8
    assert node.resident_bytes < before + 64 * MIB
    assert len(node.ask("GET", "/metrics").body) < 2 * MIB


def test_guests_that_write_gigabytes(node: Attacked, function: str):
    """Bound: 64 KiB of output are kept here, what is more is counted; none of it reaches the node's log."""
    log = len(node.log)
    before = node.resident_bytes
    module = Module()
    write = module.import_function(WASI, "fd_write", [I32] * 4, [I32])
    module.export("memory", module.memory(64))
    module.data(b"\0\0\0\0\0\0\x40\0", 0)
    body = module.function([], [], export="run").code

    def step() -> None:
        for value in (1, 0, 1, 8):
            body.i32_const(value)
        body.call(write)
        body.op("drop")

    for_ever(body, step)
    identity = node.deploy(module.encode().wasm)
    for answer in node.invoke_many(8, identity, deadline_ms=500):
        assert answer.kind == "invoke_timeout"
        assert len(answer.body) < 64 * 1024
    assert node.resident_bytes < before + 128 * MIB
    assert len(node.log) == log


_CONTROL = "\x1b[2J\r\n2026-01-01T00:00:00.000Z ERROR tensor_wasm.http you have been had\n\x07\u2028\u202e\x85"


def test_text_that_would_forge_log_lines(node: Attacked, function: str):
    """Bound: text of tenants in an answer is JSON; in a log line its control characters are escaped."""
    lines = node.log.count("\n")
    answer = node.invoke(function, "say", data=_CONTROL.encode())
    assert b"\x1b" not in answer.body
    assert b"\n" not in answer.body
    assert answer.json["stderr"] == _CONTROL
    for export in (_CONTROL, "\0", "\x7f"):
        refused = node.ask(
            "POST",
            f"/functions/{function}/invoke",
            json.dumps({"export": export}).encode(),
            Content_Type="application/json",
        )
        assert refused.kind == "missing_export"
        assert not any(byte < 32 or byte == 127 for byte in refused.body)
    node.ask("GET", "/functions/%1b%5b2J%0a%0d", User_Agent="\x1b[2J")
    module = Module()
    module.function([], [], export=_CONTROL, name=_CONTROL).code.op("unreachable")
    identity = node.deploy(module.encode().wasm)
    trapped = node.invoke(identity, _CONTROL)
    assert trapped.kind == "trap"
    assert b"\x1b" not in trapped.body
    assert "\x1b" not in node.log
    assert "you have been had" not in "".join(node.log.splitlines(keepends=True)[lines:])


def test_refusals_write_no_log(node: Attacked):
    """Bound: what is refused is counted, not logged: a stranger cannot fill the disk with refusals."""
    log = len(node.log)
    for _ in range(50):
        node.ask("GET", "/nowhere")
        node.ask("PATCH", "/functions")
        node.raw(b"NOT HTTP\r\n\r\n")
        node.offer(b"no module")
    assert len(node.log) == log
