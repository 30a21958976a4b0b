"""Extended-precision arithmetic against Python's integers."""

from __future__ import annotations

import random

import numpy as np
import pytest

from compiler.launch import Machine
from compiler.text import compiled, kernel_text

_SEED = 7_002
_EDGES = (0, 1, 2, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)


def _numbers(bits: int, count: int) -> np.ndarray:
    source = random.Random(_SEED + bits)
    mask = (1 << bits) - 1
    edges = [value & mask for value in _EDGES]
    drawn = [source.choice(edges) if source.random() < 0.6 else source.getrandbits(bits) for _ in range(count)]
    return np.array(drawn, f"u{bits // 8}")


def _run(machine: Machine, body: str, bits: int, values: np.ndarray, results: int) -> list[list[int]]:
    """Run ``body`` for each row of values in registers a0, a1 …; the results in registers d0, d1 …."""
    count, width = values.shape
    size = bits // 8
    text = (
        f"    .reg .b{bits} a<{width}>, d<{results}>;\n    ld.param.u64 %rd1, [out];\n    ld.param.u64 %rd2, [data];\n"
    )
    text += "    mov.u32 %r1, %tid.x;\n    mov.u32 %r2, %ctaid.x;\n    mad.lo.u32 %r1, %r2, 32, %r1;\n"
    text += f"    mul.wide.u32 %rd3, %r1, {size * width};\n    add.u64 %rd2, %rd2, %rd3;\n"
    text += f"    mul.wide.u32 %rd3, %r1, {size * results};\n    add.u64 %rd1, %rd1, %rd3;\n"
    text += "".join(f"    ld.global.u{bits} a{i}, [%rd2+{i * size}];\n" for i in range(width))
    text += body
    text += "".join(f"    st.global.u{bits} [%rd1+{i * size}], d{i};\n" for i in range(results)) + "    ret;"
    out = np.zeros((count, results), values.dtype)
    machine.run(compiled(kernel_text(text, "u64 out, u64 data")), count // 32, 32, out, values)
    return [[int(v) for v in row] for row in out]


def _whole(parts: list[int] | np.ndarray, bits: int) -> int:
    return sum(int(part) << (i * bits) for i, part in enumerate(parts))


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("name", ["add", "sub"])
def test_long_sums_and_differences(machine: Machine, name: str, bits: int) -> None:
    body = f"    {name}.cc.u{bits} d0, a0, a3;\n    {name}c.cc.u{bits} d1, a1, a4;\n    {name}c.u{bits} d2, a2, a5;\n"
    values = _numbers(bits, 6 * 320).reshape(-1, 6)
    for row, found in zip(values, _run(machine, body, bits, values, 3), strict=True):
        a, b = _whole(row[:3], bits), _whole(row[3:], bits)
        expected = (a + b if name == "add" else a - b) % (1 << 3 * bits)
        assert _whole(found, bits) == expected, f"seed {_SEED}: {a:x} {name} {b:x}"


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("name", ["add", "sub"])
def test_the_last_carry_is_seen(machine: Machine, name: str, bits: int) -> None:
    body = f"    {name}.cc.u{bits} d0, a0, a1;\n    addc.u{bits} d1, 0, 0;\n    addc.u{bits} d2, 5, 0;\n"
    values = _numbers(bits, 2 * 320).reshape(-1, 2)
    for (a, b), found in zip(values.tolist(), _run(machine, body, bits, values, 3), strict=True):
        total = a + b if name == "add" else a - b
        carry = int(total < 0 or total >> bits != 0)
        assert found == [total % (1 << bits), carry, 5 + carry], f"seed {_SEED}: {a:x} {name} {b:x}"


@pytest.mark.parametrize("bits", [32, 64])
def test_long_products(machine: Machine, bits: int) -> None:
    # (a1 a0) * b0 + (c2 c1 c0), the inner step of a long multiplication.
    body = (
        f"    mad.lo.cc.u{bits} d0, a0, a2, a3;\n    madc.hi.cc.u{bits} d1, a0, a2, a4;\n    addc.u{bits} d2, a5, 0;\n"
        f"    mad.lo.cc.u{bits} d1, a1, a2, d1;\n    madc.hi.u{bits} d2, a1, a2, d2;\n"
    )
    values = _numbers(bits, 6 * 320).reshape(-1, 6)
    for row, found in zip(values, _run(machine, body, bits, values, 3), strict=True):
        expected = (_whole(row[:2], bits) * int(row[2]) + _whole(row[3:], bits)) % (1 << 3 * bits)
        assert _whole(found, bits) == expected, f"seed {_SEED}: {row}"


@pytest.mark.parametrize("bits", [32, 64])
def test_signed_high_products(machine: Machine, bits: int) -> None:
    body = f"    mad.hi.cc.s{bits} d0, a0, a1, a2;\n    madc.lo.s{bits} d1, a0, a1, a2;\n"
    values = _numbers(bits, 3 * 320).reshape(-1, 3)
    for row, found in zip(values.tolist(), _run(machine, body, bits, values, 2), strict=True):
        a, b = (value - (1 << bits) if value >> (bits - 1) else value for value in row[:2])
        total = (a * b >> bits) % (1 << bits) + row[2]
        low = (a * b + row[2] + (total >> bits)) % (1 << bits)
        assert found == [total % (1 << bits), low], f"seed {_SEED}: {row}"


def test_a_step_that_its_guard_turns_off_leaves_the_carry(machine: Machine) -> None:
    body = (
        "    setp.eq.u32 %p1, a0, a0;\n    add.cc.u32 d0, 0xFFFFFFFF, 1;\n    @!%p1 add.cc.u32 d0, 0, 0;\n"
        "    addc.u32 d1, 0, 0;\n"
    )
    values = _numbers(32, 64).reshape(-1, 2)
    assert _run(machine, body, 32, values, 2) == [[0, 1]] * 32
