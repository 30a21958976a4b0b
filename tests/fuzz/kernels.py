"""Random kernels, compiled and interpreted: memory must be the same afterwards.

    PYTHONPATH=tests python -m fuzz.kernels --count 20000 --jobs 2

A finding's number with ``--seed NUMBER --count 1`` repeats it.
"""

from __future__ import annotations

import sys

from compiler.launch import Machine
from fuzz.arguments import arguments, finish
from fuzz.case import Difference, compare, make
from fuzz.reduce import reduced
from fuzz.workers import Plan, Reporter, Test, run
from tensor_wasm.runtime import Engine

LIMIT_S = 30.0
REDUCTION_S = 60.0


def prepare() -> Test:
    """A test of kernels, with an engine of its own."""
    engine = Engine()
    engine.start()
    machine = Machine(engine)

    def test(number: int, reporter: Reporter) -> None:
        case = make(number)
        try:
            compare(case, machine)
        except Difference as difference:
            reporter.find("difference", f"{difference}\n{case.launch}\n{case.text}")
            reporter.allow(4 * REDUCTION_S)
            small = reduced(case, machine, seconds=REDUCTION_S)
            try:
                compare(small, machine)
            except Difference as smaller:
                reporter.find("difference", f"{smaller}\n{small.launch}\n{small.text}")

    return test


def main() -> int:
    """The command; 1 where something was found."""
    given = arguments(__doc__)
    plan = Plan(prepare, given.seed, given.count, given.seconds, given.jobs, LIMIT_S, given.findings)
    _, findings = run(plan, lambda line: print(line, flush=True))
    return finish(findings, lambda number: make(number).text)


if __name__ == "__main__":
    sys.exit(main())
