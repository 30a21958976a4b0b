"""Damages PTX texts: tokens, lines, bytes, numbers, and the size of things."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from fuzz.opcodes import draw
from tensor_wasm.ptx.opcodes import FORMS

ROOT = Path(__file__).parent.parent.parent
HEADING = ".version 8.0\n.target sm_80\n.address_size 64\n"
_PIECES = re.compile(r"\s+|[%$\w]+(?:\.\w+(?:::\w+)*)*|\.\w+(?:::\w+)*|.", re.DOTALL)
_SMALL_BYTES = 5000
_LARGE_SHARE = 0.002
_BOMB_SHARE = 0.0002

#: Pieces that are likely to matter.
_SPICE = [
    "{", "}", "[", "]", "(", ")", "<", ">", "@", "!", "|", ";", ",", ":", "+", "-", "%", "\"", "/*", "*/", "//",
    "0x", "0f7FC00000", "0d7FF8000000000000", "1e999", "_", "?", "=", "%r1", "%rd1", "%f1", "%p1", "%tid.x",
    "%laneid", "%clock64", "WARP_SZ", "bra", "ret;", "call", "brx.idx", "mov.b64", "{%r1,%r2}", "@%p1", "@!%p1",
    ".reg", ".pred", ".shared", ".global", ".const", ".local", ".entry", ".func", ".param", ".align", ".v2", ".v4",
    ".v8", ".section", ".branchtargets", ".callprototype", ".loc", ".file", ".extern", ".weak", ".visible", "x[]",
    "<1000000000>", "bar.sync", "trap;", "exit;", ".reqntid", ".maxntid", "generic(x)", ".pragma", ".b32", ".b128",
    "\u0000", "\u00ff", "\u2028", "\r", "\udcff",
]  # fmt: skip
_TYPES = [f".{sign}{bits}" for sign in "usb" for bits in (8, 16, 32, 64)]
_TYPES += [".f16", ".f32", ".f64", ".f16x2", ".bf16", ".bf16x2", ".tf32", ".b128", ".pred", ".e4m3x2"]
_MODIFIERS = [
    ".rn", ".rz", ".rm", ".rp", ".rni", ".rzi", ".ftz", ".sat", ".approx", ".full", ".cc", ".hi", ".lo", ".wide",
    ".sync", ".volatile", ".nc", ".relaxed", ".gpu", ".global", ".shared", ".local", ".const", ".param", ".lt",
    ".eq", ".num", ".and", ".or", ".uni", ".aligned", ".trans", ".NaN", ".relu", ".cas", ".add", ".exch", ".x4",
    ".m16n8k16", ".L2::128B", ".L1::no_allocate", ".cta", ".idx", ".up", ".ballot", ".any", ".all", ".to",
]  # fmt: skip
_NUMBERS = [
    "0", "1", "-1", "2", "7", "31", "32", "33", "63", "64", "255", "256", "65535", "65536", "2147483647",
    "2147483648", "4294967295", "4294967296", "9223372036854775808", "18446744073709551615", "18446744073709551616",
    "0x80000000", "0xFFFFFFFFFFFFFFFF", "0b11", "017", "1U", "1.5", "-0", "16777216", "268435457",
    "-9223372036854775808", "111111111111111111111111111111111111111111111111111111111111",
]  # fmt: skip


@cache
def _files() -> list[str]:
    places = [*ROOT.glob("tests/corpus/*.ptx"), *ROOT.glob("tests/kernels/*.ptx"), *ROOT.glob("examples/**/*.ptx")]
    return [path.read_text() for path in sorted(places)]


def _entries(text: str) -> list[str]:
    """Each kernel of a text as a text of its own, with what stands before the first."""
    parts = re.split(r"(?m)^(?=\s*(?:\.visible )?\.entry )", text)
    return [parts[0] + part for part in parts[1:]]


@cache
def small_texts() -> list[list[str]]:
    """Texts of a few kilobytes, in pieces."""
    found = [part for text in _files() for part in [text, *_entries(text)] if len(part) < _SMALL_BYTES]
    return [_PIECES.findall(text) for text in dict.fromkeys(found)]


@cache
def large_texts() -> list[list[str]]:
    """All others, in pieces."""
    return [_PIECES.findall(text) for text in _files() if len(text) >= _SMALL_BYTES]


def snippet(source: random.Random) -> list[str]:
    """A kernel of a few instructions of any form, whose operands mostly fit."""
    registers = "pred %p", "b16 %h", "b32 %r", "b64 %d", "f32 %f", "f64 %g"
    lines = [HEADING, ".visible .entry k(.param .u64 a, .param .u32 n)\n{\n"]
    lines += [f".reg .{register}<4>;\n" for register in registers]
    for _ in range(source.randint(1, 6)):
        drawn = draw(source)
        operands = []
        for wanted in drawn.operands:
            bits = wanted.type.bits if wanted.type is not None else 32
            sort = {1: "p", 8: "h", 16: "h", 32: "r", 64: "d"}.get(bits, "r")
            if wanted.type is not None and wanted.type.is_float and bits > 16:
                sort = "f" if bits == 32 else "g"
            operands.append(str(source.randrange(256)) if wanted.type is None else f"%{sort}{source.randrange(4)}")
        lines.append(f"{drawn.text} {', '.join(operands)};\n")
    lines.append("ld.param.u64 %d0, [a];\nst.global.u32 [%d0], %r1;\nret;\n}\n")
    return _PIECES.findall("".join(lines))


def mutated(source: random.Random) -> str | bytes:
    """A damaged text."""
    choice = source.random()
    if choice < _BOMB_SHARE:
        return source.choice(BOMBS)(source.choice((1 << 10, 1 << 14, 1 << 18)))
    if choice < _LARGE_SHARE:
        pieces = list(source.choice(large_texts()))
    elif choice < 0.5:
        pieces = snippet(source)
    else:
        pieces = list(source.choice(small_texts()))
    for _ in range(source.choice((1, 1, 1, 1, 2, 3, 8))):
        source.choice(_CHANGES)(source, pieces)
        if not pieces:
            pieces.append("")
    text = "".join(pieces)
    if source.random() < 0.04:
        text = text[: source.randrange(len(text) + 1)]
    return _noisy(source, text) if source.random() < 0.06 else text


def _noisy(source: random.Random, text: str) -> bytes:
    data = bytearray(text.encode("utf-8", "surrogatepass"))
    for _ in range(source.choice((1, 1, 2, 8))):
        place = source.randrange(len(data) + 1)
        match source.randrange(3):
            case 0:
                data[place : place + 1] = bytes([source.randrange(256)])
            case 1:
                data[place:place] = source.randbytes(source.randrange(1, 5))
            case _:
                if place < len(data):
                    data[place] ^= 1 << source.randrange(8)
    return bytes(data)


# --- changes to pieces --------------------------------------------------------------------------------------


def _delete(source: random.Random, pieces: list[str]) -> None:
    place = source.randrange(len(pieces))
    del pieces[place : place + source.choice((1, 1, 1, 3, 30))]


def _spice(source: random.Random, pieces: list[str]) -> None:
    place = source.randrange(len(pieces))
    pieces[place : place + source.randrange(2)] = [source.choice(_SPICE)]


def _swap(source: random.Random, pieces: list[str]) -> None:
    one, other = source.randrange(len(pieces)), source.randrange(len(pieces))
    pieces[one], pieces[other] = pieces[other], pieces[one]


def _copy(source: random.Random, pieces: list[str]) -> None:
    pieces[source.randrange(len(pieces))] = source.choice(pieces)


def _repeat(source: random.Random, pieces: list[str]) -> None:
    place, other = source.randrange(len(pieces)), source.randrange(len(pieces))
    pieces[place:place] = pieces[other : other + source.randrange(40)] * source.choice((1, 1, 2, 20))


def _splice(source: random.Random, pieces: list[str]) -> None:
    """Lines of another text."""
    other = source.choice(small_texts())
    start = source.randrange(len(other))
    place = _line_start(source, pieces)
    pieces[place:place] = other[start : start + source.randrange(60)]


def _line_start(source: random.Random, pieces: Sequence[str]) -> int:
    place = source.randrange(len(pieces))
    while place and "\n" not in pieces[place - 1]:
        place -= 1
    return place


def _line(source: random.Random, pieces: list[str]) -> None:
    """Delete, repeat or move a line."""
    start = _line_start(source, pieces)
    end = start + 1
    while end < len(pieces) and "\n" not in pieces[end - 1]:
        end += 1
    line = pieces[start:end]
    choice = source.randrange(3)
    if choice != 1:
        del pieces[start:end]
    if choice and pieces:
        place = _line_start(source, pieces)
        pieces[place:place] = line


def _number(source: random.Random, pieces: list[str]) -> None:
    places = [n for n, piece in enumerate(pieces) if piece[:1].isdigit()]
    if places:
        pieces[source.choice(places)] = source.choice(_NUMBERS)


def _opcode(source: random.Random, pieces: list[str]) -> None:
    """Another root, modifier, type or vector width, or one more, or one less."""
    places = [n for n, piece in enumerate(pieces) if "." in piece[1:] and piece[0].isalpha()]
    if not places:
        return
    place = source.choice(places)
    parts = pieces[place].split(".")
    at = source.randrange(len(parts))
    match source.randrange(5):
        case 0:
            parts[0] = source.choice(list(FORMS))
        case 1:
            parts[-1] = source.choice(_TYPES)[1:]
        case 2:
            parts[at:at] = [source.choice(_MODIFIERS)[1:]]
        case 3:
            parts[at] = source.choice([*_MODIFIERS, *_TYPES])[1:]
        case _:
            del parts[at]
    pieces[place] = ".".join(parts)


def _register(source: random.Random, pieces: list[str]) -> None:
    """One register for another, mostly of the same sort."""
    places = [n for n, piece in enumerate(pieces) if piece[:1] == "%" and len(piece) > 1]
    if not places:
        return
    place = source.choice(places)
    sort = pieces[place].rstrip("0123456789")
    alike = [pieces[n] for n in places if source.random() < 0.05 or pieces[n].startswith(sort)]
    pieces[place] = source.choice(alike or [pieces[place]])


def _label(source: random.Random, pieces: list[str]) -> None:
    """A branch to somewhere else, or a branch more."""
    labels = [pieces[n - 1] for n, piece in enumerate(pieces) if piece == ":" and n]
    place = _line_start(source, pieces)
    if labels:
        pieces[place:place] = [source.choice(("bra", "@%p1 bra")), " ", source.choice(labels), ";\n"]


def _type(source: random.Random, pieces: list[str]) -> None:
    places = [n for n, piece in enumerate(pieces) if piece in _TYPES]
    if places:
        pieces[source.choice(places)] = source.choice(_TYPES)


def _deep(source: random.Random, pieces: list[str]) -> None:
    """Something within itself, or very often."""
    place, count = source.randrange(len(pieces)), source.choice((3, 31, 33, 300))
    first, last = source.choice(
        (("{", "}"), ("(", ")"), ("[", "]"), ("-", ""), ("1+", ""), ("@", ""), ("", ".b32"), ("{\n", ""))
    )
    pieces[place:place] = [first * count, last * source.choice((count, count, count - 1))]


_CHANGES: list[Callable[[random.Random, list[str]], None]] = [
    *[_opcode] * 4, *[_register] * 6, *[_line] * 4, *[_number] * 4, *[_type] * 2, *[_label] * 3,
    _delete, _spice, _spice, _swap, _copy, _repeat, _splice, _splice, _deep,
]  # fmt: skip

_KERNEL = HEADING + ".entry k()\n{\n"
#: Texts of about a size, for which a reader could take long.
BOMBS: list[Callable[[int], str]] = [
    lambda size: " " * size,
    lambda size: "a" * size,
    lambda size: HEADING + ";" * size,
    lambda size: HEADING + ".section .debug {" * (size // 17),
    lambda size: HEADING + ".global .b8 x[] = {" + "1," * (size // 2) + "1};",
    lambda size: HEADING + ".global .b8 x[9][9] = {" + "{}," * (size // 3) + "};",
    lambda size: HEADING + ".global .b8 x" + "[1]" * (size // 3),
    lambda size: HEADING + "".join(f".global .b8 x{n}[100000];\n" for n in range(size // 30)),
    lambda size: _KERNEL + "{" * size,
    lambda size: _KERNEL + "{}" * (size // 2) + "}",
    lambda size: _KERNEL + "mov.b32 r, " + "(" * size,
    lambda size: _KERNEL + "mov.b32 r, 1" + "+1" * (size // 2),
    lambda size: _KERNEL + "mov.b32 r, 1" + "?1:1" * (size // 4),
    lambda size: _KERNEL + "mov.b32 r, " + "9" * size,
    lambda size: _KERNEL + "mov.b32 r, " + "a," * (size // 2),
    lambda size: _KERNEL + "a" + ".b" * (size // 2),
    lambda size: _KERNEL + "ret;" * (size // 4) + "}",
    lambda size: _KERNEL + "".join(f"L{n}: " for n in range(size // 8)) + "}",
    lambda size: _KERNEL + ".reg .pred p;\n" + "".join(f"@p bra L{n};\nL{n}:\n" for n in range(size // 20)) + "}",
    lambda size: _KERNEL + ".reg .pred p;\n" + "".join(f"L{n}: @p bra L{n // 2};\n" for n in range(size // 20)) + "}",
    lambda size: _KERNEL + ".reg .b32 r<2000000000>;" + "".join(f"mov.b32 r{n},1;" for n in range(size // 18)) + "}",
    lambda size: _KERNEL + "T: .branchtargets " + "L," * (size // 2) + "L;\n.reg .b32 r; brx.idx r, T; L: }",
]
