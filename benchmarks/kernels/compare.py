"""Time the CPU device against PoCL, NumPy and Numba: the same kernels, one thread each, on one core.

    python benchmarks/kernels/compare.py                     everything that is installed
    python benchmarks/kernels/compare.py --only saxpy --only nbody
    python benchmarks/kernels/compare.py --markdown          the tables of docs/performance.md

Every kernel's results are compared with NumPy's in f64 for each who runs it, before anything is timed.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cases import Case
    from peers import Peer
    from report import Row
    from timing import Effort

#: What makes libraries use one thread; read when they are loaded. PoCL's is named by version: up to 3, from 4 on.
_ONE_THREAD = (
    "POCL_MAX_PTHREAD_COUNT",
    "POCL_CPU_MAX_CU_COUNT",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
#: Which case is run on two cores.
_ON_TWO_CORES = "conv2d"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = _options(arguments)
    cores = sorted(os.sched_getaffinity(0))
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    os.sched_setaffinity(0, {cores[-1]})

    # From here on, since these load NumPy and with it whatever starts threads.
    import cases
    import compilation
    from peers import PEERS, TensorWasm, available
    from report import Report
    from timing import Effort

    by_name = {case.name: case for case in cases.CASES}
    for names, known in ((options.only, by_name), (options.peers, PEERS)):
        if unknown := sorted(set(names) - set(known)):
            print(f"there is no {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
            return 2
    effort = Effort(2, 0.0) if options.quick else Effort(options.rounds, options.seconds)
    others, skipped = available(options.peers)
    ours = TensorWasm()
    report = Report(options.clock, {p.name: p.version for p in others}, skipped, is_quick=options.quick)
    for case in [by_name[name] for name in options.only] or cases.CASES:
        _progress(options, f"{case.name} …")
        report.rows.append(_measured(case, [ours, *others], effort, options.quick))
    if not options.only:
        if len(cores) > 1:
            report.two_cores = _two_cores(by_name[_ON_TWO_CORES], cores[-2:], effort, options.quick)
            os.sched_setaffinity(0, {cores[-1]})
        for load in compilation.measure(options.quick):
            _progress(options, f"{load.name} …")
            report.loads.append(load)
    if options.json:
        options.json.write_text(json.dumps(report.as_dict(), indent=1) + "\n", "utf-8")
    print(report.markdown() if options.markdown else report.text())
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time the CPU device's kernels against PoCL, NumPy and Numba.")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="this kernel only; repeatable")
    parser.add_argument("--peers", type=_words, default=["PoCL", "NumPy", "Numba"], help="default: PoCL,NumPy,Numba")
    parser.add_argument("--quick", action="store_true", help="small sizes, two rounds: whether it works, not how fast")
    parser.add_argument("--rounds", type=int, default=7, help="at least so many runs of each (default: 7)")
    parser.add_argument("--seconds", type=float, default=2.0, help="at least so long for each (default: 2)")
    parser.add_argument(
        "--clock", choices=["wall", "cpu"], default="wall", help="cpu: on a machine that does other work"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything, each sample too")
    parser.add_argument("--markdown", action="store_true", help="print the tables for a page")
    return parser.parse_args(arguments)


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _progress(options: argparse.Namespace, line: str) -> None:
    if not options.quick:
        print(line, file=sys.stderr, flush=True)


def _measured(case: Case, participants: Sequence[Peer], effort: Effort, quick: bool) -> Row:
    """Check what each computes, then time all. Raises ``AssertionError`` for a wrong result."""
    from report import Row
    from timing import in_turn

    work = case.work(quick)
    ready = {}
    for peer in participants:
        kernel = peer.prepare(case, work)
        kernel.run()
        for position in work.expected:
            try:
                work.check(position, kernel.array(position))
            except AssertionError as error:
                raise AssertionError(f"{case.name}: {peer.name} computes something else: {error}") from None
        kernel.run()  # warm
        ready[peer.name] = kernel.run
    gc.collect()
    return Row(case.name, work.size, case.bar, in_turn(ready, effort))


def _two_cores(case: Case, cores: Sequence[int], effort: Effort, quick: bool) -> float | None:
    """How many times as fast a launch is on two cores as on one; None when it uses one."""
    from peers import MissingPeer, TensorWasm
    from timing import in_turn, ratio

    os.sched_setaffinity(0, set(cores))
    try:
        two = TensorWasm(threads=2)
    except MissingPeer:
        return None
    work = case.work(quick)
    ready = {"two": two.prepare(case, work), "one": TensorWasm(threads=1).prepare(case, work)}
    for kernel in ready.values():
        kernel.run()
        for position in work.expected:
            work.check(position, kernel.array(position))
        kernel.run()
    samples = in_turn({name: kernel.run for name, kernel in ready.items()}, effort)
    return ratio(samples["two"], samples["one"], "wall")


if __name__ == "__main__":
    sys.exit(main())
