"""Arguments by value become the parameter's bytes, or are refused by name before anything runs."""

from __future__ import annotations

import math
import random
import struct

import numpy as np
import pytest

import tensor_wasm as tw
from device.ptx_texts import STRUCT, store_parameter
from tensor_wasm.compiler import ParameterLayout
from tensor_wasm.device.scalars import RULES, scalar_bytes

SIZES = {"u8": 1, "s8": 1, "u16": 2, "s16": 2, "f16": 2, "u32": 4, "s32": 4, "f32": 4, "u64": 8, "s64": 8, "f64": 8}
SIZES |= {"b8": 1, "b16": 2, "b32": 4, "b64": 8}


def layout(kind: str, size: int | None = None) -> ParameterLayout:
    return ParameterLayout("value", kind, SIZES[kind] if size is None else size, 0)


@pytest.mark.parametrize(
    ("kind", "argument", "expected"),
    [
        ("u32", np.int32(-5), struct.pack("<i", -5)),
        ("u32", np.uint32(1 << 31), struct.pack("<I", 1 << 31)),
        ("s32", np.uint32(1 << 31), struct.pack("<I", 1 << 31)),
        ("u32", -1, b"\xff" * 4),
        ("u32", 0xFFFFFFFF, b"\xff" * 4),
        ("s32", -(1 << 31), struct.pack("<i", -(1 << 31))),
        ("u64", (1 << 64) - 1, b"\xff" * 8),
        ("u64", np.int64(-2), struct.pack("<q", -2)),
        ("s64", np.longlong(-2), struct.pack("<q", -2)),
        ("u8", True, b"\1"),
        ("u8", np.bool_(True), b"\1"),
        ("s8", np.int8(-3), b"\xfd"),
        ("u16", np.uint16(65_535), b"\xff\xff"),
        ("f32", np.float32(1.5), struct.pack("<f", 1.5)),
        ("f32", 0.1, struct.pack("<f", 0.1)),
        ("f32", 3, struct.pack("<f", 3.0)),
        ("f32", math.inf, struct.pack("<f", math.inf)),
        ("f64", -0.0, struct.pack("<d", -0.0)),
        ("f64", np.float64(0.1), struct.pack("<d", 0.1)),
        ("f16", np.float16(0.5), struct.pack("<e", 0.5)),
        ("f16", 65_504.0, struct.pack("<e", 65_504.0)),
        ("b32", np.float32(2.0), struct.pack("<f", 2.0)),
        ("b64", np.float64(2.0), struct.pack("<d", 2.0)),
        ("b16", np.float16(2.0), struct.pack("<e", 2.0)),
    ],
)
def test_a_value_reaches_the_kernel_bit_for_bit(dev, kind, argument, expected):
    kernel = dev.load_ptx(store_parameter(kind, SIZES[kind]))
    target = np.zeros(8, np.uint8)
    kernel.launch(1, 1, [target, argument])
    assert bytes(target[: len(expected)]) == expected
    assert not target[len(expected) :].any()


@pytest.mark.parametrize(
    ("kind", "argument", "wanted"),
    [
        ("u32", 1 << 32, "-2147483648 to 4294967295"),
        ("u32", -(1 << 31) - 1, "-2147483648 to 4294967295"),
        ("s32", 1 << 31, "-2147483648 to 2147483647"),
        ("u8", 256, "-128 to 255"),
        ("s64", 1 << 63, "-9223372036854775808 to 9223372036854775807"),
        ("u64", 1 << 64, "18446744073709551615"),
        ("u64", 10**400, "bits"),
        ("u32", 1.0, "numpy.int32"),
        ("u32", np.int64(1), "numpy.int32"),
        ("u32", np.float32(1), "numpy.int32"),
        ("u32", np.bool_(True), "numpy.int32"),
        ("f32", np.float64(1.0), "numpy.float32"),
        ("f32", np.int32(1), "numpy.float32"),
        ("f32", 1e39, "out of the range of f32"),
        ("f32", 10**60, "out of the range of f32"),
        ("f64", 10**400, "out of the range of f64"),
        ("f16", 70_000.0, "out of the range of f16"),
        ("b32", 1.5, "numpy.float32"),
        ("f32", "1", "str"),
        ("f32", None, "None"),
        ("u32", [1], "list"),
        ("f32", 1j, "complex"),
        ("u64", b"12345678", "bytes of 8 bytes"),
    ],
)
def test_what_does_not_fit_is_refused_with_position_parameter_and_type(dev, kind, argument, wanted):
    kernel = dev.load_ptx(store_parameter(kind, SIZES[kind]))
    target = np.zeros(8, np.uint8)
    with pytest.raises(tw.errors.KernelArgumentError) as caught:
        kernel.launch(1, 1, [target, argument])
    assert f"argument 1 (value, {kind}) of keep" in str(caught.value)
    assert wanted in str(caught.value)
    assert not target.any()


def test_an_array_is_refused_where_no_pointer_is_taken(dev):
    kernel = dev.load_ptx(store_parameter("f32", 4))
    with pytest.raises(tw.errors.KernelArgumentError, match=r"argument 1 .*not an array \(float32, shape \(3,\)\)"):
        kernel.launch(1, 1, [np.zeros(8, np.uint8), np.zeros(3, np.float32)])


def test_a_struct_is_given_as_its_bytes(dev):
    kernel = dev.load_ptx(STRUCT)
    assert kernel.parameters[1] == ("value", "b8[12]", 12)
    record = np.zeros((), np.dtype([("a", "<i4"), ("b", "<f4"), ("c", "<u4")]))
    record["a"], record["b"], record["c"] = -1, 2.5, 7
    raw = struct.pack("<ifI", -1, 2.5, 7)
    for argument in (raw, bytearray(raw), memoryview(raw), record[()], np.void(raw)):
        target = np.zeros(12, np.uint8)
        kernel.launch(1, 1, [target, argument])
        assert bytes(target) == raw
    for wrong in (raw[:-1], raw + b"\0", 5, 1.0, np.float64(1), "x" * 12):
        with pytest.raises(tw.errors.KernelArgumentError, match="exactly 12 bytes"):
            kernel.launch(1, 1, [np.zeros(12, np.uint8), wrong])


def nearest_bfloat16(value: float) -> int:
    """By exact comparison with the two neighbours."""
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    low = bits >> 16
    best = []
    for candidate in (low - 1, low, low + 1):
        if 0 <= candidate & 0x7FFF < 0x7F80:
            (near,) = struct.unpack("<f", struct.pack("<I", (candidate & 0xFFFF) << 16))
            best.append((abs(near - value), candidate & 1, candidate & 0xFFFF))
    return min(best)[2]


def test_bfloat16_is_rounded_once():
    seed = random.randrange(1 << 32)
    numbers = random.Random(seed)
    for _ in range(2_000):
        value = math.ldexp(numbers.uniform(-1, 1), numbers.randint(-100, 100))
        if numbers.random() < 0.3:  # halfway, and next to it
            (value,) = struct.unpack("<f", struct.pack("<I", numbers.randrange(0x100, 0x7F00) << 16 | 0x8000))
            value *= 1 + numbers.choice((-1, 0, 1)) * 2.0**-50
        (got,) = struct.unpack("<H", scalar_bytes(layout("bf16", 2), value))
        assert got == nearest_bfloat16(value), (seed, value)
    assert scalar_bytes(layout("bf16", 2), math.nan)[1] & 0x7F == 0x7F
    with pytest.raises(tw.errors.KernelArgumentError):
        scalar_bytes(layout("bf16", 2), 3.4e38)


def test_every_rule_takes_something():
    for kind, rule in RULES.items():
        assert rule.integers is not None or rule.real, kind
