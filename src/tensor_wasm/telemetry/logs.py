"""Log lines on standard error: text for people, or one JSON object a line.

What is passed as ``extra`` becomes fields, and so does what is known of the request or job for which the line was
written: ``request_id``, ``trace_id``, ``tenant``, ``instance_id``. Control characters never reach the output raw: a
tenant's text cannot forge a line or move an operator's terminal.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from typing import TextIO

from tensor_wasm.node import ORIGIN
from tensor_wasm.telemetry import journal

#: The loggers that write here: ours, and those of the libraries that serve HTTP.
_OURS = "tensor_wasm"
_LIBRARIES = ("uvicorn", "asyncio")

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


class TextFormatter(logging.Formatter):
    """``2026-01-31T12:00:00.123Z INFO tensor_wasm.http message key=value``, a traceback indented below.

    Without the time and the level where they are told otherwise.
    """

    def __init__(self, has_moment: bool = True) -> None:
        super().__init__()
        self._has_moment = has_moment

    def format(self, record: logging.LogRecord) -> str:
        """One record as text."""
        fields = "".join(f" {name}={_visible(str(value))}" for name, value in _fields(record).items())
        line = f"{record.name} {_visible(record.getMessage())}{fields}"
        if self._has_moment:
            line = f"{_moment(record)} {record.levelname:<7} {line}"
        if record.exc_info:
            trace = self.formatException(record.exc_info)
            line += "".join(f"\n    {_visible(part)}" for part in trace.splitlines())
        return line


class JsonFormatter(logging.Formatter):
    """One object: ``time``, ``level``, ``logger``, ``message``, the fields, ``exception``."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as JSON."""
        line: dict[str, object] = {
            "time": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in _fields(record).items():
            line.setdefault(name, value)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure(level: str, log_format: str, stream: TextIO | None = None) -> None:
    """Send the program's log to ``stream`` (standard error): ``log_format`` is "text" or "json".

    Where that is systemd's journal, each line begins with its priority and a text has no time of its own.

    A second call replaces what the first set. Libraries are heard from ERROR on: what they warn about is bytes of
    clients that are not HTTP, at a rate that any client may choose.
    """
    output = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(output)
    is_for_journal = journal.is_journal(output, os.environ)
    formatter = JsonFormatter() if log_format == "json" else TextFormatter(has_moment=not is_for_journal)
    handler.setFormatter(journal.JournalFormatter(formatter) if is_for_journal else formatter)
    handler.addFilter(_of_origin)
    for name in (_OURS, *_LIBRARIES):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level.upper() if name == _OURS else logging.ERROR)


def _of_origin(record: logging.LogRecord) -> bool:
    """Note for whom a line is written, on the thread that writes it."""
    origin = ORIGIN.get()
    if origin is not None:
        for name in ("request_id", "trace_id", "tenant", "instance_id"):
            value = getattr(origin, name)
            if value is not None and not hasattr(record, name):
                setattr(record, name, value)
    return True


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _moment(record: logging.LogRecord) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{whole}.{int(record.msecs):03d}Z"


def _visible(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
