"""``tensor-wasm kernel keygen``, ``publish``, ``list``, ``verify`` and ``delete``: the registry of signed kernels."""

from __future__ import annotations

import base64
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tensor_wasm.abi import limits
from tensor_wasm.api.signing import manifest_of
from tensor_wasm.cli.arguments import function_name, read_file
from tensor_wasm.cli.failures import usage
from tensor_wasm.cli.output import print_json, print_line, print_note, print_table, safe
from tensor_wasm.cli.quantities import moment
from tensor_wasm.cli.session import Session, with_session

if TYPE_CHECKING:
    from tensor_wasm.store.manifest import Manifest
    from tensor_wasm.store.signing import PublicKey, SigningKey


@click.command()
@click.argument("file")
@with_session
@click.pass_context
def keygen(context: click.Context, file: str) -> None:
    """Make a key to sign kernels with: the private key in FILE (PEM, mode 0600), the public one in FILE.pub.

    The public key goes to stdout; nodes that are to take your kernels have it in TENSOR_WASM_KERNEL_PUBLISHERS.
    """
    session = context.find_object(Session) or Session()
    path = _path(file)

    from tensor_wasm.store.signing import make_key_files

    try:
        key = make_key_files(path)
    except FileExistsError as error:
        raise usage(f"{safe(str(error.filename))} is there already, and a key is never overwritten") from None
    if session.is_json:
        print_json(
            {
                "public_key": key.public.text,
                "fingerprint": key.public.fingerprint,
                "private_key_file": file,
                "public_key_file": f"{file}.pub",
            }
        )
        return
    print_line(key.public.text)
    print_note(f"note: the private key is in {safe(file)}; whoever has it publishes in your name")


@click.command()
@click.argument("file")
@click.option("--key", "key_file", required=True, metavar="FILE", help="The private key, as `kernel keygen` made it.")
@click.option("--version", required=True, metavar="TEXT", help="The version; what is published never changes.")
@click.option("--name", metavar="NAME", help="The kernel's name; the file's, without its ending, when not given.")
@click.option("--entry", "entries", multiple=True, metavar="NAME", help="What may be launched; all there is, else.")
@with_session
@click.pass_obj
def publish(
    session: Session, file: str, key_file: str, version: str, name: str | None, entries: tuple[str, ...]
) -> None:
    """Sign the PTX file FILE (- is stdin) and publish it on the node."""
    ptx = read_file(file, limits.PTX_MAX_BYTES)
    key = _load_key(key_file)
    manifest = manifest_of(function_name(name, file), version, ptx, key.public, entries).encode()
    answer = session.client().publish_kernel(manifest, key.sign(manifest), ptx)
    if session.is_json:
        print_json(answer)
    else:
        print_line(safe(f"{answer.get('name')} {answer.get('version')} {answer.get('digest')}"))


@click.command("list")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most this many.")
@with_session
@click.pass_obj
def list_kernels(session: Session, limit: int | None) -> None:
    """List the tenant's published kernels, by name and version."""
    items = list(islice(session.client().kernels(), limit))
    if session.is_json:
        print_json({"kernels": items})
        return
    print_table(["NAME", "VERSION", "BYTES", "PUBLISHED", "PUBLISHER"], [_row(item) for item in items])


@click.command()
@click.argument("name")
@click.argument("version")
@click.option("--publisher", metavar="KEY", help="Whose it must be: ed25519:BASE64, or a file with that.")
@with_session
@click.pass_obj
def verify(session: Session, name: str, version: str, publisher: str | None) -> None:
    """Fetch the kernel NAME VERSION and verify here that its publisher signed it, and its text with it.

    Without --publisher any key will do: the one that it is signed with is shown, for you to compare.
    """
    wanted = None if publisher is None else _load_public_key(publisher)
    found = session.client().kernel(name, version, with_text=True)
    manifest = _verified(found, name, version, wanted)
    reason = found.get("reason")
    is_trusted = found.get("verified") is True
    if session.is_json:
        print_json(
            {
                "name": manifest.name,
                "version": manifest.version,
                "sm": manifest.sm,
                "entry_points": list(manifest.entry_points),
                "digest": manifest.digest,
                "published_at": manifest.published_at,
                "publisher": manifest.publisher.text,
                "fingerprint": manifest.publisher.fingerprint,
                "verified": True,
                "node_verified": is_trusted,
                "node_reason": None if is_trusted else str(reason or ""),
            }
        )
    else:
        _show(manifest)
        if not is_trusted:
            print_note(f"note: the node does not let guests load it: {safe(str(reason or 'it does not say why'))}")


@click.command()
@click.argument("name")
@click.argument("version")
@with_session
@click.pass_obj
def delete(session: Session, name: str, version: str) -> None:
    """Delete the published kernel NAME VERSION."""
    session.client().delete_kernel(name, version)
    if session.is_json:
        print_json({"deleted": {"name": name, "version": version}})
    else:
        print_line(f"deleted {safe(name)} {safe(version)}")


# --- signing and verifying ----------------------------------------------------------------------------------


def _verified(found: dict[str, Any], name: str, version: str, wanted: PublicKey | None) -> Manifest:
    """The manifest of a node's answer, if all of it holds. Raises BadSignature, DigestMismatch, InvalidManifest."""
    from blake3 import blake3

    from tensor_wasm.errors import BadSignature, DigestMismatch
    from tensor_wasm.store.manifest import decode_manifest

    manifest_bytes, signature = _bytes(found, "manifest_b64"), _bytes(found, "signature_b64")
    manifest = decode_manifest(manifest_bytes)
    if (manifest.name, manifest.version) != (name, version):
        raise BadSignature(f"what the node gave is signed as {manifest.name} {manifest.version}")
    if wanted is not None and manifest.publisher != wanted:
        raise BadSignature(f"it is signed by another publisher: {manifest.publisher.text}")
    if not manifest.publisher.verify(signature, manifest_bytes):
        raise BadSignature("the signature is not that of the manifest by the publisher that it names")
    if not found.get("ptx_b64"):
        raise DigestMismatch("the node has no whole text of it")
    if blake3(_bytes(found, "ptx_b64")).hexdigest() != manifest.digest:
        raise DigestMismatch("its text is not the one that was signed")
    return manifest


def _bytes(found: dict[str, Any], field: str) -> bytes:
    from tensor_wasm.errors import BadSignature

    try:
        return base64.b64decode(str(found.get(field, "")), validate=True)
    except ValueError:
        raise BadSignature(f"the node's {field} is not base64") from None


def _load_key(file: str) -> SigningKey:
    from tensor_wasm.store.signing import KeyFileError, load_key_file

    path = _path(file)
    try:
        return load_key_file(path)
    except FileNotFoundError:
        raise usage(f"there is no file {safe(file)}; `tensor-wasm kernel keygen FILE` makes a key") from None
    except (KeyFileError, OSError) as error:
        raise usage(f"{safe(file)}: {getattr(error, 'strerror', None) or error}") from None


def _load_public_key(text: str) -> PublicKey:
    from tensor_wasm.store.signing import KeyFileError, load_public_key

    try:
        return load_public_key(text)
    except (KeyFileError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise usage(f"--publisher must be ed25519:BASE64, or a file with that: {reason}") from None


def _path(file: str) -> Path:
    if not file or "\0" in file:
        raise usage("the name of a file cannot be empty")
    return Path(file)


# --- showing ------------------------------------------------------------------------------------------------


def _show(manifest: Manifest) -> None:
    lines = [
        ("name", manifest.name),
        ("version", manifest.version),
        ("sm", manifest.sm),
        *(("entry", entry) for entry in manifest.entry_points),
        ("digest", manifest.digest),
        ("signed", manifest.published_at),
        ("publisher", manifest.publisher.text),
        ("verified", f"yes, by key {manifest.publisher.fingerprint}"),
    ]
    for name, text in lines:
        print_line(f"{name:<9} {safe(text)}")


def _row(item: dict[str, Any]) -> list[str]:
    size = item.get("size_bytes")
    return [
        str(item.get("name", "")),
        str(item.get("version", "")),
        f"{size:,}" if isinstance(size, int) else "",
        moment(item.get("created_at")),
        str(item.get("publisher", "")),
    ]
