"""What the commands of this folder have in common: their arguments and how they end."""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from fuzz.workers import Finding, report

NUMBERS = 1 << 48


def arguments(description: str | None) -> argparse.Namespace:
    """``count``, ``seconds``, ``seed``, ``jobs`` and ``findings`` of the command line. Prints the seed."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=NUMBERS, help="how many (default: as many as there is time for)")
    parser.add_argument("--seconds", type=float, default=None, help="how long (default: 60, or no end with --count)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(NUMBERS), help="the first number")
    parser.add_argument("--jobs", type=int, default=1, help="how many processes")
    parser.add_argument("--findings", type=int, default=20, help="how many findings end the run (default: 20)")
    given = parser.parse_args()
    if given.seconds is None:
        given.seconds = 60.0 if given.count == NUMBERS else float("inf")
    print(f"seed {given.seed}", flush=True)
    return given


def finish(findings: Sequence[Finding], text_of: Callable[[int], str]) -> int:
    """Print the findings, with the text of those that ended their process; the exit status."""
    whole = [
        replace(finding, details=f"{finding.details}\n{text_of(finding.number)}")
        if finding.what in ("hang", "crash", "error")
        else finding
        for finding in findings
    ]
    if whole:
        print(report(whole), flush=True)
    return 1 if whole else 0
