"""``tensor-wasm snapshot save``, ``restore``, ``list``, ``export``, ``import``, ``delete``, ``key``."""

from __future__ import annotations

import os
from typing import Any
from uuid import UUID, uuid4

import click

from tensor_wasm.cli.arguments import check_idle_timeout
from tensor_wasm.cli.failures import ExitCode, Failure, usage
from tensor_wasm.cli.output import print_json, print_line, print_note, print_table, safe
from tensor_wasm.cli.quantities import mebibytes, moment
from tensor_wasm.cli.session import Session, with_session
from tensor_wasm.cli.snapshot_files import check_target, opened, write


@click.group(no_args_is_help=False)
def snapshot() -> None:
    """Capture kept instances, restore them, carry them to other nodes as signed files."""


@snapshot.command()
@click.argument("instance")
@with_session
@click.pass_obj
def save(session: Session, instance: str) -> None:
    """Capture the kept instance INSTANCE, and print the snapshot's id.

    All of its state is captured, between two calls; it goes on. The snapshot is on the node's disk when this returns.
    """
    answer = session.client().capture(instance)
    if session.is_json:
        print_json(answer)
    else:
        print_line(safe(str(answer.get("snapshot_id"))))


@snapshot.command()
@click.argument("snapshot")
@click.option("--idle-timeout", "idle_timeout_s", type=float, metavar="SECONDS", help="End it when idle for this long.")
@with_session
@click.pass_obj
def restore(session: Session, snapshot: str, idle_timeout_s: float | None) -> None:
    """Make an instance from the snapshot SNAPSHOT, keep it, and print the instance's id."""
    answer = session.client().restore(snapshot, check_idle_timeout(idle_timeout_s))
    if session.is_json:
        print_json(answer)
    else:
        print_line(safe(str(answer.get("instance_id"))))


@snapshot.command("list")
@with_session
@click.pass_obj
def list_snapshots(session: Session) -> None:
    """List the tenant's snapshots, oldest first."""
    items = session.client().snapshots()
    if session.is_json:
        print_json({"snapshots": items})
        return
    print_table(["ID", "FUNCTION", "MEMORY", "TAKEN"], [_row(item) for item in items])


@snapshot.command()
@click.argument("snapshot")
@click.argument("file")
@with_session
@click.pass_obj
def export(session: Session, snapshot: str, file: str) -> None:
    """Download the snapshot SNAPSHOT as FILE (- is stdout).

    It is compressed, signed by the node, and has the function's module with it. FILE is there once it is whole; what
    was there before stays until then.
    """
    check_target(file, session.is_json)
    with session.client().snapshot_file(snapshot) as pieces:
        size_bytes = write(file, pieces, shows_progress=not session.is_json)
    if session.is_json:
        print_json({"snapshot_id": snapshot, "file": file, "file_bytes": size_bytes})
    elif file != "-":
        print_line(f"{safe(file)}: {mebibytes(size_bytes)}")


@snapshot.command("import")
@click.argument("file")
@click.option("--id", "identity", metavar="UUID", help="The snapshot's new id; a random one when not given.")
@with_session
@click.pass_obj
def import_(session: Session, file: str, identity: str | None) -> None:
    """Upload the snapshot file FILE (- is stdin), and print its id.

    The node takes files that it signed itself, or that are signed by a key of its TENSOR_WASM_SNAPSHOT_KEYS.
    """
    identity = str(uuid4()) if identity is None else _checked_id(identity)
    client = session.client()
    with opened(file, shows_progress=not session.is_json) as (source, size_bytes):
        answer = client.upload_snapshot(identity, source, size_bytes)
    if session.is_json:
        print_json(answer)
    else:
        print_line(safe(str(answer.get("id"))))


@snapshot.command()
@click.argument("snapshot")
@with_session
@click.pass_obj
def delete(session: Session, snapshot: str) -> None:
    """Delete the snapshot SNAPSHOT; instances made from it go on."""
    session.client().delete_snapshot(snapshot)
    if session.is_json:
        print_json({"deleted": snapshot})
    else:
        print_line(f"deleted {safe(snapshot)}")


@snapshot.command()
@click.option("--home", metavar="DIRECTORY", help="The node's home, before TENSOR_WASM_HOME.")
@with_session
@click.pass_obj
def key(session: Session, home: str | None) -> None:
    """Print the public key of the node of this home.

    The node need not run. Its snapshot files are signed with that key; other nodes that have it in
    TENSOR_WASM_SNAPSHOT_KEYS take them.
    """
    from tensor_wasm.config import load
    from tensor_wasm.store.signing import NODE_KEY_NAME, node_signing_key

    place = load(os.environ, {"home": home}).config.home
    # To look must not make a key, least of all in a directory that was named by mistake.
    if not os.path.lexists(place / NODE_KEY_NAME):
        raise Failure(
            "not_found",
            f"no node has its key in {safe(str(place))}: start it there once with `tensor-wasm serve`, or name its"
            " home with --home",
            ExitCode.NOT_FOUND,
        )
    public = node_signing_key(place).public
    if session.is_json:
        print_json({"public_key": public.text, "fingerprint": public.fingerprint, "home": str(place)})
        return
    print_line(public.text)
    print_note("note: a node with this key in TENSOR_WASM_SNAPSHOT_KEYS takes snapshot files of this one")


def _checked_id(text: str) -> str:
    """The id as the node wants it. Found out before anything is sent, for files are large."""
    try:
        if str(UUID(text)) == text.lower():  # it takes other ways to write one too
            return text.lower()
    except ValueError:
        pass
    raise usage("--id must be a UUID: 8-4-4-4-12 hexadecimal digits")


def _row(item: dict[str, Any]) -> list[str]:
    name = item.get("function_name") or item.get("function_id")
    identity = item.get("id")
    return [
        "" if identity is None else str(identity),
        "" if name is None else str(name),
        mebibytes(item.get("bytes")),
        moment(item.get("created_at")),
    ]
