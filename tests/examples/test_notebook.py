"""The notebook example runs as its page says."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples" / "notebook"


def test_the_notebook_runs_as_written():
    commands = re.findall(r"^\.venv/bin/python (\S+)$", (FOLDER / "README.md").read_text("utf-8"), re.MULTILINE)
    assert commands == ["examples/notebook/saxpy.py"]
    command = [sys.executable, commands[0]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "ok"
    assert any(line.startswith("  saxpy_param_0: f32") for line in lines)
    # 1,000 floats end on a multiple of 16 bytes, so the very next element is closed.
    fault = next(line for line in lines if line.startswith("kernel saxpy faulted"))
    assert "right past the end of argument 1" in fault
    assert "thread (232, 0, 0), PTX line" in fault
