"""Threads that wait for each other: barriers in every place, shared memory, warp operations of lanes apart."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.launch import LaunchFault, Machine
from compiler.text import compiled, kernel_text, line_of
from tensor_wasm.compiler import Fault
from tensor_wasm.errors import PtxError

_OUT = """
    ld.param.u64 %rd1, [out];
    mov.u32 %r1, %tid.x;
    mul.wide.u32 %rd2, %r1, 4;
    add.u64 %rd3, %rd1, %rd2;
"""
_SHAPES = [1, 2, 31, 32, 33, 64, 100, 256, 1024]


def run(machine: Machine, body: str, threads: int | tuple[int, ...], grid: int = 1, **options: object) -> np.ndarray:
    """Launch a kernel that writes a word a thread; the words."""
    total = int(np.prod(threads)) * grid
    out = np.full(total, 0xDEAD, np.uint32)
    before = str(options.pop("before", ""))
    machine.run(compiled(kernel_text(_OUT + body + "\n    ret;", before=before)), grid, threads, out, **options)
    return out


@pytest.mark.parametrize("threads", _SHAPES)
def test_after_a_barrier_everybodys_stores_are_seen(machine: Machine, threads: int) -> None:
    """Each thread reads what the one at the other end wrote."""
    body = """
    mov.u32 %r2, buffer;
    shl.b32 %r3, %r1, 2;
    add.u32 %r4, %r2, %r3;
    mul.lo.u32 %r5, %r1, 7;
    st.shared.u32 [%r4], %r5;
    bar.sync 0;
    mov.u32 %r6, %ntid.x;
    sub.u32 %r6, %r6, 1;
    sub.u32 %r6, %r6, %r1;
    shl.b32 %r6, %r6, 2;
    add.u32 %r6, %r2, %r6;
    ld.shared.u32 %r7, [%r6];
    st.global.u32 [%rd3], %r7;
    """
    found = run(machine, body, threads, before=".shared .align 4 .b8 buffer[4096];")
    assert (found == 7 * np.arange(threads - 1, -1, -1)).all()


@pytest.mark.parametrize("threads", _SHAPES)
def test_a_barrier_in_a_loop_keeps_threads_in_step(machine: Machine, threads: int) -> None:
    """A sum over all threads by halving distances, in dynamic shared memory, two barriers a round."""
    body = """
    mov.u32 %r2, buffer;
    mov.u32 %r9, %ntid.x;
    shl.b32 %r3, %r1, 2;
    add.u32 %r4, %r2, %r3;
    add.u32 %r5, %r1, 1;
    st.shared.u32 [%r4], %r5;
    mov.u32 %r6, 1;
LOOP:
    bar.sync 0;
    add.u32 %r7, %r1, %r6;
    setp.lt.u32 %p1, %r7, %r9;
    mov.u32 %r10, 0;
    shl.b32 %r8, %r7, 2;
    add.u32 %r8, %r2, %r8;
    @%p1 ld.shared.u32 %r10, [%r8];
    bar.sync 0;
    ld.shared.u32 %r11, [%r4];
    add.u32 %r11, %r11, %r10;
    st.shared.u32 [%r4], %r11;
    shl.b32 %r6, %r6, 1;
    setp.lt.u32 %p2, %r6, %r9;
    @%p2 bra LOOP;
    bar.sync 0;
    ld.shared.u32 %r12, [%r2];
    st.global.u32 [%rd3], %r12;
    """
    before = ".extern .shared .align 16 .b8 buffer[];"
    found = run(machine, body, threads, before=before, shared_bytes=4 * threads)
    assert (found == threads * (threads + 1) // 2).all()


def test_registers_of_every_width_survive_a_barrier(machine: Machine) -> None:
    body = """
    cvt.u16.u32 %rs1, %r1;
    cvt.u64.u32 %rd4, %r1;
    mul.lo.u64 %rd4, %rd4, 0x100000001;
    cvt.rn.f32.u32 %f1, %r1;
    cvt.rn.f64.u32 %fd1, %r1;
    and.b32 %r2, %r1, 1;
    setp.ne.u32 %p1, %r2, 0;
    bar.sync 0;
    cvt.u32.u16 %r3, %rs1;
    shr.u64 %rd5, %rd4, 32;
    cvt.u32.u64 %r4, %rd5;
    cvt.rzi.u32.f32 %r5, %f1;
    cvt.rzi.u32.f64 %r6, %fd1;
    selp.u32 %r7, 1000, 0, %p1;
    add.u32 %r3, %r3, %r4;
    add.u32 %r5, %r5, %r6;
    add.u32 %r3, %r3, %r5;
    add.u32 %r3, %r3, %r7;
    st.global.u32 [%rd3], %r3;
    """
    numbers = np.arange(70)
    assert (run(machine, body, 70) == 4 * numbers + 1000 * (numbers % 2)).all()


def test_threads_that_ended_are_not_waited_for(machine: Machine) -> None:
    body = """
    setp.ge.u32 %p1, %r1, 5;
    @%p1 ret;
    bar.sync 0;
    st.global.u32 [%rd3], 1;
    """
    assert list(run(machine, body, 40)) == [1] * 5 + [0xDEAD] * 35


def test_barriers_on_both_sides_of_a_branch_are_one_barrier(machine: Machine) -> None:
    body = """
    mov.u32 %r2, buffer;
    shl.b32 %r3, %r1, 2;
    add.u32 %r4, %r2, %r3;
    and.b32 %r5, %r1, 1;
    setp.eq.u32 %p1, %r5, 0;
    @%p1 bra EVEN;
    st.shared.u32 [%r4], 100;
    bar.sync 0;
    ld.shared.u32 %r6, [%r4+-4];
    bra JOIN;
EVEN:
    st.shared.u32 [%r4], 200;
    bar.sync 0;
    ld.shared.u32 %r6, [%r4+4];
JOIN:
    st.global.u32 [%rd3], %r6;
    """
    found = run(machine, body, 64, before=".shared .align 4 .b8 buffer[256];")
    assert list(found) == [100, 200] * 32


def test_two_groups_use_two_barriers_with_counts(machine: Machine) -> None:
    """The first 32 threads make, the others take: 64 threads meet at barrier 1; 32 at barrier 2, by a register."""
    body = """
    mov.u32 %r2, buffer;
    shl.b32 %r3, %r1, 2;
    add.u32 %r4, %r2, %r3;
    setp.lt.u32 %p1, %r1, 32;
    @!%p1 bra TAKE;
    mul.lo.u32 %r5, %r1, 3;
    st.shared.u32 [%r4], %r5;
    bar.arrive 1, 64;
    mov.u32 %r6, 7;
    bra JOIN;
TAKE:
    bar.sync 1, 64;
    ld.shared.u32 %r6, [%r4+-128];
    mov.u32 %r7, 2;
    bar.sync %r7, 32;
JOIN:
    st.global.u32 [%rd3], %r6;
    """
    found = run(machine, body, 64, before=".shared .align 4 .b8 buffer[256];")
    assert list(found) == [7] * 32 + [3 * n for n in range(32)]


@pytest.mark.parametrize("threads", [1, 33, 96])
def test_reductions_at_barriers(machine: Machine, threads: int) -> None:
    body = """
    setp.lt.u32 %p1, %r1, 20;
    bar.red.popc.u32 %r2, 0, %p1;
    bar.red.and.pred %p2, 0, %p1;
    bar.red.or.pred %p3, 0, %p1;
    bar.red.popc.u32 %r3, 0, !%p1;
    selp.u32 %r4, 1000, 0, %p2;
    selp.u32 %r5, 10000, 0, %p3;
    mad.lo.u32 %r2, %r3, 100000, %r2;
    add.u32 %r2, %r2, %r4;
    add.u32 %r2, %r2, %r5;
    st.global.u32 [%rd3], %r2;
    """
    true = min(threads, 20)
    expected = true + 100_000 * (threads - true) + (1000 if true == threads else 0) + 10_000
    assert (run(machine, body, threads) == expected).all()


def test_a_guarded_barrier_holds_only_those_it_is_for(machine: Machine) -> None:
    body = """
    setp.lt.u32 %p1, %r1, 32;
    @%p1 bar.sync 3, 32;
    @!%p1 bar.sync 4, 32;
    st.global.u32 [%rd3], 5;
    """
    assert (run(machine, body, 64) == 5).all()


def test_a_barrier_that_can_never_fill_is_a_fault_at_its_line(machine: Machine) -> None:
    text = kernel_text(
        """
    mov.u32 %r1, %tid.x;
    setp.lt.u32 %p1, %r1, 3;
    @%p1 bra OTHER;
    bar.sync 1, 64;
OTHER:
    bar.sync 0, 96;
    ret;"""
    )
    with pytest.raises(LaunchFault) as caught:
        machine.run(compiled(text), 4, 64, np.zeros(4, np.uint32))
    assert caught.value.fault == Fault.BARRIER
    assert caught.value.block == (0, 0, 0)
    assert caught.value.thread == 0
    assert caught.value.stuck_line == line_of(text, "bar.sync 0, 96")


def test_each_thread_has_its_own_local_memory_across_a_barrier(machine: Machine) -> None:
    body = """
    .local .align 8 .b8 mine[16];
    mov.u64 %rd4, mine;
    cvta.local.u64 %rd5, %rd4;
    st.local.u32 [%rd4], %r1;
    mul.lo.u32 %r2, %r1, 5;
    st.u32 [%rd5+8], %r2;
    bar.sync 0;
    ld.u32 %r3, [%rd5];
    ld.local.u32 %r4, [mine+8];
    add.u32 %r3, %r3, %r4;
    st.global.u32 [%rd3], %r3;
    """
    assert (run(machine, body, 100) == 6 * np.arange(100)).all()


def test_generic_addresses_reach_shared_memory(machine: Machine) -> None:
    body = """
    mov.u64 %rd4, buffer;
    cvta.shared.u64 %rd5, %rd4;
    add.u64 %rd6, %rd5, %rd2;
    mul.lo.u32 %r2, %r1, 9;
    st.u32 [%rd6], %r2;
    cvta.to.shared.u64 %rd7, %rd6;
    ld.shared.u32 %r3, [%rd7];
    isspacep.shared %p1, %rd6;
    isspacep.global %p2, %rd6;
    isspacep.shared %p3, %rd3;
    selp.u32 %r4, 1000, 0, %p1;
    selp.u32 %r5, 2000, 0, %p2;
    selp.u32 %r6, 4000, 0, %p3;
    add.u32 %r3, %r3, %r4;
    add.u32 %r3, %r3, %r5;
    add.u32 %r3, %r3, %r6;
    st.u32 [%rd3], %r3;
    """
    found = run(machine, body, 32, before=".shared .align 4 .b8 buffer[128];")
    assert (found == 9 * np.arange(32) + 1000).all()


@pytest.mark.parametrize(
    ("access", "fault"),
    [
        ("ld.shared.u32 %r9, [%r8+64];", Fault.ADDRESS),
        ("st.shared.u32 [%r8+64], %r9;", Fault.ADDRESS),
        ("ld.shared.u32 %r9, [%r8+62];", Fault.MISALIGNED),
        ("ld.shared.u32 %r9, [%r8+-4];", Fault.ADDRESS),
        ("ld.shared.u8 %r9, [%r8+64];", Fault.ADDRESS),
        ("ld.shared.v2.u32 {%r9, %r10}, [%r8+60];", Fault.MISALIGNED),
        ("ld.u32 %r9, [%rd9+64];", Fault.ADDRESS),
        ("ld.u32 %r9, [%rd9+-4];", Fault.ADDRESS),
    ],
)
def test_shared_memory_ends_where_the_launch_says(machine: Machine, access: str, fault: Fault) -> None:
    text = kernel_text(
        f"""
    mov.u32 %r8, buffer;
    mov.u64 %rd8, buffer;
    cvta.shared.u64 %rd9, %rd8;
    {access}
    ret;""",
        before=".extern .shared .align 16 .b8 buffer[];",
    )
    with pytest.raises(LaunchFault) as caught:
        machine.run(compiled(text), 1, 1, np.zeros(1, np.uint32), shared_bytes=64)
    assert caught.value.fault == fault
    assert caught.value.line == line_of(text, access)


def test_static_and_dynamic_shared_memory_stand_side_by_side(machine: Machine) -> None:
    body = """
    st.shared.u32 [first], 11;
    st.shared.u32 [second+4], 22;
    st.shared.u32 [more], 33;
    ld.shared.u32 %r2, [first];
    ld.shared.u32 %r3, [second+4];
    ld.shared.u32 %r4, [more];
    mov.u32 %r5, %dynamic_smem_size;
    add.u32 %r2, %r2, %r3;
    add.u32 %r2, %r2, %r4;
    mad.lo.u32 %r2, %r5, 1000, %r2;
    st.global.u32 [%rd3], %r2;
    """
    before = ".shared .align 4 .b8 first[4];\n.shared .align 8 .b8 second[24];\n.extern .shared .align 16 .b8 more[];"
    assert list(run(machine, body, 1, before=before, shared_bytes=16)) == [16_066]


def test_more_shared_memory_than_there_is_is_refused() -> None:
    text = kernel_text("    st.shared.u8 [big], 0;\n    ret;", before=".shared .align 4 .b8 big[233476];")
    with pytest.raises(PtxError, match="233472 are the most"):
        compiled(text)


def test_a_register_that_was_not_written_is_zero_in_every_block(machine: Machine) -> None:
    body = """
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mad.lo.u32 %r4, %r2, %r3, %r1;
    mul.wide.u32 %rd2, %r4, 4;
    add.u64 %rd3, %rd1, %rd2;
    setp.eq.u32 %p1, %r2, 1;
    @%p1 mov.u32 %r9, 5;
    bar.sync 0;
    st.global.u32 [%rd3], %r9;
    bar.sync 0;
    """
    assert list(run(machine, body, 4, grid=4)) == [0] * 4 + [5] * 4 + [0] * 8


# --- warp operations in places where lanes are apart ---------------------------------------------------------


def test_lanes_of_one_mask_meet_from_both_sides_of_a_branch(machine: Machine) -> None:
    body = """
    and.b32 %r2, %r1, 1;
    setp.eq.u32 %p1, %r2, 0;
    @%p1 bra EVEN;
    add.u32 %r3, %r1, 100;
    shfl.sync.bfly.b32 %r4, %r3, 1, 31, -1;
    bra JOIN;
EVEN:
    add.u32 %r3, %r1, 200;
    shfl.sync.bfly.b32 %r4, %r3, 1, 31, -1;
JOIN:
    st.global.u32 [%rd3], %r4;
    """
    lanes = np.arange(64)
    assert (run(machine, body, 64) == (lanes ^ 1) + np.where(lanes % 2, 200, 100)).all()


def test_halves_of_a_warp_work_under_their_own_masks(machine: Machine) -> None:
    body = """
    setp.lt.u32 %p1, %r1, 16;
    @%p1 bra LOW;
    vote.sync.ballot.b32 %r2, 1, 0xFFFF0000;
    bra JOIN;
LOW:
    vote.sync.ballot.b32 %r2, 1, 0x0000FFFF;
JOIN:
    st.global.u32 [%rd3], %r2;
    """
    assert list(run(machine, body, 32)) == [0xFFFF] * 16 + [0xFFFF0000] * 16


def test_lanes_leave_a_loop_one_by_one(machine: Machine) -> None:
    """Each lane goes round as often as its number; the vote counts who is still there."""
    body = """
    mov.u32 %r2, 0;
    mov.u32 %r3, 0;
LOOP:
    activemask.b32 %r4;
    vote.sync.ballot.b32 %r5, 1, %r4;
    popc.b32 %r5, %r5;
    add.u32 %r3, %r3, %r5;
    add.u32 %r2, %r2, 1;
    setp.le.u32 %p1, %r2, %r1;
    @%p1 bra LOOP;
    st.global.u32 [%rd3], %r3;
    """
    expected = [sum(32 - k for k in range(lane + 1)) for lane in range(32)]
    assert list(run(machine, body, 32)) == expected


@pytest.mark.parametrize("threads", [1, 20, 45])
def test_lanes_that_do_not_exist_are_not_waited_for(machine: Machine, threads: int) -> None:
    body = """
    redux.sync.add.u32 %r2, 1, -1;
    st.global.u32 [%rd3], %r2;
    """
    expected = [min(threads - 32 * (lane // 32), 32) for lane in range(threads)]
    assert list(run(machine, body, threads)) == expected


def test_a_mask_that_names_lanes_which_never_come_does_not_hang(machine: Machine) -> None:
    """Lane 0 waits for all, the others wait for lane 0 at a barrier: wrong code, and it must end."""
    body = """
    setp.ne.u32 %p1, %r1, 0;
    @%p1 bra REST;
    shfl.sync.idx.b32 %r2, %r1, 0, 31, -1;
REST:
    bar.sync 0;
    st.global.u32 [%rd3], 3;
    """
    assert (run(machine, body, 32) == 3).all()


def test_a_guarded_shuffle_leaves_the_register_of_the_others(machine: Machine) -> None:
    body = """
    mov.u32 %r4, 77;
    setp.lt.u32 %p1, %r1, 4;
    @%p1 shfl.sync.down.b32 %r4|%p2, %r1, 1, 31, 0xF;
    st.global.u32 [%rd3], %r4;
    """
    assert list(run(machine, body, 8)) == [1, 2, 3, 3, 77, 77, 77, 77]


@pytest.mark.parametrize("threads", [(8, 4, 2), (5, 3, 4)])
def test_warps_of_blocks_with_more_axes_count_x_first(machine: Machine, threads: tuple[int, ...]) -> None:
    x, y, z = threads
    body = f"""
    mov.u32 %r2, %tid.y;
    mov.u32 %r3, %tid.z;
    mad.lo.u32 %r4, %r3, {y}, %r2;
    mad.lo.u32 %r4, %r4, {x}, %r1;
    mul.wide.u32 %rd2, %r4, 4;
    add.u64 %rd3, %rd1, %rd2;
    shfl.sync.idx.b32 %r5, %r4, 0, 31, -1;
    bar.sync 0;
    st.global.u32 [%rd3], %r5;
    """
    numbers = np.arange(x * y * z)
    assert (run(machine, body, threads) == numbers // 32 * 32).all()


def test_many_blocks_start_afresh(machine: Machine) -> None:
    body = """
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mad.lo.u32 %r4, %r2, %r3, %r1;
    mul.wide.u32 %rd2, %r4, 4;
    add.u64 %rd3, %rd1, %rd2;
    setp.eq.u32 %p1, %r1, 0;
    @%p1 st.shared.u32 [word], %r2;
    bar.sync 0;
    ld.shared.u32 %r5, [word];
    st.global.u32 [%rd3], %r5;
    """
    found = run(machine, body, 48, grid=50, before=".shared .align 4 .b8 word[4];")
    assert (found == np.repeat(np.arange(50), 48)).all()


# --- cp.async ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [4, 8, 16])
@pytest.mark.parametrize("read", [None, 0, 1, 3, 4, 7, 8, 15, 16, 20])
def test_an_asynchronous_copy_is_there_after_the_wait_and_zero_where_nothing_was_read(
    machine: Machine, size: int, read: int | None
) -> None:
    some = "" if read is None else ", %r5"
    text = kernel_text(
        f"""
    ld.param.u64 %rd1, [out];
    ld.param.u64 %rd2, [data];
    mov.u32 %r2, buffer;
    mov.u32 %r5, {read or 0};
    cp.async.ca.shared.global [%r2+16], [%rd2+32], {size}{some};
    cp.async.commit_group;
    cp.async.wait_group 0;
    ld.shared.v2.u64 {{%rd3, %rd4}}, [%r2+16];
    st.global.v2.u64 [%rd1], {{%rd3, %rd4}};
    ret;""",
        "u64 out, u64 data",
        before=".shared .align 16 .b8 buffer[48];",
    )
    data = np.arange(100, 164, dtype=np.uint8)
    out = np.zeros(16, np.uint8)
    machine.run(compiled(text), 1, 1, out, data)
    count = size if read is None else min(size, read)
    assert list(out[:size]) == list(data[32 : 32 + count]) + [0] * (size - count)


def test_an_asynchronous_copy_reads_nothing_past_what_it_was_told(machine: Machine) -> None:
    text = kernel_text(
        """
    mov.u32 %r2, buffer;
    mov.u64 %rd2, 0x7FFFFFF0;
    cp.async.cg.shared.global [%r2], [%rd2], 16, %r5;
    cp.async.wait_all;
    ret;""",
        before=".shared .align 16 .b8 buffer[16];",
    )
    machine.run(compiled(text.replace("%r5;", "0;")), 1, 1, np.zeros(1, np.uint32))
    with pytest.raises(LaunchFault):
        machine.run(compiled(text.replace("%r5;", "1;")), 1, 1, np.zeros(1, np.uint32))
