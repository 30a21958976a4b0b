"""Damaged PTX: a typed error or a sound program, and nothing else, in short time."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path

import pytest

from compiler.calling import Programs
from tensor_wasm.errors import PtxError
from tensor_wasm.ptx import Graph, Program, read, support
from tensor_wasm.ptx.program import Branch, Immediate, Jump, Register, Switch

CORPUS = Path(__file__).parent.parent / "corpus"
TEXTS = [path.read_text() for path in sorted(CORPUS.glob("*.ptx")) if path.stat().st_size < 8000]
TEXTS += [Programs(seed).text for seed in range(4)]
TEXTS.append(
    """.version 8.0 .target sm_80 .address_size 64
.extern .func (.param .b32 o) vprintf(.param .b64 a, .param .b64 b);
.func (.param .align 8 .b8 o[8]) f(.param .b64 a, .reg .b32 b) { ret; }
.global .b8 text[6] = {37, 100, 37, 115, 10}; .global .u64 table[2] = {f, text};
.entry k(.param .u64 p) { .reg .b64 d; .reg .b32 r; mov.u64 d, text; { .param .b64 a; st.param.b64 [a], d;
call (r), vprintf, (a, d); .param .align 8 .b8 v[8]; kind: .callprototype (.param .align 8 .b8 _[8]) _ (.param .b64 _,
.reg .b32 _); ld.global.u64 d, [table]; call (v), d, (a, r), kind; ld.param.v2.b32 {r, _}, [v]; } ret; }"""
)
PIECES = re.compile(r"\s+|[%$\w.]+|.", re.DOTALL)
MUTATIONS = 40

#: Pieces that are likely to matter.
SPICE = [
    "{", "}", "[", "]", "(", ")", "<", ">", "@", "!", "|", ";", ",", ":", "+", "-", "%", "\0", "\xff", "\u2028", '"',
    "/*", "*/", "//", "0", "-1", "99999999999999999999", "0x", "0f7FC00000", "0d7FF8000000000000", "1e999", "_",
    "%r1", "%rd1", "%f1", "%p1", "%tid.x", "WARP_SZ", "bra", "ret;", "call", "brx.idx", "mov.b64", "{%r1, %r2}",
    ".reg", ".b32", ".b128", ".pred", ".shared", ".global", ".entry", ".func", ".param", ".align", ".v4", ".section",
    ".branchtargets", ".callprototype", ".loc", ".extern", "x[]", "<1000000000>", "atom.global.add.u32",
]  # fmt: skip


def mutate(rng: random.Random, text: str) -> str:
    pieces = PIECES.findall(text)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        place = rng.randrange(len(pieces))
        other = rng.randrange(len(pieces))
        match rng.randrange(7):
            case 0:
                del pieces[place]
            case 1:
                pieces[place] = rng.choice(SPICE)
            case 2:
                pieces.insert(place, rng.choice(SPICE))
            case 3:
                pieces[place], pieces[other] = pieces[other], pieces[place]
            case 4:
                pieces[place] = pieces[other]
            case 5:
                first, last = sorted((place, min(other, place + 30)))
                pieces[first:last] = []
            case _:
                pieces[place:place] = pieces[other : other + rng.randrange(40)]
        if not pieces:
            pieces = [""]
    return "".join(pieces)[: rng.choice((1 << 20, 1 << 20, rng.randrange(len(text))))]


def check(program: Program) -> None:
    """What everything downstream takes for granted."""
    for kernel in program.kernels:
        blocks = range(len(kernel.blocks))
        assert [block.index for block in kernel.blocks] == list(blocks)
        assert [register.index for register in kernel.registers] == list(range(len(kernel.registers)))
        for block in kernel.blocks:
            match block.terminator:
                case Jump(target):
                    assert target in blocks
                case Branch(guard, taken, otherwise):
                    assert {taken, otherwise} <= set(blocks)
                    assert kernel.registers[guard.register.index] is guard.register
                case Switch(_, targets):
                    assert targets
                    assert set(targets) <= set(blocks)
            for instruction in block.instructions:
                assert instruction.line >= 1
                for operand in (*instruction.sources, *instruction.destinations):
                    if isinstance(operand, Register):
                        assert kernel.registers[operand.index] is operand
                    elif isinstance(operand, Immediate):
                        assert 0 <= operand.bits < 1 << operand.type.bits
        assert len(Graph(kernel).reverse_postorder) == len(kernel.blocks)
    support(program)


def attempt(data: str | bytes) -> bool:
    """Read damaged text; whether it was accepted."""
    refusal: PtxError | None = None
    try:
        check(read(data))
    except PtxError as error:
        refusal = error
    if refusal is None:
        return True
    assert len(str(refusal)) < 512
    assert str(refusal).isprintable()
    assert refusal.line >= 1
    assert refusal.column >= 1
    return False


@pytest.mark.parametrize("seed", range(20))
def test_damaged_text_is_refused_or_read(seed: int) -> None:
    rng = random.Random(seed)
    for number in range(MUTATIONS):
        text = mutate(rng, rng.choice(TEXTS))
        start = time.perf_counter()
        try:
            attempt(text)
        except Exception as error:
            error.add_note(f"seed {seed}, mutation {number}:\n{text}")
            raise
        assert time.perf_counter() - start < 2, f"seed {seed}, mutation {number}: too slow"


def test_some_damage_is_still_a_program_and_some_is_not() -> None:
    """The mutations are neither harmless nor hopeless: both ways are exercised."""
    rng = random.Random(1)
    accepted = [attempt(mutate(rng, rng.choice(TEXTS))) for _ in range(60)]
    assert any(accepted)
    assert not all(accepted)


@pytest.mark.parametrize("seed", range(5))
def test_random_bytes_are_refused(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(50):
        data = rng.randbytes(rng.randrange(1, 500))
        assert not attempt(data), f"seed {seed}"
        assert not attempt(bytes(byte & 0x7F for byte in data)), f"seed {seed}"


HEADING = ".version 8.0\n.target sm_80\n.address_size 64\n"
KERNEL = HEADING + ".entry k()\n{\n"
SIZE = 1 << 20


@pytest.mark.parametrize(
    "text",
    [
        " " * SIZE,
        "\0" * SIZE,
        "a" * SIZE,
        "." * SIZE,
        HEADING + ";" * SIZE,
        HEADING + ".section .debug {" * (SIZE // 17),
        HEADING + ".global .b8 x[] = {" + "1," * (SIZE // 2) + "1};",
        HEADING + ".global .b8 x[9][9] = {" + "{}," * (SIZE // 3) + "};",
        HEADING + ".global .b8 x" + "[1]" * (SIZE // 3),
        KERNEL + "{" * SIZE,
        KERNEL + "{}" * (SIZE // 2) + "}",
        KERNEL + "mov.b32 r, " + "(" * SIZE,
        KERNEL + "mov.b32 r, " + "-" * SIZE,
        KERNEL + "mov.b32 r, 1" + "+1" * (SIZE // 2),
        KERNEL + "mov.b32 r, 1" + "?1:1" * (SIZE // 4),
        KERNEL + "mov.b32 r, " + "9" * SIZE,
        KERNEL + "mov.b32 r, {" + "[" * SIZE,
        KERNEL + "mov.b32 r, " + "a," * (SIZE // 2),
        KERNEL + "a" + ".b" * (SIZE // 2),
        KERNEL + "a " + ".b " * (SIZE // 3),
        KERNEL + "ret;" * (SIZE // 4) + "}",
        KERNEL + "@" * SIZE,
        KERNEL + "".join(f"L{number}:" for number in range(SIZE // 9)) + "}",
        KERNEL + ".reg .b32 r<2000000000>;" + "".join(f"mov.b32 r{number},1;" for number in range(SIZE // 18)) + "}",
    ],
    ids=lambda text: f"{text[-12:]!r}",
)
def test_large_texts_end_in_short_time(text: str) -> None:
    start = time.perf_counter()
    attempt(text)
    assert time.perf_counter() - start < 5
