"""``kernel run`` as a process of its own: PTX through a pipe, results in a file, Ctrl-C."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from device.ptx_texts import ENDLESS
from system.front_door import ROOT, environment, run_cli

VECTOR_ADD = ROOT / "examples" / "vector_add" / "vector_add.ptx"


def processor_seconds(pid: int) -> float:
    """What a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_ptx_through_a_pipe_and_a_result_in_a_file(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(100_000, dtype=np.float32))
    arguments = [f"--arg={tmp_path / 'a.npy'}"] * 2 + ["--arg=zeros:f32:100000", "--arg=100000"]
    shape = ["--grid", "391", "--block", "256"]
    out = tmp_path / "sum.npy"
    result = run_cli("kernel", "run", "-", *shape, *arguments, "--save", f"2={out}", stdin=VECTOR_ADD.read_bytes())
    assert result.code == 0, result.err
    assert (np.load(out) == 2 * np.arange(100_000)).all()


def test_ctrl_c_ends_an_endless_kernel(tmp_path):
    path = tmp_path / "endless.ptx"
    path.write_text(ENDLESS)
    command = [sys.executable, "-m", "tensor_wasm", "kernel", "run", str(path)]
    command += ["--grid", "1", "--block", "1", "--arg", "zeros:u32:1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    while processor_seconds(process.pid) < 3:  # far more than it takes to start: the kernel runs
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err.strip()) == (130, b"", b"")
