"""Runs one instruction over many inputs: a module with a loop that loads operands, computes, and stores results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tensor_wasm.compiler import values
from tensor_wasm.compiler.carriers import carrier
from tensor_wasm.compiler.library import Library
from tensor_wasm.ptx.program import Immediate, Instruction, Register, ScalarType
from tensor_wasm.runtime import Budget, Engine, Store
from tensor_wasm.wasm import Body, Module, ValType

TYPES = {kind.ptx_name: kind for kind in ScalarType}
CELL_BYTES = 8
PAGE_BYTES = 65536

LOADS = {
    ("b", 8): "i32.load8_u",
    ("u", 8): "i32.load8_u",
    ("s", 8): "i32.load8_s",
    ("b", 16): "i32.load16_u",
    ("u", 16): "i32.load16_u",
    ("s", 16): "i32.load16_s",
    ("f", 32): "f32.load",
    ("f", 64): "f64.load",
    ("p", 1): "i32.load8_u",
}
#: Writes code that leaves results on the stack, from operands that it pushes.
Write = Callable[[Body, Callable[[int, ScalarType], None], Library], None]
STORES = {ValType.I32: "i32.store", ValType.I64: "i64.store", ValType.F32: "f32.store", ValType.F64: "f64.store"}


def instruction(
    text: str,
    sources: Sequence[ScalarType | Immediate | Register],
    *,
    destinations: int = 1,
    negated: frozenset[int] = frozenset(),
) -> Instruction:
    """An instruction of ``text`` (``"add.rn.f32"``); a type among the sources stands for a register of it."""
    root, *parts = text.split(".")
    kinds = tuple(TYPES[part] for part in parts if part in TYPES)
    operands = tuple(
        Register(f"%a{index}", source, index) if isinstance(source, ScalarType) else source
        for index, source in enumerate(sources)
    )
    return Instruction(
        root=root,
        modifiers=tuple(part for part in parts if part not in TYPES),
        types=kinds,
        destinations=tuple(Register(f"%d{index}", kinds[0], 100 + index) for index in range(destinations)),
        sources=operands,
        guard=None,
        line=1,
        column=1,
        negated=negated,
    )


@dataclass(frozen=True, slots=True)
class Machine:
    """Evaluates instructions on one engine."""

    engine: Engine

    def run(self, form: Instruction, rows: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
        """The bit patterns of the results for each row of operands' bit patterns (a cell for every source)."""
        assert values.handles(form), form.text
        kinds = values.result_types(form)
        assert len(kinds) == len(form.destinations)
        return self.run_code(form, kinds, lambda body, push, library: values.emit(body, form, push, library), rows)

    def run_code(
        self, form: Instruction, kinds: Sequence[ScalarType], write: Write, rows: Sequence[Sequence[int]]
    ) -> list[tuple[int, ...]]:
        """As :meth:`run`, of what ``write`` computes from the sources of ``form``: values of ``kinds``."""
        wasm = _module(form, kinds, write)
        inputs = np.array(rows, dtype=np.uint64).reshape(len(rows), len(form.sources))
        outputs = self._call(wasm, inputs, len(kinds))
        masks = np.array([(1 << kind.bits) - 1 for kind in kinds], dtype=np.uint64)
        return [tuple(row) for row in (outputs & masks).tolist()]

    def _call(self, wasm: bytes, inputs: np.ndarray, width: int) -> np.ndarray:
        store = Store(self.engine, Budget(1 << 30))
        try:
            instance = store.instantiate(self.engine.compile(wasm), [])
            out_at = inputs.nbytes
            out_bytes = len(inputs) * width * CELL_BYTES
            pages = (out_at + out_bytes) // PAGE_BYTES + 1
            store.call(instance.function("grow"), ["i32"], [pages], [])
            view = store.memory_view(instance.memory())
            view[:out_at] = inputs.tobytes()
            store.call(instance.function("run"), ["i32", "i32"], [len(inputs), out_at], [])
            view = store.memory_view(instance.memory())
            return np.frombuffer(bytes(view[out_at : out_at + out_bytes]), dtype=np.uint64).reshape(len(inputs), width)
        finally:
            store.close()


def _module(form: Instruction, kinds: Sequence[ScalarType], write: Write) -> bytes:
    module = Module()
    module.memory(0, export="memory")
    grow = module.function([ValType.I32], [], export="grow")
    grow.code.get(grow.parameters[0])
    grow.code.memory_grow()
    grow.code.op("drop")
    run = module.function([ValType.I32, ValType.I32], [], export="run")
    body = run.code
    left, out = run.parameters
    place = body.local(ValType.I32)
    results = [body.local(carrier(kind)) for kind in kinds]

    def push(position: int, kind: ScalarType) -> None:
        source = form.sources[position]
        if isinstance(source, Immediate):
            _push_constant(source, kind)
            return
        body.get(place)
        name = LOADS.get((kind.kind, kind.bits)) or ("i64.load" if kind.bits == 64 else "i32.load")
        body.memory(name, CELL_BYTES * position)
        if position in form.negated:
            body.op("i32.eqz")

    def _push_constant(source: Immediate, kind: ScalarType) -> None:
        bits = source.bits & ((1 << kind.bits) - 1)
        if kind is ScalarType.F32:
            body.f32_bits(bits)
        elif kind is ScalarType.F64:
            body.f64_bits(bits)
        else:
            value = bits - (1 << kind.bits) if kind.is_signed and bits >> (kind.bits - 1) else bits
            (body.i64_const if kind.bits == 64 else body.i32_const)(value)

    with body.loop() as again:
        write(body, push, Library(module))
        for result in reversed(results):
            body.set(result)
        for index, result in enumerate(results):
            body.get(out)
            body.get(result)
            body.memory(STORES[result.type], CELL_BYTES * index)
        for pointer, step in ((place, len(form.sources)), (out, len(results))):
            body.get(pointer)
            body.i32_const(CELL_BYTES * step)
            body.op("i32.add")
            body.set(pointer)
        body.get(left)
        body.i32_const(1)
        body.op("i32.sub")
        body.tee(left)
        body.br_if(again)
    return module.encode().wasm
