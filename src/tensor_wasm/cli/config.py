"""``tensor-wasm config show``."""

from __future__ import annotations

import os

import click

from tensor_wasm.cli.output import print_json, print_note, print_table, safe
from tensor_wasm.cli.session import Session, with_session


@click.group(no_args_is_help=False)
def config() -> None:
    """Show the settings of a node."""


@config.command()
@with_session
@click.pass_obj
def show(session: Session) -> None:
    """Show every setting: its value here and now, and where that comes from. Secrets are not shown."""
    from tensor_wasm.config import load

    loaded = load(os.environ)
    rows = loaded.rows()
    if session.is_json:
        settings = [{"name": name, "value": value, "source": source} for name, value, source in rows]
        print_json({"settings": settings, "warnings": list(loaded.warnings)})
        return
    print_table(["SETTING", "VALUE", "SOURCE"], rows)
    for warning in loaded.warnings:
        print_note(f"warning: {safe(warning)}")
