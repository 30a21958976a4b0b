"""A plugin of pytest's that keeps how each test ended, as it ends: a run that is cut off has not run in vain.

``-p gpu_outcomes`` and ``TENSOR_WASM_TEST_GPU_REPORT``, the folder for it, switch it on.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from kernels.gpu import REPORT_VARIABLE

_TEXT_CHARACTERS = 1000


def pytest_configure(config: pytest.Config) -> None:
    """Only the process that hears of all tests writes."""
    folder = os.environ.get(REPORT_VARIABLE)
    if folder and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Outcomes(Path(folder) / f"outcomes-{os.getpid()}.jsonl"))


class _Outcomes:
    def __init__(self, path: Path) -> None:
        self._path = path

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        line = {"nodeid": report.nodeid, "outcome": report.outcome, "seconds": round(report.duration, 3)}
        if report.outcome != "passed":
            line["text"] = _text(report)
        with self._path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(line) + "\n")


def _text(report: pytest.TestReport) -> str:
    told = report.longrepr
    if isinstance(told, tuple):  # of a test that was skipped: file, line, reason
        return str(told[2])[:_TEXT_CHARACTERS]
    crash = getattr(told, "reprcrash", None)
    return str(told if crash is None else crash.message)[-_TEXT_CHARACTERS:]
