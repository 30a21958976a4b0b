"""``tensor-wasm function list``, ``show``, ``delete``."""

from __future__ import annotations

from itertools import islice
from typing import Any

import click

from tensor_wasm.cli.output import print_json, print_line, print_table, safe
from tensor_wasm.cli.quantities import moment
from tensor_wasm.cli.session import Session, with_session


@click.group(no_args_is_help=False)
def function() -> None:
    """List, show and delete functions."""


@function.command("list")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most this many.")
@with_session
@click.pass_obj
def list_functions(session: Session, limit: int | None) -> None:
    """List the tenant's functions, oldest first."""
    items = list(islice(session.client().functions(), limit))
    if session.is_json:
        print_json({"functions": items})
        return
    rows = [[_text(item, "id"), _text(item, "name"), _size(item), moment(item.get("created_at"))] for item in items]
    print_table(["ID", "NAME", "BYTES", "DEPLOYED"], rows)


@function.command()
@click.argument("id")
@with_session
@click.pass_obj
def show(session: Session, id: str) -> None:  # noqa: A002 - the field's word
    """Show the function ID: exports with their types, imports, sizes."""
    found = session.client().function(id)
    if session.is_json:
        print_json(found)
        return
    pages = found.get("memory_pages")
    lines = [
        ("id", _text(found, "id")),
        ("name", _text(found, "name")),
        ("tenant", _text(found, "tenant")),
        ("deployed", moment(found.get("created_at"))),
        ("size", f"{_size(found)} bytes"),
        ("digest", _text(found, "digest")),
        ("memory", f"{pages} pages of 64 KiB"),
    ]
    settings = found.get("settings")
    prewarm = settings.get("prewarm") if isinstance(settings, dict) else None
    if prewarm is not None:
        lines.append(("prewarm", str(prewarm)))
    lines += [("export", _signature(export)) for export in _items(found, "exports")]
    lines += [("import", f"{_text(item, 'module')} {_text(item, 'name')}") for item in _items(found, "imports")]
    for name, text in lines:
        print_line(f"{name:<9} {safe(text)}")


@function.command()
@click.argument("id")
@with_session
@click.pass_obj
def delete(session: Session, id: str) -> None:  # noqa: A002
    """Delete the function ID."""
    session.client().delete(id)
    if session.is_json:
        print_json({"deleted": id})
    else:
        print_line(f"deleted {safe(id)}")


def _items(found: dict[str, Any], name: str) -> list[dict[str, Any]]:
    items = found.get(name)
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _text(item: dict[str, Any], name: str) -> str:
    return str(item.get(name, ""))


def _size(item: dict[str, Any]) -> str:
    size = item.get("size_bytes")
    return f"{size:,}" if isinstance(size, int) else ""


def _signature(export: dict[str, Any]) -> str:
    parameters, results = (", ".join(map(str, export.get(name) or [])) for name in ("parameters", "results"))
    return f"{export.get('name')}({parameters})" + (f" -> {results}" if results else "")
