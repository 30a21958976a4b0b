"""``tensor-wasm doctor``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tensor_wasm.cli.failures import ExitCode
from tensor_wasm.cli.output import paint, print_json, print_line, safe
from tensor_wasm.cli.session import Session, with_session

if TYPE_CHECKING:
    from tensor_wasm.cli.checks import Check
    from tensor_wasm.store.repair import Report


@click.command()
@click.option("--repair", "mends", is_flag=True, help="Mend the home: what is damaged is kept aside. No node may run.")
@click.option("--home", metavar="DIRECTORY", help="The node's home, before TENSOR_WASM_HOME.")
@with_session
@click.pass_context
def doctor(context: click.Context, mends: bool, home: str | None) -> None:
    """Say whether this host can run a node with the settings it has, line by line, and what to do if not.

    Looks through the node's home too: database, artifacts, caches, permissions, what a crash left. Ends with exit
    code 1 when something fails; warnings do not count.
    """
    from tensor_wasm.cli.checks import Check, Status, all_checks
    from tensor_wasm.config import load
    from tensor_wasm.errors import ConfigurationError

    session = context.find_object(Session) or Session()
    try:
        loaded = load(os.environ, {"home": home})
    except ConfigurationError as error:
        if mends:
            raise
        checks = [Check("settings", Status.FAIL, error.message, "correct the variable, or unset it")]
        checks += all_checks(load({}, {"home": home}).config)
        report = None
    else:
        status = Status.WARN if loaded.warnings else Status.OK
        detail = "; ".join(loaded.warnings) or "every variable is known and has a value that can be used"
        checks = [Check("settings", status, detail, "correct the name" if loaded.warnings else "")]
        checks += all_checks(loaded.config)
        report, of_home = _look(loaded.config.home, mends)
        checks += of_home
    is_fit = all(check.status is not Status.FAIL for check in checks)
    if session.is_json:
        rows = [
            {"name": check.name, "status": check.status.value, "detail": check.detail, "advice": check.advice}
            for check in checks
        ]
        print_json({"ok": is_fit, "checks": rows, "home": None if report is None else _document(report)})
    else:
        _print(checks, report)
    if not is_fit:
        context.exit(ExitCode.FAILED)


def _look(home: Path, mends: bool) -> tuple[Report | None, list[Check]]:
    """The home's report, and its findings as lines among the others."""
    from tensor_wasm.cli.checks import Check, Status
    from tensor_wasm.errors import StoreError
    from tensor_wasm.store.repair import examine, repair

    try:
        report = repair(home) if mends else examine(home)
    except StoreError as error:
        if mends:
            raise
        return None, [Check("state", Status.FAIL, error.message, "no node can start on this home")]
    checks = [
        Check(
            finding.part,
            Status.OK if finding.is_mended else Status.FAIL if finding.is_harmful else Status.WARN,
            finding.detail,
            f"mended: {finding.remedy}" if finding.is_mended else _advice(finding.remedy, finding.is_mendable),
        )
        for finding in report.findings
    ]
    if not checks:
        detail = "whole, as far as can be told while a node runs on it" if report.is_served else "whole"
        checks = [Check("state", Status.OK, detail)]
    return report, checks


def _advice(remedy: str, is_mendable: bool) -> str:
    return f"with `tensor-wasm doctor --repair`, once no node runs: {remedy}" if is_mendable else remedy


def _document(report: Report) -> dict[str, Any]:
    return {
        "path": str(report.home),
        "served": report.is_served,
        "findings": [
            {
                "part": finding.part,
                "detail": finding.detail,
                "remedy": finding.remedy,
                "harmful": finding.is_harmful,
                "mendable": finding.is_mendable,
                "mended": finding.is_mended,
            }
            for finding in report.findings
        ],
        "tables": [
            {"name": table.name, "saved": table.saved, "lost": table.lost, "exact": table.is_exact}
            for table in report.tables
        ],
    }


def _print(checks: list[Check], report: Report | None) -> None:
    for check in checks:
        print_line(f"{paint(f'{check.status.value:<4}', check.status.value)}  {check.name:<18}  {safe(check.detail)}")
        if check.advice:
            print_line(f"      {safe(check.advice)}")
    for table in report.tables if report is not None else ():
        lost = f"{table.lost} lost" if table.is_exact else "nobody knows how many lost"
        print_line(f"      {table.name}: {table.saved} rows saved, {lost}")
