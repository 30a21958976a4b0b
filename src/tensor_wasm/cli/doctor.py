"""``tensor-wasm doctor``."""

from __future__ import annotations

import os

import click

from tensor_wasm.cli.failures import ExitCode
from tensor_wasm.cli.output import paint, print_json, print_line, safe
from tensor_wasm.cli.session import Session, with_session


@click.command()
@with_session
@click.pass_context
def doctor(context: click.Context) -> None:
    """Say whether this host can run a node with the settings it has, line by line, and what to do if not.

    Ends with exit code 1 when something fails; warnings do not count.
    """
    from tensor_wasm.cli.checks import Check, Status, all_checks
    from tensor_wasm.config import load
    from tensor_wasm.errors import ConfigurationError

    session = context.find_object(Session) or Session()
    try:
        loaded = load(os.environ)
    except ConfigurationError as error:
        checks = [Check("settings", Status.FAIL, error.message, "correct the variable, or unset it")]
        checks += all_checks(load({}).config)
    else:
        status = Status.WARN if loaded.warnings else Status.OK
        detail = "; ".join(loaded.warnings) or "every variable is known and has a value that can be used"
        checks = [Check("settings", status, detail, "correct the name" if loaded.warnings else "")]
        checks += all_checks(loaded.config)
    is_fit = all(check.status is not Status.FAIL for check in checks)
    if session.is_json:
        rows = [
            {"name": check.name, "status": check.status.value, "detail": check.detail, "advice": check.advice}
            for check in checks
        ]
        print_json({"ok": is_fit, "checks": rows})
    else:
        for check in checks:
            print_line(
                f"{paint(f'{check.status.value:<4}', check.status.value)}  {check.name:<18}  {safe(check.detail)}"
            )
            if check.advice:
                print_line(f"      {safe(check.advice)}")
    if not is_fit:
        context.exit(ExitCode.FAILED)
