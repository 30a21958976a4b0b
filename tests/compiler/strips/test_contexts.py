"""Strips at barriers."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.launch import Machine
from compiler.strips.harness import found
from tensor_wasm.compiler import WIDTHS

_WIDTHS = pytest.mark.parametrize("width", WIDTHS)


@_WIDTHS
def test_threads_that_come_to_one_barrier_from_different_iterations_keep_their_own_counters(
    machine: Machine, width: int
) -> None:
    """Threads of odd and even numbers leave the loop for the barrier one iteration apart."""
    body = """
    mov.u32 %r7, 0;
LOOP:
    xor.b32 %r8, %r1, %r7;
    and.b32 %r8, %r8, 1;
    setp.eq.u32 %p1, %r8, 0;
    @!%p1 bra NEXT;
    setp.ge.u32 %p2, %r7, 5;
    @%p2 bra STOP;
NEXT:
    add.u32 %r7, %r7, 1;
    bra LOOP;
STOP:
    barrier.sync 0;
    st.global.u32 [%rd2], %r7;
    """
    out = found(machine, width, body)
    assert (out == 6 - np.arange(37) % 2).all()


#: Adds %r7 to three times what the thread wrote before.
_ACCOUNT = """
    ld.global.u32 %r9, [%rd2];
    mad.lo.u32 %r9, %r9, 3, %r7;
    st.global.u32 [%rd2], %r9;
"""


def _accounted(rounds: int) -> int:
    """What :data:`_ACCOUNT` makes of the first value when %r7 is 1, 2, 3 …"""
    value = 99
    for number in range(rounds):
        value = 3 * value + number + 1
    return value % (1 << 32)


@_WIDTHS
def test_lanes_that_wait_for_others_of_their_own_mask_keep_their_own_counters(machine: Machine, width: int) -> None:
    """The first two lanes go around the loop without waiting for the others."""
    body = f"""
    mov.u32 %r10, %laneid;
    setp.lt.u32 %p1, %r10, 2;
    selp.b32 %r11, 0x3, 0xFFFFFFFC, %p1;
    mov.u32 %r7, 0;
LOOP:
    add.u32 %r7, %r7, 1;
    shfl.sync.idx.b32 %r8, %r1, 0, 31, %r11;
    {_ACCOUNT}
    setp.lt.u32 %p2, %r7, 4;
    @%p2 bra LOOP;
    """
    out = found(machine, width, body, block=64)
    assert (out == _accounted(4)).all()


@_WIDTHS
@pytest.mark.parametrize("more", [0, 3])
def test_lanes_at_barriers_of_different_numbers_keep_their_own_counters(
    machine: Machine, width: int, more: int
) -> None:
    """One instruction, two barriers: even threads meet at one, odd ones at another one, which may be more often."""
    body = f"""
    and.b32 %r10, %r1, 1;
    mad.lo.u32 %r11, %r10, {more}, 2;
    mov.u32 %r7, 0;
LOOP:
    add.u32 %r7, %r7, 1;
    barrier.sync %r10, 64;
    {_ACCOUNT}
    setp.lt.u32 %p2, %r7, %r11;
    @%p2 bra LOOP;
    """
    out = found(machine, width, body, block=128)
    assert (out == np.where(np.arange(128) % 2 == 1, _accounted(2 + more), _accounted(2))).all()


@_WIDTHS
def test_lanes_that_pass_a_barrier_before_their_neighbours_keep_their_own_counters(
    machine: Machine, width: int
) -> None:
    """Even threads wait in their first iteration for what odd ones do in their third; all others wait for their own."""
    body = f"""
    and.b32 %r10, %r1, 1;
    mad.lo.u32 %r11, %r10, 2, 1;
    sub.u32 %r12, 2, %r10;
    mov.u32 %r7, 0;
LOOP:
    add.u32 %r7, %r7, 1;
    setp.eq.u32 %p1, %r7, %r11;
    selp.b32 %r13, 0, %r12, %p1;
    selp.b32 %r14, 128, 64, %p1;
    barrier.sync %r13, %r14;
    {_ACCOUNT}
    setp.lt.u32 %p2, %r7, 4;
    @%p2 bra LOOP;
    """
    out = found(machine, width, body, block=128)
    assert (out == _accounted(4)).all()


@_WIDTHS
@pytest.mark.parametrize("block", [5, 16, 37, 50])
@pytest.mark.parametrize("exits", [1, 3, 7])
def test_values_of_all_shapes_live_through_barriers_on_both_sides_of_a_branch(
    machine: Machine, width: int, block: int, exits: int
) -> None:
    """Some threads end before; strips are not full; what waits is uniform, linear, varying, a predicate, of 64 bits."""
    body = f"""
    rem.u32 %r8, %r1, 8;
    setp.eq.u32 %p1, %r8, {exits};
    @%p1 exit;
    ld.param.u32 %r9, [n];
    mad.lo.u32 %r10, %r1, 4, %r9;
    mul.lo.u32 %r11, %r1, %r1;
    mul.wide.u32 %rd4, %r11, 0x10000001;
    cvt.rn.f64.u32 %fd1, %r11;
    setp.gt.u32 %p2, %r8, 4;
    mov.u32 %r18, s;
    mad.lo.u32 %r12, %r1, 4, %r18;
    st.shared.u32 [%r12], %r11;
    setp.lt.u32 %p3, %r1, {block // 2};
    @%p3 bra LOW;
    bar.sync 0;
    add.u32 %r10, %r10, 1000;
    bra JOIN;
LOW:
    bar.sync 0;
    add.u32 %r10, %r10, 7;
JOIN:
    xor.b32 %r13, %r1, 1;
    mad.lo.u32 %r13, %r13, 4, %r18;
    ld.shared.u32 %r14, [%r13];
    shr.u64 %rd4, %rd4, 20;
    cvt.u32.u64 %r15, %rd4;
    cvt.rzi.u32.f64 %r16, %fd1;
    selp.u32 %r17, 5, 0, %p2;
    add.u32 %r10, %r10, %r14;
    add.u32 %r10, %r10, %r15;
    add.u32 %r10, %r10, %r16;
    add.u32 %r10, %r10, %r17;
    sub.u32 %r12, %r12, %r18;
    add.u32 %r10, %r10, %r12;
    st.global.u32 [%rd2], %r10;
    """
    before = ".shared .align 4 .b8 s[256];"
    out = found(machine, width, body, np.uint32(17), block=block, grid=2, parameters="u32 n", before=before)
    x = np.arange(block)
    shared = np.where(np.arange(64) % 8 == exits, 0, np.where(np.arange(64) < block, np.arange(64) ** 2, 0))
    side = np.where(x < block // 2, 7, 1000)
    want = 4 * x + 17 + side + shared[x ^ 1] + (x * x * 0x10000001 >> 20) + x * x
    want += np.where(x % 8 > 4, 5, 0) + 4 * x
    # What is in shared memory where nobody stored is anybody's.
    knows = ((x ^ 1) < block) & ((x ^ 1) % 8 != exits)
    ends = x % 8 == exits
    for row in out.reshape(2, block):
        assert (row[ends] == 99).all()
        assert (row[knows & ~ends] == (want[knows & ~ends] & 0xFFFFFFFF)).all()
