"""Damaged PTX texts: each must end in a typed error with its place, or in a module that is valid.

    PYTHONPATH=tests python -m fuzz.texts --count 1000000 --jobs 2

A finding's number with ``--seed NUMBER --count 1`` repeats it.
"""

from __future__ import annotations

import random
import sys
import time

import wasmtime

from fuzz.arguments import arguments, finish
from fuzz.mutation import mutated
from fuzz.workers import Plan, Reporter, Test, run
from tensor_wasm.compiler import compile_kernel
from tensor_wasm.errors import PtxError
from tensor_wasm.ptx import Graph, Program, read, support
from tensor_wasm.ptx.program import Branch, Immediate, Jump, Register, Switch
from tensor_wasm.runtime import Engine

LIMIT_S = 20.0
#: What a text may take that is not large, in processor time.
SMALL_S = 2.0
_SMALL_BYTES = 20_000
_COMPILED_SHARE = 0.6
_VALIDATED_SHARE = 0.5
_MESSAGE_LENGTH = 512


def text_of(number: int) -> str | bytes:
    """The text of a number: always the same."""
    return mutated(random.Random(number))


def prepare() -> Test:
    """A test of texts, with an engine of its own."""
    engine = Engine()

    def test(number: int, reporter: Reporter) -> None:
        source = random.Random(number)
        text = mutated(source)
        begin = time.process_time()
        what = examine(text, source, engine)
        seconds = time.process_time() - begin
        if what is None and seconds > SMALL_S and len(text) < _SMALL_BYTES:
            what = f"took {seconds:.1f} s"
        if what is not None:
            reporter.find("ending", f"{what}\n{text!r}")

    return test


def examine(text: str | bytes, source: random.Random, engine: Engine) -> str | None:
    """What is wrong with how a text ends; None where nothing is."""
    try:
        program = read(text)
        check(program)
    except PtxError as error:
        return _complaint(error, needs_place=True)
    except Exception as error:
        return f"read: {type(error).__name__}: {error}"
    for kernel in program.kernels:
        if source.random() > _COMPILED_SHARE:
            continue
        try:
            wasm = compile_kernel(kernel, program).wasm
        except PtxError as error:
            complaint = _complaint(error, needs_place=False)
            if complaint is not None:
                return complaint
            continue
        except Exception as error:
            return f"compile: {type(error).__name__}: {error}"
        if source.random() < _VALIDATED_SHARE:
            try:
                wasmtime.Module.validate(engine._engine, wasm)
            except wasmtime.WasmtimeError as error:
                return f"not valid: {error}"
    return None


def _complaint(error: PtxError, *, needs_place: bool) -> str | None:
    message = str(error)
    if len(message) >= _MESSAGE_LENGTH or not message.isprintable():
        return f"a message that cannot be shown: {message!r}"
    if needs_place and (error.line < 1 or error.column < 1):
        return f"an error without a place: {message}"
    return None


def check(program: Program) -> None:
    """What everything downstream takes for granted. Raises :class:`AssertionError`."""
    for kernel in program.kernels:
        blocks = range(len(kernel.blocks))
        assert [block.index for block in kernel.blocks] == list(blocks)
        assert [register.index for register in kernel.registers] == list(range(len(kernel.registers)))
        for block in kernel.blocks:
            match block.terminator:
                case Jump(target):
                    assert target in blocks
                case Branch(guard, taken, otherwise):
                    assert taken in blocks
                    assert otherwise in blocks
                    assert kernel.registers[guard.register.index] is guard.register
                case Switch(_, targets):
                    assert targets
                    assert all(target in blocks for target in targets)
            for instruction in block.instructions:
                assert instruction.line >= 1
                for operand in (*instruction.sources, *instruction.destinations):
                    if isinstance(operand, Register):
                        assert kernel.registers[operand.index] is operand
                    elif isinstance(operand, Immediate):
                        assert 0 <= operand.bits < 1 << operand.type.bits
        assert len(Graph(kernel).reverse_postorder) == len(kernel.blocks)
    support(program)


def main() -> int:
    """The command; 1 where something was found."""
    given = arguments(__doc__)
    plan = Plan(prepare, given.seed, given.count, given.seconds, given.jobs, LIMIT_S, given.findings)
    _, findings = run(plan, lambda line: print(line, flush=True))
    return finish(findings, lambda number: repr(text_of(number)))


if __name__ == "__main__":
    sys.exit(main())
