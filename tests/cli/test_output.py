from __future__ import annotations

import io
import os
import pty
import subprocess
import sys

import pytest

from tensor_wasm.cli import output
from tensor_wasm.cli.failures import Failure


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ñ 名", "plain ñ 名"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x9b31m", "\\x9b31m"),
        ("a\rb\nc\x07", "a\\x0db\\x0ac\\x07"),
        ("safe\u202egpj.exe", "safe\\u202egpj.exe"),
        ("\u2066x\u2069", "\\u2066x\\u2069"),
        ("\U000e0001", "\\U000e0001"),
        ("\udcff", "\\udcff"),
    ],
)
def test_what_a_terminal_could_obey_is_written_out(text, shown):
    assert output.safe(text) == shown


def test_kept_characters_stay():
    assert output.safe("a\n\tb\x1b", keep="\n\t") == "a\n\tb\\x1b"


def test_a_table_for_a_pipe_is_padded_columns(capsys):
    output.print_table(["ID", "NAME"], [["1", "x"], ["22", "y\x1b[2J"]])
    assert capsys.readouterr().out == "ID  NAME\n1   x\n22  y\\x1b[2J\n"


def test_an_error_is_one_line_whatever_its_message(capsys):
    output.print_error(Failure("a_kind", "first\nsecond \x1b]0;title\x07"), is_json=False)
    captured = capsys.readouterr()
    assert captured.err == "error: a_kind: first second \\x1b]0;title\\x07\n"
    assert captured.out == ""


def _on_a_terminal(script: str, **environment: str) -> str:
    """What a script writes when its stdout is a terminal."""
    main, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=terminal,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", **environment},
    )
    os.close(terminal)
    written = b""
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:  # Linux: the other side is closed
            break
        if not part:
            break
        written += part
    process.wait()
    os.close(main)
    return written.decode()


def test_a_terminal_gets_colour_and_a_drawn_table_unless_it_wants_none():
    script = (
        "from tensor_wasm.cli.output import paint, print_line, print_table\n"
        "print_line(paint('word', 'fail')); print_table(['A', 'B'], [['[red]x', 'y\\x1b[2J']])"
    )
    coloured = _on_a_terminal(script)
    assert "\x1b[31mword" in coloured
    assert "[red]x" in coloured
    assert "\x1b[2J" not in coloured
    assert "\x1b[31m" not in _on_a_terminal(script, NO_COLOR="1")


@pytest.mark.parametrize("width", ["40", "60", "100", "200"])
def test_an_id_can_be_copied_from_a_table_on_a_terminal_of_any_width(width):
    identity = "00000000-0000-4000-8000-000000000000"
    script = (
        "from tensor_wasm.cli.output import print_table\n"
        f"print_table(['ID', *(f'COLUMN {{n}}' for n in range(6))], [['{identity}', *['some words'] * 6]])"
    )
    written = _on_a_terminal(script, COLUMNS=width)
    assert identity in written
    assert all(f"COLUMN {n}" in written for n in range(6))


def test_guest_output_cannot_move_a_terminal():
    script = "from tensor_wasm.cli.output import print_guest_output as p; p(b'a\\x1b[2Jb\\nc')"
    assert _on_a_terminal(script) == "a\\x1b[2Jb\r\nc\r\n"


def test_guest_output_into_a_file_is_its_very_bytes(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="utf-8", write_through=True))
    output.print_guest_output(b"\xff\x00\x1b[1m\n")
    assert raw.getvalue() == b"\xff\x00\x1b[1m\n"
