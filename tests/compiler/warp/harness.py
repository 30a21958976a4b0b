"""Runs resolvers over mailboxes that a test fills."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from tensor_wasm.compiler import warp
from tensor_wasm.compiler.warp import IN_OFFSET, IN_WORDS, LANES, MAILBOX_BYTES, OUT_OFFSET, OUT_WORDS, WORD_BYTES
from tensor_wasm.ptx import read
from tensor_wasm.ptx.program import Instruction
from tensor_wasm.runtime import Budget, Engine, Store
from tensor_wasm.runtime.engine import Module as Code
from tensor_wasm.wasm import Module, ValType

ALL = 0xFFFF_FFFF
#: Not at the start of the memory, so that a resolver that forgets where its mailboxes are is found out.
MAIL = 4096
#: The mailboxes are in the second memory, as in a kernel's module.
SCRATCH = 1
_ROW_WORDS = MAILBOX_BYTES // WORD_BYTES
_IN = slice(IN_OFFSET // WORD_BYTES, IN_OFFSET // WORD_BYTES + IN_WORDS)
_OUT = slice(OUT_OFFSET // WORD_BYTES, OUT_OFFSET // WORD_BYTES + OUT_WORDS)

_TEXT = """.version 8.5
.target sm_80
.address_size 64
.visible .entry k()
{{
  .reg .pred %p<9>;
  .reg .b32 %r<32>;
  .reg .b64 %rd<9>;
  .reg .f32 %f<9>;
  .reg .f64 %fd<9>;
  .shared .align 16 .b8 rows[1024];
  {statement}
  ret;
}}
"""


def instruction(statement: str) -> Instruction:
    """The only instruction of a kernel that consists of ``statement``."""
    (kernel,) = read(_TEXT.format(statement=statement)).kernels
    (found,) = kernel.blocks[0].instructions
    return found


def lanes_of(members: int) -> list[int]:
    """The lanes in a mask."""
    return [lane for lane in range(LANES) if members >> lane & 1]


def masks(chance: np.random.Generator) -> list[int]:
    """Sets of members: all, single lanes, a run, a pattern, random ones."""
    return [ALL, 1, 1 << 31, 0x0000_FF00, 0xF0F0_F0F0, *chance.integers(1, 1 << 32, 10).tolist()]


@dataclass(frozen=True, slots=True)
class Warps:
    """Resolves warp operations on one engine."""

    engine: Engine
    _code: dict[str, Code] = field(default_factory=dict)

    def resolve(self, key: str, operands: np.ndarray, members: int = ALL) -> np.ndarray:
        """The result words (32 lanes, 16 words) for operand words from word 1 on (32 lanes, any number).

        Everything around them is filled with noise, and what a resolver must not write is checked to be as before.
        """
        before = np.random.default_rng(members).integers(0, 1 << 32, PAGE_WORDS, dtype=np.uint32)
        boxes = before[MAIL // WORD_BYTES :][: LANES * _ROW_WORDS].reshape(LANES, _ROW_WORDS)
        boxes[:, _IN][:, 1 : 1 + operands.shape[1]] = operands
        boxes[:, _IN][:, 0] = members
        after = self._run(key, before, members)
        found = after[MAIL // WORD_BYTES :][: LANES * _ROW_WORDS].reshape(LANES, _ROW_WORDS)
        for lane in lanes_of(members):
            boxes[lane, _OUT] = found[lane, _OUT]
        assert np.array_equal(before, after), "a resolver wrote where it must not"
        return found[:, _OUT].copy()

    def cost_ns(self, key: str, operands: np.ndarray, members: int = ALL) -> float:
        """How long one call takes, in ns, as the best of a few runs."""
        memory = np.zeros(PAGE_WORDS, dtype=np.uint32)
        boxes = memory[MAIL // WORD_BYTES :][: LANES * _ROW_WORDS].reshape(LANES, _ROW_WORDS)
        boxes[:, _IN][:, 1 : 1 + operands.shape[1]] = operands
        store = Store(self.engine, Budget(1 << 30))
        try:
            instance = store.instantiate(self._compiled(key), [])
            store.memory_view(instance.memory())[: memory.nbytes] = memory.tobytes()
            count, best = 20_000, float("inf")
            for _ in range(5):
                started = time.perf_counter()
                store.call(instance.function("repeat"), ["i32"] * 3, [MAIL, _signed(members), count], [])
                best = min(best, time.perf_counter() - started)
            return best / count * 1e9
        finally:
            store.close()

    def _compiled(self, key: str) -> Code:
        found = self._code.get(key)
        if found is None:
            found = self._code[key] = self.engine.compile(_module(key))
        return found

    def _run(self, key: str, before: np.ndarray, members: int) -> np.ndarray:
        store = Store(self.engine, Budget(1 << 30))
        try:
            instance = store.instantiate(self._compiled(key), [])
            store.memory_view(instance.memory())[: before.nbytes] = before.tobytes()
            store.call(instance.function("resolve"), ["i32", "i32"], [MAIL, _signed(members)], [])
            view = store.memory_view(instance.memory())
            return np.frombuffer(bytes(view[: before.nbytes]), dtype=np.uint32)
        finally:
            store.close()


PAGE_WORDS = 65536 // WORD_BYTES


def _signed(word: int) -> int:
    return (word ^ 0x8000_0000) - 0x8000_0000


def _module(key: str) -> bytes:
    module = Module()
    module.memory(1)
    module.memory(1, export="memory")
    resolver = warp.RESOLVERS[key](module, SCRATCH)
    module.export("resolve", resolver)
    repeat = module.function([ValType.I32] * 3, [], export="repeat")
    body = repeat.code
    mail, members, count = repeat.parameters
    with body.loop() as again:
        body.get(mail)
        body.get(members)
        body.call(resolver)
        body.get(count)
        body.i32_const(1)
        body.op("i32.sub")
        body.tee(count)
        body.br_if(again)
    return module.encode().wasm
