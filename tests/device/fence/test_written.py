"""What a kernel may write through: told for every way to make an address, and never less than what is written."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from device.ptx_texts import HEAD
from kernels.build import VARIANTS
from kernels.fenced import FencedMachine
from kernels.loading import program as program_of
from kernels.products import FOLDER
from ptx.spelling import DECLARATIONS, module, spellings, statements
from tensor_wasm.device.fence.origins import LOADED, NUMBER, UNKNOWN, made, part
from tensor_wasm.device.fence.written import EVERYTHING, written
from tensor_wasm.errors import PtxError
from tensor_wasm.ptx import Program, find_kernel, read, support
from tensor_wasm.ptx.forms import Category
from tensor_wasm.ptx.opcodes import TABLE
from tensor_wasm.ptx.program import Kernel, Register, ScalarType
from tensor_wasm.runtime import Engine

CORPUS = Path(__file__).parents[2] / "corpus"
A, B, C, N, FIRST, SECOND = (1 << word for word in (0, 1, 2, 3, 5, 6))


@pytest.fixture(scope="module")
def machine(engine: Engine) -> FencedMachine:
    return FencedMachine(engine)


def program(body: str, before: str = "") -> Program:
    """A kernel ``k``: %rd1 to %rd3 are the pointers a to c, %rd4 and %r1 the numbers n and m; pair is a struct."""
    return read(
        f"""{HEAD}{before}
        .visible .entry k(.param .u64 a, .param .u64 b, .param .u64 c, .param .u64 n, .param .u32 m,
                          .param .align 8 .b8 pair[16]) {{
        .reg .pred %p<200>; .reg .b16 %h<200>; .reg .b32 %r<200>; .reg .f32 %f<9>;
        .reg .b64 %rd<200>; .reg .f64 %d<200>;
        .shared .align 16 .b8 buffer[64]; .local .align 16 .b8 spot[64];
        ld.param.u64 %rd1, [a]; ld.param.u64 %rd2, [b]; ld.param.u64 %rd3, [c]; ld.param.u64 %rd4, [n];
        ld.param.u32 %r1, [m];
        {body}
        ret; }}"""
    )


def mask(body: str, before: str = "") -> int:
    return written(find_kernel(program(body, before), "k"))


def stores(address: str) -> str:
    """Code that makes %rd9, and a store through it."""
    return address + " st.global.u32 [%rd9+4], %r9;"


# --- what writes ----------------------------------------------------------------------------------------------------

WRITES = {
    "a store": ("st.global.u32 [%rd1], %r9;", A),
    "a vector": ("st.global.v4.u32 [%rd1+16], {%r9, %r9, %r9, %r9};", A),
    "a generic store": ("st.u8 [%rd2], %r9;", B),
    "a volatile store": ("st.volatile.global.u32 [%rd2], %r9;", B),
    "a release": ("st.release.gpu.global.u32 [%rd2], %r9;", B),
    "a guarded store": ("@!%p1 st.global.u32 [%rd2], %r9;", B),
    "an atomic addition": ("atom.global.add.u32 %r9, [%rd3], 1;", C),
    "a generic exchange": ("atom.exch.b64 %rd9, [%rd3], %rd1;", C),
    "a reduction": ("red.global.add.f32 [%rd3], %f1;", C),
    "several stores": ("st.global.u32 [%rd1], %r9; st.u32 [%rd3], %r9;", A | C),
    "nothing": ("", 0),
    "loads": ("ld.global.u32 %r9, [%rd1]; ld.u64 %rd9, [%rd2]; ldu.global.u32 %r9, [%rd3];", 0),
    "advice": ("prefetch.global.L2 [%rd1]; prefetchu.L1 [%rd1];", 0),
    "a copy to shared memory": ("mov.u32 %r2, buffer; cp.async.ca.shared.global [%r2], [%rd2], 16;", 0),
    "shared memory": (
        """st.shared.u64 [buffer], %rd1; atom.shared.add.u32 %r2, [buffer], 1; red.shared.add.u32 [%r1], 1;""", 0),
    "local memory": ("st.local.u64 [spot+8], %rd1; mov.u64 %rd9, spot; st.local.u32 [%rd9], %r1;", 0),
    "generic addresses of shared and local memory": (
        """mov.u32 %r2, buffer; cvt.u64.u32 %rd9, %r2; cvta.shared.u64 %rd10, %rd9; st.u32 [%rd10+4], %r1;
        mul.wide.u32 %rd11, %r1, 4; mov.u64 %rd12, spot; cvta.local.u64 %rd13, %rd12; add.s64 %rd13, %rd13, %rd11;
        st.u32 [%rd13], %r1;""", 0),
    "one of two memories": (("mov.u64 %rd9, spot; cvta.local.u64 %rd9, %rd9; selp.b64 %rd10, %rd9, %rd2, %p1;"
        " st.u32 [%rd10], %r1;"), B),
    "an address that is none": ("st.global.u32 [4096], %r9;", EVERYTHING),
    "an address of constants": ("mov.u64 %rd9, 1099511627776; st.global.u32 [%rd9], %r9;", EVERYTHING),
    "an address of indices": ("mul.wide.u32 %rd9, %r1, 4; st.global.u32 [%rd9], %r9;", EVERYTHING),
}  # fmt: skip


@pytest.mark.parametrize("way", WRITES)
def test_what_writes(way: str) -> None:
    body, expected = WRITES[way]
    assert mask(body) == expected


def test_variables_of_the_module_are_nobody_s_arrays() -> None:
    before = ".global .u64 kept[4]; .const .u32 table[4];"
    assert mask("st.global.u64 [kept+8], %rd1; mov.u64 %rd9, kept; red.global.add.u32 [%rd9], 1;", before) == 0
    generic = "mov.u64 %rd8, kept; cvta.global.u64 %rd9, %rd8; st.u32 [%rd9], %r1; "
    assert mask(generic + "st.global.u32 [%rd2], %r1;", before) == B
    assert (
        mask("st.global.u64 [kept], %rd1; ld.global.u64 %rd9, [kept]; st.global.u32 [%rd9], 1;", before) == EVERYTHING
    )


# --- where addresses come from --------------------------------------------------------------------------------------

#: What %rd9 is, and which words may be written through it.
DERIVED = {
    "converted": ("cvta.to.global.u64 %rd9, %rd1;", A),
    "converted back": ("cvta.to.global.u64 %rd8, %rd1; cvta.global.u64 %rd9, %rd8;", A),
    "indexed": ("mad.lo.s32 %r2, %r1, %r1, %r1; mul.wide.s32 %rd8, %r2, 4; add.s64 %rd9, %rd8, %rd2;", B),
    "indexed at once": ("mad.wide.u32 %rd9, %r1, 12, %rd2;", B),
    "indexed by a parameter": ("shl.b64 %rd8, %rd4, 3; sub.s64 %rd9, %rd2, %rd8;", B),
    "indexed by bytes": ("add.s64 %rd9, %rd2, %rd4;", B | N),
    "indexed by a product": ("mul.lo.s64 %rd8, %rd4, %rd4; shl.b64 %rd20, %rd8, 2; add.s64 %rd9, %rd2, %rd20;", B),
    "rounded": ("and.b64 %rd9, %rd1, -16;", A),
    "past another's alignment": ("and.b64 %rd8, %rd1, 15; sub.s64 %rd9, %rd2, %rd8;", B),
    "at a distance": ("sub.s64 %rd8, %rd2, %rd1; add.s64 %rd9, %rd3, %rd8;", A | B | C),
    "chosen": ("selp.b64 %rd9, %rd1, %rd3, %p1;", A | C),
    "chosen by a sign": ("slct.u64.s32 %rd9, %rd1, %rd3, %r1;", A | C),
    "chosen by a guard": ("mov.u64 %rd9, %rd1; @%p1 mov.u64 %rd9, %rd2;", A | B),
    "chosen on the way": ("@%p1 bra L; mov.u64 %rd9, %rd1; bra M; L: mov.u64 %rd9, %rd3; M:", A | C),
    "the lesser": ("min.u64 %rd9, %rd1, %rd2;", A | B),
    "in a loop": ("mov.u64 %rd9, %rd1; L: add.s64 %rd9, %rd9, 4; setp.lt.u64 %p1, %rd9, %rd2; @%p1 bra L;", A),
    "in turns": (
        ("mov.u64 %rd8, %rd1; mov.u64 %rd9, %rd2; L: mov.u64 %rd7, %rd8; mov.u64 %rd8, %rd9; "
         "mov.u64 %rd9, %rd7; @%p1 bra L;"),
        A | B),
    "from later in the text": ("bra M; L: mov.u64 %rd9, %rd8; bra O; M: mov.u64 %rd8, %rd3; bra L; O:", C),
    "in halves": ("mov.b64 {%r2, %r3}, %rd1; mov.b64 %rd9, {%r2, %r3};", A),
    "in halves with a carry": (
        ("mov.b64 {%r2, %r3}, %rd1; add.cc.u32 %r20, %r2, 64; addc.u32 %r21, %r3, 0; "
         "mov.b64 %rd9, {%r20, %r21};"),
        A),
    "in halves read as such": ("ld.param.u32 %r2, [b]; ld.param.u32 %r3, [b+4]; mov.b64 %rd9, {%r2, %r3};", B),
    "in halves shifted": (
        ("cvt.u64.u32 %rd8, %r1; ld.param.u32 %r3, [b+4]; cvt.u64.u32 %rd7, %r3; shl.b64 %rd20, %rd7, 32; "
         "or.b64 %rd9, %rd20, %rd8;"),
        B),
    "in halves multiplied": (
        ("shr.u64 %rd8, %rd1, 32; mul.lo.u64 %rd20, %rd8, 4294967296; and.b64 %rd7, %rd1, 4294967295; "
         "add.s64 %rd9, %rd20, %rd7;"),
        A),
    "in halves inserted": (
        ("cvt.u32.u64 %r2, %rd1; shr.u64 %rd8, %rd1, 32; cvt.u64.u32 %rd7, %r2; "
         "bfi.b64 %rd9, %rd8, %rd7, 32, 32;"),
        A),
    "by way of other threads": (
        ("mov.b64 {%r2, %r3}, %rd1; shfl.sync.idx.b32 %r20, %r2, 0, 31, -1; "
         "shfl.sync.idx.b32 %r21, %r3, 0, 31, -1; mov.b64 %rd9, {%r20, %r21};"),
        A),
    "in bytes": (
        ("mov.b64 {%r2, %r3}, %rd1; prmt.b32 %r20, %r2, %r3, 4660; prmt.b32 %r21, %r20, %r3, 22136; "
         "mov.b64 %rd9, {%r20, %r21};"),
        A),
    "in quarters": ("mov.b64 {%h1, %h2, %h3, %h4}, %rd1; mov.b64 %rd9, {%h1, %h2, %h3, %h4};", A),
    "turned": (
        ("mov.b64 {%r2, %r3}, %rd1; shf.l.wrap.b32 %r4, %r3, %r2, 7; shf.l.wrap.b32 %r5, %r2, %r3, 7; "
         "mov.b64 %rd9, {%r4, %r5};"),
        A),
    "hidden": (
        ("xor.b64 %rd8, %rd1, 123456789; not.b64 %rd20, %rd8; neg.s64 %rd21, %rd20; "
         "xor.b64 %rd9, %rd21, %rd2;"),
        A | B),
    "as a float": ("mov.b64 %d1, %rd1; mov.b64 %rd9, %d1;", A),
    "of a struct": ("ld.param.u64 %rd9, [pair+8];", SECOND),
    "of a struct by two": ("ld.param.v2.u64 {%rd8, %rd9}, [pair];", SECOND),
    "across words of a struct": ("ld.param.u64 %rd9, [pair+4];", FIRST | SECOND),
    "of a struct by halves": ("ld.param.v2.u32 {%r2, %r3}, [pair]; mov.b64 %rd9, {%r2, %r3};", FIRST),
    "of a struct by bytes": (
        ("ld.param.u8 %rd7, [pair+15]; shl.b64 %rd8, %rd7, 56; ld.param.u32 %rd6, [pair]; "
         "or.b64 %rd9, %rd8, %rd6;"),
        SECOND),
    "into both of a pair": ("mov.b64 {%r2, %r2}, %rd1; mov.b64 %rd9, {%r2, %r2};", A),
    # What is loaded, as an index.
    "by 32 bits": ("ld.global.u32 %r2, [%rd1]; mul.wide.u32 %rd8, %r2, 4; add.s64 %rd9, %rd2, %rd8;", B),
    "by 32 signed bits": (
        ("ld.global.s32 %r2, [%rd1]; cvt.s64.s32 %rd8, %r2; shl.b64 %rd7, %rd8, 3; "
         "add.s64 %rd9, %rd7, %rd2;"),
        B),
    "by a row's number": ("ld.global.u32 %r2, [%rd1]; mad.wide.s32 %rd9, %r2, 48000, %rd2;", B),
    "by a byte": ("ld.global.u8 %rd8, [%rd1]; shl.b64 %rd7, %rd8, 20; add.s64 %rd9, %rd2, %rd7;", B),
    "by the old value": ("atom.global.add.u32 %r2, [%rd1], 1; mad.wide.u32 %rd9, %r2, 4, %rd1;", A),
    "by what is shared": (
        ("ld.shared.u32 %r2, [buffer]; mad.lo.s32 %r20, %r2, 5, %r1; mad.wide.u32 %rd9, %r20, 4, %rd2;"),
        B),
    "by 32 bits times a number": (
        ("ld.global.u32 %rd8, [%rd1]; mul.lo.s64 %rd20, %rd8, %rd4; add.s64 %rd9, %rd2, %rd20;"),
        B),
    "by 64 bits": ("ld.global.u64 %rd8, [%rd1]; shl.b64 %rd20, %rd8, 3; add.s64 %rd9, %rd2, %rd20;", B),
    "by 64 bits and a wrap": (
        ("ld.global.s64 %rd8, [%rd1]; setp.lt.s64 %p1, %rd8, 0; selp.b64 %rd7, %rd4, 0, %p1; "
         "add.s64 %rd20, %rd8, %rd7; shl.b64 %rd21, %rd20, 2; add.s64 %rd9, %rd2, %rd21;"),
        B),
    "by 64 bits times a number": ("ld.global.u64 %rd8, [%rd1]; mad.lo.s64 %rd9, %rd8, %rd4, %rd2;", B),
    "by some bits of 64": ("ld.global.u64 %rd8, [%rd1]; and.b64 %rd20, %rd8, 1023; add.s64 %rd9, %rd2, %rd20;", B),
    "by a field of 64": ("ld.global.u64 %rd8, [%rd1]; bfe.u64 %rd20, %rd8, 48, 12; add.s64 %rd9, %rd2, %rd20;", B),
    "by the upper bits of a hash": (
        ("ld.global.u64 %rd8, [%rd1]; mul.lo.s64 %rd20, %rd8, -7046029254386353131; "
         "shr.u64 %rd21, %rd20, 44; mad.lo.s64 %rd9, %rd21, 8, %rd2;"),
        B),
    "by a float": ("ld.global.f32 %f1, [%rd1]; cvt.rzi.s32.f32 %r2, %f1; mad.wide.s32 %rd9, %r2, 4, %rd2;", B),
    "by a double": ("ld.global.f64 %d1, [%rd1]; cvt.rzi.s64.f64 %rd8, %d1; add.s64 %rd9, %rd2, %rd8;", B),
    "by a remainder": ("ld.global.u64 %rd8, [%rd1]; rem.u64 %rd20, %rd8, 1000; add.s64 %rd9, %rd2, %rd20;", B),
    "by a count": ("ld.global.u64 %rd8, [%rd1]; popc.b64 %r2, %rd8; mad.wide.u32 %rd9, %r2, 4, %rd2;", B),
    "by votes": ("vote.sync.ballot.b32 %r2, %p1, -1; popc.b32 %r20, %r2; mad.wide.u32 %rd9, %r20, 4, %rd2;", B),
    "by 32 bits widened": ("ld.global.u32 %r2, [%rd1]; mov.b64 %rd8, {%r2, %r3}; add.s64 %rd9, %rd2, %rd8;", B),
    "by what is another's at times": (
        ("ld.global.u32 %rd8, [%rd1]; mul.wide.u32 %rd7, %r1, 8; add.s64 %rd7, %rd7, %rd8; add.s64 %rd9, %rd2, %rd7;"),
        B),
    "by sums in a loop": (
        ("mov.u64 %rd8, 0; L: ld.global.u32 %rd7, [%rd1]; add.s64 %rd8, %rd8, %rd7; @%p1 bra L; "
         "add.s64 %rd9, %rd2, %rd8;"),
        B),
    "by a choice of what is loaded": (
        ("ld.global.u64 %rd8, [%rd1]; setp.eq.s64 %p1, %rd8, 0; selp.b64 %rd9, %rd1, %rd2, %p1;"),
        A | B),
    # What may be an address from elsewhere.
    "loaded": ("ld.global.u64 %rd9, [%rd1];", EVERYTHING),
    "loaded as a float": ("ld.global.f64 %d1, [%rd1]; mov.b64 %rd9, %d1;", EVERYTHING),
    "loaded by two": ("ld.global.v2.u64 {%rd8, %rd9}, [%rd1];", EVERYTHING),
    "loaded and indexed": ("ld.global.u64 %rd8, [%rd1]; mad.wide.u32 %rd9, %r1, 4, %rd8;", EVERYTHING),
    "loaded and indexed by a parameter": ("ld.global.u64 %rd8, [%rd1]; add.s64 %rd9, %rd8, %rd4;", EVERYTHING),
    "spilled": ("st.local.u64 [spot], %rd1; ld.local.u64 %rd9, [spot];", EVERYTHING),
    "shared": ("st.shared.u64 [buffer], %rd1; ld.shared.u64 %rd9, [buffer];", EVERYTHING),
    "shared in halves": ("ld.shared.v2.u32 {%r2, %r3}, [buffer]; mov.b64 %rd9, {%r2, %r3};", EVERYTHING),
    "constant": ("ld.const.u64 %rd9, [%rd1];", EVERYTHING),
    "exchanged": ("atom.global.exch.b64 %rd9, [%rd1], %rd2;", EVERYTHING),
    "the upper half loaded": (
        ("ld.global.u32 %r3, [%rd1]; cvt.u32.u64 %r2, %rd2; mov.b64 %rd9, {%r2, %r3};"),
        EVERYTHING),
    "the lower half loaded": (
        ("ld.global.u32 %r2, [%rd1]; mov.b64 {%r4, %r3}, %rd2; mov.b64 %rd9, {%r2, %r3};"),
        EVERYTHING),
    "loaded halves shifted": (
        ("ld.global.u32 %rd8, [%rd1]; shl.b64 %rd20, %rd8, 32; or.b64 %rd9, %rd20, %rd2;"),
        EVERYTHING),
    "loaded halves shifted by a register": (
        ("ld.global.u32 %rd8, [%rd1]; shl.b64 %rd20, %rd8, %r1; or.b64 %rd9, %rd20, %rd2;"),
        EVERYTHING),
    "loaded halves multiplied": (
        ("ld.global.u32 %rd8, [%rd1]; mov.u64 %rd7, 4294967296; mad.lo.s64 %rd9, %rd8, %rd7, %rd2;"),
        EVERYTHING),
    "loaded halves inserted": ("ld.global.u32 %rd8, [%rd1]; bfi.b64 %rd9, %rd8, %rd2, 32, 32;", EVERYTHING),
    "loaded bytes": (
        ("ld.global.u8 %rd8, [%rd1]; shl.b64 %rd20, %rd8, 8; ld.global.u8 %rd7, [%rd1+1]; "
         "or.b64 %rd21, %rd20, %rd7; shl.b64 %rd22, %rd21, 16; shl.b64 %rd23, %rd22, 16; "
         "or.b64 %rd9, %rd23, %rd2;"),
        EVERYTHING),
    "one byte of eight after the other": (
        ("ld.global.u64 %rd8, [%rd1]; shl.b64 %rd20, %rd8, 8; ld.global.u8 %rd7, [%rd1+8]; or.b64 %rd21, %rd20, %rd7; "
         "add.s64 %rd9, %rd21, %rd4;"),
        EVERYTHING),
    "loaded bytes in a loop": (
        ("mov.u64 %rd8, 0; L: shl.b64 %rd8, %rd8, 8; ld.global.u8 %rd7, [%rd1]; or.b64 %rd8, %rd8, %rd7; "
         "@%p1 bra L; add.s64 %rd9, %rd8, %rd4;"),
        EVERYTHING),
    "a loaded address without its tag": (
        ("ld.global.u64 %rd8, [%rd1]; shl.b64 %rd20, %rd8, 16; shr.s64 %rd21, %rd20, 16; "
         "add.s64 %rd9, %rd21, %rd4;"),
        EVERYTHING),
    "a loaded address without four bits": (
        ("ld.global.u64 %rd8, [%rd1]; shl.b64 %rd20, %rd8, 4; shr.s64 %rd21, %rd20, 4; "
         "add.s64 %rd9, %rd21, %rd4;"),
        EVERYTHING),
    "a loaded address masked": (
        ("ld.global.u64 %rd8, [%rd1]; and.b64 %rd20, %rd8, 281474976710655; add.s64 %rd9, %rd20, %rd4;"),
        EVERYTHING),
    "a loaded address in its field": (
        ("ld.global.u64 %rd8, [%rd1]; bfe.u64 %rd20, %rd8, 0, 48; add.s64 %rd9, %rd20, %rd4;"),
        EVERYTHING),
    "a product taken apart": ("mul.lo.u64 %rd8, %rd1, %rd4; div.u64 %rd9, %rd8, %rd4;", EVERYTHING),
    "the address of a parameter": ("mov.b64 %rd9, pair;", EVERYTHING),
    "past the end of a struct": ("ld.param.u64 %rd9, [pair+12];", EVERYTHING),
    "never": ("", EVERYTHING),
}  # fmt: skip


@pytest.mark.parametrize("way", DERIVED)
def test_where_addresses_come_from(way: str) -> None:
    body, expected = DERIVED[way]
    assert mask(stores(body)) == expected


def test_what_is_past_the_largest_block_is_not_told() -> None:
    text = """.visible .entry k(.param .align 8 .b8 first[4096], .param .u64 last) {
        .reg .b64 %rd<4>; ld.param.u64 %rd1, [first+4088]; ld.param.u64 %rd2, [last]; st.global.u64 [%rd1], 0;"""
    assert written(find_kernel(read(f"{HEAD}{text} }}"), "k")) == 1 << 511
    assert written(find_kernel(read(f"{HEAD}{text} st.global.u64 [%rd2], 0; }}"), "k")) == EVERYTHING


def test_functions_are_looked_into() -> None:
    text = """
    .func (.param .b64 result) at(.param .b64 base, .param .b32 index) { .reg .b64 %rd<4>; .reg .b32 %r<2>;
        ld.param.u64 %rd1, [base]; ld.param.u32 %r1, [index]; mad.wide.u32 %rd2, %r1, 4, %rd1;
        st.param.b64 [result], %rd2; ret; }
    .visible .entry k(.param .u64 a, .param .u64 b, .param .u64 c) { .reg .b64 %rd<4>;
        ld.param.u64 %rd1, [b];
        { .param .b64 base; .param .b32 index; .param .b64 result;
          st.param.b64 [base], %rd1; st.param.b32 [index], 7;
          call.uni (result), at, (base, index);
          ld.param.b64 %rd2, [result]; }
        st.u32 [%rd2], 1; ret; }"""
    assert written(find_kernel(read(HEAD + text), "k")) == B


def test_a_call_that_stays_may_write_anything() -> None:
    text = """.extern .func other(.param .b64 where);
    .visible .entry k(.param .u64 a) { { .param .b64 where; call.uni other, (where); } ret; }"""
    kernel = find_kernel(read(HEAD + text), "k")
    assert support(kernel)
    assert written(kernel) == EVERYTHING


#: How many of the spellings of opcodes are looked at: all, or one of so many.
SOME = pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 29])


def kernels_of_opcodes(step: int, before: str) -> Iterator[tuple[str, Kernel]]:
    """A kernel for every spelling, with the code ``before`` it."""
    forms = [form for form in TABLE if form.category is not Category.CONTROL]
    for opcode in islice((opcode for form in forms for opcode in spellings(form)), 0, None, step):
        try:
            for statement in statements(opcode):
                yield statement, read(module(f"{DECLARATIONS} {before} {statement}")).kernels[0]
        except PtxError:
            continue


@SOME
def test_every_opcode_that_may_write_counts(step: int) -> None:
    """Here they have an address that is loaded."""
    seen, writing = 0, set()
    for statement, kernel in kernels_of_opcodes(step, "ld.global.u64 %b64, [%b64_];"):
        found = written(kernel)
        seen += 1
        if support(kernel):
            continue
        root, *parts = statement.split(" ", 1)[0].split(".")
        is_own = any(part.startswith("shared") or part == "local" for part in parts)
        is_write = root in ("st", "red", "atom") and not is_own
        assert found == (EVERYTHING if is_write else 0), statement
        if is_write:
            writing.add(root)
    assert seen > 5000 / step
    assert writing == {"st", "red", "atom"}


@SOME
def test_what_opcodes_make_of_an_address_may_be_one(step: int) -> None:
    """But for what is a count, the truth of something or a number."""
    clean = {"popc", "clz", "bfind", "fns", "set", "cnot", "bar", "barrier", "vote", "activemask"}
    numbers = {"add", "mul", "mad", "madc", "mul24", "mad24"}  # the sum of a register with itself
    seen = set()
    for statement, kernel in kernels_of_opcodes(step, ""):
        (instruction,) = kernel.blocks[0].instructions or (None,)
        if instruction is None:
            continue
        registers = [each for each in instruction.destinations if each is not None and each.type is not ScalarType.PRED]
        has_values = any(
            isinstance(each, Register) and each.type is not ScalarType.PRED for each in instruction.sources
        )
        if instruction.address is not None or not registers or not has_values:
            continue
        origin = made(instruction, [UNKNOWN] * len(instruction.sources), lambda _: None)
        seen.add(instruction.root)
        if instruction.root in clean:
            continue
        is_whole = instruction.root == "cvt" and instruction.types[0].kind in "us" and instruction.types[1].kind in "fx"
        expected = NUMBER if instruction.root in numbers or is_whole else LOADED
        held = origin.high | origin.low
        assert held & (LOADED | expected), statement
        narrow = part(origin, 0, 32)
        assert narrow.low & LOADED, statement
        assert narrow.width <= 32
    assert seen >= {"mov", "add", "mad", "bfi", "cvt", "shl", "prmt"} or step > 1


# --- kernels of compilers -------------------------------------------------------------------------------------------

KNOWN = {
    ("vector_add", "vector_add"): {2},
    ("half_axpy", "half_axpy"): {1},
    ("half_axpy", "half2_add"): {2},
    ("histogram", "histogram256"): {1},
    ("matmul_tiled", "matmul_tiled"): {2},
    ("softmax", "softmax_rows"): {1},
    ("warp_reduce", "warp_reduce_sum"): {1},
    ("triton_add", "add"): {2},
    ("triton_softmax", "softmax"): {0},
    ("triton_matmul_f16", "matmul"): {2},
    ("numba_saxpy", ""): {13},
    ("numba_matmul", ""): {22},
    ("general", "sort16"): {0},
    ("general", "dispatch"): {1},
}


def pointers(kernel: Kernel) -> set[int]:
    """The positions of parameters that may be written through."""
    found = written(kernel)
    return {place for place, each in enumerate(kernel.parameters) if found >> each.offset // 8 & 1}


@pytest.mark.parametrize(("name", "entry"), KNOWN)
def test_known_kernels(name: str, entry: str) -> None:
    whole = read((CORPUS / f"{name}.ptx").read_text("utf-8"))
    assert pointers(find_kernel(whole, entry) if entry else whole.kernels[0]) == KNOWN[name, entry]


#: The variants that no compiler's optimiser has seen keep pointers in local memory.
SPILLING = ("clang-plain", "plain")


def texts() -> list[object]:
    """All files of the folder. Those of Triton and Numba are quickly read, the others' tests slow."""
    found = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.ptx"))
    return [
        pytest.param(path, marks=() if path.count(".") == 1 and "/" in path else pytest.mark.slow) for path in found
    ]


@pytest.mark.parametrize("path", texts())
def test_kernels_of_all_compilers_can_be_told(path: str) -> None:
    """All but a few."""
    known = {("spectra.debug.ptx", "radix_2"), ("spectra.debug.ptx", "radix_4")}
    for kernel in read((FOLDER / path).read_text("utf-8")).kernels:
        is_told = written(kernel) != EVERYTHING
        if not support(kernel) and path.split(".")[1] not in SPILLING:
            assert is_told is ((path, kernel.name) not in known), kernel.name


def test_other_kernels_of_compilers() -> None:
    expected = {
        ("counting", "histogram"): {1},
        ("counting", "kmeans"): {2, 3, 4},
        ("reductions", "sum_shuffle"): {1},
        ("scans", "compact"): {1, 2},
        ("graphs", "push_rank"): {3},
        ("sorts", "radix_pass"): {2, 3},
        ("texts", "base64"): {1},
        ("from_triton/histogram", "histogram"): {1},
        ("from_triton/matmul_bf16", "matmul_bf16"): {2},
    }
    for (source, entry), places in expected.items():
        for variant in VARIANTS.get(source, ("",))[:3]:
            if variant not in SPILLING:
                assert pointers(find_kernel(program_of(source, variant), entry)) == places, (source, entry, variant)


def test_it_takes_little_of_the_time_that_reading_takes() -> None:
    text = (CORPUS / "general.ptx").read_text("utf-8")
    began = time.process_time()
    whole = read(text)
    read_s = time.process_time() - began
    began = time.process_time()
    for kernel in whole.kernels:
        written(kernel)
    assert time.process_time() - began < read_s / 4


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["forwards", "backwards", "a ring", "one register", "many stores"])
def test_long_texts_end_soon(kind: str) -> None:
    count = 60_000
    lines = {
        "forwards": [f"add.s64 %d{n + 1}, %d{n}, 8;" for n in range(count)],
        "backwards": [f"add.s64 %d{n + 1}, %d{n}, 8;" for n in reversed(range(count))],
        "a ring": [f"xor.b64 %d{n + 1}, %d{n}, %d{n * 7919 % count};" for n in reversed(range(count))],
        "one register": [f"add.s64 %d0, %d0, %d{n % 500};" for n in range(count)],
        "many stores": [f"add.s64 %d{n + 1}, %d{n}, 8; st.global.u64 [%d{n + 1}], 0;" for n in range(count // 2)],
    }[kind]
    words = [f"ld.param.u64 %d{n}, [p+{8 * n}];" for n in range(512)]
    end = f"xor.b64 %d0, %d{count}, %d0; st.global.u64 [%d0], 0; @%q bra L;"
    registers = f".reg .b64 %d<{count + 2}>; .reg .pred %q;"
    body = "\n".join([registers, "L:", *lines, *words, end])
    whole = read(f"{HEAD}.visible .entry k(.param .align 8 .b8 p[4096]) {{ {body} }}")
    began = time.process_time()
    assert written(whole.kernels[0])
    assert time.process_time() - began < 20


# --- never less than what is written --------------------------------------------------------------------------------

SMALL = np.arange(64, dtype=np.float32)
RUNS: dict[str, Callable[[], tuple[int | tuple[int, ...], int | tuple[int, ...], list[object], int]]] = {
    "vector_add": lambda: (2, 32, [SMALL.copy(), SMALL.copy(), np.zeros(64, np.float32), 64], 0),
    "histogram": lambda: (2, 32, [np.arange(64, dtype=np.uint8), np.zeros(256, np.uint32), 64], 0),
    "softmax": lambda: (2, 32, [SMALL.copy(), np.zeros(64, np.float32), 32], 128),
    "warp_reduce": lambda: (2, 32, [SMALL.copy(), np.zeros(2, np.float32), 64], 0),
    "matmul_tiled": lambda: (
        1, (16, 16), [SMALL.copy(), SMALL.copy(), np.zeros(64, np.float32), 8, 8, 8], 0,
    ),
    "triton_add": lambda: (1, 128, [SMALL.copy(), SMALL.copy(), np.zeros(64, np.float32), 64, 0, 0], 0),
    "numba_saxpy": lambda: (
        2, 32, [64, 2.0, 0, 0, 64, 4, SMALL.copy(), 64, 4, 0, 0, 64, 4, SMALL.copy(), 64, 4], 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_arrays_that_are_not_written_do_not_change(machine: FencedMachine, name: str) -> None:
    whole = read((CORPUS / f"{name}.ptx").read_text("utf-8"))
    kernel = whole.kernels[0]
    grid, block, arguments, shared_bytes = RUNS[name]()
    before = [each.copy() if isinstance(each, np.ndarray) else each for each in arguments]
    machine.run_entry(whole, kernel.name, grid, block, *arguments, shared_bytes=shared_bytes)
    changed = {place for place, each in enumerate(arguments) if np.any(each != before[place])}
    assert changed == pointers(kernel) & {p for p, each in enumerate(arguments) if isinstance(each, np.ndarray)}


#: Ways that leave %rd9 as it is, %rd8 being for their use and %rd7 something at random.
DETOURS = (
    "mov.b64 {%r2, %r3}, %rd9; mov.b64 %rd9, {%r2, %r3};",
    "xor.b64 %rd9, %rd9, %rd7; xor.b64 %rd9, %rd9, %rd7;",
    "add.s64 %rd9, %rd9, %rd7; sub.s64 %rd9, %rd9, %rd7;",
    "not.b64 %rd9, %rd9; not.b64 %rd9, %rd9;",
    "neg.s64 %rd8, %rd9; sub.s64 %rd9, 0, %rd8;",
    "and.b64 %rd8, %rd9, -4294967296; cvt.u32.u64 %r2, %rd9; cvt.u64.u32 %rd9, %r2; or.b64 %rd9, %rd9, %rd8;",
    "shr.u64 %rd8, %rd9, 32; shl.b64 %rd8, %rd8, 32; and.b64 %rd9, %rd9, 4294967295; or.b64 %rd9, %rd9, %rd8;",
    "shr.u64 %rd8, %rd9, 40; and.b64 %rd9, %rd9, 1099511627775; mad.lo.s64 %rd9, %rd8, 1099511627776, %rd9;",
    "bfe.u64 %rd8, %rd9, 20, 44; bfi.b64 %rd9, %rd8, %rd9, 20, 44;",
    "brev.b64 %rd9, %rd9; brev.b64 %rd9, %rd9;",
    "mov.b64 {%h1, %h2, %h3, %h4}, %rd9; mov.b64 %rd9, {%h1, %h2, %h3, %h4};",
    "mov.b64 {%r2, %r3}, %rd9; prmt.b32 %r4, %r2, %r3, 12816; prmt.b32 %r3, %r2, %r3, 30292; mov.b64 %rd9, {%r4, %r3};",
    ("mov.b64 {%r2, %r3}, %rd9; shf.l.wrap.b32 %r4, %r3, %r2, 9; shf.l.wrap.b32 %r5, %r2, %r3, 9;"
    " shf.r.wrap.b32 %r2, %r4, %r5, 9; shf.r.wrap.b32 %r3, %r5, %r4, 9; mov.b64 %rd9, {%r2, %r3};"),
    "mov.b64 {%r2, %r3}, %rd9; lop3.b32 %r2, %r2, %r1, %r3, 240; mov.b64 %rd9, {%r2, %r3};",
    ("mov.b64 {%r2, %r3}, %rd9; shfl.sync.idx.b32 %r2, %r2, 0, 31, -1; shfl.sync.idx.b32 %r3, %r3, 0, 31, -1;"
    " mov.b64 %rd9, {%r2, %r3};"),
    ("mov.b64 {%r2, %r3}, %rd9; add.cc.u32 %r2, %r2, 77; addc.u32 %r3, %r3, 0; sub.cc.u32 %r2, %r2, 77;"
    " subc.u32 %r3, %r3, 0; mov.b64 %rd9, {%r2, %r3};"),
    "setp.ne.s64 %p1, %rd9, 0; selp.b64 %rd9, %rd9, %rd7, %p1;",
    "max.u64 %rd9, %rd9, 1;",
    "mul.lo.s64 %rd9, %rd9, 3; mul.lo.s64 %rd9, %rd9, -6148914691236517205;",
    "shl.b64 %rd9, %rd9, 3; shr.u64 %rd9, %rd9, 3;",
    "mul.lo.s64 %rd9, %rd9, 1; div.u64 %rd9, %rd9, 1;",
    "add.s64 %rd8, %rd9, %rd9; shr.u64 %rd9, %rd8, 1;",
    "rem.u64 %rd8, %rd9, 1000; div.u64 %rd9, %rd9, 1000; mad.lo.s64 %rd9, %rd9, 1000, %rd8;",
    "mov.b64 %d1, %rd9; abs.s64 %rd8, %rd9; mov.b64 %rd9, %d1;",
    "cvta.global.u64 %rd9, %rd9;",
    "st.shared.u64 [buffer+8], %rd9; ld.shared.u64 %rd9, [buffer+8];",
    "st.shared.u64 [buffer], %rd9; ld.shared.v2.u32 {%r2, %r3}, [buffer]; mov.b64 %rd9, {%r2, %r3};",
    "st.local.u64 [spot], %rd9; mov.u64 %rd8, spot; cvta.local.u64 %rd8, %rd8; ld.u64 %rd9, [%rd8];",
    "st.shared.u64 [buffer], %rd9; atom.shared.exch.b64 %rd9, [buffer], %rd7;",
)  # fmt: skip


def renamed(body: str) -> str:
    """Statements one after the other, each with registers of its own for what it makes."""
    latest: dict[str, str] = {}
    made: list[str] = []
    for number, statement in enumerate(body.split(";")[:-1]):
        opcode, operands = statement.split(maxsplit=1)
        targets = "" if opcode.startswith("st.") else operands.partition("}" if operands.startswith("{") else ",")[0]
        sources = operands.removeprefix(targets)
        sources = re.sub(r"%[a-z]+[0-9]+", lambda found: latest.get(found[0], found[0]), sources)
        for kind, own in re.findall(r"(%[a-z]+)([0-9]+)", targets):
            latest[kind + own] = f"{kind}{10 + 4 * number + int(own) % 4}"
        targets = re.sub(r"%[a-z]+[0-9]+", lambda found: latest[found[0]], targets)
        made.append(f"{opcode} {targets}{sources};")
    return " ".join(made)


@pytest.mark.parametrize("seed", range(40))
def test_no_detour_hides_what_is_written(machine: FencedMachine, seed: int) -> None:
    numbers = np.random.default_rng(seed)
    first = numbers.integers(3)
    detours = [DETOURS[place] for place in numbers.integers(len(DETOURS), size=numbers.integers(1, 6))]
    start = f"mov.u64 %rd7, {numbers.integers(1 << 62)}; mov.u64 %rd9, %rd{first + 1};"
    whole = program(renamed(f"{start} {' '.join(detours)} st.global.u32 [%rd9], %r1;"))
    arrays = [np.zeros(4, np.uint32) for _ in range(3)]
    machine.run_entry(whole, "k", 1, 1, *arrays, np.uint64(0), np.uint32(7), bytes(16))
    assert [array[0] for array in arrays] == [7 * (place == first) for place in range(3)], detours
    assert written(whole.kernels[0]) >> int(first) & 1, (seed, detours)


@pytest.mark.parametrize("place", range(len(DETOURS)))
def test_no_single_detour_does(machine: FencedMachine, place: int) -> None:
    start = "mov.u64 %rd7, 987654321987654321; mov.u64 %rd9, %rd2;"
    whole = program(renamed(f"{start} {DETOURS[place]} st.global.u32 [%rd9], %r1;"))
    arrays = [np.zeros(4, np.uint32) for _ in range(3)]
    machine.run_entry(whole, "k", 1, 1, *arrays, np.uint64(0), np.uint32(7), bytes(16))
    assert [int(array[0]) for array in arrays] == [0, 7, 0]
    assert written(whole.kernels[0]) & B
