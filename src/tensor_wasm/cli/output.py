"""Writing for people and for scripts: control characters made visible, tables, JSON, errors."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence

import click

from tensor_wasm.cli.failures import Failure
from tensor_wasm.errors import InternalError

#: Characters between two columns of a drawn table.
_BETWEEN = 3
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}
_KEPT_CONTROLS = "\n\t"


def safe(text: str, keep: str = "") -> str:
    """``text`` with all that a terminal could obey (controls, escapes, bidirectional overrides) written out.

    Names and messages come from other people. Characters in ``keep`` stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _written_out(c) for c in text)


def _written_out(character: str) -> str:
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def print_line(text: str = "") -> None:
    """One line to stdout."""
    click.echo(text)


def print_note(text: str) -> None:
    """One line to stderr: what is worth knowing and is not the answer."""
    click.echo(text, err=True)


def print_json(value: object) -> None:
    """One JSON document on one line of stdout."""
    click.echo(json.dumps(value, allow_nan=False))


def print_error(failure: Failure, is_json: bool) -> None:
    """``error: kind: message`` to stderr; with ``is_json`` the error object to stdout too."""
    kind, message = safe(failure.kind), safe(failure.message.replace("\n", " "))
    if failure.kind == InternalError.kind and failure.request_id is not None:
        message += f" (request {safe(failure.request_id)} in the node's log)"
    if is_json:
        error = {"kind": failure.kind, "message": failure.message}
        if failure.request_id is not None:
            error["request_id"] = failure.request_id
        print_json({"error": error})
    print_note(f"{paint('error:', 'fail', to_stderr=True)} {kind}: {message}")


def print_guest_output(data: bytes, to_stderr: bool = False) -> None:
    """What a guest wrote: its very bytes into a pipe or file, harmless text onto a terminal."""
    if not data:
        return
    stream = sys.stderr if to_stderr else sys.stdout
    if stream.isatty():
        text = safe(data.decode(errors="replace"), keep=_KEPT_CONTROLS)
        click.echo(text, err=to_stderr, nl=not text.endswith("\n"))
        return
    stream.flush()
    stream.buffer.write(data)
    if not data.endswith(b"\n"):
        stream.buffer.write(b"\n")
    stream.buffer.flush()


def paint(text: str, status: str, to_stderr: bool = False) -> str:
    """``text`` in the colour of a status (``ok``, ``warn``, ``fail``) when it goes to a terminal that wants colour."""
    stream = sys.stderr if to_stderr else sys.stdout
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return text
    return click.style(text, fg=_COLOURS[status])


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table: drawn on a terminal that has the width for it, padded columns elsewhere. Cells are made safe here.

    The first column has what rows are called by: it is never broken into pieces that cannot be copied.
    """
    cells = [[safe(cell) for cell in row] for row in rows]
    widths = [max(len(row[index]) for row in [list(columns), *cells]) for index in range(len(columns))]
    least_width = widths[0] + sum(_BETWEEN + len(column) for column in columns[1:]) + _BETWEEN
    if sys.stdout.isatty() and least_width <= shutil.get_terminal_size().columns:
        _draw_table(columns, cells)
        return
    for row in [list(columns), *cells]:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print_line("  ".join(padded).rstrip())


def _draw_table(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=index == 0)
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))  # Text: brackets in a name are not markup
    Console().print(table)
