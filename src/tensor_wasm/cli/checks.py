"""What ``tensor-wasm doctor`` looks at: one small function a check, each of which says what to do."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from importlib import metadata
from pathlib import Path

from tensor_wasm.config import Config, load
from tensor_wasm.errors import TensorWasmError
from tensor_wasm.wasm import I32, ModuleBuilder

#: Address space of one linear memory: 4 GiB that it may grow to, and its guard.
_MEMORY_SPAN_BYTES = 6 << 30
_LOW_DISK_BYTES, _LEAST_DISK_BYTES = 1 << 30, 64 << 20
_LOW_RAM_BYTES = 512 << 20
_CLOCK_READS = 20_000
_SLOW_CLOCK_NS = 500
_GIB = 1 << 30


class Status(Enum):
    """How a check went: the value is what is printed."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """A check's outcome; ``advice`` says what to do when ``status`` is not ok."""

    name: str
    status: Status
    detail: str
    advice: str = ""
