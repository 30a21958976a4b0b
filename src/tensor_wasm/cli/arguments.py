"""What commands take from the command line: files, bounded; JSON arguments; seconds; names."""

from __future__ import annotations

import base64
import json
import math
import re
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypeVar

import click

from tensor_wasm.cli.failures import Failure, usage
from tensor_wasm.cli.output import safe

#: The largest file a command reads; a node's own limit on bodies may be lower, and its answer says so.
MAX_FILE_BYTES = 1 << 30
_MAX_ARGS_CHARACTERS = 1 << 20
_MAX_DEADLINE_S = 86_400.0
_MILLISECONDS = 1000
_NAME_CHARACTERS = re.compile(r"[^A-Za-z0-9._-]+")
_MAX_NAME_CHARACTERS = 64
_STDIN = "-"
_MAX_COUNT_DIGITS = 20

_Command = TypeVar("_Command", bound=Callable[..., Any])


def read_file(path: str, limit_bytes: int = MAX_FILE_BYTES) -> bytes:
    """The bytes of a file, ``-`` for stdin. Raises :class:`Failure` when there is none, or it is too large."""
    if path == _STDIN:
        if sys.stdin is None:
            raise usage("there is no stdin to read from")
        return _bounded(sys.stdin.buffer, limit_bytes, "stdin")
    if not path or "\0" in path:
        raise usage("the name of a file cannot be empty")
    try:
        with Path(path).open("rb") as file:
            if stat.S_ISDIR(Path(path).stat().st_mode):
                raise usage(f"{safe(path)} is a directory; name a file")
            return _bounded(file, limit_bytes, path)
    except IsADirectoryError:
        raise usage(f"{safe(path)} is a directory; name a file") from None
    except FileNotFoundError:
        raise usage(f"there is no file {safe(path)}") from None
    except (OSError, ValueError) as error:
        raise usage(f"{safe(path)} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _bounded(file: BinaryIO, limit_bytes: int, name: str) -> bytes:
    parts = []
    left = limit_bytes + 1
    while left > 0 and (part := file.read(min(left, 1 << 20))):
        parts.append(part)
        left -= len(part)
    if left <= 0:
        raise Failure("body_too_large", f"{safe(name)} has more than {limit_bytes} bytes, which is the limit")
    return b"".join(parts)


def read_arguments(text: str) -> list[Any]:
    """The value of ``--args``: a JSON array; integers keep every digit. A usage failure says what to write instead."""
    wanted = "--args must be a JSON array such as '[1, 2.5, \"NaN\"]'"
    if len(text) > _MAX_ARGS_CHARACTERS:
        raise usage(f"{wanted} of at most {_MAX_ARGS_CHARACTERS} characters")
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError:
        raise usage(f"{wanted}; it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise usage(f"{wanted}; {error.msg} at character {error.pos}") from None
    except ValueError as error:
        raise usage(f"{wanted}; {error}") from None
    if not isinstance(value, list):
        raise usage(f"{wanted}, not {_json_type(value)}")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f'write {name} as the string "{name}"')


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:40]} is beyond the range of f64")
    return value


def _json_type(value: object) -> str:
    names: dict[type, str] = {dict: "an object", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def function_name(given: str | None, path: str) -> str:
    """The name to deploy under: the given one as it is (the node judges it), else one made from the file's."""
    if given is not None:
        return given
    stem = _NAME_CHARACTERS.sub("-", Path(path).stem).strip("-.")[:_MAX_NAME_CHARACTERS]
    if path == _STDIN or not stem:
        raise usage("no name can be made from the file's; give one with --name")
    return stem


def check_deadline(value: float | None) -> float | None:
    """A deadline in seconds, as given. Raises a usage failure when it is none."""
    if value is not None and not (math.isfinite(value) and 0.001 <= value <= _MAX_DEADLINE_S):
        raise usage(f"--deadline must be from 0.001 to {_MAX_DEADLINE_S:g} seconds")
    return value


def check_idle_timeout(value: float | None) -> float | None:
    """How long an instance may be idle, in seconds, as given: the node judges what is a number at all."""
    if value is not None and not math.isfinite(value):
        raise usage("--idle-timeout must be a number of seconds")
    return value


def read_size(text: str) -> int:
    """Bytes of a size written as in settings: a whole number, alone or with KiB, MiB or GiB. Raises a usage error."""
    from tensor_wasm.config import parse_size

    try:
        return parse_size(text)
    except ValueError:
        reason = f"{text!r} is no size: write a whole number of bytes, or one with KiB, MiB or GiB"
        raise click.BadParameter(reason) from None


def read_count(text: str) -> int:
    """A whole number, 0 or more. Raises a usage error."""
    if not (text.isascii() and text.isdecimal() and len(text) <= _MAX_COUNT_DIGITS):
        raise click.BadParameter(f"{text!r} is no whole number of at most {_MAX_COUNT_DIGITS} digits")
    return int(text)


def read_rate(text: str) -> float:
    """A finite number, 0 or more. Raises a usage error."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise click.BadParameter(f"{text!r} is no number of requests a second")
    return value


def read_call(export: str | None, args: str, input_file: str | None, deadline_s: float | None) -> dict[str, object]:
    """The request that the options of a call make. Raises a usage failure."""
    request: dict[str, object] = {"args": read_arguments(args)}
    if export is not None:
        request["export"] = export
    if input_file is not None:
        request["input_b64"] = base64.b64encode(read_file(input_file)).decode()
    if check_deadline(deadline_s) is not None and deadline_s is not None:
        request["deadline_ms"] = max(round(deadline_s * _MILLISECONDS), 1)
    return request


def call_options(command: _Command) -> _Command:
    """Give a command the options of a call: ``--export``, ``--args``, ``--input``, ``--deadline``."""
    for option in (
        click.option("--deadline", "deadline_s", type=float, metavar="SECONDS", help="End the call after this long."),
        click.option("--input", "input_file", metavar="FILE", help="What the guest's read-input gives; - is stdin."),
        click.option(
            "--args", "args", default="[]", metavar="JSON", help="Arguments as a JSON array, for example '[1000, 2.5]'."
        ),
        click.option("--export", "export", metavar="NAME", help="Exported function; run, else _start, when not given."),
    ):
        command = option(command)
    return command
