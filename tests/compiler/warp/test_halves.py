"""Conversions between f16 and wider floats: every f16, and doubles around the places where rounding turns."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest

from tensor_wasm.compiler.values.formula import Scope, Value, read
from tensor_wasm.compiler.warp import halves
from tensor_wasm.runtime import Budget, Engine, Store
from tensor_wasm.wasm import Body, Module, ValType

Formula = Callable[[Scope, Value], Value]


def apply(engine: Engine, formula: Formula, vectors: np.ndarray) -> np.ndarray:
    """What ``formula`` makes of each 16 bytes, in place."""
    module = Module()
    module.memory(vectors.nbytes // 65536 + 1, export="memory")
    run = module.function([ValType.I32], [], export="run")
    (place,) = run.parameters
    body = run.code

    def load(body: Body) -> None:
        body.get(place)
        body.memory("v128.load")

    with body.loop() as again, Scope(body) as scope:
        (read(place) - 16).push(body)
        body.set(place)
        result = scope.let(formula(scope, Value(ValType.V128, load)))
        body.get(place)
        result.push(body)
        body.memory("v128.store")
        body.get(place)
        body.br_if(again)
    store = Store(engine, Budget(1 << 30))
    try:
        instance = store.instantiate(engine.compile(module.encode().wasm), [])
        store.memory_view(instance.memory())[: vectors.nbytes] = vectors.tobytes()
        store.call(instance.function("run"), ["i32"], [vectors.nbytes], [])
        found = bytes(store.memory_view(instance.memory())[: vectors.nbytes])
        return np.frombuffer(found, dtype=np.uint32).reshape(-1, 4)
    finally:
        store.close()


@pytest.mark.parametrize("is_high", [False, True])
def test_every_half_is_widened_exactly_whatever_is_beside_it(is_high: bool, engine: Engine) -> None:
    bits = np.arange(1 << 16, dtype=np.uint32)
    packed = bits << 16 | 0xABCD if is_high else bits | 0xABCD_0000
    formula = functools.partial(halves.single_from_half, is_high=is_high)
    found = apply(engine, formula, packed).reshape(-1).view(np.float32)
    wanted = bits.astype(np.uint16).view(np.float16).astype(np.float32)
    assert np.array_equal(found, wanted, equal_nan=True)
    assert np.array_equal(np.signbit(found), np.signbit(wanted))


def doubles(chance: np.random.Generator) -> np.ndarray:
    """Every f16, the ties between neighbours, what is next to both, and doubles of any bits."""
    finite = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)
    edges = np.concatenate([finite, (finite[1:] + finite[:-1]) / 2, [65520.0, 65536.0, 1e300, np.inf, np.nan]])
    near = np.concatenate([edges, np.nextafter(edges, 0), np.nextafter(edges, np.inf)])
    anything = chance.integers(0, 1 << 64, 1000, dtype=np.uint64).view(np.float64)
    values = np.concatenate([near, -near, anything])
    return values[: len(values) // 2 * 2]


def test_a_double_becomes_the_nearest_half(engine: Engine) -> None:
    values = doubles(np.random.default_rng(1))
    found = apply(engine, halves.half_from_double, values)[:, :2].reshape(-1)
    with np.errstate(all="ignore"):
        wanted = values.astype(np.float16).view(np.uint16).astype(np.uint32)
    wanted[np.isnan(values)] = 0x7FFF
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize("width", [32, 64])
def test_a_double_becomes_a_single_or_stays_and_no_nan_has_a_payload(width: int, engine: Engine) -> None:
    values = doubles(np.random.default_rng(2))
    formula = halves.single_from_double if width == 32 else halves.double_without_nan
    words = apply(engine, formula, values)
    with np.errstate(all="ignore"):
        wanted = values.astype(np.float32).view(np.uint32) if width == 32 else values.view(np.uint64).copy()
    wanted[np.isnan(values)] = (1 << (width - 1)) - 1
    found = words[:, :2].reshape(-1) if width == 32 else words.reshape(-1).view(np.uint64)
    assert np.array_equal(found, wanted)
