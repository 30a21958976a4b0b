"""The WebAssembly instruction set as data: text-format name to binary encoding.

Source: WebAssembly core specification 3.0, chapter "Binary Format: Instructions", and the threads, relaxed SIMD
and wide-arithmetic proposals. Three tables, by what follows the opcode:

- ``PLAIN``: nothing follows.
- ``MEMORY``: a memory argument follows; the value is ``(opcode bytes, log2 of the bytes accessed)``.
- ``LANE`` and ``MEMORY_LANE``: a lane index follows (after the memory argument, for the latter).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tensor_wasm.wasm.leb import unsigned

_INTEGER_COMPARE = "eq ne lt_s lt_u gt_s gt_u le_s le_u ge_s ge_u"
_FLOAT_COMPARE = "eq ne lt gt le ge"
_INTEGER_MATH = "clz ctz popcnt add sub mul div_s div_u rem_s rem_u and or xor shl shr_s shr_u rotl rotr"
_FLOAT_MATH = "abs neg ceil floor trunc nearest sqrt add sub mul div min max copysign"

_CONVERSIONS = """
    i32.wrap_i64 i32.trunc_f32_s i32.trunc_f32_u i32.trunc_f64_s i32.trunc_f64_u
    i64.extend_i32_s i64.extend_i32_u i64.trunc_f32_s i64.trunc_f32_u i64.trunc_f64_s i64.trunc_f64_u
    f32.convert_i32_s f32.convert_i32_u f32.convert_i64_s f32.convert_i64_u f32.demote_f64
    f64.convert_i32_s f64.convert_i32_u f64.convert_i64_s f64.convert_i64_u f64.promote_f32
    i32.reinterpret_f32 i64.reinterpret_f64 f32.reinterpret_i32 f64.reinterpret_i64
    i32.extend8_s i32.extend16_s i64.extend8_s i64.extend16_s i64.extend32_s
"""

_SATURATING = """
    i32.trunc_sat_f32_s i32.trunc_sat_f32_u i32.trunc_sat_f64_s i32.trunc_sat_f64_u
    i64.trunc_sat_f32_s i64.trunc_sat_f32_u i64.trunc_sat_f64_s i64.trunc_sat_f64_u
"""

# Runs of consecutive SIMD opcodes: (first opcode, shape prefix or "", names). "_" leaves a code unused.
_SIMD_RUNS: Final[tuple[tuple[int, str, str], ...]] = (
    (14, "", "i8x16.swizzle i8x16.splat i16x8.splat i32x4.splat i64x2.splat f32x4.splat f64x2.splat"),
    (35, "i8x16.", _INTEGER_COMPARE),
    (45, "i16x8.", _INTEGER_COMPARE),
    (55, "i32x4.", _INTEGER_COMPARE),
    (65, "f32x4.", _FLOAT_COMPARE),
    (71, "f64x2.", _FLOAT_COMPARE),
    (77, "v128.", "not and andnot or xor bitselect any_true"),
    (94, "", "f32x4.demote_f64x2_zero f64x2.promote_low_f32x4"),
    (96, "i8x16.", "abs neg popcnt all_true bitmask narrow_i16x8_s narrow_i16x8_u"),
    (103, "f32x4.", "ceil floor trunc nearest"),
    (107, "i8x16.", "shl shr_s shr_u add add_sat_s add_sat_u sub sub_sat_s sub_sat_u"),
    (116, "f64x2.", "ceil floor"),
    (118, "i8x16.", "min_s min_u max_s max_u"),
    (122, "", "f64x2.trunc i8x16.avgr_u i16x8.extadd_pairwise_i8x16_s i16x8.extadd_pairwise_i8x16_u"),
    (126, "i32x4.", "extadd_pairwise_i16x8_s extadd_pairwise_i16x8_u"),
    (128, "i16x8.", "abs neg q15mulr_sat_s all_true bitmask narrow_i32x4_s narrow_i32x4_u"),
    (135, "i16x8.", "extend_low_i8x16_s extend_high_i8x16_s extend_low_i8x16_u extend_high_i8x16_u"),
    (139, "i16x8.", "shl shr_s shr_u add add_sat_s add_sat_u sub sub_sat_s sub_sat_u"),
    (148, "", "f64x2.nearest i16x8.mul i16x8.min_s i16x8.min_u i16x8.max_s i16x8.max_u _ i16x8.avgr_u"),
    (156, "i16x8.", "extmul_low_i8x16_s extmul_high_i8x16_s extmul_low_i8x16_u extmul_high_i8x16_u"),
    (160, "i32x4.", "abs neg _ all_true bitmask"),
    (167, "i32x4.", "extend_low_i16x8_s extend_high_i16x8_s extend_low_i16x8_u extend_high_i16x8_u"),
    (171, "i32x4.", "shl shr_s shr_u add _ _ sub _ _ _ mul min_s min_u max_s max_u dot_i16x8_s"),
    (188, "i32x4.", "extmul_low_i16x8_s extmul_high_i16x8_s extmul_low_i16x8_u extmul_high_i16x8_u"),
    (192, "i64x2.", "abs neg _ all_true bitmask"),
    (199, "i64x2.", "extend_low_i32x4_s extend_high_i32x4_s extend_low_i32x4_u extend_high_i32x4_u"),
    (203, "i64x2.", "shl shr_s shr_u add _ _ sub _ _ _ mul eq ne lt_s gt_s le_s ge_s"),
    (220, "i64x2.", "extmul_low_i32x4_s extmul_high_i32x4_s extmul_low_i32x4_u extmul_high_i32x4_u"),
    (224, "f32x4.", "abs neg _ sqrt add sub mul div min max pmin pmax"),
    (236, "f64x2.", "abs neg _ sqrt add sub mul div min max pmin pmax"),
    (248, "", "i32x4.trunc_sat_f32x4_s i32x4.trunc_sat_f32x4_u f32x4.convert_i32x4_s f32x4.convert_i32x4_u"),
    (252, "", "i32x4.trunc_sat_f64x2_s_zero i32x4.trunc_sat_f64x2_u_zero"),
    (254, "", "f64x2.convert_low_i32x4_s f64x2.convert_low_i32x4_u"),
    (0x100, "", "i8x16.relaxed_swizzle i32x4.relaxed_trunc_f32x4_s i32x4.relaxed_trunc_f32x4_u"),
    (0x103, "", "i32x4.relaxed_trunc_f64x2_s_zero i32x4.relaxed_trunc_f64x2_u_zero"),
    (0x105, "", "f32x4.relaxed_madd f32x4.relaxed_nmadd f64x2.relaxed_madd f64x2.relaxed_nmadd"),
    (0x109, "", "i8x16.relaxed_laneselect i16x8.relaxed_laneselect"),
    (0x10B, "", "i32x4.relaxed_laneselect i64x2.relaxed_laneselect"),
    (0x10D, "", "f32x4.relaxed_min f32x4.relaxed_max f64x2.relaxed_min f64x2.relaxed_max"),
    (0x111, "", "i16x8.relaxed_q15mulr_s i16x8.relaxed_dot_i8x16_i7x16_s i32x4.relaxed_dot_i8x16_i7x16_add_s"),
)

# Scalar loads and stores from 0x28 on: (name, log2 of the bytes accessed).
_SCALAR_MEMORY = """
    i32.load:2 i64.load:3 f32.load:2 f64.load:3 i32.load8_s:0 i32.load8_u:0 i32.load16_s:1 i32.load16_u:1
    i64.load8_s:0 i64.load8_u:0 i64.load16_s:1 i64.load16_u:1 i64.load32_s:2 i64.load32_u:2
    i32.store:2 i64.store:3 f32.store:2 f64.store:3 i32.store8:0 i32.store16:1
    i64.store8:0 i64.store16:1 i64.store32:2
"""

_SIMD_MEMORY: Final[tuple[tuple[int, str], ...]] = (
    (0, "load:4 load8x8_s:3 load8x8_u:3 load16x4_s:3 load16x4_u:3 load32x2_s:3 load32x2_u:3"),
    (7, "load8_splat:0 load16_splat:1 load32_splat:2 load64_splat:3 store:4"),
    (92, "load32_zero:2 load64_zero:3"),
)

_SIMD_MEMORY_LANE = """
    load8_lane:0 load16_lane:1 load32_lane:2 load64_lane:3 store8_lane:0 store16_lane:1 store32_lane:2 store64_lane:3
"""

_SIMD_LANE = """
    i8x16.extract_lane_s i8x16.extract_lane_u i8x16.replace_lane
    i16x8.extract_lane_s i16x8.extract_lane_u i16x8.replace_lane
    i32x4.extract_lane i32x4.replace_lane i64x2.extract_lane i64x2.replace_lane
    f32x4.extract_lane f32x4.replace_lane f64x2.extract_lane f64x2.replace_lane
"""

_ATOMIC_ACCESS = """
    i32.atomic.load:2 i64.atomic.load:3 i32.atomic.load8_u:0 i32.atomic.load16_u:1
    i64.atomic.load8_u:0 i64.atomic.load16_u:1 i64.atomic.load32_u:2
    i32.atomic.store:2 i64.atomic.store:3 i32.atomic.store8:0 i32.atomic.store16:1
    i64.atomic.store8:0 i64.atomic.store16:1 i64.atomic.store32:2
"""
_ATOMIC_WIDTHS = (("i32", "", 2), ("i64", "", 3), ("i32", "8", 0), ("i32", "16", 1), ("i64", "8", 0), ("i64", "16", 1))
_ATOMIC_UPDATES = "add sub and or xor xchg cmpxchg"


def _sized(names: str) -> Iterator[tuple[str, int]]:
    for item in names.split():
        name, size = item.split(":")
        yield name, int(size)


def _plain() -> dict[str, bytes]:
    table = {"unreachable": b"\x00", "nop": b"\x01", "return": b"\x0f", "drop": b"\x1a", "select": b"\x1b"}
    table["ref.is_null"] = b"\xd1"
    numeric = [f"{t}.{name}" for t in ("i32", "i64") for name in ("eqz", *_INTEGER_COMPARE.split())]
    numeric += [f"{t}.{name}" for t in ("f32", "f64") for name in _FLOAT_COMPARE.split()]
    numeric += [f"{t}.{name}" for t in ("i32", "i64") for name in _INTEGER_MATH.split()]
    numeric += [f"{t}.{name}" for t in ("f32", "f64") for name in _FLOAT_MATH.split()]
    numeric += _CONVERSIONS.split()
    table.update({name: bytes([0x45 + i]) for i, name in enumerate(numeric)})
    table.update({name: b"\xfc" + unsigned(i) for i, name in enumerate(_SATURATING.split())})
    wide = ("i64.add128", "i64.sub128", "i64.mul_wide_s", "i64.mul_wide_u")
    table.update({name: b"\xfc" + unsigned(0x13 + i) for i, name in enumerate(wide)})
    for first, prefix, names in _SIMD_RUNS:
        for i, name in enumerate(names.split()):
            if name != "_":
                table[prefix + name] = b"\xfd" + unsigned(first + i)
    table["atomic.fence"] = b"\xfe\x03\x00"
    return table


def _memory() -> dict[str, tuple[bytes, int]]:
    table = {name: (bytes([0x28 + i]), size) for i, (name, size) in enumerate(_sized(_SCALAR_MEMORY))}
    for first, names in _SIMD_MEMORY:
        table.update({f"v128.{n}": (b"\xfd" + unsigned(first + i), s) for i, (n, s) in enumerate(_sized(names))})
    table["memory.atomic.notify"] = (b"\xfe\x00", 2)
    table["memory.atomic.wait32"] = (b"\xfe\x01", 2)
    table["memory.atomic.wait64"] = (b"\xfe\x02", 3)
    table.update({n: (b"\xfe" + unsigned(0x10 + i), s) for i, (n, s) in enumerate(_sized(_ATOMIC_ACCESS))})
    code = 0x1E
    for update in _ATOMIC_UPDATES.split():
        for kind, width, size in (*_ATOMIC_WIDTHS, ("i64", "32", 2)):
            suffix = "_u" if width else ""
            table[f"{kind}.atomic.rmw{width}.{update}{suffix}"] = (b"\xfe" + unsigned(code), size)
            code += 1
    return table


PLAIN: Final[dict[str, bytes]] = _plain()
"""Instructions without immediates."""

MEMORY: Final[dict[str, tuple[bytes, int]]] = _memory()
"""Instructions with a memory argument: opcode bytes and log2 of the access size, its natural alignment."""

LANE: Final[dict[str, bytes]] = {n: b"\xfd" + unsigned(21 + i) for i, n in enumerate(_SIMD_LANE.split())}
"""Instructions with a lane index."""

MEMORY_LANE: Final[dict[str, tuple[bytes, int]]] = {
    f"v128.{n}": (b"\xfd" + unsigned(84 + i), s) for i, (n, s) in enumerate(_sized(_SIMD_MEMORY_LANE))
}
"""Instructions with a memory argument and a lane index."""
