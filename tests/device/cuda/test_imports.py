"""What the processes import that everybody waits for when a GPU is looked for, or broke."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tensor_wasm.device.cuda.worker_handle import worker_environment

#: Of this project, with all that is below them; and packages that take a tenth of a second and more.
ROOMS = ("tensor_wasm.abi", "tensor_wasm.device.cuda", "tensor_wasm.device.partition", "tensor_wasm.errors")
PACKAGES = {"cryptography", "cuda", "numpy", "wasmtime"}


@pytest.mark.parametrize(("module", "packages"), [("worker", {"numpy"}), ("probe", set())])
def test_a_process_imports_what_it_needs_alone(module: str, packages: set[str]) -> None:
    code = f"import sys, tensor_wasm.device.cuda.{module}; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-c", code], env=worker_environment(), capture_output=True, text=True, check=True
    )
    names = set(done.stdout.split())
    assert names & PACKAGES == packages
    ours = {name for name in names if name.startswith("tensor_wasm.")}
    assert f"tensor_wasm.device.cuda.{module}" in ours
    assert {name for name in ours if not name.startswith(ROOMS)} == {"tensor_wasm.device"}
