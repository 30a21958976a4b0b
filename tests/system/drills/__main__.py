"""Watch a drill: ``python -m system.drills NAME [--pause S]``, or ``make drill NAME=…``; without a name, list them."""

from __future__ import annotations

import argparse
import ast
import sys
from pathlib import Path

import pytest

from system.drills.watcher import Watcher

_DIRECTORY = Path(__file__).parent
_ROOT = _DIRECTORY.parents[2]
#: What a file with a drill has.
_DRILL = "(drill: Drill"


def main() -> int:
    """Run one drill and say on the terminal what happens; the exit code is 0 when all went as the runbook says."""
    texts = {path: path.read_text("utf-8") for path in sorted(_DIRECTORY.glob("test_*.py"))}
    drills = {path.stem.removeprefix("test_"): path for path, text in texts.items() if _DRILL in text}
    parser = argparse.ArgumentParser(prog="make drill", description=__doc__)
    parser.add_argument("name", nargs="?", choices=list(drills), metavar="NAME", help=", ".join(drills))
    parser.add_argument("--pause", type=float, default=0.0, metavar="S", help="seconds that the trouble lasts longer")
    options = parser.parse_args()
    if options.name is None:
        for name, path in drills.items():
            told = ast.get_docstring(ast.parse(texts[path])) or ""
            sys.stdout.write(f"{name:<26} {told.partition(chr(10))[0]}\n")
        return 0
    arguments = [str(drills[options.name]), "-m", "slow", "-q", "-s", "-x", "--no-header", f"--rootdir={_ROOT}"]
    return int(pytest.main(arguments, plugins=[Watcher(options.pause)]))


if __name__ == "__main__":
    raise SystemExit(main())
