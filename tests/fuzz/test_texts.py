"""Damaged PTX: a typed error with its place or a valid module, and nothing else, in short time."""

from __future__ import annotations

import contextlib
import random
import time

import pytest

from fuzz import texts
from fuzz.arguments import NUMBERS
from fuzz.mutation import BOMBS
from fuzz.texts import LIMIT_S, examine, prepare, text_of
from fuzz.workers import Plan, report, run
from tensor_wasm.compiler import CompiledKernel
from tensor_wasm.errors import PtxError
from tensor_wasm.ptx import Program, read
from tensor_wasm.ptx.program import Kernel
from tensor_wasm.runtime import Engine
from thinning import some

_SEED = 20_261_125


@pytest.mark.parametrize("batch", some(range(5), 1))
def test_damaged_texts_end_in_an_error_or_a_valid_module(engine: Engine, batch: int) -> None:
    for number in range(_SEED + batch, _SEED + 600, 5):
        text = text_of(number)
        start = time.process_time()
        what = examine(text, random.Random(number), engine)
        assert what is None, f"{number}: {what}\n{text!r}"
        assert time.process_time() - start < 5, f"{number}: too slow"


@pytest.mark.slow
def test_many_more_damaged_texts() -> None:
    seed = random.SystemRandom().randrange(NUMBERS)
    done, findings = run(Plan(prepare, seed, NUMBERS, 20.0, 2, LIMIT_S), print)
    assert not findings, report(findings)
    assert done > 1000


def test_some_damage_is_still_a_program_and_some_is_not() -> None:
    """The mutations are neither harmless nor hopeless: both ways are exercised."""
    refused = 0
    for number in range(_SEED, _SEED + 200):
        try:
            read(text_of(number))
        except PtxError:
            refused += 1
    assert 50 < refused < 180


@pytest.mark.parametrize("seed", range(5))
def test_random_bytes_are_refused(engine: Engine, seed: int) -> None:
    source = random.Random(seed)
    for _ in range(50):
        data = source.randbytes(source.randrange(1, 500))
        for text in (data, bytes(byte & 0x7F for byte in data)):
            assert examine(text, source, engine) is None, f"seed {seed}"
            with pytest.raises(PtxError):
                read(text)


@pytest.mark.parametrize(("size", "bound_s"), [(1 << 16, 1), pytest.param(1 << 19, 4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("bomb", range(len(BOMBS)))
def test_large_texts_end_in_short_time(engine: Engine, bomb: int, size: int, bound_s: float) -> None:
    text = BOMBS[bomb](size)
    start = time.process_time()
    with contextlib.suppress(PtxError):
        texts.check(read(text))
    assert time.process_time() - start < bound_s


def test_what_must_not_happen_is_reported(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    text = ".version 8.0\n.target sm_80\n.address_size 64\n.entry k()\n{\nret;\n}\n"
    monkeypatch.setattr(texts, "_COMPILED_SHARE", 1.0)
    monkeypatch.setattr(texts, "_VALIDATED_SHARE", 1.0)
    assert examine(text, random.Random(0), engine) is None

    def broken(_kernel: Kernel, _program: Program) -> CompiledKernel:
        raise KeyError("k")

    monkeypatch.setattr(texts, "compile_kernel", broken)
    assert "KeyError" in str(examine(text, random.Random(0), engine))

    def invalid(kernel: Kernel, _program: Program) -> CompiledKernel:
        return CompiledKernel(b"\0asm\1\0\0\0\1", kernel.name, (), 0, 0, None, None, ())

    monkeypatch.setattr(texts, "compile_kernel", invalid)
    assert "not valid" in str(examine(text, random.Random(0), engine))

    def placeless(_text: str | bytes) -> Program:
        raise PtxError("something")

    monkeypatch.setattr(texts, "read", placeless)
    assert "without a place" in str(examine(text, random.Random(0), engine))
