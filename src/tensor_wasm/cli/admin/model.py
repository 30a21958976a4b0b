"""``tensor-wasm admin model set``, ``list`` and ``delete``."""

from __future__ import annotations

from typing import Any

import click

from tensor_wasm.cli.admin.operator import advised, chosen_tenant, client_of, with_operator_of_tenant
from tensor_wasm.cli.failures import usage
from tensor_wasm.cli.output import print_json, print_line, print_table, safe
from tensor_wasm.cli.quantities import moment
from tensor_wasm.cli.session import Session, global_options

_UNKNOWN = "list models with `tensor-wasm admin model list`"
_NO_FUNCTION = "list a tenant's functions with `tensor-wasm function list --tenant NUMBER`"

_with_tenant = global_options(from_environment=False, tenant_help="Whose model it is.")


@click.group(no_args_is_help=False)
def model() -> None:
    """Say which function answers a model that OpenAI's clients name."""


@model.command("set")
@click.argument("name")
@click.option("--function", "function_id", required=True, metavar="ID", help="The function that answers it.")
@click.option("--export", metavar="NAME", help="The export to call; run, else _start, when not given.")
@_with_tenant
@click.pass_obj
def set_model(session: Session, name: str, function_id: str, export: str | None) -> None:
    """Have a function of a tenant's answer the model NAME, in the place of what did before."""
    tenant = _tenant(session)
    with advised(_NO_FUNCTION):
        answer = client_of(session).set_model(tenant, name, function_id, export)
    if session.is_json:
        print_json(answer)
    else:
        print_line(f"{safe(name)} of tenant {tenant} is answered by {safe(_text(answer, 'function_id'))}")


@model.command("list")
@with_operator_of_tenant
@click.pass_context
def list_models(context: click.Context) -> None:
    """List models with what answers them."""
    session = context.find_object(Session) or Session()
    with advised():
        items = client_of(session).models(chosen_tenant(context, session))
    if session.is_json:
        print_json({"models": items})
        return
    print_table(["NAME", "TENANT", "FUNCTION", "NAMED", "EXPORT", "BOUND"], [_row(item) for item in items])


@model.command()
@click.argument("name")
@_with_tenant
@click.pass_obj
def delete(session: Session, name: str) -> None:
    """Unbind the model NAME; the function stays."""
    tenant = _tenant(session)
    with advised(_UNKNOWN):
        client_of(session).delete_model(tenant, name)
    if session.is_json:
        print_json({"deleted": name, "tenant": tenant})
    else:
        print_line(f"deleted {safe(name)} of tenant {tenant}")


def _tenant(session: Session) -> int:
    if session.tenant is None:
        raise usage("name the tenant whose model it is: --tenant NUMBER")
    return session.tenant


def _row(item: dict[str, Any]) -> list[str]:
    named = "(deleted)" if item.get("function_name") is None else _text(item, "function_name")
    texts = [_text(item, name) for name in ("name", "tenant", "function_id")]
    return [*texts, named, _text(item, "export") or "-", moment(item.get("created_at")) or "-"]


def _text(item: dict[str, Any], name: str) -> str:
    value = item.get(name)
    return "" if value is None else str(value)
