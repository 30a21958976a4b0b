"""``tensor-wasm job list``, ``show``, ``cancel``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from tensor_wasm.cli import outcome
from tensor_wasm.cli.failures import ExitCode, Failure, exit_code_of
from tensor_wasm.cli.output import print_json, print_line, print_table, safe
from tensor_wasm.cli.quantities import age, moment
from tensor_wasm.cli.session import Session, with_session

if TYPE_CHECKING:
    from tensor_wasm.cli.client import Client

STATUSES = ("pending", "running", "completed", "failed", "cancelled")
_UNFINISHED = ("pending", "running")
#: Pauses between two looks at a job: the first, by how much they grow, the longest.
_FIRST_POLL_S = 0.05
_POLL_GROWTH = 1.5
_LONGEST_POLL_S = 1.0


@click.group(no_args_is_help=False)
def job() -> None:
    """List, show and cancel background jobs; `invoke --async` makes one."""


@job.command("list")
@click.option("--status", type=click.Choice(STATUSES), help="Only jobs that stand there.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most this many.")
@with_session
@click.pass_obj
def list_jobs(session: Session, status: str | None, limit: int | None) -> None:
    """List the tenant's jobs, oldest first."""
    page_size = 100 if limit is None else min(limit, 100)
    items = list(islice(session.client().jobs(status, page_size), limit))
    if session.is_json:
        print_json({"jobs": items})
        return
    rows = [
        [
            _text(item, "id"), _text(item, "status"), _text(item, "function_id"), _text(item, "export"),
            moment(item.get("created_at")), _took(item), _kind(item),
        ]
        for item in items
    ]  # fmt: skip
    print_table(["ID", "STATUS", "FUNCTION", "EXPORT", "ACCEPTED", "TOOK", "ERROR"], rows)


@job.command()
@click.argument("id")
@with_session
@click.pass_obj
def show(session: Session, id: str) -> None:  # noqa: A002 - the field's word
    """Show the job ID, and its result once it has completed."""
    found = session.client().job(id)
    if session.is_json:
        print_json(found)
        return
    lines = [
        ("id", _text(found, "id")),
        ("status", _text(found, "status")),
        ("function", _text(found, "function_id")),
        ("export", _text(found, "export")),
        ("accepted", moment(found.get("created_at"))),
        ("started", moment(found.get("started_at"))),
        ("ended", moment(found.get("finished_at"))),
    ]
    error = found.get("error")
    if isinstance(error, dict):
        lines.append(("error", f"{error.get('kind')}: {error.get('message')}"))
    for name, text in lines:
        print_line(f"{name:<9} {safe(text)}".rstrip())
    result = found.get("result")
    if isinstance(result, dict):
        outcome.show(result, is_json=False)


@job.command()
@click.argument("id")
@with_session
@click.pass_obj
def cancel(session: Session, id: str) -> None:  # noqa: A002
    """Cancel the job ID: at once while it waits, soon when it runs. One that has ended stays as it is."""
    answer = session.client().cancel_job(id)
    if session.is_json:
        print_json(answer)
        return
    status = _text(answer, "status")
    words = {"cancelled": "cancelled", "running": "cancelling, it runs:", "pending": "cancelling, it is about to run:"}
    print_line(f"{words.get(status, f'had ended ({safe(status)}):')} {safe(id)}")


def wait(client: Client, job_id: str) -> dict[str, Any]:
    """Wait for the end of a job; the job. Raises :class:`Failure` when it did not complete."""
    pause_s = _FIRST_POLL_S
    while True:
        found: dict[str, Any] = client.job(job_id)
        status = found.get("status")
        if status not in _UNFINISHED:
            break
        time.sleep(pause_s)
        pause_s = min(pause_s * _POLL_GROWTH, _LONGEST_POLL_S)
    if status == "completed" and isinstance(found.get("result"), dict):
        return found
    error = found.get("error")
    if not isinstance(error, dict):
        raise Failure("unknown", f"the job ended as {status}, without a reason", ExitCode.FAILED)
    kind = str(error.get("kind"))
    raise Failure(kind, str(error.get("message")), exit_code_of(kind, 0))


def _text(item: Mapping[str, object], name: str) -> str:
    value = item.get(name)
    return "" if value is None else str(value)


def _took(item: Mapping[str, object]) -> str:
    started, finished = item.get("started_at"), item.get("finished_at")
    if not isinstance(started, int | float) or not isinstance(finished, int | float):
        return ""
    return age(finished - started)


def _kind(item: Mapping[str, object]) -> str:
    error = item.get("error")
    return _text(error, "kind") if isinstance(error, dict) else ""
