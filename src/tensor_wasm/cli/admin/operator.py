"""The operator: options and client of ``admin`` commands, and what to do when the node refuses one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import click
from click.core import ParameterSource

from tensor_wasm.cli.client import Client
from tensor_wasm.cli.failures import Failure
from tensor_wasm.cli.session import Session, global_options

_ADVICE = {
    "unauthorized": "give a token with role=admin (--token, TENSOR_WASM_TOKEN)",
    "forbidden": "give a token with role=admin (--token, TENSOR_WASM_TOKEN)",
    "route_not_found": "this node has no such route: it may be an older one, or --server may name something else",
}

#: The global options without ``--tenant``: an operator acts on the node, for no tenant.
with_operator = global_options(from_environment=False, tenant_help=None)
#: The same with a ``--tenant`` that chooses what is shown.
with_operator_of_tenant = global_options(from_environment=False, tenant_help="Only this tenant's.")


def client_of(session: Session) -> Client:
    """A client that acts for no tenant, so that no tenant's rate limit holds for it. Raises :class:`Failure`."""
    return replace(session, tenant=None).client()


def chosen_tenant(context: click.Context, session: Session) -> int | None:
    """The tenant of a flag, before or after the command.

    One from the environment says whom to act for; it must not hide the others from an operator.
    """
    places = (context, context.find_root())
    is_flag = any(place.get_parameter_source("tenant") is ParameterSource.COMMANDLINE for place in places)
    return session.tenant if is_flag else None


@contextlib.contextmanager
def advised(not_found: str = "") -> Iterator[None]:
    """Add to a refusal what to do about it; ``not_found`` says so for an id that the node does not know."""
    try:
        yield
    except Failure as failure:
        advice = (_ADVICE | {"not_found": not_found}).get(failure.kind, "")
        if not advice:
            raise
        message = f"{failure.message.rstrip('.; ')}; {advice}"
        raise Failure(failure.kind, message, failure.exit_code, failure.request_id) from failure
