"""Kernels of this folder by the name of their source and entry."""

from __future__ import annotations

from functools import cache, lru_cache
from zlib import crc32

import numpy as np
import pytest

from kernels.build import VARIANTS
from kernels.products import Product
from tensor_wasm.compiler import CompiledKernel, compile_kernel
from tensor_wasm.ptx import Kernel, Program, Unsupported, find_kernel, read, support

#: Entries of CUDA C that are refused on purpose, and a part of the reason.
REFUSED = {("calls", "recursive"): "calls itself", ("calls", "allocate"): "memory that kernels allocate"}


_ORIGINS: dict[tuple[bytes, str], tuple[str, str, str]] = {}


@lru_cache(maxsize=16)  # more than a source's variants; all of them would slow every garbage collection from here on
def program(source: str, variant: str = "") -> Program:
    """A PTX file, read."""
    return read(Product(source, variant).path.read_text("utf-8"))


@cache
def kernel(source: str, entry: str, variant: str = "") -> CompiledKernel:
    """One kernel of a PTX file, compiled. ``variant`` is a word of `build.py`'s ``VARIANTS``."""
    compiled = compile_kernel(_entry(source, entry, variant), program(source, variant))
    _ORIGINS[compiled.wasm, compiled.name] = source, entry, variant
    return compiled


def origin(compiled: CompiledKernel) -> tuple[str, str, str]:
    """The arguments of :func:`kernel` that gave it."""
    return _ORIGINS[compiled.wasm, compiled.name]


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

    Without an ``entry`` it is the only one of its file. All but the variants of :func:`fast` are marked slow.
    """
    kept = tuple(word for word in VARIANTS[source] if word not in without)
    chosen = fast(source, entry, kept)
    return pytest.mark.parametrize(
        "code",
        [
            pytest.param((source, entry, word), id=word or "default", marks=() if word in chosen else pytest.mark.slow)
            for word in kept
        ],
        indirect=True,
    )


def fast(source: str, entry: str, words: tuple[str, ...]) -> tuple[str, ...]:
    """The first of a kernel's variants; of every third kernel another, which differs from kernel to kernel."""
    first, *others = words
    if not others or third(source, entry) != 1:
        return (first,)
    return (first, others[_number(source, entry) % len(others)])


def third(source: str, entry: str) -> int:
    """0, 1 or 2: of each there are about as many kernels."""
    return _number(source, entry) // 7 % 3


def _number(source: str, entry: str) -> int:
    return crc32(f"{source}/{entry}".encode())


@cache
def refused(source: str, entry: str, variant: str) -> tuple[Unsupported, ...]:
    """What of a kernel is not lowered."""
    return support(_entry(source, entry, variant))
