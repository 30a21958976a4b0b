"""The commands of docs/runbooks/disaster-recovery.md, typed on a node that is well, damaged, and restored."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from docs.pages import Page
from system.drills.guests import guest
from system.front_door import ROOT, Served, environment

pytestmark = pytest.mark.slow

PAGE = Page.read(ROOT / "docs" / "runbooks" / "disaster-recovery.md")
#: What belongs to the machine and not to the node; stands for itself here.
OF_THE_MACHINE = ("chown", "journalctl", "systemctl")
PATIENCE_S = 120


@pytest.fixture
def types(tmp_path: Path) -> Callable[..., str]:
    """Type a section's commands, one after the other; what they printed. ``fails`` are those that may."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in OF_THE_MACHINE:
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    # There is one user here: who would be another is the same.
    (programs / "sudo").write_text('#!/bin/sh\nshift 2\n[ "${1#--}" = "$1" ] || shift\nexec "$@"\n')
    (programs / "sudo").chmod(0o755)
    backups, home = tmp_path / "backups", tmp_path / "home"
    backups.mkdir()

    def run(section: str, url: str = "", fails: tuple[str, ...] = (), blocks: slice = slice(None)) -> str:
        part = Page(PAGE.name, PAGE.text.partition(f"## {section}\n")[2].partition("\n## ")[0])
        assert part.blocks("sh")[blocks]
        here = {
            "/backups": str(backups),
            "/var/lib/tensor-wasm": str(home),
            "/tmp": str(tmp_path),
            "http://127.0.0.1:8080": url,
        }
        printed = ""
        for line in (line for block in part.blocks("sh")[blocks] for line in block.splitlines()):
            typed = re.sub("|".join(map(re.escape, here)), lambda found: here[found[0]], line)
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", typed],
                capture_output=True,
                text=True,
                check=False,
                timeout=PATIENCE_S,
                env=environment(
                    TENSOR_WASM_HOME=str(home),
                    TENSOR_WASM_SERVER=url,
                    PATH=f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
                ),
            )
            assert done.returncode == 0 or line in fails, f"{line}\n{done.stdout}{done.stderr}"
            printed += done.stdout + done.stderr
        return printed

    return run


def test_its_commands_find_mend_and_restore(
    serve: Callable[..., Served], types: Callable[..., str], tmp_path: Path
) -> None:
    served = serve(TENSOR_WASM_AUDIT="none")
    function = served.client.deploy("work", guest())["id"]
    backups = tmp_path / "backups"
    # There is a backup of Monday's: it is one that the page itself makes.
    made = 'tensor-wasm backup "/backups/$(date +%F)"'
    assert made in PAGE.text
    assert served.cli("backup", backups / "monday", "--home", tmp_path / "home").code == 0
    types("Backups")
    assert len(list(backups.iterdir())) == 2
    assert (tmp_path / "practice" / "node.db").is_file(), "a restore is practised beside"
    assert "whole" in types("Look", served.url)
    assert served.stop() == 0

    (artifact,) = [path for path in (tmp_path / "home" / "artifacts").rglob("*") if path.is_file()]
    artifact.unlink()  # the backup has the same file, for it is on the same disk: what damages one damages the other
    artifact.write_bytes(b"damaged")
    types("Decide")
    assert list(tmp_path.glob("tensor-wasm-home-*")), "a copy of before"
    # What is lost is not mended by that: the function is to be deployed again.
    mended = types("Repair", blocks=slice(1), fails=("tensor-wasm doctor --repair", "tensor-wasm doctor"))
    assert function in mended
    assert [path for path in (tmp_path / "home" / "damaged").rglob("*") if path.is_file()]
    served = serve(TENSOR_WASM_AUDIT="none")
    assert "TENANT" in types("Repair", served.url, blocks=slice(1, None))
    assert served.stop() == 0

    types("Restore")
    assert list(tmp_path.glob("home.replaced-*"))
    served = serve(TENSOR_WASM_AUDIT="none")
    well = types("Is it well again?", served.url)
    assert '"ready"' in well
    answer = served.client.invoke(function, {"export": "launch", "args": [1, 1]}, None)
    assert answer["result"] == [0]
    assert served.stop() == 0
