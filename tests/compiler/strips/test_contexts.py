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
