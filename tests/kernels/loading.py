"""Kernels of this folder by the name of their source and entry."""

from __future__ import annotations

from functools import cache, lru_cache

import numpy as np
import pytest

from kernels.build import VARIANTS
from kernels.products import Product
from tensor_wasm.compiler import CompiledKernel, compile_kernel
from tensor_wasm.errors import PtxError
from tensor_wasm.ptx import Kernel, Program, Unsupported, find_kernel, read, support

#: The variants that may call functions.
CALLING = ("quick", "debug", "plain", "clang-plain")

#: Sources and entries whose every variant may: sine and cosine of any double have a part that is not inlined.
CALLING_ENTRIES = (("from_numba/functions", ""), ("solvers", "pendulums"))

#: The sources whose PTX is not read, and why.
UNREAD = dict.fromkeys(
    ("from_triton/embedding", "from_triton/histogram", "from_triton/locked"),
    "Triton writes the scope and the order of its atomics behind the space, `atom.global.gpu.acq_rel.add.u32`",
)


@lru_cache(maxsize=16)  # more than a source's variants; all of them would slow every garbage collection from here on
def program(source: str, variant: str = "") -> Program:
    """A PTX file, read."""
    return read(Product(source, variant).path.read_text("utf-8"))


@cache
def kernel(source: str, entry: str, variant: str = "") -> CompiledKernel:
    """One kernel of a PTX file, compiled. ``variant`` is a word of `build.py`'s ``VARIANTS``."""
    return compile_kernel(_entry(source, entry, variant), program(source, variant))


def _entry(source: str, entry: str, variant: str) -> Kernel:
    """A kernel by its name; an empty one names the only kernel there is."""
    whole = program(source, variant)
    if entry:
        return find_kernel(whole, entry)
    (only,) = whole.kernels
    return only


def generator(*seed: int) -> np.random.Generator:
    """Random numbers that are the same each time."""
    return np.random.default_rng(seed)


def normal(*shape: int) -> np.ndarray:
    """Normally distributed f32."""
    return generator(*shape).standard_normal(shape).astype(np.float32)


def variants(source: str, entry: str = "", *, without: tuple[str, ...] = ()) -> pytest.MarkDecorator:
    """Runs a test on an entry as each compiler and set of options made it; its parameter is ``code``, see the fixture.

    Without an ``entry`` it is the only one of its file. Code that is hardly optimised calls functions for what is one
    instruction elsewhere. Where a release refuses calls, that variant is left out; `test_support.py` sees to it that
    nothing else is.
    """
    kept = [word for word in VARIANTS[source] if word not in without]
    taken = [word for word in kept if not may_call(source, entry, word) or not refused(source, entry, word)]
    marks = [pytest.mark.xfail(reason=UNREAD[source], raises=PtxError)] if source in UNREAD else []
    return pytest.mark.parametrize(
        "code", [pytest.param((source, entry, w), id=w or "default", marks=marks) for w in taken], indirect=True
    )


def may_call(source: str, entry: str, variant: str) -> bool:
    """Whether a kernel is known to call functions. ``entry`` may be empty for the only one of a source."""
    return variant in CALLING or (source, entry) in CALLING_ENTRIES or (source, "") in CALLING_ENTRIES


@cache
def refused(source: str, entry: str, variant: str) -> tuple[Unsupported, ...]:
    """What of a kernel is not lowered."""
    return support(_entry(source, entry, variant))
