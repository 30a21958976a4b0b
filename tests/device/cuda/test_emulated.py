"""The emulated driver does what a driver does, says where one is misused, and fails as it is told."""

from __future__ import annotations

import ctypes
import mmap
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from device.cuda.emulated import EmulatedDriver, Misuse
from device.cuda.emulated_worker import make_driver, split, worker_command
from tensor_wasm.device.cuda.driver import OUT_OF_MEMORY, Driver, DriverError

GRANULE = 65_536
LIMIT_S = 60
HEAD = ".version 8.0\n.target sm_80\n.address_size 64\n"
BODIES = {
    "add": "ld.global.u32 %r1, [%rd1]; add.u32 %r1, %r1, 1; st.global.u32 [%rd1], %r1;",
    "spin": "again: ld.volatile.global.u32 %r1, [%rd1]; setp.ne.u32 %p1, %r1, 77; @%p1 bra again;",
    "trapping": "trap;",
    "odd": "ld.global.u32 %r1, [%rd1+1];",
    "generic": "ld.u32 %r1, [%rd1]; st.u32 [%rd1+4], %r1;",
}
PTX = HEAD + "\n".join(
    f""".visible .entry {name}(.param .u64 a) {{ .reg .b64 %rd<4>; .reg .b32 %r<4>; .reg .pred %p<2>;
    ld.param.u64 %rd1, [a]; {body} ret; }}"""
    for name, body in BODIES.items()
)


class Rig:
    """A driver with some of everything: reserved addresses with a granule mapped, pinned memory, a stream, kernels."""

    def __init__(self, driver: EmulatedDriver) -> None:
        self.driver = driver
        self.context = driver.create_context(0)
        self.address = driver.reserve(4 * GRANULE, 0)
        self.memory = driver.create_memory(GRANULE)
        driver.map_memory(self.address, GRANULE, self.memory, 0)
        self.pages = mmap.mmap(-1, 8192)
        self.host = ctypes.addressof(ctypes.c_char.from_buffer(self.pages))
        self.device_host = driver.register_host(self.host, 8192)
        self.stream = driver.create_stream()
        self.module = driver.load_module(PTX.encode())
        self.words = (ctypes.c_uint64 * 4)()

    def launch(self, name: str, address: int | None = None, stream: int = 0, parameter_bytes: int = 8) -> None:
        self.words[0] = self.address if address is None else address
        function = self.driver.function(self.module, name)
        where = ctypes.addressof(self.words)
        self.driver.launch(function, (1, 1, 1), (1, 1, 1), 0, stream or self.stream, where, parameter_bytes)
        self.words[0] = 0  # they were taken

    def clear(self) -> None:
        self.driver.set_memory(self.address, 0, 64, self.stream)

    def word(self, address: int = 0) -> int:
        return int.from_bytes(self.driver.peek(address or self.address, 4), "little")

    def wait(self) -> None:
        self.driver.synchronize_stream(self.stream)

    def close(self) -> None:
        driver = self.driver
        driver.destroy_stream(self.stream)
        driver.unload_module(self.module)
        driver.unregister_host(self.host)
        driver.unmap_memory(self.address, GRANULE)
        driver.destroy_memory(self.memory)
        driver.release(self.address, 4 * GRANULE)
        driver.destroy_context(self.context)


@pytest.fixture
def driver() -> Iterator[EmulatedDriver]:
    made = EmulatedDriver(memory_bytes=16 * GRANULE, granularity_bytes=GRANULE)
    yield made
    made.close()


@pytest.fixture
def rig(driver: EmulatedDriver) -> Rig:
    return Rig(driver)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_it_is_a_driver(driver: EmulatedDriver) -> None:
    protocol: Driver = driver
    assert protocol.count() == 1
    assert protocol.facts(0).sm == "sm_90"


# --- what a driver does ---------------------------------------------------------------------------------------------


def test_a_kernel_runs_on_memory_that_copies_reach(rig: Rig) -> None:
    rig.pages[:4] = (41).to_bytes(4, "little")
    rig.driver.copy_to_device(rig.address, rig.host, 4, rig.stream)
    rig.launch("add")
    rig.driver.copy_to_host(rig.host + 8, rig.address, 4, rig.stream)
    rig.driver.write_value(rig.device_host + 16, 9, rig.stream)
    rig.wait()
    assert (rig.pages[8], rig.pages[16]) == (42, 9)
    rig.driver.copy_on_device(rig.address + 32, rig.address, 4, rig.stream)
    rig.wait()
    assert rig.word(rig.address + 32) == 42
    rig.close()
    assert not rig.driver.leaks()
    assert not rig.driver.misuses


def test_several_addresses_show_the_same_memory(rig: Rig) -> None:
    rig.driver.map_memory(rig.address + 2 * GRANULE, GRANULE, rig.memory, 0)
    rig.clear()
    rig.launch("add", rig.address + 2 * GRANULE)
    rig.launch("add")
    rig.wait()
    assert rig.word() == rig.word(rig.address + 2 * GRANULE) == 2


def test_memory_comes_with_what_was_in_it(rig: Rig) -> None:
    driver = rig.driver
    assert rig.word() == 0xDBDBDBDB
    rig.launch("add")
    rig.wait()
    free, everything = driver.memory_info()
    assert (free, everything) == (15 * GRANULE, 16 * GRANULE)
    driver.unmap_memory(rig.address, GRANULE)
    driver.destroy_memory(rig.memory)
    rig.memory = driver.create_memory(GRANULE)
    driver.map_memory(rig.address, GRANULE, rig.memory, 0)
    assert rig.word() == 0xDBDBDBDC


def test_memory_that_is_given_back_while_mapped_is_free_once_it_is_not(rig: Rig) -> None:
    rig.driver.destroy_memory(rig.memory)
    assert rig.driver.memory_info()[0] == 15 * GRANULE
    rig.driver.unmap_memory(rig.address, GRANULE)
    assert rig.driver.memory_info()[0] == 16 * GRANULE


def test_memory_and_addresses_come_to_an_end(rig: Rig) -> None:
    with pytest.raises(DriverError) as caught:
        rig.driver.create_memory(16 * GRANULE)
    assert caught.value.code == OUT_OF_MEMORY
    assert not caught.value.is_sticky
    with pytest.raises(DriverError):
        rig.driver.reserve(1 << 32, 0)
    assert rig.driver.reserve(GRANULE, 1 << 24) % (1 << 24) == 0
    assert not rig.driver.misuses


def test_memory_is_mapped_from_its_start_only(rig: Rig) -> None:
    whole = rig.driver.create_memory(2 * GRANULE)
    with pytest.raises(DriverError, match="offset must be 0"):
        rig.driver.map_memory(rig.address + GRANULE, GRANULE, whole, GRANULE)
    rig.driver.map_memory(rig.address + GRANULE, GRANULE, whole, 0)


def test_streams_wait_for_their_own_work_alone(rig: Rig) -> None:
    rig.clear()
    rig.wait()
    other = rig.driver.create_stream()
    rig.launch("spin")
    rig.launch("add", rig.address + 64, stream=other)
    rig.driver.synchronize_stream(other)
    assert not rig.driver.is_stream_done(rig.stream)
    rig.driver.set_memory(rig.address, 0, 4, other)
    rig.driver.synchronize_stream(other)
    rig.driver.poke(rig.address, (77).to_bytes(4, "little"))
    rig.wait()
    assert rig.driver.is_stream_done(rig.stream)


def test_a_test_says_which_stream_goes_on(rig: Rig) -> None:
    other = rig.driver.create_stream()
    rig.clear()
    rig.wait()
    rig.driver.hold()
    rig.launch("add")
    rig.driver.set_memory(rig.address, 9, 4, rig.stream)
    rig.driver.set_memory(rig.address, 5, 1, other)
    assert rig.driver.waiting(rig.stream) == ["launch add", "set_memory"]
    assert rig.driver.step(other) == "set_memory"
    assert rig.driver.step(other) == ""
    assert rig.word() == 5
    assert rig.driver.step(rig.stream) == "launch add"
    assert rig.word() == 6
    rig.driver.let_go()
    rig.wait()
    assert rig.word() == 0x09090909


def test_events_tell_the_time_between_them(rig: Rig) -> None:
    first, last = rig.driver.create_event(), rig.driver.create_event()
    with pytest.raises(DriverError, match="INVALID_HANDLE"):
        rig.driver.elapsed_ms(first, last)
    rig.driver.slow(0.02)
    rig.driver.hold()
    rig.driver.record(first, rig.stream)
    rig.launch("add")
    rig.driver.record(last, rig.stream)
    with pytest.raises(DriverError, match="NOT_READY"):
        rig.driver.elapsed_ms(first, last)
    rig.driver.let_go()
    rig.wait()
    assert rig.driver.elapsed_ms(first, last) >= 20


def test_what_an_assembler_says_is_in_the_error(rig: Rig) -> None:
    with pytest.raises(DriverError, match="frobnicate") as caught:
        rig.driver.load_module((HEAD + ".entry k() { frobnicate.u32 %r1; }").encode())
    assert caught.value.log
    assert not caught.value.is_sticky
    with pytest.raises(DriverError, match="NOT_FOUND"):
        rig.driver.function(rig.module, "nobody")


@pytest.mark.parametrize(("grid", "block", "shared_bytes", "code"), [
    ((0, 1, 1), (1, 1, 1), 0, 1),
    ((1, 65_536, 1), (1, 1, 1), 0, 1),
    ((1, 1, 1), (1025, 1, 1), 0, 1),
    ((1, 1, 1), (1, 1, 65), 0, 1),
    ((1, 1, 1), (64, 1, 1), 0, 701),
    ((1, 1, 1), (1, 1, 1), (48 << 10) + 1, 1),
])  # fmt: skip
def test_a_launch_that_cannot_be_is_refused(
    rig: Rig, grid: tuple[int, int, int], block: tuple[int, int, int], shared_bytes: int, code: int
) -> None:
    rig.driver.threads_max["add"] = 32
    function = rig.driver.function(rig.module, "add")
    assert rig.driver.max_threads(function) == 32
    with pytest.raises(DriverError) as caught:
        rig.driver.launch(function, grid, block, shared_bytes, rig.stream, ctypes.addressof(rig.words), 8)
    assert caught.value.code == code
    rig.driver.allow_shared(function, 100 << 10)
    rig.words[0] = rig.address
    rig.driver.launch(function, (1, 1, 1), (1, 1, 1), 100 << 10, rig.stream, ctypes.addressof(rig.words), 8)
    rig.wait()


# --- faults ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kernel", "address", "code"), [
    ("add", 0, 700),
    ("add", 4, 700),
    ("add", (1 << 40) + 4, 700),
    ("add", -4, 700),
    ("generic", GRANULE, 700),
    ("odd", None, 716),
    ("trapping", None, 719),
])  # fmt: skip
def test_a_kernel_that_faults_loses_the_context(rig: Rig, kernel: str, address: int | None, code: int) -> None:
    other = rig.driver.create_stream()
    rig.driver.hold()
    rig.launch(kernel, None if address is None else address % (1 << 64))
    rig.driver.set_memory(rig.address, 1, 4, rig.stream)
    rig.driver.let_go()
    for call in (
        rig.wait,
        lambda: rig.driver.is_stream_done(other),
        lambda: rig.driver.create_memory(GRANULE),
        lambda: rig.driver.unmap_memory(rig.address, GRANULE),
        lambda: rig.driver.use_context(rig.context),
        lambda: rig.driver.create_context(0),
        lambda: rig.driver.destroy_context(rig.context),
    ):
        with pytest.raises(DriverError) as caught:
            call()
        assert caught.value.code == code
        assert caught.value.is_sticky
    assert rig.word() == 0xDBDBDBDB, "what was queued behind it was done"
    assert not rig.driver.leaks()
    assert not rig.driver.misuses


def test_what_is_told_to_fail_fails(rig: Rig) -> None:
    driver = rig.driver
    driver.fail("create_memory", OUT_OF_MEMORY, after=1)
    driver.create_memory(GRANULE)
    with pytest.raises(DriverError):
        driver.create_memory(GRANULE)
    driver.create_memory(GRANULE)
    driver.fail("create_stream", OUT_OF_MEMORY, is_kept=True)
    for _ in range(2):
        with pytest.raises(DriverError, match="cuStreamCreate: CUDA_ERROR_OUT_OF_MEMORY"):
            driver.create_stream()
    driver.fail("launch", 719, at_run=True, kernel="add")
    rig.launch("generic")
    rig.wait()
    rig.launch("add")
    with pytest.raises(DriverError, match="719"):
        rig.wait()
    with pytest.raises(DriverError, match="719"):
        driver.memory_info()


def test_a_sticky_error_of_a_call_loses_the_context(rig: Rig) -> None:
    rig.driver.fail("is_stream_done", 999)
    for _ in range(2):
        with pytest.raises(DriverError, match="999"):
            rig.driver.is_stream_done(rig.stream)


def test_a_gpu_that_is_lost_ends_all(rig: Rig) -> None:
    rig.driver.hang("add")
    rig.launch("add")
    assert not rig.driver.is_stream_done(rig.stream)
    rig.driver.lose(46)
    with pytest.raises(DriverError, match="DEVICE_UNAVAILABLE"):
        rig.wait()


@pytest.mark.parametrize("kernel", ["spin", "add"])
def test_closing_ends_kernels_that_have_no_end(kernel: str) -> None:
    driver = EmulatedDriver(memory_bytes=16 * GRANULE, granularity_bytes=GRANULE)
    rig = Rig(driver)
    driver.hang("add")
    rig.launch(kernel)
    until(lambda: driver.waiting(rig.stream) == [f"launch {kernel}"])
    driver.close()
    assert threading.active_count() < 20


# --- misuse ---------------------------------------------------------------------------------------------------------

MISUSES: dict[str, tuple[Callable[[Rig], object], str]] = {
    "copy to nothing": (lambda r: r.driver.copy_to_device(r.address + GRANULE - 4, r.host, 8, r.stream), "mapped"),
    "copy from nothing": (lambda r: r.driver.copy_to_host(r.host, 8, 8, r.stream), "mapped"),
    "copy within nothing": (lambda r: r.driver.copy_on_device(r.address, 8, 8, r.stream), "mapped"),
    "set nothing": (lambda r: r.driver.set_memory(r.address, 0, GRANULE + 1, r.stream), "mapped"),
    "set no byte": (lambda r: r.driver.set_memory(r.address, 256, 4, r.stream), "no byte"),
    "copy not pinned": (lambda r: r.driver.copy_to_device(r.address, r.host + 8190, 4, r.stream), "registered"),
    "copy to not pinned": (lambda r: r.driver.copy_to_host(r.host - 1, r.address, 4, r.stream), "registered"),
    "write by the host's address": (lambda r: r.driver.write_value(r.host, 1, r.stream), "mapped"),
    "write past the end": (lambda r: r.driver.write_value(r.device_host + 8192, 1, r.stream), "mapped"),
    "write misaligned": (lambda r: r.driver.write_value(r.device_host + 2, 1, r.stream), "write_value"),
    "no stream": (lambda r: r.driver.is_stream_done(r.module), "no stream"),
    "a stream that is gone": (lambda r: (r.driver.destroy_stream(r.stream), r.wait()), "stream that is gone"),
    "a module that is gone": (lambda r: (r.driver.unload_module(r.module), r.launch("add")), "module that is gone"),
    "twice unloaded": (lambda r: [r.driver.unload_module(r.module) for _ in range(2)], "gone"),
    "twice destroyed": (lambda r: [r.driver.destroy_memory(r.memory) for _ in range(2)], "gone"),
    "twice unregistered": (lambda r: [r.driver.unregister_host(r.host) for _ in range(2)], "not registered"),
    "parameters cut": (lambda r: r.launch("add", parameter_bytes=4), "bytes of parameters"),
    "parameters too many": (lambda r: r.launch("add", parameter_bytes=9), "bytes of parameters"),
    "no granule": (lambda r: r.driver.create_memory(4096), "granularity"),
    "map no granule": (lambda r: r.driver.map_memory(r.address + 4096, GRANULE, r.memory, 0), "granularity"),
    "map twice": (lambda r: r.driver.map_memory(r.address, GRANULE, r.memory, 0), "is mapped"),
    "map too much": (lambda r: r.driver.map_memory(r.address + GRANULE, 2 * GRANULE, r.memory, 0), "bytes of"),
    "map what is not reserved": (
        lambda r: r.driver.map_memory(r.address + 4 * GRANULE, GRANULE, r.memory, 0),
        "reserv",
    ),
    "unmap nothing": (lambda r: r.driver.unmap_memory(r.address + GRANULE, GRANULE), "not what was mapped"),
    "unmap more": (lambda r: r.driver.unmap_memory(r.address, 2 * GRANULE), "not what was mapped"),
    "release while mapped": (lambda r: r.driver.release(r.address, 4 * GRANULE), "is mapped"),
    "release a part": (lambda r: r.driver.release(r.address, GRANULE), "not reserved"),
    "reserve oddly": (lambda r: r.driver.reserve(GRANULE, 3), "reserve"),
    "register half a page": (lambda r: r.driver.register_host(r.host + 8, 8), "register_host"),
    "no event": (lambda r: r.driver.record(r.stream, r.stream), "no event"),
}


@pytest.mark.parametrize("name", MISUSES)
def test_misuse_is_told(rig: Rig, name: str) -> None:
    call, words = MISUSES[name]
    with pytest.raises(Misuse, match=words):
        call(rig)
    assert len(rig.driver.misuses) == 1


BUSY: dict[str, Callable[[Rig], object]] = {
    "unmap": lambda r: r.driver.unmap_memory(r.address, GRANULE),
    "unload": lambda r: r.driver.unload_module(r.module),
    "destroy the stream": lambda r: r.driver.destroy_stream(r.stream),
    "destroy the context": lambda r: r.driver.destroy_context(r.context),
}


@pytest.mark.parametrize("is_running", [False, True])
@pytest.mark.parametrize("name", BUSY)
def test_nothing_is_taken_from_work_that_needs_it(rig: Rig, name: str, is_running: bool) -> None:
    if is_running:
        rig.driver.hang()
    else:
        rig.driver.hold()
    rig.launch("add")
    with pytest.raises(Misuse, match="launch add"):
        BUSY[name](rig)


def test_pinned_memory_and_events_stay_while_work_needs_them(rig: Rig) -> None:
    rig.driver.hold()
    event = rig.driver.create_event()
    rig.driver.record(event, rig.stream)
    with pytest.raises(Misuse, match="record still uses the event"):
        rig.driver.destroy_event(event)
    with pytest.raises(Misuse, match="has not happened yet"):
        rig.driver.record(event, rig.stream)
    rig.driver.write_value(rig.device_host, 1, rig.stream)
    with pytest.raises(Misuse, match="write_value still uses"):
        rig.driver.unregister_host(rig.host)


def test_a_fenced_kernel_needs_its_own_partition_alone(rig: Rig) -> None:
    """What its arguments say is not what it can reach."""
    driver = rig.driver
    other = driver.reserve(GRANULE, 0)
    memory = driver.create_memory(GRANULE)
    driver.map_memory(other, GRANULE, memory, 0)
    text = f"""{HEAD}.visible .entry k(.param .u64 a) {{ .reg .b64 %rd<3>; ld.param.u64 %rd1, [a];
    and.b64 %rd1, %rd1, {GRANULE - 4}; or.b64 %rd1, %rd1, {other}; st.global.u64 [%rd1], 0; ret; }}"""
    driver.unload_module(rig.module)
    rig.module = driver.load_module(text.encode())
    driver.hold()
    rig.launch("k", rig.address)
    driver.unmap_memory(rig.address, GRANULE)
    with pytest.raises(Misuse, match="launch k"):
        driver.unmap_memory(other, GRANULE)


def test_threads_need_a_context(rig: Rig) -> None:
    found: list[BaseException | int] = []

    def call() -> None:
        try:
            rig.driver.create_stream()
        except Misuse as error:
            found.append(error)
        rig.driver.use_context(rig.context)
        found.append(rig.driver.granularity())

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert isinstance(found[0], Misuse)
    assert found[1] == GRANULE


def test_handles_are_of_their_context(rig: Rig) -> None:
    other = rig.driver.create_context(0)
    with pytest.raises(Misuse, match="another context"):
        rig.driver.is_stream_done(rig.stream)
    rig.driver.destroy_context(other)
    with pytest.raises(Misuse, match="without a context"):
        rig.driver.granularity()
    rig.driver.use_context(rig.context)
    assert rig.driver.is_stream_done(rig.stream)


def test_what_is_not_given_back_is_told(rig: Rig) -> None:
    leaks = "\n".join(rig.driver.leaks())
    for kind in ("context", "memory", "stream", "module", "reserved addresses", "registered host memory"):
        assert kind in leaks
    with pytest.raises(AssertionError), rig.driver:
        pass


# --- the worker's driver --------------------------------------------------------------------------------------------


def test_texts_say_what_goes_wrong() -> None:
    command = worker_command(
        "granularity_bytes=65536", "memory_bytes=1048576", "fail:create_memory:2:1:kept", "sm=sm_80"
    )
    emulate, own = split([*command[1:], "3", "4"])
    assert own == [command[1], "3", "4"]
    driver = make_driver([*emulate, "threads:k:64", "slow:0.1:k", "hang:z"])
    assert driver.facts(0).sm == "sm_80"
    assert driver.threads_max == {"k": 64}
    driver.create_context(0)
    driver.create_memory(GRANULE)
    for _ in range(2):
        with pytest.raises(DriverError):
            driver.create_memory(GRANULE)
    driver.close()
    with pytest.raises(ValueError, match="nonsense"):
        make_driver(["nonsense:1"])
