"""``tensor-wasm observe``."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import replace
from pathlib import Path

import click

from tensor_wasm.cli.admin.operator import with_operator
from tensor_wasm.cli.failures import usage
from tensor_wasm.cli.output import print_json
from tensor_wasm.cli.session import Session

_HOME_VARIABLES = ("TENSOR_WASM_HOME", "XDG_DATA_HOME", "HOME")


@click.command()
@click.option("--once", is_flag=True, help="Print the node's state as one JSON document, and end.")
@click.option(
    "--interval",
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    type=click.FloatRange(0.1, 3600),
    help="How often the board is drawn anew.",
)
@click.option(
    "--socket",
    metavar="PATH",
    help="The operator's socket to ask, and nobody else. It needs no token.",
)
@click.option("--home", metavar="DIRECTORY", help="The node's home, whose socket is asked, before TENSOR_WASM_HOME.")
@with_operator
@click.pass_context
def observe(context: click.Context, once: bool, interval: float, socket: str | None, home: str | None) -> None:
    """Watch a node: latencies, permits, tenants, instances, objectives. Ends with q or Ctrl-C.

    Asks the node's API and, when that does not answer within 0.7 seconds, the operator's socket in its home, which
    answers although the event loop hangs. `--once`, `--json`, and output that is no terminal give one JSON document,
    within two seconds whatever the node is doing; `unread` in it names what could not be read. The exit code is 3 when
    there is none.
    """
    from tensor_wasm.cli.observation import Source, is_local

    if not math.isfinite(interval):  # click lets no bound hold for NaN
        raise usage("--interval must be a number of seconds")
    session = context.find_object(Session) or Session()
    if socket is not None:
        source = Source(None, Path(socket).absolute())
    else:
        path = _home(home) / _socket_name() if home is not None or is_local(session.server) else None
        source = Source(replace(session, tenant=None).client(), path)
    if once or session.is_json or not sys.stdout.isatty():
        print_json(source.document())
        return
    from tensor_wasm.cli.board import watch

    watch(source, interval)


def _home(home: str | None) -> Path:
    from tensor_wasm.config import load

    given = {name: os.environ[name] for name in _HOME_VARIABLES if name in os.environ}
    return load(given, {"home": home}).config.home


def _socket_name() -> str:
    from tensor_wasm.sockets import OPERATOR_SOCKET

    return OPERATOR_SOCKET
