"""The group ``tensor-wasm admin`` and its nouns."""

from __future__ import annotations

import click

from tensor_wasm.cli.admin.drain import drain
from tensor_wasm.cli.admin.instance import instance
from tensor_wasm.cli.admin.model import model
from tensor_wasm.cli.admin.tenant import tenant
from tensor_wasm.cli.admin.token import token


@click.group(no_args_is_help=False)
def admin() -> None:
    """See and end instances, set quotas, manage tokens and models, drain a node.

    Needs a token with role=admin, or a node without tokens.
    """


for command in (instance, tenant, token, model, drain):
    admin.add_command(command)
