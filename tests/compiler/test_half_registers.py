"""16-bit and packed floats through the whole compiler: registers, loads and stores, moves, guards, constants."""

from __future__ import annotations

import numpy as np

from compiler.launch import Machine
from compiler.text import compiled, kernel_text

_HALVES = ".reg .f16 %h<8>;\n.reg .f16x2 %hh<8>;\n.reg .bf16 %b<4>;\n.reg .bf16x2 %bb<4>;\n"


def test_registers_of_the_half_types_hold_what_is_loaded_and_stored(machine: Machine) -> None:
    body = """
        ld.param.u64 %rd1, [x];
        ld.param.u64 %rd2, [y];
        mov.u32 %r1, %tid.x;
        mad.wide.u32 %rd1, %r1, 8, %rd1;
        mad.wide.u32 %rd2, %r1, 8, %rd2;
        ld.global.b16 %h1, [%rd1];
        ld.global.b16 %b1, [%rd1+2];
        ld.global.b32 %hh1, [%rd1+4];
        add.f16 %h2, %h1, %h1;
        add.rn.bf16 %b2, %b1, %b1;
        mul.f16x2 %hh2, %hh1, %hh1;
        st.global.b16 [%rd2], %h2;
        st.global.b16 [%rd2+2], %b2;
        st.global.b32 [%rd2+4], %hh2;
        ret;
    """
    count = 64
    x = np.random.default_rng(3).standard_normal((count, 4)).astype(np.float16).view(np.uint16)
    x[:, 1] = np.linspace(-9, 9, count, dtype=np.float32).view(np.uint32) >> 16
    y = np.zeros_like(x)
    machine.run(compiled(kernel_text(_HALVES + body, "u64 x, u64 y")), 1, count, x, y)
    numbers = x.view(np.float16)
    expected = x.copy()
    expected[:, 0] = (numbers[:, 0] + numbers[:, 0]).view(np.uint16)
    expected[:, 1] += 1 << 7  # twice a bfloat16: one more in its exponent
    expected[:, 2:] = (numbers[:, 2:] * numbers[:, 2:]).view(np.uint16)
    assert (y == expected).all()


def test_vectors_of_halves_are_loaded_packed_and_unpacked(machine: Machine) -> None:
    body = """
        ld.param.u64 %rd1, [x];
        ld.global.v4.b16 {%h1, %h2, %h3, %h4}, [%rd1];
        mov.b32 %hh1, {%h2, %h1};
        mov.b64 %rd2, {%h4, %h3, %h2, %h1};
        mov.b32 {%h5, %h6}, %hh1;
        mov.b16 %h7, %h5;
        st.global.b32 [%rd1+8], %hh1;
        st.global.v2.b16 [%rd1+12], {%h7, %h6};
        st.global.u64 [%rd1+16], %rd2;
        ret;
    """
    x = np.arange(12, dtype=np.uint16) + 0xBC00
    machine.run(compiled(kernel_text(_HALVES + body, "u64 x")), 1, 1, x)
    a, b, c, d = range(0xBC00, 0xBC04)
    assert x.tolist() == [a, b, c, d, b, a, b, a, d, c, b, a]


def test_guards_predicates_and_constants_of_halves(machine: Machine) -> None:
    """1.0 is added where a half is below 2.0; of pairs both comparisons are stored."""
    body = """
        ld.param.u64 %rd1, [x];
        ld.param.u64 %rd2, [flags];
        mov.u32 %r1, %tid.x;
        mul.wide.u32 %rd3, %r1, 4;
        add.s64 %rd1, %rd1, %rd3;
        add.s64 %rd2, %rd2, %rd3;
        ld.global.b16 %rs1, [%rd1];
        setp.lt.f16 %p1, %rs1, 2.0;
        @%p1 add.f16 %rs1, %rs1, 0f3F800000;
        st.global.b16 [%rd1], %rs1;
        ld.global.b32 %r2, [%rd1];
        mov.b32 %r5, 0x42003C00;
        setp.gt.f16x2 %p2|%p3, %r2, %r5;
        selp.b32 %r3, 1, 0, %p2;
        selp.b32 %r4, 2, 0, %p3;
        or.b32 %r3, %r3, %r4;
        st.global.u32 [%rd2], %r3;
        ret;
    """
    count = 96
    x = np.random.default_rng(4).uniform(-1, 4, (count, 2)).astype(np.float16)
    flags = np.zeros(count, np.uint32)
    expected = x.copy()
    expected[:, 0] = np.where(x[:, 0] < 2, x[:, 0] + np.float16(1), x[:, 0])
    machine.run(compiled(kernel_text(body, "u64 x, u64 flags")), 1, count, x, flags)
    assert (x == expected).all()
    assert (flags == (expected[:, 0] > 1) + 2 * (expected[:, 1] > 3)).all()


def test_conversions_between_registers_of_different_widths(machine: Machine) -> None:
    body = """
        ld.param.u64 %rd1, [x];
        ld.global.f32 %f1, [%rd1];
        ld.global.f32 %f2, [%rd1+4];
        cvt.rn.f16x2.f32 %r1, %f2, %f1;
        cvt.rn.bf16x2.f32 %bb1, %f2, %f1;
        cvt.rna.tf32.f32 %r2, %f1;
        cvt.rn.f16.f32 %rs1, %f1;
        cvt.f32.f16 %f3, %rs1;
        cvt.rni.s32.f16 %r3, %rs1;
        cvt.rn.f16.s64 %rs2, 2049;
        cvt.f64.bf16 %fd1, 0x4049;
        st.global.b32 [%rd1+8], %r1;
        st.global.b32 [%rd1+12], %bb1;
        st.global.b32 [%rd1+16], %r2;
        st.global.f32 [%rd1+20], %f3;
        st.global.u32 [%rd1+24], %r3;
        st.global.u16 [%rd1+28], %rs2;
        st.global.f64 [%rd1+32], %fd1;
        ret;
    """
    x = np.zeros(40, np.uint8)
    words = x.view(np.float32)
    words[:2] = 3.14159, -2.5
    machine.run(compiled(kernel_text(_HALVES + body, "u64 x")), 1, 1, x)
    assert x[8:12].view(np.float16).tolist() == [float(np.float16(3.14159)), -2.5]
    assert x[12:16].view(np.uint16).tolist() == [0x4049, 0xC020]
    assert x[16:20].view(np.float32)[0] == 3.140625
    assert x[20:24].view(np.float32)[0] == np.float32(np.float16(3.14159))
    assert x[24:28].view(np.int32)[0] == 3
    assert x[28:30].view(np.float16)[0] == 2048
    assert x[32:40].view(np.float64)[0] == 3.140625


def test_what_the_headers_of_half_types_emit_compiles_and_runs(machine: Machine) -> None:
    """The forms of cuda_fp16.h and cuda_bf16.h, braces and all, one after another."""
    body = """
        ld.param.u64 %rd1, [x];
        ld.global.b16 %rs1, [%rd1];
        ld.global.b16 %rs2, [%rd1+2];
        ld.global.b32 %r1, [%rd1+4];
        ld.global.b32 %r2, [%rd1+8];
        ld.global.f32 %f1, [%rd1+12];
        ld.global.f64 %fd1, [%rd1+16];
        {add.f16 %rs3, %rs1, %rs2;}
        {add.sat.f16 %rs3, %rs1, %rs3;}
        {add.rn.f16x2 %r3, %r1, %r2;}
        {fma.rn.relu.f16x2 %r3, %r3, %r1, %r2;}
        {fma.rn.sat.f16 %rs3, %rs3, %rs1, %rs2;}
        {set.eq.f16x2.f16x2 %r4, %r1, %r2;}
        {set.ltu.u32.f16x2 %r5, %r1, %r2;}
        {.reg .pred __$temp3; setp.eq.f16 __$temp3, %rs1, %rs2; selp.u16 %rs4, 1, 0, __$temp3;}
        {set.nan.f16x2.f16x2 %r6, %r1, %r1;}
        ex2.approx.f16 %rs5, %rs1;
        ex2.approx.f16x2 %r7, %r1;
        ex2.approx.ftz.bf16 %rs5, %rs1;
        tanh.approx.f16x2 %r7, %r7;
        tanh.approx.bf16 %rs6, %rs5;
        cvt.rni.f16.f16 %rs7, %rs1;
        cvt.rmi.f16.f16 %rs7, %rs7;
        cvt.rni.s32.f16 %r8, %rs1;
        cvt.rz.f16.u32 %rs8, %r8;
        cvt.rzi.u64.f16 %rd2, %rs1;
        cvt.rp.f16.s64 %rs9, %rd2;
        cvt.rmi.s16.f16 %rs9, %rs8;
        cvt.rn.f16.f64 %rs10, %fd1;
        cvt.rm.f16.f32 %rs11, %f1;
        cvt.rn.f16.s16 %rs11, %rs10;
        cvt.rn.relu.f16.f32 %rs11, %f1;
        cvt.rn.satfinite.f16.f32 %rs11, %f1;
        {min.f16 %rs12, %rs11, %rs1;}
        {max.NaN.f16x2 %r9, %r1, %r2;}
        {abs.f16 %rs12, %rs12;}
        {neg.f16x2 %r9, %r9;}
        {.reg .f16 low; cvt.rn.f16.f32 low, %f1; mov.b32 %r10, {low, low};}
        {.reg .f16 low, high; mov.b32 {low, high}, %r10; cvt.f32.f16 %f2, low; cvt.f32.f16 %f3, high;}
        {.reg .f16 low, high; mov.b32 {low, high}, %r10; mov.b32 %r10, {high, low};}
        {.reg .b16 c; mov.b16 c, 0x3f80U; fma.rn.bf16 %rs13, %rs1, c, %rs2;}
        {.reg .b32 c; mov.b32 c, 0xbf80bf80U; fma.rn.bf16x2 %r11, %r1, c, %r2;}
        {mov.b32 %f4, {0, %rs13};}
        {cvt.rn.bf16.f32 %rs14, %f4;}
        {cvt.rz.bf16x2.f32 %r12, %f1, %f2;}
        {cvt.rn.relu.f16x2.f32 %r12, %f1, %f2;}
        {max.bf16 %rs14, %rs14, %rs1;}
        {max.NaN.bf16x2 %r12, %r12, %r1;}
        {abs.bf16x2 %r12, %r12;}
        {neg.bf16 %rs14, %rs14;}
        mul.bf16x2 %r12, %r12, %r1;
        sub.bf16 %rs14, %rs14, %rs1;
        cvt.f32.bf16 %f5, %rs14;
        cvt.rn.bf16.s64 %rs14, %rd2;
        cvt.rna.tf32.f32 %r13, %f5;
        cvt.rn.f16.u8 %rs14, %r13;
        setp.gtu.and.bf16x2 %p1|%p2, %r1, %r2, !%p3;
        setp.num.f16 %p1|%p2, %rs1, %rs2;
        set.lt.or.s16.bf16 %rs3, %rs1, %rs2, %p1;
        cvt.sat.f16.f16 %rs3, %rs3;
        cvt.rn.sat.f16.f32 %rs3, %f1;
        cvt.rn.ftz.f16.f32 %rs3, %f1;
        cvt.ftz.f32.f16 %f5, %rs3;
        cvt.f64.f16 %fd2, %rs3;
        cvt.rni.sat.u8.f16 %rs3, %rs3;
        max.xorsign.abs.f16x2 %r1, %r1, %r2;
        st.global.f32 [%rd1], %f5;
        st.global.b16 [%rd1+4], %rs14;
        st.global.u32 [%rd1+8], %r12;
        ret;
    """
    x = np.zeros(32, np.uint8)
    x[:12].view(np.float16)[:] = 1.5
    machine.run(compiled(kernel_text(body, "u64 x")), 1, 32, x)
    assert np.isfinite(x[:4].view(np.float32)).all()
