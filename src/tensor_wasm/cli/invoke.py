"""``tensor-wasm invoke ID``."""

from __future__ import annotations

import base64

import click

from tensor_wasm.cli import outcome
from tensor_wasm.cli.arguments import call_options, check_deadline, read_arguments, read_file
from tensor_wasm.cli.session import Session, with_session

_MILLISECONDS = 1000


@click.command()
@click.argument("id")
@call_options
@with_session
@click.pass_obj
def invoke(
    session: Session,
    *,
    id: str,  # noqa: A002 - the field's word
    export: str | None,
    args: str,
    input_file: str | None,
    deadline_s: float | None,
) -> None:
    """Call an export of the function ID and print what it wrote and what it returned."""
    client = session.client()
    request: dict[str, object] = {"args": read_arguments(args)}
    if export is not None:
        request["export"] = export
    if input_file is not None:
        request["input_b64"] = base64.b64encode(read_file(input_file)).decode()
    if check_deadline(deadline_s) is not None and deadline_s is not None:
        request["deadline_ms"] = max(round(deadline_s * _MILLISECONDS), 1)
    outcome.show(client.invoke(id, request, deadline_s), session.is_json)
