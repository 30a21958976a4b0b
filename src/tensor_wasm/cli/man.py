"""``tensor-wasm man [COMMAND…]``: manual pages, made from the commands themselves."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from tensor_wasm.cli.failures import ExitCode, usage
from tensor_wasm.cli.output import print_line

_PROGRAM = "tensor-wasm"
_EXIT_CODES = {
    ExitCode.OK: "Done.",
    ExitCode.FAILED: "The work failed: a trap, a wrong result, a file that is not supported.",
    ExitCode.USAGE: "Wrong usage: an option, an argument, a setting.",
    ExitCode.UNREACHABLE: "No node answers.",
    ExitCode.DENIED: "Denied.",
    ExitCode.NOT_FOUND: "Not found.",
    ExitCode.DEADLINE: "The deadline came.",
}


@click.command()
@click.argument("names", metavar="[COMMAND]...", nargs=-1)
@click.pass_context
def man(context: click.Context, names: tuple[str, ...]) -> None:
    """Print the manual page of a command, or of tensor-wasm itself.

    To read one: tensor-wasm man invoke | man -l -
    """
    root = context.find_root()
    found = click.Context(root.command, info_name=_PROGRAM, **root.command.context_settings)
    for name in names:
        group = found.command
        command = group.get_command(found, name) if isinstance(group, click.Group) else None
        if command is None:
            raise usage(f"there is no command {' '.join((_PROGRAM, *names))!r}")
        found = click.Context(command, parent=found, info_name=name)
    print_line("\n".join(_page(found)))


def _page(context: click.Context) -> Iterator[str]:
    from tensor_wasm import __version__

    command, path = context.command, context.command_path
    yield f'.TH "{_plain(path.replace(" ", "-").upper())}" "1" "" "TensorWasm {_plain(__version__)}" "TensorWasm"'
    yield ".SH NAME"
    yield _plain(f"{path.replace(' ', '-')} - {command.get_short_help_str(200).rstrip('.')}")
    yield ".SH SYNOPSIS"
    yield rf"\fB{_plain(path)}\fR {_plain(' '.join(command.collect_usage_pieces(context)))}"
    yield ".SH DESCRIPTION"
    for number, paragraph in enumerate(re.split(r"\n\s*\n", inspect.cleandoc(command.help or ""))):
        if number:
            yield ".PP"
        yield _plain(" ".join(paragraph.replace("\b", "").split()))
    if isinstance(command, click.Group):
        yield ".SH COMMANDS"
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                yield ".TP"
                yield rf"\fB{_plain(name)}\fR"
                yield _plain(below.get_short_help_str(200))
    yield ".SH OPTIONS"
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1]:
            yield ".TP"
            yield rf"\fB{_plain(record[0])}\fR"
            yield _plain(" ".join(record[1].split()))
    yield ".SH EXIT STATUS"
    for code, text in _EXIT_CODES.items():
        yield ".TP"
        yield rf"\fB{int(code)}\fR"
        yield _plain(text)


def _plain(text: str) -> str:
    """Text that roff takes as text: no request, no escape; a hyphen that can be copied."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{escaped}" if escaped.startswith((".", "'")) else escaped
