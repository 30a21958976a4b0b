"""Makes a case smaller while it still differs: fewer threads, lines, guards and parameters."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace

from compiler.launch import Machine
from fuzz.case import Case, Difference, compare, expected

_BLOCKS = ((1, 1, 1), (2, 1, 1), (4, 1, 1), (5, 1, 1), (8, 1, 1), (33, 1, 1))


def reduced(case: Case, machine: Machine, *, seconds: float) -> Case:
    """A smaller case that differs too; the best that was found in the time."""
    end = time.monotonic() + seconds
    _, steps = expected(case)
    kind = _difference(case, machine, steps)
    return smallest(
        case, lambda candidate: _difference(candidate, machine, steps) == kind, lambda: time.monotonic() > end
    )


def smallest(case: Case, differs: Callable[[Case], bool], is_over: Callable[[], bool]) -> Case:
    """The case after every change that leaves ``differs`` true, until none does or the time ``is_over``."""
    before = None
    while case != before and not is_over():
        before = case
        case = _fewer_threads(case, differs)
        case = _fewer_lines(case, differs, is_over)
        case = _fewer_guards(case, differs, is_over)
    for tidy in (_without_labels, _without_parameters, _without_declarations):
        candidate = tidy(case)
        case = candidate if differs(candidate) else case
    return case


def _difference(case: Case, machine: Machine, steps_max: int) -> str | None:
    """What kind of difference there is; None for none, or a case that is not to be compared.

    Such a case has a race, does not end, or computes with what nothing wrote.
    """
    try:
        memory, _ = expected(case, steps_max=steps_max)
        if memory != expected(case, backwards=True, steps_max=steps_max)[0]:
            return None
        compare(case, machine)
    except Difference as difference:
        return difference.kind
    except Exception:
        return None
    return None


def _fewer_threads(case: Case, differs: Callable[[Case], bool]) -> Case:
    text = re.sub(r"\.reqntid.*\n", "", case.text)
    threads = case.block[0] * case.block[1] * case.block[2]
    blocks = [block for block in _BLOCKS if block[0] < threads]
    for grid, block in [(1, block) for block in [*blocks, case.block]]:
        candidate = replace(case, text=text, grid=grid, block=block)
        if candidate != case and differs(candidate):
            return candidate
    return case


def _fewer_lines(case: Case, differs: Callable[[Case], bool], is_over: Callable[[], bool]) -> Case:
    """Leave out runs of lines, long ones first."""
    size = len(case.text.split("\n")) // 2
    while size and not is_over():
        able = _able(case)
        is_changed = False
        for start in reversed(range(0, len(able), size)):
            gone = set(able[start : start + size])
            lines = case.text.split("\n")
            candidate = replace(case, text="\n".join(line for n, line in enumerate(lines) if n not in gone))
            if differs(candidate):
                case, is_changed = candidate, True
            if is_over():
                break
        size = size if size == 1 and is_changed else size // 2
    return case


def _able(case: Case) -> list[int]:
    """Lines that may be left out: instructions."""
    lines = case.text.split("\n")
    return [n for n, line in enumerate(lines) if line.startswith("    ") and not line.startswith("    .")]


def _fewer_guards(case: Case, differs: Callable[[Case], bool], is_over: Callable[[], bool]) -> Case:
    for n, line in enumerate(case.text.split("\n")):
        if re.match(r" +@", line) and "bra" not in line and not is_over():
            lines = case.text.split("\n")
            lines[n] = re.sub(r"@!?%\w+ ", "", line)
            candidate = replace(case, text="\n".join(lines))
            case = candidate if differs(candidate) else case
    return case


def _without_labels(case: Case) -> Case:
    lines = case.text.split("\n")
    kept = [
        line for line in lines if not re.fullmatch(r"\w+:", line) or len(re.findall(rf"\b{line[:-1]}\b", case.text)) > 1
    ]
    return replace(case, text="\n".join(kept))


def _without_parameters(case: Case) -> Case:
    used = tuple(p for p in case.parameters if f"[{p.name}]" in case.text)
    header = f"k({', '.join(f'.param .{p.kind} {p.name}' for p in used)})"
    return replace(case, text=re.sub(r"\bk\(.*\)", header, case.text), parameters=used)


def _without_declarations(case: Case) -> Case:
    def is_used(line: str) -> bool:
        found = re.fullmatch(r" *\.(?:reg|local|const|shared|global|extern).* ([%\w]+)(?:<|\[).*", line)
        return found is None or len(re.findall(rf"{re.escape(found[1])}\b|{re.escape(found[1])}\d", case.text)) > 1

    return replace(case, text="\n".join(line for line in case.text.split("\n") if is_used(line)))
