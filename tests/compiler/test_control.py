"""Every shape of control flow, run by many threads, against the same thing in Python."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from compiler.launch import Machine
from compiler.text import compiled, kernel_text

_THREADS = 48
_HEAD = """
    ld.param.u64 %rd1, [out];
    mov.u32 %r1, %tid.x;
    mul.wide.u32 %rd2, %r1, 4;
    add.u64 %rd1, %rd1, %rd2;
    mov.u32 %r2, 0;
"""
_TAIL = "\n    st.global.u32 [%rd1], %r2;\n    ret;"


def _nested(n: int) -> int:
    return sum(j for i in range(n) for j in range(i))


def _continue_break(n: int) -> int:
    total = 0
    for i in range(n):
        if i % 3 == 0:
            continue
        if total > 50:
            break
        total += i
    return total


def _collatz(n: int) -> int:
    steps = 0
    while n > 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        steps += 1
    return steps


def _leave_both(n: int) -> int:
    for i in range(n):
        for j in range(i + 1):
            if i * j > 40:
                return i * 100 + j
    return 7


_SHAPES: dict[str, tuple[str, Callable[[int], int]]] = {
    "if": ("setp.gt.u32 %p1, %r1, 9;\n @!%p1 bra E;\n add.u32 %r2, %r2, 5;\nE:", lambda n: 5 if n > 9 else 0),
    "if-else": (
        "setp.gt.u32 %p1, %r1, 9;\n @%p1 bra A;\n mov.u32 %r2, 3;\n bra E;\nA: mov.u32 %r2, 4;\nE:",
        lambda n: 4 if n > 9 else 3,
    ),
    "while": (
        (
            "mov.u32 %r3, 0;\nL: setp.ge.u32 %p1, %r3, %r1;\n @%p1 bra E;\n add.u32 %r2, %r2, %r3;\n"
            "add.u32 %r3, %r3, 1;\n bra L;\nE:"
        ),
        lambda n: sum(range(n)),
    ),
    "do-while": (
        "mov.u32 %r3, 0;\nL: add.u32 %r2, %r2, 2;\n add.u32 %r3, %r3, 1;\n setp.lt.u32 %p1, %r3, %r1;\n @%p1 bra L;",
        lambda n: 2 * max(n, 1),
    ),
    "nested loops": (
        (
            "mov.u32 %r3, 0;\nO: setp.ge.u32 %p1, %r3, %r1;\n @%p1 bra E;\n mov.u32 %r4, 0;\n"
            "I: setp.ge.u32 %p2, %r4, %r3;\n @%p2 bra D;\n add.u32 %r2, %r2, %r4;\n add.u32 %r4, %r4, 1;\n bra I;\n"
            "D: add.u32 %r3, %r3, 1;\n bra O;\nE:"
        ),
        _nested,
    ),
    "continue and break": (
        (
            "mov.u32 %r3, 0;\nL: setp.ge.u32 %p1, %r3, %r1;\n @%p1 bra E;\n rem.u32 %r4, %r3, 3;\n"
            "setp.eq.u32 %p2, %r4, 0;\n @%p2 bra N;\n setp.gt.u32 %p3, %r2, 50;\n @%p3 bra E;\n"
            "add.u32 %r2, %r2, %r3;\nN: add.u32 %r3, %r3, 1;\n bra L;\nE:"
        ),
        _continue_break,
    ),
    "if-else in a loop": (
        (
            "mov.u32 %r3, %r1;\nL: setp.le.u32 %p1, %r3, 1;\n @%p1 bra E;\n and.b32 %r4, %r3, 1;\n"
            "setp.eq.u32 %p2, %r4, 0;\n @%p2 bra V;\n mad.lo.u32 %r3, %r3, 3, 1;\n bra N;\nV: shr.u32 %r3, %r3, 1;\n"
            "N: add.u32 %r2, %r2, 1;\n bra L;\nE:"
        ),
        _collatz,
    ),
    "out of two loops at once": (
        (
            "mov.u32 %r2, 7;\n mov.u32 %r3, 0;\nO: setp.ge.u32 %p1, %r3, %r1;\n @%p1 bra E;\n mov.u32 %r4, 0;\n"
            "I: mul.lo.u32 %r5, %r3, %r4;\n setp.gt.u32 %p2, %r5, 40;\n @%p2 bra F;\n add.u32 %r4, %r4, 1;\n"
            "setp.le.u32 %p3, %r4, %r3;\n @%p3 bra I;\n add.u32 %r3, %r3, 1;\n bra O;\n"
            "F: mad.lo.u32 %r2, %r3, 100, %r4;\nE:"
        ),
        _leave_both,
    ),
    "switch": (
        (
            "T: .branchtargets A, B, C, A;\n and.b32 %r3, %r1, 3;\n brx.idx %r3, T;\n"
            "A: add.u32 %r2, %r2, 1;\n bra E;\nB: add.u32 %r2, %r2, 10;\nC: add.u32 %r2, %r2, 100;\nE:"
        ),
        lambda n: (1, 110, 100, 1)[n % 4],
    ),
    "switch in a loop": (
        (
            "mov.u32 %r3, 0;\nT: .branchtargets A, B, E;\n"
            "L: setp.ge.u32 %p1, %r3, %r1;\n @%p1 bra E;\n rem.u32 %r4, %r3, 3;\n setp.gt.u32 %p2, %r3, 20;\n"
            "@%p2 mov.u32 %r4, 2;\n add.u32 %r3, %r3, 1;\n setp.eq.u32 %p3, %r4, 2;\n setp.le.u32 %p4, %r3, 20;\n"
            "and.pred %p3, %p3, %p4;\n @%p3 bra L;\n brx.idx %r4, T;\n"
            "A: add.u32 %r2, %r2, 1;\n bra L;\nB: add.u32 %r2, %r2, 10;\n bra L;\nE:"
        ),
        lambda n: sum((1, 10, 0)[i % 3] for i in range(min(n, 21))),
    ),
    "several exits": (
        (
            "setp.lt.u32 %p1, %r1, 4;\n @%p1 ret;\n mov.u32 %r2, 9;\n setp.lt.u32 %p2, %r1, 8;\n @%p2 bra X;\n"
            "st.global.u32 [%rd1], 11;\n exit;\nX:"
        ),
        lambda n: 0 if n < 4 else 9 if n < 8 else 11,
    ),
    "shared sides": (
        (
            "setp.lt.u32 %p1, %r1, 20;\n setp.lt.u32 %p2, %r1, 10;\n @%p1 bra A;\n @%p2 bra B;\n bra C;\n"
            "A: add.u32 %r2, %r2, 1;\n @%p2 bra C;\nB: add.u32 %r2, %r2, 10;\nC: add.u32 %r2, %r2, 100;"
        ),
        lambda n: 101 if n < 10 else 111 if n < 20 else 100,
    ),
    "uniform branch": (
        "setp.eq.u32 %p1, %r1, %r1;\n @%p1 bra.uni A;\n mov.u32 %r2, 1;\nA: add.u32 %r2, %r2, 6;",
        lambda n: 6,
    ),
}


@pytest.mark.parametrize("name", list(_SHAPES))
def test_control_flow_does_what_it_says(machine: Machine, name: str) -> None:
    body, expected = _SHAPES[name]
    out = np.zeros(_THREADS, np.uint32)
    machine.run(compiled(kernel_text(_HEAD + body + _TAIL)), 1, _THREADS, out)
    assert [int(value) for value in out] == [expected(n) for n in range(_THREADS)]


@pytest.mark.parametrize("inside", ["", "brx.idx %r5, ways;"])
def test_a_loop_may_be_entered_at_two_places(machine: Machine, inside: str) -> None:
    body = f"""ways: .branchtargets A, B, C;
    and.b32 %r5, %r1, 3;
    mov.u32 %r2, 0;
    setp.eq.u32 %p1, %r5, 1;
    {inside}
    @%p1 bra B;
A:  add.u32 %r2, %r2, 100;
B:  add.u32 %r2, %r2, 1;
    setp.lt.u32 %p2, %r2, 300;
    @%p2 bra A;
C:
"""
    out = np.zeros(_THREADS, np.uint32)
    machine.run(compiled(kernel_text(_HEAD + body + _TAIL)), 1, _THREADS, out)

    def expected(n: int) -> int:
        way = n & 3 if inside else (1 if n & 3 == 1 else 0)
        if way > 1:
            return 0
        total, block = 0, "AB"[way]
        while True:
            total += 100 if block == "A" else 0
            total += 1
            if total >= 300:
                return total
            block = "A"

    assert [int(value) for value in out] == [expected(n) for n in range(_THREADS)]


def test_a_register_that_was_not_written_is_zero_in_every_thread(machine: Machine) -> None:
    body = "setp.eq.u32 %p1, %r1, 3;\n @%p1 mov.u32 %r9, 5;\n add.u32 %r2, %r2, %r9;\n add.u32 %r9, %r9, 1;"
    out = np.zeros(8, np.uint32)
    machine.run(compiled(kernel_text(_HEAD + body + _TAIL)), 1, 8, out)
    assert list(out) == [0, 0, 0, 5, 0, 0, 0, 0]


def test_an_endless_kernel_is_ended_by_the_store(machine: Machine) -> None:
    kernel = compiled(kernel_text("L: bra L;", ""))
    prepared = machine.prepare(kernel, 1, 1)
    stop = RuntimeError("stop")
    prepared.store.interrupt = lambda: stop  # type: ignore[assignment,return-value]
    with pytest.raises(RuntimeError, match="stop"):
        prepared.call()
    prepared.store.close()


@pytest.mark.parametrize("axis", range(6))
def test_an_empty_launch_runs_nothing(machine: Machine, axis: int) -> None:
    sizes = [1] * 6
    sizes[axis] = 0
    kernel = compiled(kernel_text("    trap;", ""))
    machine.run(kernel, tuple(sizes[:3]), tuple(sizes[3:]))
