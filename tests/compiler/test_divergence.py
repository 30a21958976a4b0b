"""Threads of a strip that go different ways: the order of chunks, and that each thread goes its own way."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest

from compiler.build import graph_kernel
from compiler.launch import Machine
from compiler.strips.harness import found
from tensor_wasm.compiler import WIDTHS
from tensor_wasm.compiler.divergence import Layout, Loop, Part, lay_out_chunks
from tensor_wasm.ptx.graph import Graph

_WIDTHS = pytest.mark.parametrize("width", WIDTHS)
_SEED = 20_261_125
_X = np.arange(37, dtype=np.int64)


# --- the layout -----------------------------------------------------------------------------------------------


def _heads(parts: tuple[Part, ...]) -> Iterator[int]:
    for part in parts:
        if isinstance(part, Loop):
            yield from _heads(part.parts)
        else:
            yield part


def _loops(parts: tuple[Part, ...], around: tuple[int, ...] = ()) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Each head with the heads of the loops around it."""
    for part in parts:
        if isinstance(part, Loop):
            assert next(_heads(part.parts)) == part.heads[0], "a loop starts elsewhere than at its head"
            yield from _loops(part.parts, (*around, part.heads[0]))
        else:
            yield part, around


def _random_graph(numbers: random.Random) -> tuple[object, Graph, set[int]]:
    count = numbers.randint(1, 24)
    ends: list[list[int] | None] = []
    for block in range(count):
        if numbers.random() < 0.1:
            ends.append(None)
            continue
        near = numbers.random() < 0.6
        ends.append(
            [
                min(count - 1, max(0, block + numbers.randint(-3, 4))) if near else numbers.randrange(count)
                for _ in range(numbers.choice((1, 2, 2)))
            ]
        )
    kernel, _, _ = graph_kernel(*ends)
    graph = Graph(kernel)
    return kernel, graph, {block for block in range(count) if numbers.random() < numbers.choice((0.2, 0.9))}


def _checked(layout: Layout, graph: Graph, parts: set[int], note: str) -> None:
    reached = set(graph.reverse_postorder)
    assert sorted(block for blocks in layout.members.values() for block in blocks) == sorted(reached), note
    for head, blocks in layout.members.items():
        assert blocks[0] == head, note
        assert all(layout.chunk_of[block] == head for block in blocks), note
    assert list(_heads(layout.parts)) == list(layout.order), note
    assert sorted(layout.order) == sorted(layout.members), note
    place = {head: number for number, head in enumerate(layout.order)}
    around = dict(_loops(layout.parts))
    for block in reached:
        head = layout.chunk_of[block]
        for target in graph.successors[block]:
            other = layout.chunk_of[target]
            if target != other:
                assert other == head, f"{note}: {block} leads into the middle of the chunk of {target}"
            if block in parts and len(set(graph.successors[block])) > 1:
                assert target == other, f"{note}: threads part at {block} inside of a chunk"
            if other != head or (target == head and block in parts):
                forward = place[other] > place[head]
                assert forward or other in around[head], f"{note}: {block} to {target} leads back"


def test_chunks_have_one_entry_and_edges_lead_forward_or_to_a_loop_around() -> None:
    for number in range(1_500):
        numbers = random.Random(_SEED + number)
        kernel, graph, parts = _random_graph(numbers)
        layout = lay_out_chunks(
            kernel, graph.successors, graph.reverse_postorder, None, parts.__contains__, lambda _: False
        )
        _checked(layout, graph, parts, f"seed {_SEED + number}")


def test_without_parting_all_is_one_chunk() -> None:
    kernel, _, _ = graph_kernel([1, 4], [2, 3], [3], [1, 4], None)
    graph = Graph(kernel)
    layout = lay_out_chunks(kernel, graph.successors, graph.reverse_postorder, None, lambda _: False, lambda _: False)
    assert layout.parts == (0,)
    assert set(layout.members[0]) == {0, 1, 2, 3, 4}


def test_a_loop_that_threads_leave_one_by_one_repeats_and_what_follows_does_not() -> None:
    kernel, _, _ = graph_kernel([1], [2, 3], [1], None)
    graph = Graph(kernel)
    layout = lay_out_chunks(kernel, graph.successors, graph.reverse_postorder, None, {1}.__contains__, lambda _: False)
    before, loop, after = layout.parts
    assert (before, after) == (0, 3)
    assert loop == Loop((1,), (1, 2))


def test_what_waits_elsewhere_is_kept_and_nothing_else() -> None:
    """Block 0 parts to 1 and 2, which meet at 3; registers 0 … 3 are live at the block of that number."""
    kernel, _, _ = graph_kernel([1, 2], [3], [3], None)
    graph = Graph(kernel)
    live = [1 << block for block in range(4)]
    layout = lay_out_chunks(kernel, graph.successors, graph.reverse_postorder, live, {0}.__contains__, lambda _: False)
    first, second = layout.order[1:3]
    assert layout.kept == {0: 0, first: live[second], second: live[3], 3: 0}


# --- threads go their own ways --------------------------------------------------------------------------------


@_WIDTHS
def test_nested_ifs(machine: Machine, width: int) -> None:
    body = """
    mov.u32 %r7, 0;
    and.b32 %r8, %r1, 1;
    setp.eq.u32 %p1, %r8, 0;
    @%p1 bra EVEN;
    setp.gt.u32 %p2, %r1, 17;
    @%p2 bra HIGH;
    add.u32 %r7, %r7, 1;
    bra ODD;
HIGH:
    add.u32 %r7, %r7, 10;
    setp.gt.u32 %p3, %r1, 30;
    @!%p3 bra ODD;
    add.u32 %r7, %r7, 100;
ODD:
    add.u32 %r7, %r7, 1000;
    bra JOIN;
EVEN:
    add.u32 %r7, %r7, 10000;
JOIN:
    add.u32 %r7, %r7, %r1;
    st.global.u32 [%rd2], %r7;
    """
    odd = np.select([_X > 30, _X > 17], [1110, 1010], 1001)
    assert (found(machine, width, body) == np.where(_X % 2 == 0, 10_000, odd) + _X).all()


@_WIDTHS
def test_several_exits_of_a_loop(machine: Machine, width: int) -> None:
    """The loop ends where the counter meets the lane's number, or when a product has grown, or at 20."""
    body = """
    mov.u32 %r7, 0;
    add.u32 %r8, %r1, 1;
    mov.u32 %r9, 7;
LOOP:
    setp.eq.u32 %p1, %r7, %r1;
    @%p1 bra MET;
    mul.lo.u32 %r8, %r8, 3;
    setp.gt.u32 %p2, %r8, 100000;
    @%p2 bra GROWN;
    add.u32 %r7, %r7, 1;
    setp.lt.u32 %p3, %r7, 6;
    @%p3 bra LOOP;
    mov.u32 %r9, 1;
    bra DONE;
MET:
    mov.u32 %r9, 2;
    bra DONE;
GROWN:
    mov.u32 %r9, 3;
    setp.lt.u32 %p4, %r1, 100;
    @%p4 bra DONE;
    mov.u32 %r9, 4;
DONE:
    mad.lo.u32 %r9, %r7, 10, %r9;
    xor.b32 %r9, %r9, %r8;
    st.global.u32 [%rd2], %r9;
    """
    out = found(machine, width, body, block=300)
    for thread, value in enumerate(out.tolist()):
        counter, product, why = 0, thread + 1, 0
        while not why:
            if counter == thread:
                why = 2
                break
            product *= 3
            if product > 100_000:
                why = 3 if thread < 100 else 4
                break
            counter += 1
            if counter >= 6:
                why = 1
        assert value == (10 * counter + why) ^ product, thread


@_WIDTHS
def test_loops_in_loops_with_bounds_of_each_lane(machine: Machine, width: int) -> None:
    body = """
    and.b32 %r7, %r1, 3;
    mov.u32 %r8, 0;
    mov.u32 %r10, 0;
OUTER:
    mov.u32 %r9, 0;
INNER:
    mad.lo.u32 %r10, %r10, 31, %r9;
    add.u32 %r9, %r9, 1;
    add.u32 %r11, %r8, %r7;
    setp.lt.u32 %p1, %r9, %r11;
    @%p1 bra INNER;
    add.u32 %r10, %r10, %r8;
    add.u32 %r8, %r8, 1;
    shr.u32 %r12, %r1, 3;
    setp.le.u32 %p2, %r8, %r12;
    @%p2 bra OUTER;
    st.global.u32 [%rd2], %r10;
    """
    for thread, value in enumerate(found(machine, width, body).tolist()):
        total, outer = 0, 0
        while True:
            inner = 0
            while True:
                total = total * 31 + inner
                inner += 1
                if inner >= outer + thread % 4:
                    break
            total += outer
            outer += 1
            if outer > thread // 8:
                break
        assert value == total % (1 << 32), thread


@_WIDTHS
def test_threads_end_at_different_places(machine: Machine, width: int) -> None:
    body = """
    st.global.u32 [%rd2], %r1;
    setp.lt.u32 %p1, %r1, 5;
    @%p1 exit;
    st.global.u32 [%rd2], 1000;
    and.b32 %r7, %r1, 1;
    setp.eq.u32 %p2, %r7, 0;
    @%p2 ret;
    st.global.u32 [%rd2], 2000;
    """
    assert (found(machine, width, body) == np.where(_X < 5, _X, np.where(_X % 2, 2000, 1000))).all()


@_WIDTHS
def test_lanes_of_a_switch_go_to_targets_of_their_own(machine: Machine, width: int) -> None:
    body = """
    mov.u32 %r9, 0;
    mov.u32 %r8, 0;
AGAIN:
    add.u32 %r7, %r1, %r8;
    rem.u32 %r7, %r7, 5;
    brx.idx %r7, WAYS;
ONE:
    mad.lo.u32 %r9, %r9, 7, 1;
    bra JOIN;
TWO:
    mad.lo.u32 %r9, %r9, 7, 2;
THREE:
    mad.lo.u32 %r9, %r9, 7, 3;
    bra JOIN;
FOUR:
    mad.lo.u32 %r9, %r9, 7, 4;
    setp.gt.u32 %p1, %r1, 20;
    @%p1 bra DONE;
JOIN:
    add.u32 %r8, %r8, 1;
    setp.lt.u32 %p2, %r8, 6;
    @%p2 bra AGAIN;
DONE:
    st.global.u32 [%rd2], %r9;
    """
    body = body.replace("mov.u32 %r9, 0;", "mov.u32 %r9, 0;\nWAYS: .branchtargets ONE, TWO, THREE, FOUR, ONE;", 1)
    for thread, value in enumerate(found(machine, width, body).tolist()):
        total = 0
        for turn in range(6):
            way = (thread + turn) % 5
            for digit in ((1,), (2, 3), (3,), (4,), (1,))[way]:
                total = total * 7 + digit
            if way == 3 and thread > 20:
                break
        assert value == total % (1 << 32), thread


# --- random graphs --------------------------------------------------------------------------------------------

_STEPS = 30


def _random_code(numbers: random.Random) -> tuple[str, list[tuple[int, ...]]]:
    """Code of blocks that lead anywhere, also into loops from several sides, and where each leads.

    %r7 is a hash of the way, %r8 the steps left, %r9 a constant of the block before, which differs among lanes only by
    the ways they went.
    """
    count = numbers.randint(2, 9)
    ways = [tuple(numbers.randrange(count + 1) for _ in range(numbers.choice((1, 2, 2, 2, 3)))) for _ in range(count)]
    lines = [
        *(f"T{b}: .branchtargets {', '.join(f'B{t}' for t in w)};" for b, w in enumerate(ways) if len(w) > 2),
        "mov.u32 %r7, %r1;", f"mov.u32 %r8, {_STEPS};", "mov.u32 %r9, 0;",
    ]  # fmt: skip
    for block, targets in enumerate(ways):
        lines += [
            f"B{block}:",
            "sub.u32 %r8, %r8, 1;",
            "setp.eq.u32 %p1, %r8, 0;",
            f"@%p1 bra B{count};",
            "xor.b32 %r7, %r7, %r9;",
            f"mad.lo.u32 %r7, %r7, {2 * block + 3}, {block + 1};",
            f"mov.u32 %r9, {block * 17};",
        ]
        if len(targets) == 1:
            lines.append(f"bra B{targets[0]};")
            continue
        lines += ["shr.u32 %r10, %r7, 3;", f"rem.u32 %r10, %r10, {len(targets)};"]
        if len(targets) == 2:
            lines += ["setp.ne.u32 %p2, %r10, 0;", f"@%p2 bra B{targets[1]};", f"bra B{targets[0]};"]
        else:
            lines.append(f"brx.idx %r10, T{block};")
    lines += [f"B{count}:", "add.u32 %r7, %r7, %r9;", "mad.lo.u32 %r7, %r7, 31, %r8;", "st.global.u32 [%rd2], %r7;"]
    return "\n".join(lines), ways


def _way(thread: int, ways: list[tuple[int, ...]]) -> int:
    total, left, last, block = thread, _STEPS, 0, 0
    while block < len(ways):
        left -= 1
        if left == 0:
            break
        total = ((total ^ last) * (2 * block + 3) + block + 1) % (1 << 32)
        last = block * 17
        block = ways[block][(total >> 3) % len(ways[block])]
    return ((total + last) * 31 + left) % (1 << 32)


@pytest.mark.parametrize("number", range(24))
def test_threads_go_their_own_ways_through_any_graph(machine: Machine, number: int) -> None:
    seed = _SEED + number
    body, ways = _random_code(random.Random(seed))
    out = found(machine, WIDTHS[number % len(WIDTHS)], body)
    assert out.tolist() == [_way(thread, ways) for thread in range(37)], f"seed {seed}\n{body}"
