"""Strain a node with mixed traffic and see that nothing stays behind.

    PYTHONPATH=tests python -m system.soak --minutes 10 --seed 1

The exit code is 1 when something is found. The seed fixes what each client draws, not how they come to interleave.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import tempfile
from pathlib import Path

from system.soak.report import lines
from system.soak.soak import Plan, soak


def main() -> int:
    parser = argparse.ArgumentParser(prog="system.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="of mixed traffic, after the warm-up")
    parser.add_argument("--warm-up", type=float, default=30.0, metavar="SECONDS", help="of mixed traffic before it")
    parser.add_argument("--seed", type=int, default=None, help="what clients draw; else one by chance")
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    parser.add_argument("--directory", type=Path, help="keep the node's home and log here")
    given = parser.parse_args()
    seed = secrets.randbelow(1 << 31) if given.seed is None else given.seed
    print(f"seed {seed}", file=sys.stderr, flush=True)
    plan = Plan(given.minutes * 60, seed, given.warm_up, fills_caches=True)
    with tempfile.TemporaryDirectory() as temporary:
        directory = given.directory or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        outcome = soak(plan, directory, lambda text: print(text, file=sys.stderr, flush=True))
    if given.json:
        json.dump(outcome.as_dict(), sys.stdout, indent=1)
        print()
    else:
        print("\n".join(lines(outcome)))
    return 1 if outcome.findings else 0


if __name__ == "__main__":
    sys.exit(main())
