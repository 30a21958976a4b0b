"""Runs numbered tests in processes that may hang or die: each is then a finding, and the rest goes on."""

from __future__ import annotations

import multiprocessing
import resource
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

MEMORY_BYTES = 3 << 30
#: Waiting for nothing counts too, but a machine that does other things gets much time.
WALL_FACTOR = 20
PROGRESS_S = 10.0


@dataclass(frozen=True)
class Finding:
    """Something wrong with the test of a number: what (``hang``, ``crash``, or what the test calls it), and details."""

    number: int
    what: str
    details: str


class Reporter(Protocol):
    """What a test reports to. ``allow`` gives it more processor time, in seconds."""

    def find(self, what: str, details: str) -> None: ...

    def allow(self, seconds: float) -> None: ...


Test = Callable[[int, Reporter], None]


@dataclass(frozen=True)
class Plan:
    """``count`` numbers from ``first`` on, for at most ``seconds``, ``jobs`` at a time.

    ``prepare`` makes the test in each process. A test may take ``limit_s`` seconds of processor time.
    """

    prepare: Callable[[], Test]
    first: int
    count: int
    seconds: float
    jobs: int
    limit_s: float
    findings_max: int = 20


class _Desk:
    """A worker's side."""

    def __init__(self, connection: Connection, state: Any) -> None:
        self._connection = connection
        self._state = state
        self.number = 0

    def find(self, what: str, details: str) -> None:
        self._connection.send(Finding(self.number, what, details))

    def allow(self, seconds: float) -> None:
        self._state[1:3] = [time.monotonic(), seconds]
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _work(plan: Plan, start: int, end_s: float, state: Any, connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    desk = _Desk(connection, state)
    desk.allow(WALL_FACTOR * plan.limit_s)
    test = plan.prepare()
    for number in range(start, plan.first + plan.count, plan.jobs):
        if time.monotonic() > end_s:
            break
        desk.number = number
        state[0] = number
        desk.allow(plan.limit_s)
        try:
            test(number, desk)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            desk.find("error", f"{type(error).__name__}: {error} at {place.filename}:{place.lineno}")
        state[3] += 1
    connection.send(None)


class _Worker:
    """The parent's side of a process."""

    def __init__(self, plan: Plan, start: int, end_s: float) -> None:
        context = multiprocessing.get_context("spawn")
        self.state = context.RawArray("d", 4)
        self.state[0] = start
        self.state[1:3] = [time.monotonic(), WALL_FACTOR * plan.limit_s]
        self.connection, theirs = context.Pipe(duplex=False)
        self.process = context.Process(target=_work, args=(plan, start, end_s, self.state, theirs), daemon=True)
        self.process.start()
        theirs.close()

    @property
    def number(self) -> int:
        return int(self.state[0])

    @property
    def done(self) -> int:
        return int(self.state[3])

    def is_late(self) -> bool:
        return time.monotonic() > self.state[1] + WALL_FACTOR * self.state[2]


def run(plan: Plan, say: Callable[[str], None]) -> tuple[int, list[Finding]]:
    """How many tests were done, and what was found. ``say`` gets a line of progress now and then."""
    begin = said = time.monotonic()
    end_s = begin + plan.seconds
    workers = [_Worker(plan, plan.first + index, end_s) for index in range(min(plan.jobs, plan.count))]
    findings: dict[int, Finding] = {}
    done = 0
    try:
        while workers and len(findings) < plan.findings_max:
            wait([worker.connection for worker in workers], timeout=1.0)
            for worker in list(workers):
                if not _listen(worker, findings, say):
                    continue
                workers.remove(worker)
                done += worker.done
                following = worker.number + plan.jobs
                if worker.process.exitcode != 0 and following < plan.first + plan.count and time.monotonic() < end_s:
                    workers.append(_Worker(plan, following, end_s))
            if time.monotonic() - said > PROGRESS_S:
                said = time.monotonic()
                total = done + sum(worker.done for worker in workers)
                say(f"{total} done, {total / (said - begin):.1f} a second, {len(findings)} findings")
    finally:
        for worker in workers:
            done += worker.done
            worker.process.kill()
            worker.process.join()
    seconds = time.monotonic() - begin
    say(f"{done} done in {seconds:.0f} s, {done / seconds:.1f} a second, {len(findings)} findings")
    return done, list(findings.values())


def _listen(worker: _Worker, findings: dict[int, Finding], say: Callable[[str], None]) -> bool:
    """Take what a worker has to say; whether it has come to its end."""
    try:
        while worker.connection.poll():
            finding = worker.connection.recv()
            if finding is None:
                worker.process.join()
                return True
            findings[finding.number] = finding
            say(f"{finding.what} at {finding.number}")
    except EOFError:
        worker.process.join()
        code = worker.process.exitcode
        what = "hang" if code == -signal.SIGPROF else "crash"
        findings[worker.number] = Finding(worker.number, what, f"the process ended with {code}")
        say(f"{what} at {worker.number}")
        return True
    if worker.is_late():
        worker.process.kill()
        worker.process.join()
        findings[worker.number] = Finding(worker.number, "hang", "waits, without using the processor")
        say(f"hang at {worker.number}")
        return True
    return False


def report(findings: Sequence[Finding]) -> str:
    """Every finding with its details."""
    return "\n\n".join(f"== {finding.what} at {finding.number}\n{finding.details}" for finding in findings)
