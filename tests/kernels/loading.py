"""Kernels of this folder by the name of their source and entry."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from kernels.build import VARIANTS
from tensor_wasm.compiler import CompiledKernel, compile_kernel
from tensor_wasm.ptx import Program, Unsupported, find_kernel, read, support

FOLDER = Path(__file__).parent


@cache
def program(source: str, variant: str = "") -> Program:
    """A PTX file, read."""
    name = ".".join(part for part in (source, variant, "ptx") if part)
    return read((FOLDER / name).read_text("utf-8"))


@cache
def kernel(source: str, entry: str, variant: str = "") -> CompiledKernel:
    """One kernel of a PTX file, compiled. ``variant`` is a word of `build.py`'s ``OPTIONS``."""
    whole = program(source, variant)
    return compile_kernel(find_kernel(whole, entry), whole)


def generator(*seed: int) -> np.random.Generator:
    """Random numbers that are the same each time."""
    return np.random.default_rng(seed)


def normal(*shape: int) -> np.ndarray:
    """Normally distributed f32."""
    return generator(*shape).standard_normal(shape).astype(np.float32)


def variants(source: str, entry: str, *, without: tuple[str, ...] = ()) -> pytest.MarkDecorator:
    """Runs a test on an entry as each set of options compiled it; its parameter is ``code``, see the fixture."""
    taken = [word for word in VARIANTS[source] if word not in without]
    return pytest.mark.parametrize(
        "code", [pytest.param((source, entry, w), id=w or "default") for w in taken], indirect=True
    )


@cache
def refused(source: str, entry: str, variant: str) -> tuple[Unsupported, ...]:
    """What of a kernel is not lowered."""
    return support(find_kernel(program(source, variant), entry))
