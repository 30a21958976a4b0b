"""Small kernels for tests of the Python API, written by hand."""

from __future__ import annotations

HEAD = ".version 8.0\n.target sm_80\n.address_size 64\n"

#: out[i] = in[i] + 1 for every thread of a one-dimensional launch, without a check of the length.
INCREMENT = (
    HEAD
    + """
.visible .entry increment(.param .u64 source, .param .u64 target)
{
    .reg .b32 %r<8>;
    .reg .b64 %rd<8>;
    ld.param.u64 %rd1, [source];
    ld.param.u64 %rd2, [target];
    mov.u32 %r1, %ctaid.x;
    mov.u32 %r2, %ntid.x;
    mov.u32 %r3, %tid.x;
    mad.lo.s32 %r4, %r1, %r2, %r3;
    mul.wide.u32 %rd3, %r4, 4;
    add.s64 %rd4, %rd1, %rd3;
    add.s64 %rd5, %rd2, %rd3;
    ld.global.u32 %r5, [%rd4];
    add.u32 %r6, %r5, 1;
    st.global.u32 [%rd5], %r6;
    ret;
}
"""
)

#: Reads one 32-bit word at ``address`` + ``offset`` bytes and stores it at ``target``.
PEEK = (
    HEAD
    + """
.visible .entry peek(.param .u64 address, .param .s64 offset, .param .u64 target)
{
    .reg .b32 %r<2>;
    .reg .b64 %rd<5>;
    ld.param.u64 %rd1, [address];
    ld.param.s64 %rd2, [offset];
    ld.param.u64 %rd3, [target];
    add.s64 %rd4, %rd1, %rd2;
    ld.global.u32 %r1, [%rd4];
    st.global.u32 [%rd3], %r1;
    ret;
}
"""
)

#: Writes through ``first``, and copies what is then at ``second`` + 4 to ``second`` + 8.
ALIASES = (
    HEAD
    + """
.visible .entry aliases(.param .u64 first, .param .u64 second)
{
    .reg .b32 %r<3>;
    .reg .b64 %rd<3>;
    ld.param.u64 %rd1, [first];
    ld.param.u64 %rd2, [second];
    mov.u32 %r1, 5;
    st.global.u32 [%rd1], %r1;
    ld.global.u32 %r2, [%rd2+4];
    st.global.u32 [%rd2+8], %r2;
    ret;
}
"""
)

#: Its barrier waits for 64 threads.
STUCK = (
    HEAD
    + """
.visible .entry stuck()
{
    bar.sync 1, 64;
    ret;
}
"""
)

ENDLESS = (
    HEAD
    + """
.visible .entry endless(.param .u64 target)
{
    .reg .b32 %r<3>;
    .reg .b64 %rd<2>;
    ld.param.u64 %rd1, [target];
    mov.u32 %r1, 7;
    st.global.u32 [%rd1], %r1;
again:
    ld.volatile.global.u32 %r2, [%rd1];
    bra again;
}
"""
)

#: Counts its launches in a variable of its own; traps when told to.
COUNTER = (
    HEAD
    + """
.global .u32 launches = 100;
.visible .entry counter(.param .u64 target, .param .u32 is_trapping)
{
    .reg .b32 %r<4>;
    .reg .b64 %rd<3>;
    .reg .pred %p<2>;
    ld.param.u64 %rd1, [target];
    ld.param.u32 %r3, [is_trapping];
    ld.global.u32 %r1, [launches];
    add.u32 %r2, %r1, 1;
    st.global.u32 [launches], %r2;
    setp.ne.u32 %p1, %r3, 0;
    @%p1 trap;
    st.global.u32 [%rd1], %r2;
    ret;
}
"""
)


def store_parameter(kind: str, size: int) -> str:
    """A kernel ``keep(target, value)`` that stores its parameter ``value`` of a scalar PTX type."""
    load = {1: "u8", 2: "u16", 4: "u32", 8: "u64"}[size]
    width = {1: "b16", 2: "b16", 4: "b32", 8: "b64"}[size]
    return (
        HEAD
        + f"""
.visible .entry keep(.param .u64 target, .param .{kind} value)
{{
    .reg .b64 %rd1;
    .reg .{width} %v;
    ld.param.u64 %rd1, [target];
    ld.param.{load} %v, [value];
    st.global.{load} [%rd1], %v;
    ret;
}}
"""
    )


#: Stores a struct of 12 bytes passed by value.
STRUCT = (
    HEAD
    + """
.visible .entry keep(.param .u64 target, .param .align 4 .b8 value[12])
{
    .reg .b64 %rd1;
    .reg .b32 %r<4>;
    ld.param.u64 %rd1, [target];
    ld.param.u32 %r1, [value];
    ld.param.u32 %r2, [value+4];
    ld.param.u32 %r3, [value+8];
    st.global.u32 [%rd1], %r1;
    st.global.u32 [%rd1+4], %r2;
    st.global.u32 [%rd1+8], %r3;
    ret;
}
"""
)

SHAPED = (
    HEAD
    + """
.visible .entry exactly() .reqntid 8, 4, 1 { ret; }
.visible .entry at_most() .maxntid 64, 1, 1 { ret; }
.visible .entry any() { ret; }
"""
)

#: Each thread adds a code of where it is to its own element: z fastest in blocks, as the test computes.
PLACE = (
    HEAD
    + """
.visible .entry place(.param .u64 target)
{
    .reg .b32 %r<20>;
    .reg .b64 %rd<4>;
    ld.param.u64 %rd1, [target];
    mov.u32 %r1, %ctaid.x;
    mov.u32 %r2, %ctaid.y;
    mov.u32 %r3, %ctaid.z;
    mov.u32 %r4, %nctaid.x;
    mov.u32 %r5, %nctaid.y;
    mad.lo.u32 %r6, %r3, %r5, %r2;
    mad.lo.u32 %r7, %r6, %r4, %r1;
    mov.u32 %r8, %tid.x;
    mov.u32 %r9, %tid.y;
    mov.u32 %r10, %tid.z;
    mov.u32 %r11, %ntid.x;
    mov.u32 %r12, %ntid.y;
    mov.u32 %r13, %ntid.z;
    mad.lo.u32 %r14, %r10, %r12, %r9;
    mad.lo.u32 %r15, %r14, %r11, %r8;
    mul.lo.u32 %r16, %r11, %r12;
    mul.lo.u32 %r17, %r16, %r13;
    mad.lo.u32 %r18, %r7, %r17, %r15;
    mul.wide.u32 %rd2, %r18, 4;
    add.s64 %rd3, %rd1, %rd2;
    ld.global.u32 %r19, [%rd3];
    add.u32 %r18, %r18, 1;
    add.u32 %r19, %r19, %r18;
    st.global.u32 [%rd3], %r19;
    ret;
}
"""
)


def line_of(text: str, part: str) -> int:
    """The line, from 1, on which ``part`` stands."""
    return text[: text.index(part)].count("\n") + 1
