"""``tensor-wasm backup`` and ``tensor-wasm restore``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from tensor_wasm.cli.failures import ExitCode
from tensor_wasm.cli.output import print_json, print_line, print_note, safe
from tensor_wasm.cli.quantities import mebibytes
from tensor_wasm.cli.session import Session, with_session

_home = click.option("--home", metavar="DIRECTORY", help="The node's home, before TENSOR_WASM_HOME.")


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@_home
@with_session
@click.pass_context
def backup(context: click.Context, directory: Path, home: str | None) -> None:
    """Copy a node's home to DIRECTORY, which must not exist yet. The node may serve meanwhile.

    Run it as the node's own user, on its machine. A backup has the node's key and its database: keep it as secret as
    the home. Ends with exit code 1 when artifacts were damaged or missing; the rest is backed up all the same.
    """
    from tensor_wasm.config import load
    from tensor_wasm.store.backup import back_up

    session = context.find_object(Session) or Session()
    config = load(os.environ, {"home": home}).config
    made = back_up(config.home, directory)
    if config.snapshot_dir is not None:
        print_note(f"warning: {safe(str(config.snapshot_dir))} is outside of the home and not in the backup")
    if session.is_json:
        print_json(
            {
                "directory": str(made.directory),
                "files": made.files,
                "size_bytes": made.size_bytes,
                "missing": list(made.missing),
            }
        )
    else:
        print_line(f"{safe(str(made.directory))}: {made.files} files, {mebibytes(made.size_bytes)}")
    if made.missing:
        print_note(
            f"warning: {len(made.missing)} artifacts or snapshots are damaged or missing in the home, and so in the"
            " backup; `tensor-wasm doctor` says which"
        )
        context.exit(ExitCode.FAILED)


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@_home
@click.option("--force", is_flag=True, help="Take the place of a home that has something in it, which is kept aside.")
@with_session
@click.pass_obj
def restore(session: Session, directory: Path, home: str | None, force: bool) -> None:
    """Put the backup in DIRECTORY in the place of a node's home, all of it or nothing.

    Everything is verified before anything is changed. No node may run on the home.
    """
    from tensor_wasm.config import load
    from tensor_wasm.store.backup import restore as put_back

    place = load(os.environ, {"home": home}).config.home
    done = put_back(directory, place, replaces=force)
    if session.is_json:
        print_json(
            {
                "home": str(place),
                "files": done.files,
                "size_bytes": done.size_bytes,
                "missing": list(done.missing),
                "replaced": None if done.replaced is None else str(done.replaced),
            }
        )
        return
    print_line(f"{safe(str(place))}: {done.files} files, {mebibytes(done.size_bytes)}")
    if done.replaced is not None:
        print_note(f"note: what was there before is in {safe(str(done.replaced))}")
    if done.missing:
        print_note(
            f"warning: the backup was made without {len(done.missing)} artifacts or snapshots, which were damaged"
        )
