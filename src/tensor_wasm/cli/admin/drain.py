"""``tensor-wasm admin drain``."""

from __future__ import annotations

import math

import click

from tensor_wasm.cli.admin.operator import advised, client_of, with_operator
from tensor_wasm.cli.failures import ExitCode, Failure, usage
from tensor_wasm.cli.output import print_error, print_json, print_line, safe
from tensor_wasm.cli.quantities import age
from tensor_wasm.cli.session import Session


@click.command()
@click.option(
    "--timeout",
    "timeout_s",
    type=float,
    metavar="SECONDS",
    help="How long running work may take to finish; then it is ended. TENSOR_WASM_DRAIN_S of the node when not given.",
)
@with_operator
@click.pass_context
def drain(context: click.Context, timeout_s: float | None) -> None:
    """Have the node take no more work, let what runs finish, and say how that went.

    Exit code 1 says that something did not finish in time and was ended.

    The node stays up and refuses work with `not_ready` until it is started again; SIGTERM stops it.
    """
    session = context.find_object(Session) or Session()
    if timeout_s is not None and not (math.isfinite(timeout_s) and timeout_s >= 0):
        raise usage("--timeout must be a number of seconds, 0 or more")
    with advised():
        answer = client_of(session).drain(timeout_s)
    waited, ended = age(answer.get("waited_s")), str(answer.get("ended"))
    if session.is_json:
        print_json(answer)
    elif answer.get("drained") is True:
        print_line(f"drained in {safe(waited)}; all work finished")
    if answer.get("drained") is not True:
        failure = Failure(
            "not_drained",
            f"after {waited} work was still running and was ended (instances: {ended}); the node takes no more."
            " A longer --timeout gives work more time to finish",
        )
        print_error(failure, is_json=False)
        context.exit(ExitCode.FAILED)
