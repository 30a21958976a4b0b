"""Devices: opening, information, arrays that stay, closing, threads, time limits, Ctrl-C."""

from __future__ import annotations

import gc
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import tensor_wasm as tw
from device.endings import assert_closing_ends, interrupt_after
from device.memory_use import used_bytes
from device.ptx_texts import ENDLESS, INCREMENT


@pytest.mark.parametrize("name", ["cpu", "auto"])
def test_a_device_says_what_it_is(name):
    with tw.open_device(name) as dev:
        info = dev.info
        assert (info.kind, info.sm, info.warp_size) == ("cpu", "sm_80", 32)
        assert info.name
        assert 1 << 28 < info.memory_bytes <= 1 << 32
        assert info.max_block == (1024, 1024, 64)
        assert "OpenDevice cpu" in repr(dev)
    assert "closed" in repr(dev)


@pytest.mark.parametrize("name", ["cuda", "gpu", "", "CPU", "cuda:0 ", None])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(tw.errors.ConfigurationError, match="no device"):
        tw.open_device(name)


def test_a_device_array_keeps_what_kernels_write(dev):
    increment = dev.load_ptx(INCREMENT)
    start = np.arange(1000, dtype=np.uint32).reshape(10, 100)
    with dev.array(start) as array:
        assert (array.shape, array.dtype, array.nbytes) == ((10, 100), np.dtype("u4"), 4000)
        assert (array.size, array.ndim, len(array)) == (1000, 2, 10)
        for _ in range(3):
            increment.launch(4, 250, [array, array])
        assert (start == np.arange(1000).reshape(10, 100)).all()
        assert (array.to_numpy() == start + 3).all()
        target = np.zeros(1000, np.uint32)
        increment.launch(4, 250, args=(array, target))
        assert (target == np.arange(1000) + 4).all()
    with pytest.raises(tw.errors.KernelError, match="closed"):
        array.to_numpy()
    with pytest.raises(tw.errors.KernelError, match="closed"):
        increment.launch(1, 1, [array, target])
    array.close()
    assert "closed" in repr(array)


@pytest.mark.only_on("cpu")  # a GPU's fence knows partitions, not arrays
def test_device_arrays_are_guarded_as_well(dev):
    increment = dev.load_ptx(INCREMENT)
    a, b = dev.array(np.zeros(64, np.uint32)), dev.array(np.zeros(32, np.uint32))
    with pytest.raises(tw.errors.KernelFault, match=r"right past the end of argument 1 \(target\), an array of 128"):
        increment.launch(1, 64, [a, b])
    assert (b.to_numpy() == 1).all()  # what ran before the fault stays


def test_closing_and_collecting_give_memory_back(dev):
    before = used_bytes(dev)
    array = dev.array(np.zeros(1 << 20, np.uint8))
    assert used_bytes(dev) == before + (1 << 20)
    array.close()
    array.close()
    assert used_bytes(dev) == before
    for _ in range(5):
        array = dev.array(np.zeros(1 << 20, np.uint8))
    assert used_bytes(dev) == before + (1 << 20)
    del array
    assert used_bytes(dev) == before


def test_an_empty_device_array(dev):
    array = dev.array(np.zeros((0, 3), np.float32))
    assert array.to_numpy().shape == (0, 3)


@pytest.mark.parametrize("wrong", [[1, 2], 5, None, "x", np.float32(1)])
def test_only_arrays_become_device_arrays(dev, wrong):
    with pytest.raises(tw.errors.KernelArgumentError, match="takes a NumPy array"):
        dev.array(wrong)


def test_another_device_s_array_is_refused(dev):
    with tw.open_device("cpu") as other:
        foreign = other.array(np.zeros(4, np.uint32))
        with pytest.raises(tw.errors.KernelArgumentError, match="another device"):
            dev.load_ptx(INCREMENT).launch(1, 1, [foreign, foreign])


def test_more_than_the_memory_is_refused(dev):
    # Address space, not memory: nobody touches its pages.
    huge = np.zeros(dev.info.memory_bytes + 1, np.uint8)
    with pytest.raises(tw.errors.CapacityExhausted, match="no room"):
        dev.array(huge)
    with pytest.raises(tw.errors.CapacityExhausted, match="no room"):
        dev.load_ptx(INCREMENT).launch(1, 1, [huge, huge])
    assert used_bytes(dev) < 1 << 20


@pytest.mark.only_on("cpu")  # the emulated GPU has too little memory
@pytest.mark.slow
def test_arrays_of_hundreds_of_megabytes(dev):
    count = 120_000_000
    source = np.arange(count, dtype=np.uint32)
    target = np.zeros(count, np.uint32)
    increment = dev.load_ptx(INCREMENT)
    increment.launch(count // 1000, 1000, [source, target], timeout=120)
    target -= source
    assert (target == 1).all()
    with dev.array(source) as kept, pytest.raises(tw.errors.KernelFault, match="an array of 480,000,000 bytes"):
        increment.launch(count // 1000 + 1, 1000, [kept, kept], timeout=120)
    assert used_bytes(dev) < 1 << 20


def test_a_closed_device_refuses_work():
    dev = tw.open_device("cpu")
    increment = dev.load_ptx(INCREMENT)
    array = dev.array(np.zeros(4, np.uint32))
    dev.close()
    dev.close()
    for use in (
        lambda: dev.load_ptx(INCREMENT),
        lambda: dev.array(np.zeros(4)),
        lambda: increment.launch(1, 1, [0, 0]),
        lambda: increment.launch(1, 1, [array, array]),
        array.to_numpy,
    ):
        with pytest.raises(tw.errors.KernelError, match="the device is closed"):
            use()
    array.close()


def test_devices_come_and_go():
    for _ in range(20):
        with tw.open_device("cpu") as dev:
            array = np.zeros(4, np.uint32)
            dev.load_ptx(INCREMENT).launch(1, 4, [array, array])
            assert (array == 1).all()
    threads = threading.active_count()
    dev = tw.open_device("cpu")
    kernel = dev.load_ptx(INCREMENT)
    del dev
    gc.collect()
    kernel.launch(1, 4, [array, array])  # a kernel keeps its device
    assert (array == 2).all()
    del kernel
    gc.collect()
    assert threading.active_count() <= threads


def test_threads_take_turns(dev):
    increment = dev.load_ptx(INCREMENT)
    shared = dev.array(np.zeros(256, np.uint32))
    rounds, failures = 100, []

    def work() -> None:
        own = np.zeros(500, np.uint32)
        for done in range(1, rounds + 1):
            increment.launch(1, 500, [own, own])
            increment.launch(1, 256, [shared, shared])
            if not (own == done).all():
                failures.append(own)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    if dev.info.kind == "cpu":  # on a GPU launches of several threads overlap, and so do plain increments
        assert (shared.to_numpy() == 4 * rounds).all()


def test_a_timeout_ends_a_launch_and_leaves_the_arrays(dev):
    endless = dev.load_ptx(ENDLESS)
    target = np.zeros(4, np.uint32)
    started = time.monotonic()
    with pytest.raises(tw.errors.DeadlineExceeded):
        endless.launch(1, 1, [target], timeout=0.2)
    assert 0.15 < time.monotonic() - started < 5
    assert not target.any()
    dev.load_ptx(INCREMENT).launch(1, 4, [target, target], timeout=60)
    assert (target == 1).all()


@pytest.mark.only_on("cpu")  # on a GPU launches take no turns
def test_a_timeout_also_ends_the_wait_for_a_turn(dev):
    endless, increment = dev.load_ptx(ENDLESS), dev.load_ptx(INCREMENT)
    target = np.zeros(4, np.uint32)
    ended: list[type] = []

    def occupy() -> None:
        try:
            endless.launch(1, 1, [target.copy()], timeout=1.0)
        except tw.errors.DeadlineExceeded as error:
            ended.append(type(error))

    thread = threading.Thread(target=occupy)
    thread.start()
    time.sleep(0.2)
    with pytest.raises(tw.errors.DeadlineExceeded, match="other launches"):
        increment.launch(1, 4, [target, target], timeout=0.1)
    thread.join()
    assert ended
    assert not target.any()


def test_closing_the_device_ends_a_launch():
    dev = tw.open_device("cpu")
    endless = dev.load_ptx(ENDLESS)
    assert_closing_ends(dev, lambda: endless.launch(1, 1, [np.zeros(4, np.uint32)]))


# --- signals -------------------------------------------------------------------------------------------------


class Alarm(Exception):
    """What the handler of SIGALRM raises in these tests."""


@pytest.fixture
def alarm():
    def ring(*_: object) -> None:
        raise Alarm

    previous = signal.signal(signal.SIGALRM, ring)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)


def test_ctrl_c_ends_an_endless_kernel(dev):
    endless = dev.load_ptx(ENDLESS)
    target = np.zeros(4, np.uint32)
    handler = signal.getsignal(signal.SIGINT)
    for delay in (0.02, 0.3):  # before and after the kernel was first asked whether to go on
        started = time.monotonic()
        timer = interrupt_after(delay)
        with pytest.raises(KeyboardInterrupt):
            endless.launch(1, 1, [target], timeout=20)
        assert time.monotonic() - started < delay + 5
        timer.join()
    assert signal.getsignal(signal.SIGINT) is handler
    assert not target.any()
    dev.load_ptx(INCREMENT).launch(1, 4, [target, target])
    assert (target == 1).all()


@pytest.mark.only_on("cpu")  # on a GPU launches take no turns
def test_ctrl_c_ends_the_wait_for_a_turn(dev):
    endless = dev.load_ptx(ENDLESS)

    def occupy() -> None:
        with pytest.raises(tw.errors.DeadlineExceeded):
            endless.launch(1, 1, [np.zeros(4, np.uint32)], timeout=1.5)

    thread = threading.Thread(target=occupy)
    thread.start()
    time.sleep(0.1)
    timer = interrupt_after(0.2)
    with pytest.raises(KeyboardInterrupt):
        endless.launch(1, 1, [np.zeros(4, np.uint32)], timeout=20)
    assert thread.is_alive()
    timer.join()
    thread.join()


def test_a_handler_that_does_not_raise_lets_the_launch_go_on(dev):
    calls = []
    previous = signal.signal(signal.SIGALRM, lambda *_: calls.append(1))
    try:
        timer = interrupt_after(0.1, signal.SIGALRM)
        with pytest.raises(tw.errors.DeadlineExceeded):
            dev.load_ptx(ENDLESS).launch(1, 1, [np.zeros(4, np.uint32)], timeout=0.5)
        timer.join()
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert calls == [1]


def test_a_handler_cannot_use_the_device_in_a_launch(dev):
    increment = dev.load_ptx(INCREMENT)

    def use(*_: object) -> None:
        increment.launch(1, 1, [np.zeros(1, np.uint32)] * 2)

    previous = signal.signal(signal.SIGALRM, use)
    try:
        timer = interrupt_after(0.1, signal.SIGALRM)
        with pytest.raises(tw.errors.KernelError, match="signal handler"):
            dev.load_ptx(ENDLESS).launch(1, 1, [np.zeros(4, np.uint32)], timeout=20)
        timer.join()
    finally:
        signal.signal(signal.SIGALRM, previous)


# What a handler raises in a finalizer is lost and reported: Python's own way.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupts_at_any_moment_leave_the_device_whole(dev, alarm):
    seed = random.randrange(1 << 32)
    numbers = random.Random(seed)
    increment = dev.load_ptx(INCREMENT)
    array = np.zeros(64, np.uint32)
    before, handler = used_bytes(dev), signal.getsignal(signal.SIGALRM)
    interrupts = 0
    for _ in range(300):
        kept = None
        try:
            signal.setitimer(signal.ITIMER_REAL, 1e-6 + numbers.random() * 1e-3)
            for _ in range(200):
                kept = dev.array(array)
                increment.launch(1, 64, [kept, array])
                kept = None
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Alarm:
            interrupts += 1
    kept = None
    assert interrupts > 200, seed
    assert signal.getsignal(signal.SIGALRM) is handler
    assert used_bytes(dev) == before, seed


# --- the cache on disk ---------------------------------------------------------------------------------------


def test_a_cache_directory_keeps_kernels(tmp_path):
    directory = tmp_path / "kernels"
    for hits in (0, 1):
        with tw.open_device("cpu", cache_dir=directory) as dev:
            array = np.zeros(4, np.uint32)
            dev.load_ptx(INCREMENT, "increment").launch(1, 4, [array, array])
            assert (array == 1).all()
            assert dev._session.machine.device.statistics.hits["disk"] == hits
    assert (directory / "cache.key").stat().st_mode & 0o777 == 0o600


def test_a_cache_directory_others_can_write_to_is_refused(tmp_path):
    tmp_path.chmod(0o777)
    with pytest.raises(tw.errors.StoreError, match="open to other users"):
        tw.open_device("cpu", cache_dir=tmp_path)
    tmp_path.chmod(0o700)
    (tmp_path / "cache.key").write_bytes(b"short")
    (tmp_path / "cache.key").chmod(0o600)
    with pytest.raises(tw.errors.StoreError, match="damaged"):
        tw.open_device("cpu", cache_dir=tmp_path)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(tw.errors.StoreError, match="cannot be used"):
        tw.open_device("cpu", cache_dir=file / "below")


# --- the package ---------------------------------------------------------------------------------------------


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_importing_the_package_imports_nothing_else():
    code = "import sys, tensor_wasm; print(*sorted(n for n in sys.modules if n.startswith(('tensor_wasm.', 'numpy'))))"
    assert run_python(code).split() == []


def test_every_public_name_is_there():
    for name in tw.__all__:
        assert getattr(tw, name) is getattr(tw, name)
        assert name in dir(tw)
    with pytest.raises(AttributeError, match="nothing"):
        _ = tw.nothing
    assert tw.errors.KernelFault.__name__ == "KernelFault"


def test_a_program_may_end_with_everything_open():
    text = Path(__file__).with_name("ptx_texts.py")
    code = (
        f"import sys; sys.path.insert(0, {str(text.parent)!r})\n"
        "import threading, numpy as np, tensor_wasm as tw, ptx_texts\n"
        "dev = tw.open_device()\n"
        "kept = dev.array(np.zeros(10, np.uint32))\n"
        "kernel = dev.load_ptx(ptx_texts.INCREMENT); kernel.launch(1, 10, [kept, kept])\n"
        "endless = dev.load_ptx(ptx_texts.ENDLESS)\n"
        "def spin():\n"
        "    try: endless.launch(1, 1, [kept])\n"
        "    except tw.errors.Terminated: pass\n"
        "threading.Thread(target=spin, daemon=True).start()\n"
        "print('end')\n"
    )
    assert run_python(code) == "end\n"
