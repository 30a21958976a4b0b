"""``tensor-wasm version``."""

from __future__ import annotations

import click

from tensor_wasm.cli.output import print_json, print_line
from tensor_wasm.cli.session import Session, with_session


@click.command()
@with_session
@click.pass_obj
def version(session: Session) -> None:
    """Print the versions of TensorWasm, Python and Wasmtime."""
    import platform
    from importlib import metadata

    from tensor_wasm import __version__

    versions = {
        "tensor-wasm": __version__,
        "python": platform.python_version(),
        "wasmtime": metadata.version("wasmtime"),
    }
    if session.is_json:
        print_json(versions)
        return
    for name, text in versions.items():
        print_line(f"{name} {text}")
