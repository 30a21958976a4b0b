"""``tensor-wasm invoke ID``."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import click

from tensor_wasm.cli import outcome
from tensor_wasm.cli.arguments import call_options, check_deadline, read_arguments, read_file
from tensor_wasm.cli.failures import usage
from tensor_wasm.cli.output import print_json, print_line, print_note, safe
from tensor_wasm.cli.session import Session, with_session
from tensor_wasm.cli.streamed import refuse_json, show_stream

if TYPE_CHECKING:
    from tensor_wasm.cli.client import Client

_MILLISECONDS = 1000


@click.command()
@click.argument("id")
@call_options
@click.option("--async", "is_async", is_flag=True, help="Make a background job of the call and print its id.")
@click.option("--wait", "is_waiting", is_flag=True, help="With --async: wait for the job's end and print its result.")
@click.option("--stream", "is_streamed", is_flag=True, help="Print what the guest emits, its bytes, as it comes.")
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
    is_async: bool,
    is_waiting: bool,
    is_streamed: bool,
) -> None:
    """Call an export of the function ID and print what it wrote and what it returned.

    With --async the call becomes a background job, and the job's id is printed.
    """
    if is_waiting and not is_async:
        raise usage("--wait is for --async: without it the command waits anyway")
    if is_streamed:
        if is_async:
            raise usage("--stream waits for what the guest emits, --async for nothing: leave out one of them")
        refuse_json(session.is_json)
    client = session.client()
    request: dict[str, object] = {"args": read_arguments(args)}
    if export is not None:
        request["export"] = export
    if input_file is not None:
        request["input_b64"] = base64.b64encode(read_file(input_file)).decode()
    if check_deadline(deadline_s) is not None and deadline_s is not None:
        request["deadline_ms"] = max(round(deadline_s * _MILLISECONDS), 1)
    if is_streamed:
        show_stream(client, client.stream_path(id), request, deadline_s)
        return
    if is_async:
        _submit(session, client, id, request, is_waiting)
        return
    outcome.show(client.invoke(id, request, deadline_s), session.is_json)


def _submit(session: Session, client: Client, function_id: str, request: dict[str, object], is_waiting: bool) -> None:
    """Make a job of the call; wait for its end if wanted, and show it as the call would have been."""
    answer = client.submit(function_id, request)
    job_id = str(answer["job_id"])
    if not is_waiting:
        if session.is_json:
            print_json(answer)
        else:
            print_line(safe(job_id))
        return
    print_note(f"job {safe(job_id)}")

    from tensor_wasm.cli.job import wait

    found = wait(client, job_id)
    if session.is_json:
        print_json(found)
    else:
        outcome.show(found["result"], is_json=False)
