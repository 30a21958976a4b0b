"""``tensor-wasm metrics``."""

from __future__ import annotations

import re

import click

from tensor_wasm.cli.output import print_json, print_line, safe
from tensor_wasm.cli.session import Session, with_session

_COMMENT = re.compile(r"# (?:HELP|TYPE|UNIT) (\S+)")


@click.command()
@click.option("--filter", "text", default="", metavar="TEXT", help="Only metrics whose name contains TEXT.")
@with_session
@click.pass_obj
def metrics(session: Session, text: str) -> None:
    """Print the metrics of a node in Prometheus' text format."""
    lines = [line for line in session.client().metrics().splitlines() if text in _name(line)]
    if session.is_json:
        print_json({"metrics": [_sample(line) for line in lines if line and not line.startswith("#")]})
        return
    for line in lines:
        print_line(safe(line))


def _name(line: str) -> str:
    comment = _COMMENT.match(line)
    return comment[1] if comment else line.partition("{")[0].partition(" ")[0]


def _sample(line: str) -> dict[str, str]:
    series, _, value = line.rpartition(" ")
    return {"series": series, "value": value}
