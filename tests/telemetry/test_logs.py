from __future__ import annotations

import io
import json
import logging

import pytest

from tensor_wasm.telemetry import logs


@pytest.fixture
def stream():
    names = ("tensor_wasm", "uvicorn", "asyncio")
    before = {name: (logging.getLogger(name).handlers, logging.getLogger(name).propagate) for name in names}
    levels = {name: logging.getLogger(name).level for name in names}
    yield io.StringIO()
    for name, (handlers, propagate) in before.items():
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(levels[name])


def test_text_is_one_line_with_fields(stream):
    logs.configure("info", "text", stream)
    logging.getLogger("tensor_wasm.http").info("hello %s", "world", extra={"request_id": "abc-1"})
    line = stream.getvalue()
    assert line.endswith("INFO    tensor_wasm.http hello world request_id=abc-1\n")
    assert line[:4].isdigit()
    assert line[10] == "T"
    assert line.split()[0].endswith("Z")


def test_json_is_an_object_a_line(stream):
    logs.configure("debug", "json", stream)
    try:
        raise ValueError("broken\nin two")
    except ValueError:
        logging.getLogger("tensor_wasm.node").exception("it failed", extra={"tenant": 7, "level": "forged"})
    (line,) = stream.getvalue().splitlines()
    read = json.loads(line)
    assert (read["level"], read["logger"], read["message"], read["tenant"]) == (
        "error",
        "tensor_wasm.node",
        "it failed",
        7,
    )
    assert "ValueError: broken\nin two" in read["exception"]


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_text_can_forge_a_line_or_move_a_terminal(stream, log_format):
    logs.configure("info", log_format, stream)
    nasty = "a\n2026-01-01T00:00:00.000Z INFO forged\r\x1b[2J\u2028end"
    logging.getLogger("tensor_wasm").info("%s", nasty, extra={"name2": nasty})
    written = stream.getvalue()
    assert len(written.splitlines()) == 1
    assert "\x1b" not in written


def test_a_traceback_is_indented_below(stream):
    logs.configure("info", "text", stream)
    try:
        raise ValueError("x\x1b[31m")
    except ValueError:
        logging.getLogger("tensor_wasm").exception("failed")
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith("failed")
    assert all(line.startswith("    ") for line in rest)
    assert "\x1b" not in stream.getvalue()


def test_levels_are_respected_and_a_second_call_replaces_the_first(stream):
    logs.configure("debug", "text", io.StringIO())
    logs.configure("warning", "text", stream)
    logging.getLogger("tensor_wasm").info("quiet")
    logging.getLogger("tensor_wasm").warning("loud")
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    assert [line.split()[-1] for line in stream.getvalue().splitlines()] == ["loud"]
