"""THE table of opcodes: every form this front end reads, and whether this release lowers it.

What is not here is refused. The forms are those that NVRTC, nvcc, Numba, Triton and Clang emit for targets up to
sm_80. Sources: PTX ISA 8.x, "Instruction Set". The notation of rows is explained in :mod:`.forms`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from tensor_wasm.errors import PtxError
from tensor_wasm.ptx.forms import TYPES, Category, Form, Opcode, form, take_apart
from tensor_wasm.ptx.lexer import quote
from tensor_wasm.ptx.program import ScalarType

_BARRIER = "barriers in memory (mbarrier) are not supported in this release"
_ATOMIC = "atomic operations on 128 bits are not supported in this release"
_FLOAT8 = "8-bit floating-point, of sm_89 and above, is not supported in this release"
_OOB = ".oob, of sm_90 and above, is not supported in this release"
_MATRIX = "matrix operations of this shape are not supported in this release"
_ASYNC = "barriers in memory (mbarrier) are not supported in this release"
_TEXTURE = "textures and surfaces are not supported in this release"
_VIDEO = "video instructions are not supported in this release"
_WIDE = "128-bit values are not supported in this release"
_STACK = "stack allocation is not supported in this release"

_I = "u16|u32|u64|s16|s32|s64"
_I8 = "u8|u16|u32|u64|s8|s16|s32|s64"
_I32 = "u32|s32"
_I3264 = "u32|u64|s32|s64"
_B = "b16|b32|b64"
_SIGNED = "s16|s32|s64"
_UNSIGNED = "u16|u32|u64"
_ANY = f"{_B}|{_I}|f32|f64"
_MEMORY = f"b8|{_ANY}|u8|s8"
_H = "f16|f16x2|bf16|bf16x2"
_R = "rn|rz|rm|rp"
_RI = "rni|rzi|rmi|rpi"
_EQUAL = "eq|ne"
_ORDER = "eq|ne|lt|le|gt|ge"
_UNSIGNED_ORDER = f"{_ORDER}|lo|ls|hi|hs"
_FLOAT_ORDER = f"{_ORDER}|equ|neu|ltu|leu|gtu|geu|num|nan"
_BOOL = "and|or|xor"
_SHARED = "shared|shared::cta"
_SPACE = f"global|{_SHARED}|shared::cluster|local|const|param|param::entry|param::func"
_SCOPE = "cta|cluster|gpu|sys"
_L1 = "L1::evict_normal|L1::evict_unchanged|L1::evict_first|L1::evict_last|L1::no_allocate?"
_L2 = "L2::evict_last|L2::evict_normal|L2::evict_first? L2::cache_hint? L2::64B|L2::128B|L2::256B?"
_V = "v2|v4?"
# NVVM writes the scope after the state space, the ISA before it.
_ATOM = f"relaxed|acquire|release|acq_rel? {_SCOPE}? global|{_SHARED}|shared::cluster? {_SCOPE}?"
_GEOMETRY = "1d|2d|3d|a1d|a2d|cube|acube|2dms|a2dms"

C = Category

# fmt: off
_ARITHMETIC: Final = (
    form("add", _I, ">t t t", C.INTEGER),
    form("add", "sat s32", ">t t t", C.INTEGER),
    form("sub", _I, ">t t t", C.INTEGER),
    form("sub", "sat s32", ">t t t", C.INTEGER),
    form("add", f"cc {_I3264}", ">t t t", C.EXTENDED),
    form("addc", f"cc? {_I3264}", ">t t t", C.EXTENDED),
    form("sub", f"cc {_I3264}", ">t t t", C.EXTENDED),
    form("subc", f"cc? {_I3264}", ">t t t", C.EXTENDED),
    form("mad", f"hi|lo cc {_I3264}", ">t t t t", C.EXTENDED),
    form("madc", f"hi|lo cc? {_I3264}", ">t t t t", C.EXTENDED),
    form("mul", f"hi|lo {_I}", ">t t t", C.INTEGER),
    form("mul", "wide u16|u32|s16|s32", ">w t t", C.INTEGER),
    form("mad", f"hi|lo {_I}", ">t t t t", C.INTEGER),
    form("mad", "wide u16|u32|s16|s32", ">w t t w", C.INTEGER),
    form("mad", "hi sat s32", ">t t t t", C.INTEGER),
    form("mul24", f"hi|lo {_I32}", ">t t t", C.INTEGER),
    form("mad24", f"hi|lo {_I32}", ">t t t t", C.INTEGER),
    form("mad24", "hi sat s32", ">t t t t", C.INTEGER),
    form("sad", _I, ">t t t t", C.INTEGER),
    form("div", _I, ">t t t", C.INTEGER),
    form("rem", _I, ">t t t", C.INTEGER),
    form("abs", _SIGNED, ">t t", C.INTEGER),
    form("neg", _SIGNED, ">t t", C.INTEGER),
    form("min", _I, ">t t t", C.INTEGER),
    form("max", _I, ">t t t", C.INTEGER),
    form("popc", "b32|b64", ">u32 t", C.INTEGER),
    form("clz", "b32|b64", ">u32 t", C.INTEGER),
    form("bfind", f"shiftamt? {_I3264}", ">u32 t", C.INTEGER),
    form("fns", "b32", ">t t t s32", C.INTEGER),
    form("brev", "b32|b64", ">t t", C.INTEGER),
    form("bfe", _I3264, ">t t u32 u32", C.INTEGER),
    form("bfi", "b32|b64", ">t t t u32 u32", C.INTEGER),
    form("szext", f"clamp|wrap {_I32}", ">t t u32", C.INTEGER),
    form("bmsk", "clamp|wrap b32", ">t t t", C.INTEGER),
    form("dp4a", f"{_I32} {_I32}", ">u32 t0 t1 u32", C.INTEGER),
    form("dp2a", f"lo|hi {_I32} {_I32}", ">u32 t0 t1 u32", C.INTEGER),
)

_FLOATS: Final = (
    form("add", f"{_R}? ftz? sat? f32", ">t t t", C.FLOAT),
    form("add", f"{_R}? f64", ">t t t", C.FLOAT),
    form("sub", f"{_R}? ftz? sat? f32", ">t t t", C.FLOAT),
    form("sub", f"{_R}? f64", ">t t t", C.FLOAT),
    form("mul", f"{_R}? ftz? sat? f32", ">t t t", C.FLOAT),
    form("mul", f"{_R}? f64", ">t t t", C.FLOAT),
    form("fma", f"{_R} ftz? sat? f32", ">t t t t", C.FLOAT),
    form("fma", f"{_R} f64", ">t t t t", C.FLOAT),
    form("mad", f"{_R} ftz? sat? f32", ">t t t t", C.FLOAT),
    form("mad", f"{_R} f64", ">t t t t", C.FLOAT),
    form("div", "approx|full ftz? f32", ">t t t", C.FLOAT),
    form("div", f"{_R} ftz? f32", ">t t t", C.FLOAT),
    form("div", f"{_R} f64", ">t t t", C.FLOAT),
    form("abs", "ftz? f32", ">t t", C.FLOAT),
    form("abs", "f64", ">t t", C.FLOAT),
    form("neg", "ftz? f32", ">t t", C.FLOAT),
    form("neg", "f64", ">t t", C.FLOAT),
    form("min", "ftz? NaN? f32", ">t t t", C.FLOAT),
    form("min", "ftz? NaN? xorsign abs f32", ">t t t", C.FLOAT),
    form("min", "f64", ">t t t", C.FLOAT),
    form("max", "ftz? NaN? f32", ">t t t", C.FLOAT),
    form("max", "ftz? NaN? xorsign abs f32", ">t t t", C.FLOAT),
    form("max", "f64", ">t t t", C.FLOAT),
    form("rcp", f"approx|{_R} ftz? f32", ">t t", C.FLOAT),
    form("rcp", "approx ftz f64", ">t t", C.FLOAT),
    form("rcp", f"{_R} f64", ">t t", C.FLOAT),
    form("sqrt", f"approx|{_R} ftz? f32", ">t t", C.FLOAT),
    form("sqrt", f"{_R} f64", ">t t", C.FLOAT),
    form("rsqrt", "approx ftz? f32|f64", ">t t", C.FLOAT),
    form("sin", "approx ftz? f32", ">t t", C.FLOAT),
    form("cos", "approx ftz? f32", ">t t", C.FLOAT),
    form("lg2", "approx ftz? f32", ">t t", C.FLOAT),
    form("ex2", "approx ftz? f32", ">t t", C.FLOAT),
    form("tanh", "approx f32", ">t t", C.FLOAT),
    form("testp", "finite|infinite|number|notanumber|normal|subnormal f32|f64", ">pred t", C.FLOAT),
    form("copysign", "f32|f64", ">t t t", C.FLOAT),
)

_HALVES: Final = (
    form("add", f"rn? ftz? sat? {_H}", ">t t t", C.HALF),
    form("sub", f"rn? ftz? sat? {_H}", ">t t t", C.HALF),
    form("mul", f"rn? ftz? sat? {_H}", ">t t t", C.HALF),
    form("fma", f"rn ftz? sat? {_H}", ">t t t t", C.HALF),
    form("fma", f"rn ftz? relu {_H}", ">t t t t", C.HALF),
    form("fma", f"rn oob relu? {_H}", ">t t t t", C.HALF, _OOB),
    form("neg", f"ftz? {_H}", ">t t", C.HALF),
    form("abs", f"ftz? {_H}", ">t t", C.HALF),
    form("min", f"ftz? NaN? {_H}", ">t t t", C.HALF),
    form("min", f"ftz? NaN? xorsign abs {_H}", ">t t t", C.HALF),
    form("max", f"ftz? NaN? {_H}", ">t t t", C.HALF),
    form("max", f"ftz? NaN? xorsign abs {_H}", ">t t t", C.HALF),
    form("ex2", f"approx ftz? {_H}", ">t t", C.HALF),
    form("tanh", f"approx {_H}", ">t t", C.HALF),
    form("set", f"{_FLOAT_ORDER} ftz? f16|bf16|u16|s16|u32|s32|f32 f16|bf16", ">t0 t1 t1", C.HALF),
    form("set", f"{_FLOAT_ORDER} {_BOOL} ftz? f16|bf16|u16|s16|u32|s32|f32 f16|bf16", ">t0 t1 t1 !pred", C.HALF),
    form("set", f"{_FLOAT_ORDER} ftz? f16x2|u32|s32 f16x2", ">t0 t1 t1", C.HALF),
    form("set", f"{_FLOAT_ORDER} {_BOOL} ftz? f16x2|u32|s32 f16x2", ">t0 t1 t1 !pred", C.HALF),
    form("set", f"{_FLOAT_ORDER} ftz? bf16x2|u32|s32 bf16x2", ">t0 t1 t1", C.HALF),
    form("set", f"{_FLOAT_ORDER} {_BOOL} ftz? bf16x2|u32|s32 bf16x2", ">t0 t1 t1 !pred", C.HALF),
    form("setp", f"{_FLOAT_ORDER} ftz? f16|bf16", ">pred|pred? t t", C.HALF),
    form("setp", f"{_FLOAT_ORDER} {_BOOL} ftz? f16|bf16", ">pred|pred? t t !pred", C.HALF),
    form("setp", f"{_FLOAT_ORDER} ftz? f16x2|bf16x2", ">pred|pred t t", C.HALF),
    form("setp", f"{_FLOAT_ORDER} {_BOOL} ftz? f16x2|bf16x2", ">pred|pred t t !pred", C.HALF),
    form("cvt", f"{_R} relu? satfinite? ftz? sat? f16|bf16 {_I8}|f32|f64|f16|bf16", ">t0~ t1~", C.HALF),
    form("cvt", f"{_RI}? sat? f16 f16", ">t0~ t1~", C.HALF),
    form("cvt", f"{_RI}? sat? bf16 bf16", ">t0~ t1~", C.HALF),
    form("cvt", f"{_RI} sat? {_I8} f16|bf16", ">t0~ t1~", C.HALF),
    form("cvt", "ftz? sat? f32|f64 f16|bf16", ">t0~ t1~", C.HALF),
    form("cvt", "rn|rz|rna relu? satfinite? tf32 f32", ">t0 t1", C.HALF),
    form("cvt", "rn|rz relu? satfinite? f16x2|bf16x2 f32", ">t0 t1 t1", C.HALF),
    form("cvt", "rn satfinite relu? e4m3x2|e5m2x2 f32", ">t0 t1 t1", C.HALF, _FLOAT8),
    form("cvt", "rn satfinite relu? e4m3x2|e5m2x2 f16x2", ">t0 t1", C.HALF, _FLOAT8),
    form("cvt", "rn relu? f16x2 e4m3x2|e5m2x2", ">t0 t1", C.HALF, _FLOAT8),
)

_COMPARISONS: Final = (
    form("set", f"{_EQUAL} u32|s32|f32 {_B}", ">t0 t1 t1", C.COMPARISON),
    form("set", f"{_ORDER} u32|s32|f32 {_SIGNED}", ">t0 t1 t1", C.COMPARISON),
    form("set", f"{_UNSIGNED_ORDER} u32|s32|f32 {_UNSIGNED}", ">t0 t1 t1", C.COMPARISON),
    form("set", f"{_FLOAT_ORDER} ftz? u32|s32|f32 f32", ">t0 t1 t1", C.COMPARISON),
    form("set", f"{_FLOAT_ORDER} u32|s32|f32 f64", ">t0 t1 t1", C.COMPARISON),
    form("set", f"{_EQUAL} {_BOOL} u32|s32|f32 {_B}", ">t0 t1 t1 !pred", C.COMPARISON),
    form("set", f"{_ORDER} {_BOOL} u32|s32|f32 {_SIGNED}", ">t0 t1 t1 !pred", C.COMPARISON),
    form("set", f"{_UNSIGNED_ORDER} {_BOOL} u32|s32|f32 {_UNSIGNED}", ">t0 t1 t1 !pred", C.COMPARISON),
    form("set", f"{_FLOAT_ORDER} {_BOOL} ftz? u32|s32|f32 f32", ">t0 t1 t1 !pred", C.COMPARISON),
    form("set", f"{_FLOAT_ORDER} {_BOOL} u32|s32|f32 f64", ">t0 t1 t1 !pred", C.COMPARISON),
    form("setp", f"{_EQUAL} {_B}", ">pred|pred? t t", C.COMPARISON),
    form("setp", f"{_ORDER} {_SIGNED}", ">pred|pred? t t", C.COMPARISON),
    form("setp", f"{_UNSIGNED_ORDER} {_UNSIGNED}", ">pred|pred? t t", C.COMPARISON),
    form("setp", f"{_FLOAT_ORDER} ftz? f32", ">pred|pred? t t", C.COMPARISON),
    form("setp", f"{_FLOAT_ORDER} f64", ">pred|pred? t t", C.COMPARISON),
    form("setp", f"{_EQUAL} {_BOOL} {_B}", ">pred|pred? t t !pred", C.COMPARISON),
    form("setp", f"{_ORDER} {_BOOL} {_SIGNED}", ">pred|pred? t t !pred", C.COMPARISON),
    form("setp", f"{_UNSIGNED_ORDER} {_BOOL} {_UNSIGNED}", ">pred|pred? t t !pred", C.COMPARISON),
    form("setp", f"{_FLOAT_ORDER} {_BOOL} ftz? f32", ">pred|pred? t t !pred", C.COMPARISON),
    form("setp", f"{_FLOAT_ORDER} {_BOOL} f64", ">pred|pred? t t !pred", C.COMPARISON),
    form("selp", _ANY, ">t t t pred", C.COMPARISON),
    form("slct", f"{_ANY} s32", ">t0 t0 t0 t1", C.COMPARISON),
    form("slct", f"ftz? {_ANY} f32", ">t0 t0 t0 t1", C.COMPARISON),
)

_LOGIC: Final = (
    form("and", f"pred|{_B}", ">t t t", C.LOGIC),
    form("or", f"pred|{_B}", ">t t t", C.LOGIC),
    form("xor", f"pred|{_B}", ">t t t", C.LOGIC),
    form("not", f"pred|{_B}", ">t t", C.LOGIC),
    form("cnot", _B, ">t t", C.LOGIC),
    form("lop3", "b32", ">t t t t imm", C.LOGIC),
    form("lop3", "and|or b32", ">t|pred t t t imm !pred", C.LOGIC),
    form("shf", "l|r clamp|wrap b32", ">t t t u32", C.LOGIC),
    form("shl", _B, ">t t u32", C.LOGIC),
    form("shr", f"{_B}|{_I}", ">t t u32", C.LOGIC),
)

_CONVERSIONS: Final = (
    form("mov", f"pred|{_ANY}", ">t*p t*p", C.CONVERSION),
    form("mov", "b128", ">t*p t*p", C.CONVERSION, _WIDE),
    form("prmt", "b32 f4e|b4e|rc8|ecl|ecr|rc16?", ">t t t t", C.CONVERSION),
    form("cvt", f"sat? {_I8} {_I8}", ">t0~ t1~", C.CONVERSION),
    form("cvt", f"{_RI} ftz? sat? {_I8} f32", ">t0~ t1~", C.CONVERSION),
    form("cvt", f"{_RI} sat? {_I8} f64", ">t0~ t1~", C.CONVERSION),
    form("cvt", f"{_R} ftz? sat? f32 {_I8}", ">t0~ t1~", C.CONVERSION),
    form("cvt", f"{_R} sat? f64 {_I8}", ">t0~ t1~", C.CONVERSION),
    form("cvt", f"{_RI}? ftz? sat? f32 f32", ">t0~ t1~", C.CONVERSION),
    form("cvt", f"{_RI}? sat? f64 f64", ">t0~ t1~", C.CONVERSION),
    form("cvt", "ftz? sat? f64 f32", ">t0~ t1~", C.CONVERSION),
    form("cvt", f"{_R} ftz? sat? f32 f64", ">t0~ t1~", C.CONVERSION),
    form("cvt", f"pack sat u16|s16 {_I32}", ">u32 t1 t1", C.VIDEO, _VIDEO),
    form("cvt", f"pack sat u8|s8 {_I32} b32", ">u32 t1 t1 b32", C.VIDEO, _VIDEO),
    form("cvta", f"to? {_SPACE} u64", ">t t", C.CONVERSION),
    form("isspacep", _SPACE, ">pred u64", C.CONVERSION),
    form("istypep", "texref|samplerref|surfref", ">pred any", C.TEXTURE, _TEXTURE),
)

_ACCESSES: Final = (
    form("ld", f"weak? {_SPACE}? ca|cg|cs|lu|cv? {_L1} {_L2} {_V} {_MEMORY}", ">t~*v [] policy?", C.MEMORY),
    form("ld", f"volatile {_SPACE}? L2::64B|L2::128B|L2::256B? {_V} {_MEMORY}", ">t~*v []", C.MEMORY),
    form("ld", f"relaxed|acquire {_SCOPE} {_SPACE}? {_L1} {_L2} {_V} {_MEMORY}", ">t~*v [] policy?", C.MEMORY),
    form("ld", f"mmio relaxed sys global? {_V} {_MEMORY}", ">t~*v []", C.MEMORY),
    form("ld", f"global ca|cg|cs? nc {_L1} {_L2} {_V} {_MEMORY}", ">t~*v [] policy?", C.MEMORY),
    form("ld", f"weak? {_SPACE}? ca|cg|cs|lu|cv? nc? {_L1} {_L2} b128", ">t [] policy?", C.MEMORY, _WIDE),
    form("ldu", f"global? {_V} {_MEMORY}", ">t~*v []", C.MEMORY),
    form("st", f"weak? {_SPACE}? wb|cg|cs|wt? {_L1} {_L2} {_V} {_MEMORY}", "[] t~*v policy?", C.MEMORY),
    form("st", f"volatile {_SPACE}? {_V} {_MEMORY}", "[] t~*v", C.MEMORY),
    form("st", f"relaxed|release {_SCOPE} {_SPACE}? {_L1} {_L2} {_V} {_MEMORY}", "[] t~*v policy?", C.MEMORY),
    form("st", f"mmio relaxed sys global? {_V} {_MEMORY}", "[] t~*v", C.MEMORY),
    form("st", f"weak? {_SPACE}? wb|cg|cs|wt? {_L1} {_L2} b128", "[] t policy?", C.MEMORY, _WIDE),
    form("prefetch", "global|local? L1|L2", "[]", C.MEMORY),
    form("prefetch", "global L2::evict_last|L2::evict_normal", "[]", C.MEMORY),
    form("prefetchu", "L1", "[]", C.MEMORY),
    form("applypriority", "global? L2::evict_normal", "[] imm", C.MEMORY),
    form("discard", "global? L2", "[] imm", C.MEMORY),
    form("createpolicy", "fractional L2::evict_last|L2::evict_normal|L2::evict_first|L2::evict_unchanged"
         " L2::evict_first|L2::evict_unchanged? b64", ">t f32?", C.MEMORY),
    form("createpolicy", "range global? L2::evict_last|L2::evict_normal|L2::evict_first|L2::evict_unchanged"
         " L2::evict_first|L2::evict_unchanged? b64", ">t [] u32 u32", C.MEMORY),
    form("createpolicy", "cvt L2 b64", ">t b64", C.MEMORY),
    form("cp", f"async ca|cg {_SHARED} global L2::cache_hint? L2::64B|L2::128B|L2::256B?",
         "[] [] imm any? policy?", C.ASYNC),
    form("cp", "async commit_group|wait_all", "", C.ASYNC),
    form("cp", "async wait_group", "imm", C.ASYNC),
    form("cp", f"async mbarrier arrive noinc? {_SHARED}? b64", "[]", C.ASYNC, _ASYNC),
    form("alloca", "u32|u64", ">t t imm?", C.STACK, _STACK),
    form("stacksave", "u32|u64", ">t", C.STACK, _STACK),
    form("stackrestore", "u32|u64", "t", C.STACK, _STACK),
)

_ATOMICS: Final = (
    form("atom", f"{_ATOM} and|or|xor|exch L2::cache_hint? b32|b64", ">t [] t policy?", C.SYNCHRONISATION),
    form("atom", f"{_ATOM} cas L2::cache_hint? {_B}", ">t [] t t policy?", C.SYNCHRONISATION),
    form("atom", f"{_ATOM} exch b128", ">t [] t", C.SYNCHRONISATION, _ATOMIC),
    form("atom", f"{_ATOM} cas b128", ">t [] t t", C.SYNCHRONISATION, _ATOMIC),
    form("atom", f"{_ATOM} add L2::cache_hint? u32|s32|u64|f32|f64", ">t [] t policy?",
         C.SYNCHRONISATION),
    form("atom", f"{_ATOM} add noftz L2::cache_hint? {_H}", ">t [] t policy?", C.SYNCHRONISATION),
    form("atom", f"{_ATOM} inc|dec L2::cache_hint? u32", ">t [] t policy?", C.SYNCHRONISATION),
    form("atom", f"{_ATOM} min|max L2::cache_hint? {_I3264}", ">t [] t policy?", C.SYNCHRONISATION),
    form("red", f"{_ATOM} and|or|xor L2::cache_hint? b32|b64", "[] t policy?", C.SYNCHRONISATION),
    form("red", f"{_ATOM} add L2::cache_hint? u32|s32|u64|f32|f64", "[] t policy?", C.SYNCHRONISATION),
    form("red", f"{_ATOM} add noftz L2::cache_hint? {_H}", "[] t policy?", C.SYNCHRONISATION),
    form("red", f"{_ATOM} inc|dec L2::cache_hint? u32", "[] t policy?", C.SYNCHRONISATION),
    form("red", f"{_ATOM} min|max L2::cache_hint? {_I3264}", "[] t policy?", C.SYNCHRONISATION),
)

_TOGETHER: Final = (
    form("bar", "cta? sync|arrive", "u32 u32?", C.SYNCHRONISATION),
    form("bar", "cta? red popc u32", ">t u32 u32? !pred", C.SYNCHRONISATION),
    form("bar", "cta? red and|or pred", ">t u32 u32? !pred", C.SYNCHRONISATION),
    form("bar", "warp sync", "b32", C.SYNCHRONISATION),
    form("barrier", "cta? sync|arrive aligned?", "u32 u32?", C.SYNCHRONISATION),
    form("barrier", "cta? red popc aligned? u32", ">t u32 u32? !pred", C.SYNCHRONISATION),
    form("barrier", "cta? red and|or aligned? pred", ">t u32 u32? !pred", C.SYNCHRONISATION),
    form("mbarrier", f"init|inval {_SHARED}? b64", "[] u32?", C.SYNCHRONISATION, _BARRIER),
    form("mbarrier", f"arrive|arrive_drop noComplete? release? cta|cluster? {_SHARED}? b64", ">t [] u32?",
         C.SYNCHRONISATION, _BARRIER),
    form("mbarrier", f"test_wait|try_wait acquire? cta|cluster? {_SHARED}? b64", ">pred [] t u32?",
         C.SYNCHRONISATION, _BARRIER),
    form("mbarrier", f"test_wait|try_wait parity acquire? cta|cluster? {_SHARED}? b64", ">pred [] u32 u32?",
         C.SYNCHRONISATION, _BARRIER),
    form("mbarrier", "pending_count b64", ">u32 t", C.SYNCHRONISATION, _BARRIER),
    form("shfl", "sync up|down|bfly|idx b32", ">t|pred? t b32 b32 b32", C.SYNCHRONISATION),
    form("shfl", "up|down|bfly|idx b32", ">t|pred? t b32 b32", C.SYNCHRONISATION),
    form("vote", "sync all|any|uni pred", ">t !pred b32", C.SYNCHRONISATION),
    form("vote", "sync ballot b32", ">t !pred b32", C.SYNCHRONISATION),
    form("vote", "all|any|uni pred", ">t !pred", C.SYNCHRONISATION),
    form("vote", "ballot b32", ">t !pred", C.SYNCHRONISATION),
    form("match", "any sync b32|b64", ">b32 t b32", C.SYNCHRONISATION),
    form("match", "all sync b32|b64", ">b32|pred? t b32", C.SYNCHRONISATION),
    form("redux", f"sync add|min|max {_I32}", ">t t b32", C.SYNCHRONISATION),
    form("redux", f"sync {_BOOL} b32", ">t t b32", C.SYNCHRONISATION),
    form("activemask", "b32", ">t", C.SYNCHRONISATION),
    form("elect", "sync", ">b32|pred b32", C.SYNCHRONISATION),
    form("membar", "cta|gl|sys", "", C.SYNCHRONISATION),
    form("fence", f"sc|acq_rel? {_SCOPE}", "", C.SYNCHRONISATION),
    form("fence", "proxy alias", "", C.SYNCHRONISATION),
)

_SHAPES = ("m8n8k4|m16n8k4|m16n8k8|m16n8k16|m8n8k16|m16n8k32|m8n8k32|m16n8k64|m8n8k128|m16n8k128|m16n8k256")
_MMA = f"sync aligned {_SHAPES} row|col row|col satfinite?"
_WMMA = "m16n16k16|m8n32k16|m32n8k16|m8n8k32|m8n8k128|m16n16k8|m8n8k4"
_SMALL = "s4|u4|b1"
_OF_HALVES = "row|col row|col f16|f32 f16 f16 f16|f32"
_MATRICES: Final = (
    form("mma", f"sync aligned m8n8k4 {_OF_HALVES}", ">t0*c t1*a t2*b t3*c", C.MATRIX, _MATRIX),
    form("mma", f"sync aligned m16n8k8|m16n8k16 {_OF_HALVES}", ">t0*c t1*a t2*b t3*c", C.MATRIX),
    form("mma", f"{_MMA} f32 bf16|tf32 bf16|tf32 f32", ">t0*c t1*a t2*b t3*c", C.MATRIX),
    form("mma", f"{_MMA} f64 f64 f64 f64", ">t0*c t1*a t2*b t3*c", C.MATRIX),
    form("mma", f"{_MMA} s32 s8|u8 s8|u8 s32", ">t0*c t1*a t2*b t3*c", C.MATRIX),
    form("mma", f"{_MMA} s32 {_SMALL} {_SMALL} s32 xor|and? popc?", ">t0*n b32*n b32*n t*n", C.MATRIX),
    form("mma", f"sp|sp::ordered_metadata {_MMA} f16|f32|s32 f16|bf16|tf32|s8|u8|{_SMALL} f16|bf16|tf32|s8|u8|{_SMALL}"
         " f16|f32|s32", ">any*n any*n any*n any*n b32 imm", C.MATRIX, _MATRIX),
    form("ldmatrix", f"sync aligned m8n8 x1|x2|x4 trans? {_SHARED}? b16", ">b32*x []", C.MATRIX),
    form("movmatrix", "sync aligned m8n8 trans b16", ">b32 b32", C.MATRIX),
    form("wmma", f"load a|b|c sync aligned row|col {_WMMA} global|{_SHARED}?"
         f" f16|bf16|tf32|f32|f64|s8|u8|s32|{_SMALL}", ">any*n [] u32?", C.MATRIX, _MATRIX),
    form("wmma", f"store d sync aligned row|col {_WMMA} global|{_SHARED}? f16|f32|f64|s32",
         "[] any*n u32?", C.MATRIX, _MATRIX),
    form("wmma", f"mma sync aligned row|col row|col {_WMMA} f16|f32 f16|f32 satfinite?", ">any*n any*n any*n any*n",
         C.MATRIX, _MATRIX),
    form("wmma", f"mma xor|and? popc? sync aligned row|col row|col {_WMMA} {_R}? f32|f64|s32"
         f" bf16|tf32|f64|s8|u8|{_SMALL} bf16|tf32|f64|s8|u8|{_SMALL} f32|f64|s32 satfinite?",
         ">any*n any*n any*n any*n", C.MATRIX, _MATRIX),
)

_IMAGES: Final = (
    form("tex", f"level|grad? {_GEOMETRY} v2|v4? f16|f16x2|u32|s32|f32 s32|f32", ">any*n [] any*n? any*n? any*n?",
         C.TEXTURE, _TEXTURE),
    form("tld4", f"r|g|b|a {_GEOMETRY} v4 u32|s32|f32 f32", ">any*n [] any*n? any*n?", C.TEXTURE, _TEXTURE),
    form("txq", "level? width|height|depth|channel_data_type|channel_order|normalized_coords|filter_mode|addr_mode_0"
         "|addr_mode_1|addr_mode_2|array_size|num_mipmap_levels|num_samples b32", ">t [] any?", C.TEXTURE, _TEXTURE),
    form("suld", f"b {_GEOMETRY} ca|cg|cs|cv? v2|v4? b8|b16|b32|b64 trap|clamp|zero", ">any*n []",
         C.TEXTURE, _TEXTURE),
    form("sust", f"b|p {_GEOMETRY} wb|cg|cs|wt? v2|v4? b8|b16|b32|b64 trap|clamp|zero", "[] any*n",
         C.TEXTURE, _TEXTURE),
    form("sured", f"b|p add|min|max|and|or {_GEOMETRY} u32|u64|s32|s64|b32|b64 trap|clamp|zero", "[] any",
         C.TEXTURE, _TEXTURE),
    form("suq", "width|height|depth|channel_data_type|channel_order|array_size|memory_layout b32", ">t []",
         C.TEXTURE, _TEXTURE),
)

_FLOW: Final = (
    form("bra", "uni?", "label", C.CONTROL),
    form("brx", "idx uni?", "u32 table", C.CONTROL),
    form("ret", "uni?", "", C.CONTROL),
    form("exit", "", "", C.CONTROL),
    form("trap", "", "", C.CONTROL),
    form("brkpt", "", "", C.CONTROL),
    form("call", "uni?", "", C.CONTROL),
    form("nanosleep", "u32", "t", C.OTHER),
    form("pmevent", "mask?", "imm", C.OTHER),
)

_SCALAR_VIDEO = ("vadd", "vsub", "vabsdiff", "vmin", "vmax", "vshl", "vshr")
_PACKED_VIDEO = ("vadd", "vsub", "vabsdiff", "vmin", "vmax", "vavrg")
_VIDEOS: Final = (
    *(form(root, f"{_I32} {_I32} {_I32} sat? clamp|wrap? add|min|max?", ">t0 t1 t2 t0?", C.VIDEO, _VIDEO)
      for root in _SCALAR_VIDEO),
    *(form(f"{root}{width}", f"{_I32} {_I32} {_I32} sat? add?", ">t0 t1 t2 t0", C.VIDEO, _VIDEO)
      for root in _PACKED_VIDEO for width in (2, 4)),
    *(form(f"vset{width}", f"{_I32} {_I32} {_ORDER} add?", ">u32 t0 t1 u32", C.VIDEO, _VIDEO)
      for width in ("", 2, 4)),
    form("vmad", f"{_I32} {_I32} {_I32} sat? shr7|shr15?", ">t0 t1 t2 t0", C.VIDEO, _VIDEO),
)
# fmt: on

#: Every row, in the order of the documentation.
TABLE: Final[tuple[Form, ...]] = (
    *_ARITHMETIC,
    *_FLOATS,
    *_HALVES,
    *_COMPARISONS,
    *_LOGIC,
    *_CONVERSIONS,
    *_ACCESSES,
    *_ATOMICS,
    *_TOGETHER,
    *_MATRICES,
    *_IMAGES,
    *_FLOW,
    *_VIDEOS,
)


def _by_root() -> Mapping[str, tuple[Form, ...]]:
    roots: dict[str, list[Form]] = {}
    for row in TABLE:
        roots.setdefault(row.root, []).append(row)
    return MappingProxyType({root: tuple(rows) for root, rows in roots.items()})


#: The rows of each root.
FORMS: Final = _by_root()


def find(text: str) -> Opcode:
    """A written opcode, taken apart by the row it matches. Raises :class:`PtxError`, without a place, for no row."""
    root, *parts = text.split(".")
    rows = FORMS.get(root)
    if rows is None:
        raise PtxError(f"unknown opcode {quote(root)}")
    furthest = -1
    for row in rows:
        matched = row.match(parts)
        if matched == len(parts):
            return take_apart(row, parts)
        furthest = max(furthest, matched)
    if furthest < 0:
        raise PtxError(f"{quote(text)} is incomplete: a type or modifier is missing")
    raise PtxError(f"{quote(text)} is not supported: no form of {root} has .{quote(parts[furthest])[1:-1]} there")


def reason_not_lowered(root: str, modifiers: Sequence[str], types: Sequence[ScalarType]) -> str | None:
    """Why this release does not lower an opcode of a typed program; None when it does."""
    for row in FORMS.get(root, ()):
        if _covers(row, modifiers, types):
            return row.reason
    return f"{root} is not supported in this release"


def _covers(row: Form, modifiers: Sequence[str], types: Sequence[ScalarType]) -> bool:
    """Whether an opcode's modifiers and types, without its space and vector width, match a row."""
    waiting = [list(modifiers), [kind.ptx_name for kind in types]]
    for slot in row.parts:
        found = next((parts for parts in waiting if parts and parts[0] in slot.names), None)
        if found is not None:
            found.pop(0)
        elif not slot.is_optional and not _is_left_out(slot.names):
            return False
    return not any(waiting)


def _is_left_out(names: frozenset[str]) -> bool:
    """Whether a part is a state space, which instructions keep apart."""
    return not names.isdisjoint(("global", "shared", "local")) and names.isdisjoint(TYPES)
