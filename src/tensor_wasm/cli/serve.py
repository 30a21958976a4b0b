"""``tensor-wasm serve``."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
from types import FrameType
from typing import TYPE_CHECKING

import click

from tensor_wasm.cli.failures import ExitCode
from tensor_wasm.cli.output import print_json, print_line, print_note, safe
from tensor_wasm.cli.session import Session, with_session

if TYPE_CHECKING:
    from tensor_wasm.node import Node


@click.command()
@click.option(
    "--listen-addr", "--listen", "listen_addr", metavar="HOST:PORT", help="Where to listen; port 0: any free."
)
@click.option("--home", metavar="DIRECTORY", help="Where the node keeps its state.")
@click.option("--device", metavar="NAME", help="Device that runs kernels: auto, cpu, cuda:N or cuda:GPU-UUID.")
@click.option("--dispatch-permits", "--permits", "dispatch_permits", metavar="N", help="Launches in flight at once.")
@click.option("--workers", metavar="N", help="Invocations that run at once.")
@click.option("--log", metavar="LEVEL", help="Least severe level that is logged: debug, info, warning, error.")
@click.option("--log-format", metavar="FORM", help="Log lines as text or json.")
@click.option("--tls-cert", metavar="FILE", help="Certificate chain (PEM) to serve HTTPS with.")
@click.option("--tls-key", metavar="FILE", help="The certificate's private key (PEM).")
@click.option("--tls-client-ca", metavar="FILE", help="Authorities (PEM) of clients' certificates; asks each for one.")
@click.option("--audit", metavar="DESTINATION", help="Where the audit log goes: stdout, none or file:PATH.")
@with_session
@click.pass_obj
def serve(session: Session, /, **flags: str | None) -> None:
    """Run a node until SIGTERM or SIGINT; invocations in flight then finish, and the exit code is 0.

    Every setting has an environment variable (see `tensor-wasm config show`); a flag goes before it.
    """
    from tensor_wasm.config import load

    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the server listens there is nothing to read again
    loaded = load(os.environ, flags)
    for warning in loaded.warnings:
        print_note(f"warning: {safe(warning)}")
    config = loaded.config

    from tensor_wasm.http.server import Server
    from tensor_wasm.http.supervision import Supervision
    from tensor_wasm.node import Node
    from tensor_wasm.telemetry import logs
    from tensor_wasm.telemetry.audit import AuditLog

    logs.configure(config.log, config.log_format)
    # Where each thread stands, before the process ends: a service manager sends it to a node whose loop is stalled.
    with contextlib.suppress(OSError, ValueError, AttributeError):  # stderr is no file
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)  # a shell has what it starts in the background ignore it
        faulthandler.register(signal.SIGQUIT, all_threads=True, chain=True)
    with Node(config) as node:
        audit = AuditLog(config.audit)
        try:
            supervision = Supervision.of(os.environ)
            Server(node, config, lambda host, port: _announce(session, node, host, port), audit, supervision).run()
        finally:
            audit.close()


def _leave(_number: int, _frame: FrameType | None) -> None:
    """SIGTERM before the server listens and has its own handler: nothing is in flight, so leave in order."""
    raise SystemExit(ExitCode.OK)


def _announce(session: Session, node: Node, host: str, port: int) -> None:
    """Say on stdout where the node is; the log on stderr says the rest, and that there are no tokens."""
    scheme = "http" if node.config.tls_cert is None else "https"
    url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
    device, home = node.device.name, str(node.config.home)
    with contextlib.suppress(OSError):  # nobody reads stdout: the node serves all the same
        if session.is_json:
            print_json({"url": url, "pid": os.getpid(), "device": device, "home": home})
        else:
            print_line(f"listening on {url} (device {device}, home {safe(home)})")
