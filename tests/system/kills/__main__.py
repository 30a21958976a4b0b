"""Kill a node at random moments under load; whatever it had acknowledged must be there when it starts again.

    PYTHONPATH=tests python -m system.kills --kills 200 --seed 1

The exit code is 1 when something is found. The seed fixes what each client draws, not how they come to interleave.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
from pathlib import Path

from system.kills.kills import kill_again_and_again


def main() -> int:
    parser = argparse.ArgumentParser(prog="system.kills", description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200, help="how often the node is killed")
    parser.add_argument("--seed", type=int, default=None, help="what clients draw; else one by chance")
    parser.add_argument("--directory", type=Path, help="keep the node's home and logs here")
    given = parser.parse_args()
    seed = secrets.randbelow(1 << 31) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        directory = given.directory or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        outcome = kill_again_and_again(given.kills, seed, directory, lambda text: print(text, flush=True))
    starts = sorted(outcome.restarts_s)
    print(f"{outcome.kills} kills, {outcome.acknowledged} changes acknowledged, {len(outcome.findings)} findings")
    print(f"restarts: median {starts[len(starts) // 2]:.2f} s, longest {starts[-1]:.2f} s")
    for finding in outcome.findings:
        print(f"  {finding}")
    return 1 if outcome.findings else 0


if __name__ == "__main__":
    sys.exit(main())
