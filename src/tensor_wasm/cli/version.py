"""``tensor-wasm version``."""

from __future__ import annotations

import click

from tensor_wasm.cli.output import print_json, print_line
from tensor_wasm.cli.session import Session, with_session


@click.command()
@with_session
@click.pass_obj
def version(session: Session) -> None:
    """Print the versions of TensorWasm, Python and Wasmtime, the commit, and the version of the node's database."""
    from tensor_wasm.store.database import SCHEMA_VERSION
    from tensor_wasm.telemetry.build import build

    built = build()
    versions: dict[str, str | int] = {
        "tensor-wasm": built.version,
        "git_sha": built.git_sha,
        "python": built.python,
        "wasmtime": built.wasmtime,
        "database": SCHEMA_VERSION,
    }
    if session.is_json:
        print_json(versions)
        return
    for name, text in versions.items():
        print_line(f"{name} {text}")
