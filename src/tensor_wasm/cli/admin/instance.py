"""``tensor-wasm admin instance list`` and ``terminate``."""

from __future__ import annotations

from typing import Any

import click

from tensor_wasm.cli.admin.operator import (
    advised,
    chosen_tenant,
    client_of,
    with_operator,
    with_operator_of_tenant,
)
from tensor_wasm.cli.client import Client
from tensor_wasm.cli.failures import ExitCode, Failure
from tensor_wasm.cli.output import print_error, print_json, print_line, print_table, safe
from tensor_wasm.cli.quantities import age, mebibytes, rate
from tensor_wasm.cli.session import Session

_COLUMNS = (
    "ID", "TENANT", "FUNCTION", "EXPORT", "AGE", "TIME LEFT", "STATE",
    "LAUNCHES", "PER S", "PERMITS", "MEMORY", "GPU MEMORY",
)  # fmt: skip
_UNKNOWN = "list live ones with `tensor-wasm admin instance list`"
#: Exit codes from the best to the worst: a missing instance needs no end; without an answer nothing is known.
_BY_SEVERITY = (
    ExitCode.OK,
    ExitCode.NOT_FOUND,
    ExitCode.DEADLINE,
    ExitCode.FAILED,
    ExitCode.USAGE,
    ExitCode.DENIED,
    ExitCode.UNREACHABLE,
)
#: What would only happen again with the next id.
_HOPELESS = (ExitCode.DENIED, ExitCode.UNREACHABLE)


@click.group(no_args_is_help=False)
def instance() -> None:
    """See and end live instances, of every tenant."""


@instance.command("list")
@with_operator_of_tenant
@click.pass_context
def list_instances(context: click.Context) -> None:
    """List live instances, oldest first: whose, what runs, since when, how long it may, what it holds."""
    session = context.find_object(Session) or Session()
    with advised():
        items = client_of(session).instances(chosen_tenant(context, session))
    if session.is_json:
        print_json({"instances": items})
        return
    print_table(_COLUMNS, [_row(item) for item in items])


@instance.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@with_operator
@click.pass_context
def terminate(context: click.Context, ids: tuple[str, ...]) -> None:
    """End the instances ID..., wherever they are: in a loop, in a kernel, waiting for a permit.

    Their callers get `terminated`. Every ID is tried; the exit code is that of the worst failure.
    """
    session = context.find_object(Session) or Session()
    client = client_of(session)
    reports: list[dict[str, Any]] = []
    codes = [ExitCode.OK]
    hopeless: Failure | None = None
    for identity in dict.fromkeys(ids):
        try:
            if hopeless is not None:
                raise hopeless
            answer = _terminate(client, identity)
        except Failure as failure:
            codes.append(ExitCode(failure.exit_code))
            hopeless = failure if failure.exit_code in _HOPELESS else None
            reports.append({"id": identity, "error": {"kind": failure.kind, "message": failure.message}})
            print_error(_of(identity, failure), is_json=False)
            continue
        reports.append(answer)
        if not session.is_json:
            took = _text(answer, "took_ms")
            print_line(f"terminated {safe(identity)} (tenant {safe(_text(answer, 'tenant'))}) in {safe(took)} ms")
    if session.is_json:
        print_json({"instances": reports})
    context.exit(max(codes, key=_BY_SEVERITY.index))


def _terminate(client: Client, identity: str) -> dict[str, Any]:
    with advised(_UNKNOWN):
        answer = client.terminate(identity)
    if answer.get("ended") is not True:
        waited = f"{_text(answer, 'took_ms')} ms"
        advice = "it ends as soon as it can; `tensor-wasm admin instance list` shows whether it has"
        raise Failure("still_ending", f"the instance was told to end and had not after {waited}; {advice}")
    return answer


def _of(identity: str, failure: Failure) -> Failure:
    """A failure that says which of several instances it is about."""
    return Failure(failure.kind, f"{identity}: {failure.message}", failure.exit_code, failure.request_id)


def _row(item: dict[str, Any]) -> list[str]:
    left = item.get("deadline_left_s")
    state = _text(item, "state").replace("_", " ")
    return [
        _text(item, "id"),
        _text(item, "tenant"),
        _text(item, "function_name") or _text(item, "function_id"),
        _text(item, "export"),
        age(item.get("age_s")),
        "none" if left is None else age(left),
        f"{state}, ending" if item.get("is_ending") is True else state,
        _text(item, "launches"),
        rate(item.get("launches_per_s")),
        _text(item, "held_permits"),
        mebibytes(item.get("memory_bytes")),
        mebibytes(item.get("gpu_memory_bytes")),
    ]


def _text(item: dict[str, Any], name: str) -> str:
    value = item.get(name)
    return "" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)
