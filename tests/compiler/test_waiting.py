"""Threads that wait for what other threads of their strip do: locks, turns, flags."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.launch import Machine
from compiler.text import compiled, kernel_text
from tensor_wasm.compiler.watching import watching
from tensor_wasm.ptx import read

_ADDRESSES = """
    ld.param.u64 %rd1, [lock];
    ld.param.u64 %rd2, [account];
    ld.param.u64 %rd3, [out];
    mov.u32 %r1, %tid.x;
    mul.wide.u32 %rd4, %r1, 4;
    add.u64 %rd3, %rd3, %rd4;
"""
_PARAMETERS = "u64 lock, u64 account, u64 out"

#: What is done with the lock held; %r4 is what was found.
_HELD = """
    ld.global.u32 %r4, [%rd2];
    add.u32 %r5, %r4, 1;
    st.global.u32 [%rd2], %r5;
"""

#: Ways to take a lock and to give it back.
_LOCKS = {
    "swapped": ("atom.global.cas.b32 %r2, [%rd1], 0, 1;", "atom.global.exch.b32 %r3, [%rd1], 0;"),
    "by a register": ("mov.u32 %r9, 0;\n atom.global.cas.b32 %r2, [%rd1], %r9, 1;", "st.global.u32 [%rd1], 0;"),
    "exchanged": ("atom.global.exch.b32 %r2, [%rd1], 1;", "red.global.and.b32 [%rd1], 0;"),
    "by a bit": ("atom.global.or.b32 %r2, [%rd1], 1;", "st.volatile.global.u32 [%rd1], 0;"),
}


def _locked(take: str, give: str) -> str:
    return f"T: {take}\n setp.ne.u32 %p1, %r2, 0;\n @%p1 bra T;\n{_HELD}\n{give}\n"


@pytest.mark.parametrize("block", [1, 5, 16, 70, 256])
@pytest.mark.parametrize("lock", _LOCKS)
def test_a_lock_lets_the_threads_of_a_strip_in_one_after_another(machine: Machine, lock: str, block: int) -> None:
    code = compiled(kernel_text(f"{_ADDRESSES}{_locked(*_LOCKS[lock])} st.global.u32 [%rd3], %r4;\n ret;", _PARAMETERS))
    account, out = np.zeros(1, np.uint32), np.zeros(block, np.uint32)
    machine.run(code, 1, block, np.zeros(1, np.uint32), account, out)
    assert account[0] == block
    assert sorted(out) == list(range(block))


@pytest.mark.parametrize("block", [16, 70])
@pytest.mark.parametrize("lock", _LOCKS)
def test_what_was_found_outlives_a_barrier(machine: Machine, lock: str, block: int) -> None:
    after = (
        "bar.sync 0;\n ld.global.u32 %r6, [%rd2];\n mad.lo.u32 %r4, %r6, 1000, %r4;\n st.global.u32 [%rd3], %r4;\n ret;"
    )
    code = compiled(kernel_text(f"{_ADDRESSES}{_locked(*_LOCKS[lock])}{after}", _PARAMETERS))
    out = np.zeros(block, np.uint32)
    machine.run(code, 1, block, np.zeros(1, np.uint32), np.zeros(1, np.uint32), out)
    assert sorted(out) == [1000 * block + found for found in range(block)]


@pytest.mark.parametrize("rounds", [1, 7, 100])
@pytest.mark.parametrize("lock", _LOCKS)
def test_a_lock_is_taken_again_and_again(machine: Machine, lock: str, rounds: int) -> None:
    body = f"""{_ADDRESSES}
    mov.u32 %r10, 0;
    mov.u32 %r11, 0;
R:  {_locked(*_LOCKS[lock])}
    add.u32 %r11, %r11, %r10;
    add.u32 %r10, %r10, 1;
    setp.lt.u32 %p2, %r10, {rounds};
    @%p2 bra R;
    st.global.u32 [%rd3], %r11;
    ret;"""
    account, out = np.zeros(1, np.uint32), np.zeros(20, np.uint32)
    machine.run(compiled(kernel_text(body, _PARAMETERS)), 1, 20, np.zeros(1, np.uint32), account, out)
    assert account[0] == 20 * rounds
    assert out.tolist() == [sum(range(rounds))] * 20


@pytest.mark.parametrize("load", ["ld.volatile.global.u32", "ld.acquire.gpu.global.u32", "ld.relaxed.sys.global.u32"])
@pytest.mark.parametrize("order", ["ascending", "descending"])
def test_threads_of_a_strip_take_turns(machine: Machine, load: str, order: str) -> None:
    turn = "mov.u32 %r7, %r1;" if order == "ascending" else "sub.u32 %r7, 3, %r1;"
    body = f"""{_ADDRESSES}
    {turn}
T:  {load} %r2, [%rd1];
    setp.ne.u32 %p1, %r2, %r7;
    @%p1 bra T;
    {_HELD}
    st.global.u32 [%rd3], %r4;
    add.u32 %r2, %r2, 1;
    st.global.u32 [%rd1], %r2;
    ret;"""
    out = np.zeros(4, np.uint32)
    machine.run(compiled(kernel_text(body, _PARAMETERS)), 1, 4, np.zeros(1, np.uint32), np.zeros(1, np.uint32), out)
    assert out.tolist() == ([0, 1, 2, 3] if order == "ascending" else [3, 2, 1, 0])


@pytest.mark.parametrize("setter", [0, 3])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_flag_that_one_thread_sets_is_seen_by_those_that_wait_for_it(
    machine: Machine, setter: int, is_first: bool
) -> None:
    """Whichever of the two ways comes first in the text."""
    wait = "W: ld.volatile.global.u32 %r2, [%rd1];\n setp.eq.u32 %p1, %r2, 0;\n @%p1 bra W;\n bra E;"
    give = "S: st.global.u32 [%rd2], 77;\n membar.gl;\n st.global.u32 [%rd1], 1;\n bra E;"
    ways = f"@%p2 bra S;\n{wait}\n{give}" if is_first else f"@!%p2 bra W;\n{give}\n{wait}"
    body = f"""{_ADDRESSES}
    setp.eq.u32 %p2, %r1, {setter};
    {ways}
E:  ld.global.u32 %r4, [%rd2];
    st.global.u32 [%rd3], %r4;
    ret;"""
    out = np.zeros(4, np.uint32)
    machine.run(compiled(kernel_text(body, _PARAMETERS)), 1, 4, np.zeros(1, np.uint32), np.zeros(1, np.uint32), out)
    assert out.tolist() == [77] * 4


def test_a_swap_that_is_tried_with_what_it_found_waits_for_nobody(machine: Machine) -> None:
    """Threads that succeeded wait for the others, and go on together: all see the last result."""
    body = f"""{_ADDRESSES}
    ld.global.u32 %r2, [%rd1];
T:  mov.u32 %r3, %r2;
    add.u32 %r5, %r3, 3;
    atom.global.cas.b32 %r2, [%rd1], %r3, %r5;
    setp.ne.u32 %p1, %r2, %r3;
    @%p1 bra T;
    ld.global.u32 %r4, [%rd1];
    st.global.u32 [%rd3], %r4;
    ret;"""
    counter, out = np.zeros(1, np.uint32), np.zeros(4, np.uint32)
    machine.run(compiled(kernel_text(body, _PARAMETERS)), 1, 4, counter, np.zeros(1, np.uint32), out)
    assert counter[0] == 12
    assert out.tolist() == [12] * 4


@pytest.mark.parametrize(
    ("instruction", "is_seen"),
    [
        ("atom.global.cas.b32 %r2, [%rd1], 0, 1;", True),
        ("atom.global.cas.b32 %r2, [%rd1], %r4, 1;", True),
        ("atom.global.cas.b32 %r2, [%rd1], %r3, 1;", False),
        ("atom.global.add.u32 %r2, [%rd1], 1;", True),
        ("atom.global.add.u32 _, [%rd1], 1;", False),
        ("red.global.add.u32 [%rd1], 1;", False),
        ("ld.volatile.global.u32 %r2, [%rd1];", True),
        ("ld.global.u32 %r2, [%rd1];", False),
    ],
)
def test_what_looks_at_what_others_do(instruction: str, is_seen: bool) -> None:
    """A swap of what it found itself, by moves, does not."""
    loop = f"T: mov.b32 %r3, %r2;\n {instruction}\n setp.ne.s32 %p1, %r2, 7;\n @%p1 bra T;\n ret;"
    body = f"ld.param.u64 %rd1, [out];\n mov.b32 %r4, %r5;\n{loop}"
    (kernel,) = read(kernel_text(body)).kernels
    assert bool(watching(kernel)) is is_seen


def test_what_only_says_where_something_goes_is_not_waited_for() -> None:
    take = "T: atom.global.add.u32 %r2, [%rd1], 1;\n mul.wide.u32 %rd2, %r2, 4;\n add.u64 %rd3, %rd1, %rd2;"
    loop = "add.u32 %r3, %r3, 1;\n setp.lt.u32 %p1, %r3, 9;\n @%p1 bra T;\n ret;"
    texts = [
        f"ld.param.u64 %rd1, [out];\n{take}\n st.{space}.u32 [{where}], %r2;\n{loop}"
        for space, where in (("global", "%rd3"), ("local", "kept"))
    ]
    found = [watching(read(kernel_text(f".local .b32 kept;\n{text}")).kernels[0]) for text in texts]
    assert [bool(blocks) for blocks in found] == [False, True]
