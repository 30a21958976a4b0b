"""NVIDIA's assembler takes what the fence writes, for kernels of all kinds."""

from __future__ import annotations

import subprocess
from pathlib import Path

import nvidia
import pytest

from device.cuda.attacks import READS, WRITES, Attack
from kernels.build import VARIANTS
from kernels.loading import program
from tensor_wasm.device.fence import Partition, fence
from tensor_wasm.ptx import read, support
from tensor_wasm.ptx.program import Emit

#: ``nvidia`` is a namespace of many packages.
PTXAS = next(path for root in nvidia.__path__ for path in Path(root).glob("cu*/bin/ptxas"))
PARTITION = Partition(0x7F00_0000_0000, 1 << 32)


@pytest.mark.slow
@pytest.mark.parametrize("is_checked", [False, True])
@pytest.mark.parametrize("source", sorted(VARIANTS))
def test_it_is_assembled(tmp_path: Path, source: str, is_checked: bool) -> None:
    whole = program(source, VARIANTS[source][0])
    texts = []
    for kernel in whole.kernels:
        prints = any(isinstance(each, Emit) for block in kernel.blocks for each in block.instructions)
        if not support(kernel) and not prints:
            fenced = fence(whole, kernel.name, PARTITION, PARTITION.base, target="sm_90", is_checked=is_checked)
            texts.append(tmp_path / f"{len(texts)}.ptx")
            texts[-1].write_text(fenced.ptx)
    assert texts
    for text in texts:
        command = [PTXAS, "-arch=sm_90", "-o", tmp_path / "code", text]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[:1000]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [READS, WRITES], ids=["reads", "writes"])
def test_attacks_are_assembled(tmp_path: Path, kind: dict[str, Attack]) -> None:
    """So that it is the fence which stands against them on a GPU."""
    text = tmp_path / "attack.ptx"
    for name, attack in kind.items():
        if not attack.refused:
            whole = read(attack.ptx(PARTITION.base - 4096, -5 << 30))
            text.write_text(fence(whole, "k", PARTITION, PARTITION.base, target="sm_90").ptx)
            command = [PTXAS, "-arch=sm_90", "-o", tmp_path / "code", text]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{name}: {done.stderr[:1000]}"


@pytest.mark.slow
def test_an_assembler_would_say_so(tmp_path: Path) -> None:
    text = tmp_path / "wrong.ptx"
    text.write_text(".version 8.0\n.target sm_90\n.address_size 64\n.visible .entry k() { st.nowhere [0], 1; }")
    command = [PTXAS, "-arch=sm_90", "-o", tmp_path / "code", text]
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0
