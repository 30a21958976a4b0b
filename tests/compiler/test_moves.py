"""mov in all its forms, and registers of every width."""

from __future__ import annotations

import numpy as np

from compiler.launch import Machine
from compiler.text import compiled, kernel_text

_OUT = "    ld.param.u64 %rd1, [out];\n"


def test_packing_puts_the_first_part_lowest(machine: Machine) -> None:
    body = (
        _OUT
        + """
    mov.b16 %rs1, 0x1111; mov.b16 %rs2, 0x2222; mov.b16 %rs3, 0x8333; mov.b16 %rs4, 0xF444;
    mov.b32 %r1, {%rs1, %rs3};
    mov.b64 %rd2, {%rs1, %rs2, %rs3, %rs4};
    mov.b64 %rd3, {%r1, 7};
    st.global.u32 [%rd1], %r1;
    st.global.u64 [%rd1+8], %rd2;
    st.global.u64 [%rd1+16], %rd3;
    ret;"""
    )
    out = np.zeros(3, np.uint64)
    machine.run(compiled(kernel_text(body)), 1, 1, out)
    assert [hex(v) for v in out] == ["0x83331111", "0xf444833322221111", "0x783331111"]


def test_unpacking_takes_the_lowest_part_first(machine: Machine) -> None:
    body = (
        _OUT
        + """
    mov.b64 %rd2, 0xF444833322221111;
    mov.b64 {%r1, %r2}, %rd2;
    mov.b64 {%rs1, %rs2, %rs3, %rs4}, %rd2;
    mov.b32 {%rs5, %rs6}, %r2;
    mov.b64 {_, %r3}, %rd2;
    st.global.v2.u32 [%rd1], {%r2, %r1};
    st.global.v4.u16 [%rd1+8], {%rs4, %rs3, %rs2, %rs1};
    st.global.v2.u16 [%rd1+16], {%rs6, %rs5};
    st.global.u32 [%rd1+20], %r3;
    ret;"""
    )
    out = np.zeros(3, np.uint64)
    machine.run(compiled(kernel_text(body)), 1, 1, out)
    assert [hex(v) for v in out] == ["0x22221111f4448333", "0x111122228333f444", "0xf44483338333f444"]


def test_a_register_may_be_unpacked_into_itself(machine: Machine) -> None:
    body = (
        _OUT
        + """
    mov.b64 %rd2, 0x0000000200000001;
    mov.b64 {%r1, %r2}, %rd2;
    mov.b64 %rd2, {%r2, %r1};
    st.global.u64 [%rd1], %rd2;
    ret;"""
    )
    out = np.zeros(1, np.uint64)
    machine.run(compiled(kernel_text(body)), 1, 1, out)
    assert out[0] == 0x0000000100000002


def test_floats_move_as_bits_and_as_numbers(machine: Machine) -> None:
    body = (
        _OUT
        + """
    mov.f32 %f1, 0f40490FDB;
    mov.b32 %r1, %f1;
    mov.b32 %f2, %r1;
    mov.f64 %fd1, 0d400921FB54442D18;
    mov.b64 %rd2, %fd1;
    mov.b64 {%r2, %r3}, %fd1;
    mov.b64 %fd2, {%r2, %r3};
    st.global.u32 [%rd1], %r1;
    st.global.f32 [%rd1+4], %f2;
    st.global.u64 [%rd1+8], %rd2;
    st.global.f64 [%rd1+16], %fd2;
    ret;"""
    )
    out = np.zeros(24, np.uint8)
    machine.run(compiled(kernel_text(body)), 1, 1, out)
    assert out[:4].view(np.uint32)[0] == 0x40490FDB
    assert out[4:8].view(np.float32)[0] == np.float32(np.pi)
    assert out[8:16].view(np.uint64)[0] == 0x400921FB54442D18
    assert out[16:24].view(np.float64)[0] == np.pi


def test_a_guarded_move_keeps_the_old_value(machine: Machine) -> None:
    body = (
        _OUT
        + """
    mov.u32 %r1, %tid.x;
    setp.eq.u32 %p1, %r1, 1;
    mov.pred %p2, %p1;
    mov.u32 %r2, 5; mov.u64 %rd2, 6; mov.f32 %f1, 0f3F800000; mov.u16 %rs1, 8;
    @%p2 mov.u32 %r2, 50;
    @!%p2 mov.u64 %rd2, 60;
    @%p2 mov.f32 %f1, 0f40000000;
    @%p2 mov.b32 {%rs1, %rs2}, %r2;
    mul.wide.u32 %rd3, %r1, 32;
    add.u64 %rd1, %rd1, %rd3;
    st.global.u32 [%rd1], %r2;
    st.global.u64 [%rd1+8], %rd2;
    st.global.f32 [%rd1+16], %f1;
    st.global.u16 [%rd1+20], %rs1;
    ret;"""
    )
    out = np.zeros((2, 32), np.uint8)
    machine.run(compiled(kernel_text(body)), 1, 2, out)
    found = [
        (row[:4].view(np.uint32)[0], row[8:16].view(np.uint64)[0], row[16:20].view(np.float32)[0],
         row[20:22].view(np.uint16)[0])
        for row in out
    ]  # fmt: skip
    assert found == [(5, 60, 1.0, 8), (50, 6, 2.0, 50)]


def test_16_bit_registers_wrap(machine: Machine) -> None:
    body = (
        _OUT
        + """
    mov.u16 %rs1, 65535;
    add.u16 %rs2, %rs1, 3;
    cvt.u32.u16 %r1, %rs2;
    sub.s16 %rs3, %rs2, 5;
    cvt.s32.s16 %r2, %rs3;
    mul.lo.u16 %rs4, %rs1, %rs1;
    cvt.u32.u16 %r3, %rs4;
    setp.lt.s16 %p1, %rs3, 0;
    selp.u32 %r4, 1, 0, %p1;
    st.global.v4.u32 [%rd1], {%r1, %r2, %r3, %r4};
    ret;"""
    )
    out = np.zeros(4, np.int32)
    machine.run(compiled(kernel_text(body)), 1, 1, out)
    assert list(out) == [2, -3, 1, 1]
