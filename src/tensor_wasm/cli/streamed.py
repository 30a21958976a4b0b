"""A call whose chunks go to stdout as they come."""

from __future__ import annotations

import binascii
import codecs
import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import click

from tensor_wasm.api.errors import Unreachable
from tensor_wasm.api.events import MalformedEvent, events
from tensor_wasm.api.transport import decode
from tensor_wasm.cli.client import Client
from tensor_wasm.cli.failures import Failure, usage
from tensor_wasm.cli.output import print_guest_output, print_note, safe

_KEPT_CONTROLS = "\n\t"


def show_stream(client: Client, path: str, request: Mapping[str, object], deadline_s: float | None) -> None:
    """Print what a guest emits, its very bytes, and how the call went to stderr.

    Raises the failure of the call; ``stream_cut`` when what was printed may be less than the guest emitted.
    """
    write = _writer()
    with client.call_events(path, request, deadline_s) as pieces:
        for name, data in _uncut(events(pieces)):
            found = decode(data)
            if name == "chunk" and isinstance(found, dict):
                write(_bytes(client, found.get("chunk_b64")))
            elif name == "error":
                raise client.told_error(found)
            elif name == "done" and isinstance(found, dict):
                _close(found)
                return
    raise _cut("the node ended it early")


def refuse_json(is_json: bool) -> None:
    """Raises a usage failure for ``--json`` together with ``--stream``."""
    if is_json:
        raise usage("--stream prints the guest's own bytes, which are no JSON: leave out --json or --stream")


def _uncut(found: Iterator[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    try:
        yield from found
    except MalformedEvent as error:
        raise _cut(str(error)) from error
    except Failure as failure:
        if failure.kind != Unreachable.kind:
            raise
        raise _cut(failure.message) from failure


def _cut(reason: str) -> Failure:
    return Failure("stream_cut", f"the stream is not whole: {reason}")


def _bytes(client: Client, text: object) -> bytes:
    if isinstance(text, str):
        with contextlib.suppress(ValueError):
            return binascii.a2b_base64(text, strict_mode=True)
    raise client.stranger_error()


def _writer() -> Any:
    """Writes bytes: as they are into a pipe or file, as harmless text onto a terminal."""
    if not sys.stdout.isatty():
        raw = sys.stdout.buffer

        def write(chunk: bytes) -> None:
            raw.write(chunk)
            raw.flush()

        return write
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return lambda chunk: click.echo(safe(decoder.decode(chunk), keep=_KEPT_CONTROLS), nl=False)


def _close(answer: Mapping[str, object]) -> None:
    if sys.stdout.isatty():
        click.echo()
    for name in ("stdout", "stderr"):
        text = answer.get(name)
        if isinstance(text, str):
            print_guest_output(text.encode(errors="replace"), to_stderr=True)
    result = answer.get("result")
    if isinstance(result, list):
        print_note(f"returned {safe(', '.join(map(str, result)))}")
