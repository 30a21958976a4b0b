"""The guides' commands, run from top to bottom against a real node: each prints what the guide shows below it."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from system.front_door import ROOT, Served, environment

pytestmark = pytest.mark.slow

GUIDES = ROOT / "docs" / "guides"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_MARK = "@@ end of step"


def steps(page: Path) -> list[tuple[str, str | None]]:
    """(commands, what they print or None where the guide does not say) of a page's `sh` blocks."""
    blocks = BLOCK.findall(page.read_text("utf-8"))
    found: list[tuple[str, str | None]] = []
    for place, (language, body) in enumerate(blocks):
        if language == "sh":
            after = blocks[place + 1] if place + 1 < len(blocks) else ("", "")
            found.append((body, after[1] if after[0] == "text" else None))
    return found


@pytest.mark.parametrize("name", ["guest-author", "kernel-author", "operator"])
def test_a_guide_s_commands_print_what_it_says(name, tmp_path):
    served = Served(tmp_path / "home", TENSOR_WASM_DRAIN_S="5")
    try:
        python = shlex.quote(sys.executable)
        lines = [
            "set -u",
            f'tensor-wasm() {{ {python} -m tensor_wasm "$@"; }}',
            f'python() {{ {python} "$@"; }}',
        ]
        lines += ["export -f tensor-wasm python"]
        for body, _ in steps(GUIDES / f"{name}.md"):
            lines += [body.replace("http://127.0.0.1:8080", served.url), f'echo "{_MARK} $?"']
        place = tmp_path / "place"
        place.mkdir()
        for folder in ("examples", "src"):
            (place / folder).symlink_to(ROOT / folder)
        variables = environment(TENSOR_WASM_SERVER=served.url, TENSOR_WASM_HOME=str(tmp_path / "home"))
        done = subprocess.run(
            ["bash", "-c", "\n".join(lines)],
            cwd=place,
            env=variables,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    finally:
        served.stop()
    printed = re.split(rf"^{_MARK} (\d+)\n", done.stdout, flags=re.MULTILINE)
    shown = steps(GUIDES / f"{name}.md")
    assert len(printed) == 2 * len(shown) + 1, done.stderr
    for place, (commands, expected) in enumerate(shown):
        assert printed[2 * place + 1] == "0", f"{commands}\n{done.stderr}"
        if expected is not None:
            assert printed[2 * place] == expected, f"{commands}\n{done.stderr}"


@pytest.mark.parametrize("name", ["kernel-author"])
def test_the_python_of_a_guide_runs(name, tmp_path):
    (body,) = [text for language, text in BLOCK.findall((GUIDES / f"{name}.md").read_text()) if language == "python"]
    shown = re.search(r"^print\(.*#\s*(\S+)$", body, re.MULTILINE)[1]
    source = next(text for _, text in BLOCK.findall((GUIDES / f"{name}.md").read_text()) if "scale.cu <<" in text)
    making = source.partition("tensor-wasm kernel check")[0].replace(
        "python -c", f"{shlex.quote(sys.executable)} -c", 1
    )
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    subprocess.run(["bash", "-euc", making], cwd=tmp_path, check=True, env=os.environ, timeout=300)
    done = subprocess.run(
        [sys.executable, "-c", body], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout.strip() == shown
