"""Wheels of this tree, and others made from them: another version, with files that differ."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def build(folder: Path) -> Path:
    """The wheel of this tree."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, timeout=600)
    (wheel,) = folder.glob("tensor_wasm-*.whl")
    return wheel


def altered(wheel: Path, version: str, changes: Mapping[str, Callable[[str], str]] | None = None) -> Path:
    """The same wheel under another version; ``changes`` gives files (by their path in it) another text."""
    before = wheel.name.split("-")[1]
    result = wheel.with_name(wheel.name.replace(before, version, 1))
    waiting = dict(changes or {})
    record = []
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(result, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            content = source.read(name)
            if name in waiting:
                text = content.decode()
                changed = waiting.pop(name)(text)
                assert changed != text, f"{name} is as it was"
                content = changed.encode()
            placed = name.replace(f"-{before}.dist-info/", f"-{version}.dist-info/")
            if placed.endswith(".dist-info/METADATA"):
                content = content.replace(f"\nVersion: {before}\n".encode(), f"\nVersion: {version}\n".encode(), 1)
            if placed.endswith(".dist-info/RECORD"):
                record_name = placed
                continue
            target.writestr(placed, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record.append(f"{placed},sha256={digest},{len(content)}")
        target.writestr(record_name, "\n".join([*record, f"{record_name},,"]) + "\n")
    assert not waiting, f"not in the wheel: {list(waiting)}"
    return result
