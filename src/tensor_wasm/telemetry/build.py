"""What this program was built from, for ``build_info`` and bug reports."""

from __future__ import annotations

import json
import platform
import re
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

from tensor_wasm import __version__

_SHA = re.compile(r"[0-9a-f]{40,64}", re.ASCII)
_UNKNOWN = "unknown"
_PACKAGE = "tensor-wasm"


@dataclass(frozen=True, slots=True)
class Build:
    """Versions; ``git_sha`` is "unknown" when the package was not installed from a repository."""

    version: str
    git_sha: str
    python: str
    wasmtime: str


@cache
def build() -> Build:
    """The running program's build."""
    return Build(__version__, _git_sha(), platform.python_version(), version("wasmtime"))


def _git_sha() -> str:
    """From the installer's record when it installed a commit, else from the checkout this file lies in."""
    try:
        record = distribution(_PACKAGE).read_text("direct_url.json")
        sha = json.loads(record or "{}").get("vcs_info", {}).get("commit_id", "")
    except (PackageNotFoundError, ValueError, OSError, AttributeError):
        sha = ""
    if not sha:
        root = Path(__file__).parents[3]
        sha = _head(root / ".git") if (root / "pyproject.toml").is_file() else ""
    return sha if _SHA.fullmatch(sha) else _UNKNOWN


def _head(git: Path) -> str:
    """The commit checked out in a repository whose git directory is ``git``, read without running git."""
    try:
        if git.is_file():  # a linked work tree: the file names its own directory
            git = (git.parent / git.read_text().removeprefix("gitdir:").strip()).resolve()
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        name = head.removeprefix("ref: ")
        common = git / "commondir"
        shared = (git / common.read_text().strip()).resolve() if common.is_file() else git
        loose = shared / name
        if loose.is_file():
            return loose.read_text().strip()
        for line in (shared / "packed-refs").read_text().splitlines():
            sha, _, packed = line.partition(" ")
            if packed == name:
                return sha
    except (OSError, UnicodeDecodeError):
        pass
    return ""
