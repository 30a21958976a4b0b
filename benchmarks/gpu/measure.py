"""Test and measure a GPU: the kernels' tests on it, then the benchmarks, each part in a process of its own.

    python benchmarks/gpu/measure.py --output DIR

Prints what it found in the end; DIR gets the table as Markdown, all details as JSON, and what each part wrote. A part
that fails, or takes longer than it may, says so, and the others go on. Without a GPU: ``skipped: no GPU``.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from part import EMULATED, ROOT, Row
from table import Report, marked

FOLDER = Path(__file__).resolve().parent
_PROCESSES = 12
#: The table and what comes with it are no longer than this.
_SUMMARY_CHARACTERS = 7600
#: After it was told to end, a part may write what it has.
_GRACE_S = 8.0
_FAILURES_SHOWN = 25
#: Of a bounded time, how much tests may have.
_TESTS_SHARE = 0.55
#: In a process of its own: a driver that hangs or dies is a machine without a GPU. It ends at once, with no context.
_FACTS = """
import json, os, sys
import part
from stage import index_of, make_driver
driver = make_driver(sys.argv[1])
facts = driver.facts(index_of(sys.argv[1]))
found = {"gpu": facts.name, "sm": facts.sm, "memory": f"{facts.memory_bytes / 2**30:.0f} GiB"}
print("FACTS" + json.dumps({**found, "cuda": str(driver.version())}), flush=True)
os._exit(0)
"""


@dataclass(frozen=True, slots=True)
class Part:
    """A command, ``{python}`` and so on filled in, how long it may take, and how it is read."""

    name: str
    command: tuple[str, ...]
    limit_s: float
    is_benchmark: bool = True
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Outcome:
    """How a part ended."""

    part: Part
    rows: list[Row]
    details: dict[str, Any]
    seconds: float
    trouble: str = ""


def parts(options: argparse.Namespace, output: Path) -> list[Part]:
    """All parts: what must not be missing first."""
    python = sys.executable
    quick = ["--quick"] if options.quick else []

    def benchmark(name: str, limit_s: float) -> Part:
        file = FOLDER / f"{name}.py"
        arguments = ["--gpu", options.gpu, "--seconds", str(options.seconds), "--output", str(output / f"{name}.json")]
        return Part(name, (python, str(file), *arguments, *quick), limit_s)

    def tests(name: str, path: Path, limit_s: float, *more: str, processes: int = 1) -> Part:
        is_parallel = importlib.util.find_spec("xdist") is not None and processes > 1
        flags = ("-q", "--tb=line", "-p", "no:cacheprovider", "-p", "gpu_outcomes")
        command = (python, "-m", "pytest", *flags, str(path), *more)
        command += ("-n", str(processes)) if is_parallel else ()
        told = output / name
        told.mkdir(parents=True, exist_ok=True)
        for earlier in told.glob("*.jsonl"):
            earlier.unlink()
        environment = {"TENSOR_WASM_TEST_GPU": options.gpu, "TENSOR_WASM_TEST_GPU_REPORT": str(told)}
        return Part(name, command, limit_s, is_benchmark=False, environment=environment)

    smoke = ROOT / "tests" / "device" / "cuda" / "smoke_bindings.py"
    emulated = ["--emulated"] if options.gpu == EMULATED else []
    found = [
        Part("driver", (python, str(smoke), *emulated), 60, is_benchmark=False),
        benchmark("memory", 40),
        benchmark("dispatch", 60),
        benchmark("fences", 75),
        benchmark("guest_windows", 60),
        benchmark("windows", 45),
        benchmark("tenants", 60),
        benchmark("devices", 75),
    ]
    attacks = ROOT / "tests" / "device" / "cuda" / "test_attacks.py"
    if attacks.exists():
        found.append(tests("attacks", attacks, 120))
    if options.tests != "none":
        chosen = ["-m", "not slow"] if options.tests == "fast" or options.quick else []
        if options.quick:
            chosen += ["-k", "test_axpy_by_fours or test_softmax or test_sha256"]
        found.append(tests("kernels", ROOT / "tests" / "kernels", 400, *chosen, processes=options.processes))
    if options.only:
        found = [part for part in found if part.name in options.only.split(",")]
    return [part for part in found if part.command[1] != str(smoke) or smoke.exists()]


# --- running a part ----------------------------------------------------------------------------------------


def run_part(part: Part, output: Path, limit_s: float) -> Outcome:
    """Run a part, at most so long; what it wrote is in its log."""
    log = output / f"{part.name}.log"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT / folder) for folder in ("src", "tests", "examples")]),
        "PYTHONUNBUFFERED": "1",
        **part.environment,
    }
    began = time.monotonic()
    trouble = ""
    with log.open("w", encoding="utf-8") as written:
        process = subprocess.Popen(
            part.command, cwd=ROOT, env=environment, stdout=written, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(limit_s)
            if code:
                trouble = f"ended with {code}"
        except subprocess.TimeoutExpired:
            trouble = f"was ended after {limit_s:.0f} s"
            _end(process)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what it left behind
    seconds = time.monotonic() - began
    text = log.read_text("utf-8", "replace")
    rows, details = _found(output / f"{part.name}.json") if part.is_benchmark else _tested(part, output, text)
    if trouble:
        last = details.get("error") or next((line for line in reversed(text.splitlines()) if line.strip()), "")
        trouble += f": {last.strip()[:300]}"
    return Outcome(part, rows, details, seconds, trouble)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Have a process and its children end, by force where they do not."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _found(file: Path) -> tuple[list[Row], dict[str, Any]]:
    try:
        found = json.loads(file.read_text("utf-8"))
        return [Row(**row) for row in found["rows"]], found["details"]
    except (OSError, ValueError, KeyError, TypeError):
        return [], {}


def _tested(part: Part, output: Path, text: str) -> tuple[list[Row], dict[str, Any]]:
    """What tests found: counts of outcomes and why they failed, by what each process left behind."""
    if not part.environment:
        lines = [line for line in text.splitlines() if line.strip()]
        last = lines[-1][:200] if lines else "nothing was said"
        return [Row(part.name, last, "", last.startswith("OK"))], {"last lines": lines[-60:]}
    told = output / part.name
    outcomes = _lines(told, "outcomes-*.jsonl")
    counts = Counter(each["outcome"] for each in outcomes)
    failures = [each for each in outcomes if each["outcome"] == "failed"]
    details: dict[str, Any] = {"outcomes": dict(counts), "failures": failures}
    found = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(counts.items())) or "no test ended"
    is_met = not failures and counts["passed"] > 0
    rows = [Row(f"tests: {part.name}", found, "none fails", is_met)]
    entries = {(each["source"], each["variant"], each["entry"]): each for each in _lines(told, "compared-*.jsonl")}
    if entries:
        reasons = Counter(reason for each in entries.values() for reason in each["reasons"])
        exact = sum(not each["reasons"] for each in entries.values())
        details["compared"] = list(entries.values())
        details["reasons"] = dict(reasons)
        rows.append(Row("entry points compared bit for bit with the CPU device", f"{exact:,} of {len(entries):,}"))
    return rows, details


def _lines(folder: Path, pattern: str) -> list[dict[str, Any]]:
    found = []
    for file in sorted(folder.glob(pattern)):
        for line in file.read_text("utf-8").splitlines():
            with contextlib.suppress(ValueError):  # the last line of a process that was killed
                found.append(json.loads(line))
    return found


# --- the machine -------------------------------------------------------------------------------------------


def machine(gpu: str) -> dict[str, str]:
    """What was measured: the GPU, its driver, this machine. Raises when there is no GPU."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(FOLDER), str(ROOT / "src"), str(ROOT / "tests")])}
    done = subprocess.run(
        [sys.executable, "-c", _FACTS, gpu],
        capture_output=True, text=True, timeout=60, check=False, env=environment,
    )  # fmt: skip
    line = next((line for line in done.stdout.splitlines() if line.startswith("FACTS")), None)
    if line is None:
        lines = done.stderr.strip().splitlines()
        raise LookupError(lines[-1][:300] if lines else f"the driver ended with {done.returncode}")
    facts: dict[str, str] = json.loads(line.removeprefix("FACTS"))
    version = int(facts["cuda"])
    facts["cuda"] = f"{version // 1000}.{version % 1000 // 10}"
    with contextlib.suppress(OSError, StopIteration):
        text = Path("/proc/driver/nvidia/version").read_text("utf-8")
        facts["driver"] = next(word for word in text.split() if word[:1].isdigit() and "." in word)
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        facts["processor"] = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    facts |= {"cores": str(len(os.sched_getaffinity(0))), "system": platform.release()}
    return {**facts, "python": platform.python_version(), "date": f"{datetime.now(UTC):%d %B %Y}"}


def summary(report: Report, outcomes: Sequence[Outcome]) -> str:
    """What is printed in the end, of bounded length: troubles, failures, lines with bars, the others."""
    lines = ["", report.title(), ""]
    lines += [f"TROUBLE {each.part.name}: {each.trouble}" for each in outcomes if each.trouble]
    for each in outcomes:
        failures = each.details.get("failures", [])
        if failures:
            lines.append(f"{len(failures)} failures of {each.part.name}; by test:")
            by_test = Counter(failure["nodeid"].split("[")[0].rsplit("/", 1)[-1] for failure in failures)
            lines += [f"  {count:4} {name}" for name, count in by_test.most_common(_FAILURES_SHOWN)]
            first = {failure["nodeid"].split("[")[0]: failure for failure in reversed(failures)}
            lines += [
                f"  {failure['nodeid'].rsplit('/', 1)[-1]}: {' '.join(failure['text'].split())[:160]}"
                for failure in list(first.values())[-10:]
            ]
    _, *rows = report.rows()
    for name, found, bar, verdict in sorted(rows, key=lambda row: not row[3]):
        lines.append(f"{verdict.strip('*').upper():6} {name}: {found}" + (f" [{bar}]" if bar else ""))
    text = "\n".join(lines)
    return text if len(text) <= _SUMMARY_CHARACTERS else text[: _SUMMARY_CHARACTERS - 40] + "\n... more in --output"


def _write(output: Path, facts: Mapping[str, str], report: Report, outcomes: Sequence[Outcome]) -> None:
    """What was found so far, as JSON and as Markdown."""
    found = {
        each.part.name: {
            "seconds": each.seconds,
            "trouble": each.trouble,
            "details": each.details,
            "rows": report.as_dicts(each.part.name),
        }
        for each in outcomes
    }
    (output / "report.json").write_text(json.dumps({"machine": facts, "parts": found}, indent=1), "utf-8")
    (output / "report.md").write_text("\n".join([report.title(), "", *marked(report.rows()), ""]), "utf-8")


def main() -> int:
    """The command line; returns the exit code: 0 also where bars are missed, 1 when a part or test failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", default="0", help=f"index of the GPU, or {EMULATED} to try this without one")
    parser.add_argument("--output", type=Path, default=Path("gpu-report"), help="a folder for details")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, which only show that everything works")
    parser.add_argument("--only", default="", help="parts, by their names with commas between")
    parser.add_argument("--tests", choices=("all", "fast", "none"), default="all", help="of the kernels' tests")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long each timed case lasts about")
    parser.add_argument("--budget", type=float, default=0.0, help="seconds for everything; 0 for no bound")
    parser.add_argument("--processes", type=int, default=_PROCESSES, help="how many processes test at once")
    options = parser.parse_args()
    try:
        facts = machine(options.gpu)
    except (LookupError, subprocess.TimeoutExpired) as error:
        print(f"skipped: no GPU ({error})")
        return 0
    output: Path = options.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    outcomes: list[Outcome] = []
    report = Report(facts)

    def left_s() -> float:
        return options.budget - (time.monotonic() - began) - _GRACE_S if options.budget else float("inf")

    def measured(part: Part) -> Outcome:
        limit_s = min(part.limit_s, left_s() if part.is_benchmark else max(left_s() * _TESTS_SHARE, 20))
        if limit_s < 5:
            return Outcome(part, [], {}, 0.0, "did not run: no time was left")
        try:
            return run_part(part, output, limit_s)
        except Exception as error:
            return Outcome(part, [], {}, 0.0, f"{type(error).__name__}: {error}")

    def note(outcome: Outcome) -> None:
        outcomes.append(outcome)
        report.add(outcome.part.name, outcome.rows)
        print(f"{outcome.part.name}: {outcome.seconds:.0f} s {outcome.trouble[:100]}", flush=True)
        _write(output, facts, report, outcomes)

    chosen = parts(options, output)
    for part in chosen:
        if part.name == "driver":
            note(measured(part))
    # Tests time nothing: they run at the same time.
    tests = [part for part in chosen if part.environment]
    with ThreadPoolExecutor(max(len(tests), 1)) as pool:
        for outcome in pool.map(measured, tests):
            note(outcome)
    for part in chosen:
        if part.is_benchmark:
            note(measured(part))
    print(summary(report, outcomes))
    has_failed = any(each.trouble or each.details.get("failures") for each in outcomes)
    return 1 if has_failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
