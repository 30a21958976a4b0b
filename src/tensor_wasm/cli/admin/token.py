"""``tensor-wasm admin token create``, ``list`` and ``revoke``."""

from __future__ import annotations

from typing import Any

import click

from tensor_wasm.cli.admin.operator import advised, client_of, with_operator
from tensor_wasm.cli.output import print_json, print_line, print_note, print_table, safe
from tensor_wasm.cli.quantities import moment
from tensor_wasm.cli.session import Session

_UNKNOWN = "list tokens with `tensor-wasm admin token list`"


@click.group(no_args_is_help=False)
def token() -> None:
    """Make, list and revoke tokens."""


@token.command()
@click.option(
    "--scope", required=True, metavar="SCOPE", help="What it allows: tenant=7, tenant=1,2, tenant=* or role=admin."
)
@click.option("--name", metavar="TEXT", help="What it is for, to know it again in the list.")
@with_operator
@click.pass_obj
def create(session: Session, scope: str, name: str | None) -> None:
    """Make a token and print its secret, which the node keeps only a hash of and never shows again.

    The secret alone goes to stdout: TOKEN=$(tensor-wasm admin token create --scope tenant=7)
    """
    with advised():
        answer = client_of(session).create_token(name, scope)
    if session.is_json:
        print_json(answer)
        return
    print_line(safe(str(answer["token"])))
    identity, allowed = (safe(_text(answer, field)) for field in ("id", "scope"))
    print_note(
        f"note: token {identity} ({allowed}) is shown only this once; keep it now."
        f" `tensor-wasm admin token revoke {identity}` ends it"
    )


@token.command("list")
@with_operator
@click.pass_obj
def list_tokens(session: Session) -> None:
    """List the node's tokens, without their secrets. Those from settings are not in its database."""
    with advised():
        items = client_of(session).tokens()
    if session.is_json:
        print_json({"tokens": items})
        return
    print_table(["ID", "NAME", "SCOPE", "FROM", "CREATED", "LAST USED"], [_row(item) for item in items])


@token.command()
@click.argument("id")
@with_operator
@click.pass_obj
def revoke(session: Session, id: str) -> None:  # noqa: A002 - the field's word
    """Revoke the token ID: the next request with it is refused."""
    with advised(_UNKNOWN):
        client_of(session).revoke_token(id)
    if session.is_json:
        print_json({"revoked": id})
    else:
        print_line(f"revoked {safe(id)}")


def _row(item: dict[str, Any]) -> list[str]:
    used = item.get("last_used_at")
    texts = [_text(item, name) for name in ("id", "name", "scope", "source")]
    return [*texts, moment(item.get("created_at")) or "-", "never" if used is None else moment(used)]


def _text(item: dict[str, Any], name: str) -> str:
    value = item.get(name)
    return "" if value is None else str(value)
