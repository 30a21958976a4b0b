"""What only a GPU of the Python API has: threads side by side, workers that end, partitions, checks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import tensor_wasm as tw
from device.cuda.opening import open_emulated
from device.endings import assert_closing_ends, interrupt_after
from device.memory_use import used_bytes
from device.ptx_texts import ALIASES, COUNTER, ENDLESS, INCREMENT, PEEK, line_of
from tensor_wasm.device.cuda.board import Direction
from tensor_wasm.device.cuda.driver import GpuFacts
from tensor_wasm.device.cuda.transfer import GpuTransfer
from tensor_wasm.device.selection import Choice

TESTS = Path(__file__).parents[2]


@pytest.fixture
def gpu_dev() -> Iterator[tw.OpenDevice]:
    with open_emulated() as opened:
        yield opened


@pytest.fixture(scope="module")
def shared_dev() -> Iterator[tw.OpenDevice]:
    """For tests after which the worker is as it was."""
    with open_emulated() as opened:
        yield opened


def words(count: int) -> np.ndarray:
    return np.zeros(count, np.uint32)


def until(condition: Callable[[], object], limit_s: float = 60.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def assert_works(dev: tw.OpenDevice) -> None:
    target = words(100)
    dev.load_ptx(INCREMENT).launch(1, 100, [target, target], timeout=60)
    assert (target == 1).all()


class Launching:
    """A launch on a thread of its own; ``error`` is what it raised."""

    def __init__(self, launch: Callable[[], None]) -> None:
        self.error: BaseException | None = None
        self._launch = launch
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._launch()
        except BaseException as error:
            self.error = error


def in_flight(dev: tw.OpenDevice) -> bool:
    """Whether a lane is busy."""
    return bool(dev._session.gpu._lanes.busy())


# --- opening --------------------------------------------------------------------------------------------------


def test_a_gpu_says_what_it_is(shared_dev):
    info = shared_dev.info
    assert info.name == "Emulated GPU 0"
    assert (info.kind, info.sm, info.warp_size) == ("cuda", "sm_80", 32)
    assert info.memory_bytes == (128 << 20) - (128 << 10)
    assert info.max_shared_bytes == 227 << 10
    assert "OpenDevice cuda: Emulated GPU 0" in repr(shared_dev)


def test_less_memory_is_taken_where_less_is_free():
    with open_emulated("fail:create_memory:2") as dev:
        assert dev.info.memory_bytes == (64 << 20) - (128 << 10)
        assert_works(dev)


def test_a_gpu_that_cannot_be_used_is_an_error_with_the_reason():
    with pytest.raises(tw.errors.DeviceUnavailable, match="DEVICE_UNAVAILABLE"):
        open_emulated("fail:create_context:46")


def test_auto_prefers_a_gpu_and_takes_the_cpu_when_that_does_not_start(monkeypatch):
    facts = GpuFacts(3, "some", "GPU-1", "sm_90", 1 << 34, 100, 1 << 17)
    asked = []

    def fail(index: int, **options: object) -> None:
        asked.append((index, options["is_checked"]))
        raise tw.errors.DeviceUnavailable("it is broken")

    monkeypatch.setattr("tensor_wasm.device.session.choose", lambda name: Choice(facts, "there is one"))
    monkeypatch.setattr("tensor_wasm.device.session._open_gpu", fail)
    with tw.open_device("auto") as dev:
        assert dev.info.kind == "cpu"
    with pytest.raises(tw.errors.DeviceUnavailable, match="broken"):
        tw.open_device("cuda:3", checked=True)
    assert asked == [(3, False), (3, True)]


# --- arrays ---------------------------------------------------------------------------------------------------


def test_large_arrays_go_in_pieces_and_overlap_as_they_do_here(shared_dev):
    base = np.arange(5_000_000, dtype=np.uint32)  # more than goes with a launch
    expected = base.copy()
    expected[1] = 5
    expected[2] = expected[1]
    shared_dev.load_ptx(ALIASES).launch(1, 1, [base[1:], base[:-1]])
    assert (base == expected).all()
    source = base.copy()
    source.flags.writeable = False
    target = np.zeros_like(base)
    shared_dev.load_ptx(INCREMENT).launch(5000, 1000, [source, target])
    assert (target == base + 1).all()
    assert (source == base).all()
    assert used_bytes(shared_dev) < 4096


@pytest.mark.parametrize("count", [1000, 3_000_000])
def test_only_what_a_kernel_may_write_is_copied_back(shared_dev, monkeypatch, count):
    seen = []

    class Recorded(GpuTransfer):
        def copy_back(self) -> None:
            seen.append([size for group in self._groups for _, size in group.writable])
            seen.append([window.size_bytes for window in self.windows if window.direction is Direction.OUT])
            super().copy_back()

    monkeypatch.setattr("tensor_wasm.device.cuda.session.GpuTransfer", Recorded)
    source, target = words(count), words(count)
    shared_dev.load_ptx(INCREMENT).launch(count // 1000, 1000, [source, target])
    assert target.all()
    assert seen.pop(0) == [4 * count]
    assert seen.pop(0) == ([4096] if count == 1000 else [])


def test_what_an_array_shares_with_one_that_is_written_is_copied_back(shared_dev):
    base = words(3000)
    seen = base[:2000]  # through whose pointer nothing is written
    kept = base[500:2500]
    kept.flags.writeable = False
    shared_dev.load_ptx(INCREMENT).launch(2, 500, [seen, base[1500:2500]])
    expected = words(3000)
    expected[1500:2500] = 1
    assert (base == expected).all()
    shared_dev.load_ptx(INCREMENT).launch(2, 500, [base[:1000], kept])  # of which part may be written after all
    expected[500:1000] = 1
    assert (base[:1000] == expected[:1000]).all()
    assert (base[1000:1500] == 0).all()


def test_without_room_in_the_staging_area_arrays_go_by_themselves(shared_dev, monkeypatch):
    monkeypatch.setattr(shared_dev._session.gpu, "take_staging", lambda size_bytes: None)
    target = words(1000)
    shared_dev.load_ptx(INCREMENT).launch(1, 1000, [target, target])
    assert (target == 1).all()


def test_an_array_closed_during_a_launch_stays_for_it():
    with open_emulated("slow:0.5:increment") as dev:
        increment, kept, target = dev.load_ptx(INCREMENT), dev.array(np.full(64, 6, np.uint32)), words(64)
        launching = Launching(lambda: increment.launch(1, 64, [kept, target]))
        until(lambda: in_flight(dev))
        before = used_bytes(dev)
        kept.close()
        assert used_bytes(dev) == before
        launching.thread.join(60)
        assert launching.error is None
        assert (target == 7).all()
        assert used_bytes(dev) == before - 2 * 256


# --- launches -------------------------------------------------------------------------------------------------


def test_launches_of_threads_run_side_by_side(gpu_dev):
    endless, target = gpu_dev.load_ptx(ENDLESS), words(4)
    other, counted = gpu_dev.load_ptx(INCREMENT), words(100)  # now, for a load waits for kernels that run
    launching = Launching(lambda: endless.launch(1, 1, [target], timeout=600))
    until(lambda: in_flight(gpu_dev))
    other.launch(1, 100, [counted, counted], timeout=60)
    assert (counted == 1).all()
    assert launching.thread.is_alive()
    gpu_dev.close()
    launching.thread.join(60)
    assert isinstance(launching.error, tw.errors.Terminated)


def test_a_kernel_that_leaves_faults_is_waited_for_and_a_timeout_costs_nobody_the_gpu():
    with open_emulated("slow:1.5:counter") as dev:
        counter, first, second = dev.load_ptx(COUNTER), words(1), words(1)
        launching = Launching(lambda: counter.launch(1, 1, [first, 0]))
        until(lambda: in_flight(dev))
        with pytest.raises(tw.errors.DeadlineExceeded):
            counter.launch(1, 1, [second, 0], timeout=0.1)
        assert launching.thread.is_alive()
        launching.thread.join(60)
        assert launching.error is None
        assert (first[0], second[0]) == (101, 0)
        counter.launch(1, 1, [second, 0])
        assert second[0] == 102


def test_one_thread_needs_one_lane(shared_dev, monkeypatch):
    opened = []
    open_lane = shared_dev._session.gpu.open_lane
    monkeypatch.setattr(
        shared_dev._session.gpu, "open_lane", lambda *given, **options: opened.append(1) or open_lane(*given, **options)
    )
    shared_dev._session._lanes.clear()
    for _ in range(5):
        assert_works(shared_dev)
    with pytest.raises(tw.errors.KernelFault):
        shared_dev.load_ptx(COUNTER).launch(1, 1, [words(1), 1])
    assert_works(shared_dev)
    assert opened == [1]


def test_a_block_too_large_for_the_kernel_s_registers_is_refused():
    with open_emulated("threads:increment:64", "fail:load_module:218:1") as dev:  # nor with fewer registers
        increment, target = dev.load_ptx(INCREMENT), words(65)
        with pytest.raises(tw.errors.KernelArgumentError, match="at most 64 threads"):
            increment.launch(1, 65, [target, target])
        assert not target.any()
        increment.launch(1, 64, [target, target])
        assert target.sum() == 64


def test_an_access_outside_changes_nothing_and_is_found_when_it_is_checked(shared_dev):
    got, outside = words(1), shared_dev._session._tenant.partition.base - (1 << 20)
    shared_dev.load_ptx(PEEK).launch(1, 1, [outside, 0, got])  # it went somewhere inside
    with open_emulated(checked=True) as checked:
        peek, kept = checked.load_ptx(PEEK), checked.array(np.arange(4, dtype=np.uint32))
        peek.launch(1, 1, [kept, 8, got])
        assert got[0] == 2
        for address in (0, 12, outside, -4):
            got[0] = 9
            with pytest.raises(tw.errors.KernelFault) as caught:
                peek.launch(1, 1, [address, 0, got])
            line = line_of(PEEK, "ld.global.u32")
            assert str(caught.value) == f"kernel peek faulted: address outside device memory; PTX line {line}"
            assert got[0] == 9
        empty = np.zeros(0, np.uint32)
        with pytest.raises(tw.errors.KernelFault):
            peek.launch(1, 1, [empty, 0, got])


def test_a_trap_names_kernel_and_line(shared_dev):
    with pytest.raises(tw.errors.KernelFault) as caught:
        shared_dev.load_ptx(COUNTER).launch(1, 1, [words(1), 1])
    assert str(caught.value) == f"kernel counter faulted: trap instruction; PTX line {line_of(COUNTER, '@%p1 trap')}"


# --- workers that end -----------------------------------------------------------------------------------------


def test_what_a_restart_takes_and_what_comes_again(gpu_dev):
    counter, endless, target = gpu_dev.load_ptx(COUNTER), gpu_dev.load_ptx(ENDLESS), words(1)
    kept = gpu_dev.array(np.arange(10))
    counter.launch(1, 1, [target, 0])
    counter.launch(1, 1, [target, 0])
    assert target[0] == 102
    with pytest.raises(tw.errors.DeadlineExceeded):
        endless.launch(1, 1, [kept], timeout=0.2)
    with pytest.raises(tw.errors.KernelError, match=r"gone: the GPU started anew \(.*did not end in time"):
        kept.to_numpy()
    with pytest.raises(tw.errors.KernelError, match="gone"):
        endless.launch(1, 1, [kept])
    counter.launch(1, 1, [target, 0])  # loaded again, and its variables as at first
    assert target[0] == 101
    kept.close()
    with pytest.raises(tw.errors.KernelError, match="closed"):
        kept.to_numpy()
    again = gpu_dev.array(np.arange(10))
    assert (again.to_numpy() == np.arange(10)).all()


def test_a_launch_that_another_s_timeout_ends_can_be_tried_again(gpu_dev):
    endless, target = gpu_dev.load_ptx(ENDLESS), words(4)
    launching = Launching(lambda: endless.launch(1, 1, [target]))
    until(lambda: in_flight(gpu_dev))
    with pytest.raises(tw.errors.DeadlineExceeded):
        endless.launch(1, 1, [words(4)], timeout=0.2)
    launching.thread.join(60)
    assert isinstance(launching.error, tw.errors.DeviceRestarting)


@pytest.mark.slow
def test_a_launch_whose_worker_is_killed_can_be_tried_again(gpu_dev):
    endless, target = gpu_dev.load_ptx(ENDLESS), words(4)
    launching = Launching(lambda: endless.launch(1, 1, [target]))
    until(lambda: in_flight(gpu_dev))
    os.kill(gpu_dev._session.gpu.pid, signal.SIGKILL)
    launching.thread.join(60)
    assert isinstance(launching.error, tw.errors.DeviceRestarting | tw.errors.KernelFault)
    assert not target.any()
    assert_works(gpu_dev)


@pytest.mark.slow
def test_a_kernel_that_breaks_the_gpu_is_a_fault_and_others_try_again():
    with open_emulated("fail:launch:716:1:run") as dev:  # the second launch
        increment, endless, target = dev.load_ptx(INCREMENT), dev.load_ptx(ENDLESS), words(4)
        increment.launch(1, 4, [target, target])
        with pytest.raises(tw.errors.KernelFault, match=r"kernel endless faulted: .*MISALIGNED_ADDRESS"):
            endless.launch(1, 1, [target], timeout=60)
        assert (target == 1).all()
        kept = dev.array(target)
        dev.load_ptx(INCREMENT).launch(1, 4, [kept, target])
        assert (target == 2).all()


def test_ctrl_c_lets_a_kernel_that_ends_keep_the_worker():
    with open_emulated("slow:0.3:increment") as dev:
        increment, kept, target = dev.load_ptx(INCREMENT), dev.array(words(8)), words(8)
        timer = interrupt_after(0.1)
        with pytest.raises(KeyboardInterrupt):
            increment.launch(1, 8, [kept, target])
        timer.join()
        assert not target.any()
        assert (kept.to_numpy() == 0).all()  # not gone


@pytest.mark.slow
def test_closing_the_device_ends_a_launch_and_the_worker():
    dev = open_emulated()
    pid = dev._session.gpu.pid
    endless = dev.load_ptx(ENDLESS)
    assert_closing_ends(dev, lambda: endless.launch(1, 1, [words(4)]))
    assert not Path(f"/proc/{pid}").exists()
    for call in (
        lambda: dev.load_ptx(INCREMENT),
        lambda: dev.array(words(1)),
        lambda: endless.launch(1, 1, [words(1)]),
    ):
        with pytest.raises(tw.errors.KernelError, match="the device is closed"):
            call()
    dev.close()


@pytest.mark.slow
def test_a_device_that_nothing_refers_to_ends_its_worker():
    dev = open_emulated()
    pid = dev._session.gpu.pid
    kernel, kept = dev.load_ptx(INCREMENT), dev.array(words(4))
    del dev
    kernel.launch(1, 4, [kept, kept])
    del kernel, kept
    until(lambda: not Path(f"/proc/{pid}").exists())


# --- processes ------------------------------------------------------------------------------------------------


def run_python(code: str) -> str:
    code = f"import sys; sys.path.insert(0, {str(TESTS)!r})\n" + code
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_program_may_end_with_everything_open_and_its_worker_ends():
    said = run_python("""
import os, threading, numpy as np, tensor_wasm as tw
from device.cuda.opening import open_emulated
from device.ptx_texts import ENDLESS, INCREMENT
dev = open_emulated()
kept = dev.array(np.zeros(10, np.uint32))
dev.load_ptx(INCREMENT).launch(1, 10, [kept, kept])
endless = dev.load_ptx(ENDLESS)
def spin():
    try: endless.launch(1, 1, [kept])
    except tw.errors.TensorWasmError: pass
threading.Thread(target=spin, daemon=True).start()
while not dev._session.gpu._lanes.busy(): pass
print(dev._session.gpu.pid)
""")
    until(lambda: not Path(f"/proc/{int(said)}").exists())


def test_a_forked_process_leaves_the_device_to_the_other():
    said = run_python("""
import os, threading, numpy as np, tensor_wasm as tw
from device.cuda.opening import open_emulated
from device.ptx_texts import ENDLESS, INCREMENT
dev = open_emulated()
kept, kernel = dev.array(np.zeros(10, np.uint32)), dev.load_ptx(INCREMENT)
child = os.fork()
if not child:
    for use in (lambda: kernel.launch(1, 10, [kept, kept]), kept.to_numpy, lambda: dev.load_ptx(INCREMENT)):
        try:
            use()
        except tw.errors.KernelError as error:
            assert "another process" in str(error), error
        else:
            os._exit(3)
    kept.close()
    sys.exit(5)  # with all that is done at the end of a program
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
kernel.launch(1, 10, [kept, kept])
print(kept.to_numpy().sum(), dev._session.gpu.generation)
""")
    assert said == "10 1\n"


def test_the_cpu_device_needs_nothing_of_a_gpu_s():
    said = run_python("""
import tensor_wasm as tw
with tw.open_device("cpu"):
    print(*(name for name in sys.modules if name.startswith("tensor_wasm.device.cuda.")))
""")
    assert not {"tensor_wasm.device.cuda.gpu", "tensor_wasm.device.cuda.session"} & set(said.split())
