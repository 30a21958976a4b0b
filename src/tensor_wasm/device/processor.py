"""What the processor of this machine is called."""

from __future__ import annotations

import platform
import re
from pathlib import Path


def processor_name() -> str:
    """The processor's name as the system tells it, else the name of its architecture."""
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE)
    except (OSError, ValueError):
        found = None
    return " ".join(found[1].split()) if found else platform.machine()
