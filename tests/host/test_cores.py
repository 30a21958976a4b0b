"""Guests whose launches are large get helpers: results, endings, and what the helpers cost those who have none."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from device.ptx_texts import ENDLESS, INCREMENT, line_of
from device.test_cores import BROKEN, SHARING, kernel_text
from host.rig import HostRig
from tensor_wasm.abi import Tag, pack
from tensor_wasm.dispatch import GateFactory, Ledger
from tensor_wasm.dispatch.crew_module import BELL
from tensor_wasm.errors import DeadlineExceeded, EndingError, KernelFault, Terminated
from tensor_wasm.host import guest as guest_module
from tensor_wasm.runtime import CallFailed, Engine
from tensor_wasm.runtime import engine as engine_module

BLOCKS, BLOCK = 128, 128
COUNT = BLOCKS * BLOCK
ARGV_AT, ARRAY_AT, TOTALS_AT = 1024, 1 << 17, 1 << 16
PERMITS = 4

#: Adds its number to its word, after a while.
SLOW = kernel_text(
    "slow",
    """
    ld.global.u32 %r6, [%rd2];
    mov.u32 %r7, 0;
again:
    mad.lo.u32 %r8, %r6, 3, %r7;
    xor.b32 %r6, %r8, %r7;
    add.u32 %r7, %r7, 1;
    setp.lt.u32 %p1, %r7, 400;
    @%p1 bra again;
    and.b32 %r6, %r6, 0;
    ld.global.u32 %r9, [%rd2];
    add.u32 %r9, %r9, %r5;
    add.u32 %r9, %r9, %r6;
    st.global.u32 [%rd2], %r9;
""",
)


@pytest.fixture(params=[1, 2], ids="{}_helpers".format)
def gates(request: pytest.FixtureRequest, engine: Engine) -> Iterator[GateFactory]:
    factory = GateFactory(engine, Ledger(engine, PERMITS), request.param)
    yield factory
    factory.close()


@pytest.fixture
def make(engine: Engine, tmp_path: Path, gates: GateFactory) -> Iterator[Callable[..., HostRig]]:
    """Makes guests on the same helpers, and ends them."""
    made: list[HostRig] = []

    def new(**options: object) -> HostRig:
        made.append(HostRig(engine, tmp_path, pages=8, gates=gates, **options))  # type: ignore[arg-type]
        return made[-1]

    yield new
    for rig in made:
        rig.close()
    assert gates.ledger.read().used == 0


def load(rig: HostRig, ptx: str, entry: str) -> int:
    number = rig.load(ptx.encode(), entry.encode())
    assert number >= 0, rig.last_error()
    return number


def launch(rig: HostRig, kernel: int, *args: tuple[int, ...], grid: int = BLOCKS) -> int:
    argv = pack(list(args))
    rig.write(ARGV_AT, argv)
    return rig.call("wasi_cuda_launch", kernel, grid, 1, 1, BLOCK, 1, 1, 0, ARGV_AT, len(argv))


def pointer(at: int, size: int = 4 * COUNT) -> tuple[int, ...]:
    return (Tag.POINTER, at, size)


def words(rig: HostRig, at: int = ARRAY_AT, count: int = COUNT) -> np.ndarray:
    return np.frombuffer(rig.read(at, 4 * count), np.uint32)


def ending(rig: HostRig, kernel: int, *args: tuple[int, ...]) -> EndingError:
    """How a launch ends that does not return."""
    try:
        code = launch(rig, kernel, *args)
    except EndingError as error:
        return error
    except CallFailed as failed:
        error = rig.guest.ending(failed.failure)
        assert error is not None
        return error
    pytest.fail(f"the launch returned {code}")


def test_large_launches_have_helpers_and_the_same_results(make, gates):
    rig = make()
    slow = load(rig, SLOW, "slow")
    for times in range(1, 8):
        assert launch(rig, slow, pointer(ARRAY_AT)) == 0
        assert (words(rig) == times * np.arange(COUNT, dtype=np.uint32)).all()
    assert rig.guest.crew is not None
    assert rig.guest.crew.cores == 1 + len(rig.guest.crew._helpers) >= 2
    assert rig.guest.crew._word(BELL).value == 7
    # Each core has found the grid at its end.
    assert rig.guest.crew._counter.value > BLOCKS
    assert rig.slot.dispatches == 7


def test_variables_are_shared_between_cores_and_launches(make):
    rig = make()
    sharing = load(rig, SHARING, "sharing")
    for times in (1, 2, 3):
        assert launch(rig, sharing, pointer(ARRAY_AT), pointer(TOTALS_AT, 8)) == 0
        assert words(rig, TOTALS_AT, 1)[0] == 1000 + times * COUNT
    assert (words(rig) == 77).all()


def test_a_small_launch_asks_for_no_helpers(make):
    rig = make()
    increment = load(rig, INCREMENT, "increment")
    for _ in range(20):
        assert launch(rig, increment, pointer(ARRAY_AT), pointer(ARRAY_AT), grid=4) == 0
    assert rig.guest.crew is None


def test_several_kernels_and_memory_that_grows_in_between(make):
    rig = make()
    numbers = np.arange(COUNT, dtype=np.uint32)
    kernels = [load(rig, SLOW + f"// {number}\n", "slow") for number in range(3)]
    at = ARRAY_AT
    for round_ in range(3):
        for kernel in kernels:
            assert launch(rig, kernel, pointer(at)) == 0
        assert (words(rig, at) == 3 * numbers).all()
        rig.store.grow_memory(rig.instance.memory(), (8 + 4 * (round_ + 1)) << 16)
        at = (8 + 4 * round_) << 16  # in what is new
    kernels.append(load(rig, SLOW + "// late\n", "slow"))
    for kernel in kernels:
        assert launch(rig, kernel, pointer(at)) == 0
    assert (words(rig, at) == 4 * numbers).all()


@pytest.mark.parametrize("bad", [2, 60, BLOCKS - 1])
def test_a_fault_on_any_core_ends_the_guest_and_is_named(make, bad):
    rig = make(left_s=20.0)
    broken = load(rig, BROKEN, "broken")
    started = time.monotonic()
    error = ending(rig, broken, pointer(ARRAY_AT), (Tag.U32, 0), (Tag.U32, bad))
    assert time.monotonic() - started < 5
    assert isinstance(error, KernelFault)
    line = line_of(BROKEN, "@%p2 trap")
    assert f"kernel broken faulted: trap instruction; block ({bad},0,0), thread (5,0,0), PTX line {line}" in str(error)


def test_a_failure_on_another_core_is_seen_by_a_guest_that_looks_seldom(make, monkeypatch):
    """The engine is told of it: else the guest would look again after a minute."""
    for module in (guest_module, engine_module):
        monkeypatch.setattr(module, "CHECK_TICKS_MAX", 6_000)
    rig = make()
    rig.store.interrupt = rig.guest.check
    slow, broken = load(rig, SLOW, "slow"), load(rig, BROKEN, "broken")
    time.sleep(0.1)
    assert launch(rig, slow, pointer(ARRAY_AT)) == 0  # it looks now, and then no more by itself
    assert rig.store.check_ticks == 6_000
    rescue = threading.Timer(20, rig.slot.ask_to_terminate)
    rescue.start()
    started = time.monotonic()
    assert isinstance(ending(rig, broken, pointer(ARRAY_AT), (Tag.U32, 0), (Tag.U32, 100)), KernelFault)
    assert time.monotonic() - started < 15
    rescue.cancel()


def test_an_order_to_end_reaches_all_cores(make):
    rig = make()
    endless = load(rig, ENDLESS, "endless")
    timer = threading.Timer(0.2, rig.slot.ask_to_terminate)
    timer.start()
    started = time.monotonic()
    assert isinstance(ending(rig, endless, pointer(ARRAY_AT)), Terminated)
    assert 0.1 < time.monotonic() - started < 5
    timer.join()


def test_a_deadline_reaches_all_cores(make):
    rig = make(left_s=0.5)
    endless = load(rig, ENDLESS, "endless")
    assert isinstance(ending(rig, endless, pointer(ARRAY_AT)), DeadlineExceeded)


def test_helpers_go_to_who_comes_first_and_come_back(make):
    first, second = make(), make()
    for rig in (first, second):
        assert launch(rig, load(rig, SLOW, "slow"), pointer(ARRAY_AT)) == 0
        assert (words(rig) == np.arange(COUNT)).all()
    assert first.guest.crew is not None
    assert second.guest.crew is None
    first.guest.close()
    for _ in range(300):  # after a refusal it does not ask each time
        assert launch(second, 0, pointer(ARRAY_AT)) == 0
        if second.guest.crew is not None:
            break
    assert second.guest.crew is not None


def test_helpers_that_do_not_fit_the_memory_limit_are_done_without(make):
    ptx = kernel_text(
        "wide",
        """
    ld.shared.u32 %r6, [near];
    bar.sync 0;
    red.global.add.u32 [%rd2], 1;
    st.global.u32 [big], %r6;
""",
        before=".shared .align 4 .b8 near[4];\n.global .align 4 .b8 big[1000000];\n",
    )
    rig = make(memory_bytes=(8 << 16) + (3 << 19))
    wide = load(rig, ptx, "wide")
    for times in (1, 2, 3):
        assert launch(rig, wide, pointer(ARRAY_AT)) == 0
        assert (words(rig) == times).all()


def test_what_a_thread_costs_is_known_to_the_next_guest(make):
    rig = make()
    slow = load(rig, SLOW, "slow")
    assert launch(rig, slow, pointer(ARRAY_AT)) == 0
    kernel = rig.guest.kernels[slow]
    measured = rig.guest.gate.thread_ns(slow)
    rig.guest.close()
    assert kernel.loaded.entry.cost.thread_ns == measured
    assert 0.1 < measured < 1e6
