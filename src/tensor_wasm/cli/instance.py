"""``tensor-wasm instance spawn``, ``list``, ``invoke``, ``delete``."""

from __future__ import annotations

from typing import Any

import click

from tensor_wasm.cli import outcome
from tensor_wasm.cli.arguments import call_options, check_deadline, check_idle_timeout, read_call
from tensor_wasm.cli.output import print_json, print_line, print_table, safe
from tensor_wasm.cli.quantities import age, mebibytes, moment
from tensor_wasm.cli.session import Session, with_session
from tensor_wasm.cli.streamed import refuse_json, show_stream

_COLUMNS = ("ID", "FUNCTION", "STATE", "SINCE", "CALLS", "IDLE LEFT", "MEMORY", "GPU MEMORY")


@click.group(no_args_is_help=False)
def instance() -> None:
    """Keep instances of functions between calls: spawn, list, invoke and delete them."""


@instance.command()
@click.argument("function")
@click.option("--idle-timeout", "idle_timeout_s", type=float, metavar="SECONDS", help="End it when idle for this long.")
@click.option("--deadline", "deadline_s", type=float, metavar="SECONDS", help="For the module's start function.")
@with_session
@click.pass_obj
def spawn(session: Session, function: str, idle_timeout_s: float | None, deadline_s: float | None) -> None:
    """Make an instance of the function FUNCTION (an id), keep it, and print the instance's id."""
    answer = session.client().spawn(function, check_idle_timeout(idle_timeout_s), check_deadline(deadline_s))
    if session.is_json:
        print_json(answer)
    else:
        print_line(safe(str(answer.get("id"))))


@instance.command("list")
@with_session
@click.pass_obj
def list_instances(session: Session) -> None:
    """List the tenant's kept instances, oldest first."""
    items = session.client().kept_instances()
    if session.is_json:
        print_json({"instances": items})
        return
    print_table(_COLUMNS, [_row(item) for item in items])


@instance.command()
@click.argument("id")
@call_options
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
    is_streamed: bool,
) -> None:
    """Call an export of the kept instance ID; its memory stays from call to call."""
    request = read_call(export, args, input_file, deadline_s)
    client = session.client()
    if is_streamed:
        refuse_json(session.is_json)
        show_stream(client, client.instance_path(id), request, deadline_s)
        return
    outcome.show(client.call(id, request, deadline_s), session.is_json)


@instance.command()
@click.argument("id")
@with_session
@click.pass_obj
def delete(session: Session, id: str) -> None:  # noqa: A002
    """End the kept instance ID, also while it answers a call."""
    session.client().delete_instance(id)
    if session.is_json:
        print_json({"deleted": id})
    else:
        print_line(f"deleted {safe(id)}")


def _row(item: dict[str, Any]) -> list[str]:
    left = item.get("idle_left_s")
    return [
        _text(item, "id"),
        _text(item, "function_name") or _text(item, "function_id"),
        _text(item, "state"),
        moment(item.get("created_at")),
        _text(item, "calls"),
        "" if left is None else age(left),
        mebibytes(item.get("memory_bytes")),
        mebibytes(item.get("gpu_memory_bytes")),
    ]


def _text(item: dict[str, Any], name: str) -> str:
    return str(item.get(name, ""))
