"""Launches on several cores: what they share and what not, and that all of them end when one does."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

import tensor_wasm as tw
from device.endings import assert_closing_ends, interrupt_after
from device.ptx_texts import ENDLESS, HEAD, INCREMENT, line_of
from tensor_wasm.dispatch import crew

BLOCKS = 64

_FIRST = """
    mov.u32 %r1, %ctaid.x;
    mov.u32 %r2, %tid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %nctaid.x;
    mad.lo.u32 %r5, %r1, %r3, %r2;
    ld.param.u64 %rd1, [target];
    mul.wide.u32 %rd2, %r5, 4;
    add.u64 %rd2, %rd1, %rd2;
"""


def kernel_text(name: str, body: str, *, parameters: str = ".param .u64 target", before: str = "") -> str:
    """%r1 is the block, %r2 the thread in it, %r3 %r4 their counts, %r5 the thread's number, %rd2 its word."""
    return f"""{HEAD}{before}
.visible .entry {name}({parameters})
{{
    .reg .b32 %r<32>;
    .reg .b64 %rd<16>;
    .reg .f32 %f<8>;
    .reg .pred %p<8>;
{_FIRST}{body}
    ret;
}}
"""


#: Block `%stuck` never ends, thread 5 of block `%bad` traps, all others write their word.
BROKEN = kernel_text(
    "broken",
    """
    ld.param.u32 %r6, [stuck];
    ld.param.u32 %r7, [bad];
    setp.ne.u32 %p1, %r1, %r6;
    @%p1 bra on;
again:
    ld.volatile.global.u32 %r8, [%rd2];
    bra again;
on:
    setp.eq.u32 %p2, %r1, %r7;
    setp.eq.and.u32 %p2, %r2, 5, %p2;
    @%p2 trap;
    st.global.u32 [%rd2], %r5;
""",
    parameters=".param .u64 target, .param .u32 stuck, .param .u32 bad",
)

#: Two blocks wait for each other, so they run on two cores. Then one of them traps.
MEETING = kernel_text(
    "meeting",
    """
    ld.param.u32 %r7, [bad];
    atom.global.add.u32 %r6, [%rd1], 1;
wait:
    ld.volatile.global.u32 %r8, [%rd1];
    setp.lt.u32 %p1, %r8, 2;
    @%p1 bra wait;
    setp.eq.u32 %p2, %r1, %r7;
    @%p2 trap;
""",
    parameters=".param .u64 target, .param .u32 bad",
)

#: Each block waits for the one before it: word b is one more than word b - 1.
CHAIN = kernel_text(
    "chain",
    """
    mul.wide.u32 %rd3, %r1, 4;
    add.u64 %rd3, %rd1, %rd3;
    setp.ne.u32 %p1, %r2, 0;
    @%p1 bra done;
    mov.u32 %r7, 0;
    setp.eq.u32 %p2, %r1, 0;
    @%p2 bra put;
wait:
    ld.volatile.global.u32 %r7, [%rd3+-4];
    setp.eq.u32 %p3, %r7, 0;
    @%p3 bra wait;
    membar.gl;
put:
    add.u32 %r7, %r7, 1;
    st.volatile.global.u32 [%rd3], %r7;
done:
""",
)

#: Variables of the kernel's own: one that all threads add to, one that is only read.
SHARING = kernel_text(
    "sharing",
    """
    atom.global.add.u32 %r6, [total], 1;
    red.global.add.f32 [sum], 0f3F800000;
    ld.global.u32 %r7, [step+4];
    st.global.u32 [%rd2], %r7;
    mul.lo.u32 %r9, %r3, %r4;
    atom.global.inc.u32 %r8, [arrived], 0xFFFFFFFF;
    add.u32 %r8, %r8, 1;
    rem.u32 %r10, %r8, %r9;
    setp.ne.u32 %p1, %r10, 0;
    @%p1 bra done;
    ld.volatile.global.u32 %r11, [total];
    ld.volatile.global.f32 %f1, [sum];
    ld.param.u64 %rd4, [totals];
    st.global.u32 [%rd4], %r11;
    st.global.f32 [%rd4+4], %f1;
done:
""",
    parameters=".param .u64 target, .param .u64 totals",
    before=".global .u32 total = 1000;\n.global .f32 sum;\n.global .u32 arrived;\n.global .u32 step[2] = {5, 77};\n",
)

#: Every thread keeps its number in dynamic shared and in local memory, and finds both again after a barrier.
OWN = kernel_text(
    "own",
    """
    shl.b32 %r6, %r2, 2;
    mov.u32 %r7, near;
    add.u32 %r7, %r7, %r6;
    st.shared.u32 [%r7], %r5;
    cvta.local.u64 %rd3, far;
    isspacep.local %p1, %rd3;
    selp.u32 %r8, 1, 0, %p1;
    add.u32 %r9, %r5, 7;
    st.u32 [%rd3+4], %r9;
    bar.sync 0;
    xor.b32 %r10, %r2, 1;
    shl.b32 %r10, %r10, 2;
    mov.u32 %r11, near;
    add.u32 %r10, %r11, %r10;
    ld.shared.u32 %r12, [%r10];
    ld.local.u32 %r13, [far+4];
    add.u32 %r14, %r12, %r13;
    mul.lo.u32 %r14, %r14, %r8;
    st.global.u32 [%rd2], %r14;
""",
    before=".extern .shared .align 4 .b8 near[];\n",
).replace("    .reg .b32", "    .local .align 4 .b8 far[8];\n    .reg .b32")


@pytest.fixture(params=[2, 3], ids="on_{}".format)
def dev(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tw.OpenDevice]:
    """A device that uses its cores for every grid of more than a block."""
    monkeypatch.setattr(crew, "WORTH_NS", 0)
    with tw.open_device("cpu", threads=request.param) as opened:
        yield opened


def words(count: int) -> np.ndarray:
    return np.zeros(count, np.uint32)


# --- results -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [2, 3, 65, 1000, (3, 5, 7), (1, 1, 40), (50_000, 1, 1)])
def test_every_block_runs_once(dev, grid):
    count = int(np.prod(grid)) * 3
    ptx = kernel_text(
        "place",
        """
    mov.u32 %r6, %ctaid.y;
    mov.u32 %r7, %ctaid.z;
    mov.u32 %r8, %nctaid.y;
    mad.lo.u32 %r9, %r7, %r8, %r6;
    mad.lo.u32 %r10, %r9, %r4, %r1;
    mad.lo.u32 %r11, %r10, %r3, %r2;
    mul.wide.u32 %rd3, %r11, 4;
    add.u64 %rd3, %rd1, %rd3;
    red.global.add.u32 [%rd3], 1;
""",
    )
    kernel, target = dev.load_ptx(ptx), words(count)
    for times in (1, 2, 3):
        kernel.launch(grid, 3, [target])
        assert (target == times).all()


def test_variables_are_shared_and_kept(dev):
    kernel, target, totals = dev.load_ptx(SHARING), words(1000 * 96), words(2)
    for times in range(1, 6):
        kernel.launch(1000, 96, [target, totals])
        assert totals[0] == 1000 + times * target.size
        assert totals.view(np.float32)[1] == times * target.size
        assert (target == 77).all()


def test_local_and_shared_memory_are_each_block_s_own(dev):
    kernel, target = dev.load_ptx(OWN), words(200 * 64)
    thread = np.arange(target.size)
    for _ in range(5):
        target[:] = 0
        kernel.launch(200, 64, [target], shared_mem=256)
        assert (target == (thread ^ 1) + thread + 7).all()


def test_a_block_may_wait_for_earlier_ones(dev):
    kernel = dev.load_ptx(CHAIN)
    for blocks in (2, 300, 5000):
        target = words(blocks * 2)
        kernel.launch(blocks, 2, [target], timeout=60)
        assert (target[:blocks] == np.arange(1, blocks + 1)).all()


def test_more_kernels_than_a_crew_knows(dev, monkeypatch):
    monkeypatch.setattr("tensor_wasm.device.machine.crew_module.CREW_KERNELS", 3)
    kernels = [dev.load_ptx(INCREMENT) for _ in range(5)]
    target = words(BLOCKS)
    for kernel in kernels * 3:
        kernel.launch(BLOCKS, 1, [target, target])
    assert (target == 15).all()


# --- endings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [1, 2, 31, BLOCKS - 1])
def test_a_fault_ends_a_block_that_would_not_on_another_core(dev, bad):
    """Whoever takes block 0 never comes back from it; the fault is another's, and is reported as what it was."""
    kernel, target = dev.load_ptx(BROKEN), words(BLOCKS * 8)
    for _ in range(3):
        started = time.monotonic()
        with pytest.raises(tw.errors.KernelFault) as caught:
            kernel.launch(BLOCKS, 8, [target, 0, bad], timeout=30)
        assert time.monotonic() - started < 10
        text = str(caught.value)
        assert "kernel broken faulted: trap instruction" in text
        assert f"block ({bad}, 0, 0), thread (5, 0, 0), PTX line {line_of(BROKEN, '@%p2 trap')}" in text
        assert not target.any()
    kernel.launch(BLOCKS, 8, [target, 9999, 9999])
    assert (target == np.arange(target.size)).all()


def test_a_fault_is_the_launch_s_whichever_core_it_was_on(dev):
    meeting = dev.load_ptx(MEETING)
    meeting.launch(2, 1, [words(1), 2], timeout=20)
    for bad in (0, 1) * 5:
        with pytest.raises(tw.errors.KernelFault, match="trap instruction") as caught:
            meeting.launch(2, 1, [words(1), bad], timeout=20)
        assert f"block ({bad}, 0, 0)" in str(caught.value)


def test_an_access_out_of_bounds_is_found_on_every_core(dev):
    increment = dev.load_ptx(INCREMENT)
    target = words(1024)
    for _ in range(10):
        with pytest.raises(tw.errors.KernelFault, match=r"argument \d \((source|target)\), an array of 4,096 bytes"):
            increment.launch(17, 64, [target, target])
        assert not target.any()
    increment.launch(16, 64, [target, target])
    assert (target == 1).all()


def test_a_timeout_ends_all_cores(dev):
    endless, target = dev.load_ptx(ENDLESS), words(4)
    for _ in range(2):
        started = time.monotonic()
        with pytest.raises(tw.errors.DeadlineExceeded):
            endless.launch(BLOCKS, 32, [target], timeout=0.2)
        assert 0.15 < time.monotonic() - started < 5
        assert not target.any()
    _assert_works(dev)


def test_ctrl_c_ends_all_cores(dev):
    endless, target = dev.load_ptx(ENDLESS), words(4)
    for delay in (0.02, 0.3):
        started = time.monotonic()
        timer = interrupt_after(delay)
        with pytest.raises(KeyboardInterrupt):
            endless.launch(BLOCKS, 32, [target], timeout=20)
        assert time.monotonic() - started < delay + 5
        timer.join()
    _assert_works(dev)


def test_closing_the_device_ends_all_cores(dev):
    endless = dev.load_ptx(ENDLESS)
    assert_closing_ends(dev, lambda: endless.launch(BLOCKS, 1, [words(4)]))
    assert not helper_threads(dev)


def _assert_works(dev: tw.OpenDevice) -> None:
    target = words(1024)
    dev.load_ptx(INCREMENT).launch(16, 64, [target, target], timeout=60)
    assert (target == 1).all()


# --- when and with what --------------------------------------------------------------------------------------


def helper_threads(dev: tw.OpenDevice) -> list[threading.Thread]:
    team = dev._session.machine._team
    return [] if team is None else [t._thread for t in team._threads if t._thread.is_alive()]


def test_small_launches_stay_on_one_core():
    with tw.open_device("cpu", threads=2) as dev:
        increment, target = dev.load_ptx(INCREMENT), words(64)
        for _ in range(10):
            increment.launch(2, 32, [target, target])
        assert not helper_threads(dev)


def test_a_large_launch_uses_as_many_threads_as_were_asked_for():
    with tw.open_device("cpu", threads=3) as dev:
        target = words(1 << 20)
        dev.load_ptx(INCREMENT).launch(1 << 12, 256, [target, target])
        assert (target == 1).all()
        assert len(helper_threads(dev)) == 2
    assert not helper_threads(dev)


def test_one_thread_never_has_helpers(monkeypatch):
    monkeypatch.setattr(crew, "WORTH_NS", 0)
    with tw.open_device("cpu", threads=1) as dev:
        _assert_works(dev)
        assert not helper_threads(dev)


def test_what_a_launch_must_cost_to_use_helpers():
    assert not crew.is_worth(1, 1024, 1e9), "one block is one core's"
    assert crew.is_worth(2, 2, crew.WORTH_NS / 2)
    assert not crew.is_worth(2, 2, crew.WORTH_NS / 4)
    assert not crew.is_worth(4, 1024, crew.UNKNOWN_NS)
    assert crew.is_worth(1 << 10, 1 << 18, 1.0)


def test_the_setting_is_the_default(monkeypatch):
    monkeypatch.setenv("TENSOR_WASM_KERNEL_THREADS", "5")
    with tw.open_device("cpu") as dev:
        assert dev._session.machine.threads == 5
    monkeypatch.setenv("TENSOR_WASM_KERNEL_THREADS", "none")
    with pytest.raises(tw.errors.ConfigurationError, match="TENSOR_WASM_KERNEL_THREADS"):
        tw.open_device("cpu")


@pytest.mark.parametrize("threads", [0, -1, 257, 1.5, "2", True])
def test_a_count_of_threads_that_is_none_is_refused(threads):
    with pytest.raises(tw.errors.ConfigurationError, match="threads must be 1 to 256"):
        tw.open_device("cpu", threads=threads)


def test_devices_with_helpers_come_and_go(monkeypatch):
    monkeypatch.setattr(crew, "WORTH_NS", 0)
    before = threading.active_count()
    for round_ in range(6):
        dev = tw.open_device("cpu", threads=3)
        _assert_works(dev)
        if round_ % 2:
            dev.close()
        del dev
        gc.collect()
    end = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.02)
    assert threading.active_count() <= before
