"""``tensor-wasm deploy FILE``."""

from __future__ import annotations

import click

from tensor_wasm.cli.arguments import function_name, read_file
from tensor_wasm.cli.output import print_json, print_line, safe
from tensor_wasm.cli.session import Session, with_session


@click.command()
@click.argument("file")
@click.option("--name", metavar="NAME", help="Name of the function; the file's, without its ending, when not given.")
@click.option("--prewarm", metavar="EXPORT", help="Run this export once; every instance starts from where it ends.")
@with_session
@click.pass_obj
def deploy(session: Session, file: str, name: str | None, prewarm: str | None) -> None:
    """Deploy the WebAssembly module FILE (- is stdin) and print the function's id."""
    client = session.client()
    answer = client.deploy(function_name(name, file), read_file(file), prewarm)
    if session.is_json:
        print_json(answer)
    else:
        print_line(safe(str(answer.get("id"))))
