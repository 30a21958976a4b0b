"""The client of a GPU, with workers whose driver is emulated, and with some that are broken."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pytest

from device.cuda.clients import (
    DATA,
    IMAGE,
    LIMIT_S,
    PARTITION_BYTES,
    STAGING_BYTES,
    TRAPPING,
    converse,
    fenced,
    in_thread,
    increment,
    load,
    parameters,
    until,
)
from device.cuda.emulated_worker import worker_command
from device.cuda.stub_worker import stub_command
from tensor_wasm.device.cuda import board
from tensor_wasm.device.cuda.gpu import Gpu, Lane, Offender, Window
from tensor_wasm.device.cuda.supervisor import WorkerEnd
from tensor_wasm.device.cuda.worker_handle import WorkerHandle
from tensor_wasm.device.fence import FencedKernel, Partition
from tensor_wasm.errors import (
    CapacityExhausted,
    DeadlineExceeded,
    DeviceRestarting,
    DeviceUnavailable,
    KernelArgumentError,
    KernelError,
    PtxError,
)

Open = Callable[..., Gpu]


@pytest.fixture(scope="module")
def gpu() -> Iterator[Gpu]:
    """One for tests that leave it as it was."""
    opened = Gpu(0, staging_bytes=STAGING_BYTES, command=worker_command())
    yield opened
    assert opened.generation == 1
    opened.close()


@pytest.fixture
def open_gpu() -> Iterator[Open]:
    """Opens those that are closed after the test."""
    opened: list[Gpu] = []

    def start(command: list[str], **settings) -> Gpu:
        opened.append(Gpu(0, staging_bytes=STAGING_BYTES, command=command, **settings))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


@pytest.fixture
def tenant(gpu: Gpu) -> Iterator[tuple[int, Partition]]:
    number = random.randrange(1 << 64)
    yield number, gpu.open_tenant(number, PARTITION_BYTES)
    gpu.close_tenant(number)


@pytest.fixture
def lane(gpu: Gpu, tenant: tuple[int, Partition]) -> Iterator[Lane]:
    opened = gpu.open_lane(tenant[0])
    yield opened
    opened.close()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# --- what it does -----------------------------------------------------------------------------------------


def test_tenants_talk_at_the_same_time(gpu):
    results = [in_thread(lambda number=number: converse(gpu, number)) for number in range(6)]
    assert [result() for result in results] == [None] * 6


def test_the_facts_are_the_worker_s(gpu):
    assert gpu.facts.name == "Emulated GPU 0"
    assert gpu.is_ready
    assert gpu.trouble == ""


@pytest.mark.parametrize("size", [1, 3, 65_536, (256 << 10) + 1, (1 << 20) - 1, (5 << 20) + 3])
def test_copies_of_any_size_arrive_whole(gpu, tenant, size):
    number, partition = tenant
    data = np.random.default_rng(size).integers(0, 256, size + 2, dtype=np.uint8)
    address = partition.base + (1 << 17) + 1
    gpu.set_memory(number, address - 1, 7, size + 2)
    gpu.copy_in(number, address, memoryview(data)[1:-1])
    out = np.zeros(size + 2, np.uint8)
    gpu.copy_out(number, address - 1, memoryview(out))
    assert out[0] == out[-1] == 7
    assert (out[1:-1] == data[1:-1]).all()


def test_copies_of_nothing_and_of_what_has_several_axes(gpu, tenant):
    number, partition = tenant
    gpu.copy_in(number, partition.base, memoryview(b""))
    gpu.copy_out(number, partition.base, memoryview(bytearray()))
    array = np.arange(12.0).reshape(3, 4)
    gpu.copy_in(number, partition.base + DATA, memoryview(array))
    out = np.zeros_like(array)
    gpu.copy_out(number, partition.base + DATA, memoryview(out))
    assert (array == out).all()


def test_copies_wait_for_each_other_and_not_for_guests(gpu, tenant):
    number, partition = tenant
    size = STAGING_BYTES
    while size >= 1 << 16 and gpu.take_staging(size) is None:
        size //= 2
    taken = [(0, size)]
    while (place := gpu.take_staging(1)) is not None:
        taken.append((place, 1))
    try:
        data = np.random.default_rng(3).integers(0, 256, 3 << 20, dtype=np.uint8)
        calls = []
        for turn in range(6):
            address = partition.base + (turn % 2) * (3 << 20) + (1 << 20)
            calls.append(in_thread(lambda address=address: gpu.copy_in(number, address, memoryview(data))))
        assert [call() for call in calls] == [None] * 6
        out = np.zeros_like(data)
        gpu.copy_out(number, partition.base + (4 << 20), memoryview(out))
        assert (out == data).all()
    finally:
        for place, count in taken:
            gpu.give_staging(place, count)


def test_staging_is_given_out_once_and_in_pages(gpu):
    places = []
    while (place := gpu.take_staging(70_000)) is not None:
        places.append(place)
    assert places
    assert all(place % 65_536 == 0 for place in places)
    assert all(later - before >= 70_000 for before, later in pairwise(places))
    assert places[-1] + 70_000 <= STAGING_BYTES
    for place in places:
        gpu.give_staging(place, 70_000)
    assert gpu.take_staging(131_072 * len(places)) == 0
    gpu.give_staging(0, 131_072 * len(places))


def test_the_shared_file_keeps_its_size(gpu):
    size = board.BYTES + STAGING_BYTES
    assert os.fstat(gpu.board_descriptor).st_size == len(gpu.board) == size
    for length in (0, size - 1, size + 1):
        with pytest.raises(PermissionError):
            os.ftruncate(gpu.board_descriptor, length)
    assert fcntl.fcntl(gpu.board_descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SEAL


def test_windows_are_copied_in_and_out(gpu, tenant, lane):
    number, partition = tenant
    kernel = load(gpu, number, partition)
    place = gpu.take_staging(1024)
    staging = gpu.board[board.BYTES + place :][:1024].cast("I")
    staging[:] = memoryview(np.arange(256, dtype=np.uint32))
    windows = [Window(partition.base + DATA, place, 1024, board.Direction.IN | board.Direction.OUT)]
    values = parameters(partition.base + DATA, partition.base + DATA)
    assert lane.launch(kernel, (1, 1, 1), (256, 1, 1), 0, values, windows, None) == 0
    assert list(staging) == list(range(1, 257))
    gpu.give_staging(place, 1024)


def test_a_trap_gives_its_line(gpu, tenant, lane):
    number, partition = tenant
    kernel = load(gpu, number, partition, TRAPPING)
    values = parameters(partition.base + DATA)
    assert lane.launch(kernel, (1, 1, 1), (1, 1, 1), 0, values, (), None) == TRAPPING.split("trap;")[0].count("\n") + 1


def test_a_large_image_is_written(gpu, tenant, lane):
    number, partition = tenant
    kernel = load(gpu, number, partition)  # for its text
    gpu.unload(kernel)
    image = bytes(16) + os.urandom(600_000)
    text = fenced(partition)
    gpu.load(number, FencedKernel(text.ptx, text.name, image), partition.base + IMAGE, leaves_faults=True)
    out = bytearray(len(image))
    gpu.copy_out(number, partition.base + IMAGE, memoryview(out))
    assert out == image


# --- what it refuses --------------------------------------------------------------------------------------


def test_what_the_assembler_refuses_is_an_error_of_the_text(gpu, tenant):
    number, partition = tenant
    with pytest.raises(PtxError, match="assembler"):
        gpu.load(number, FencedKernel("no PTX", "none", bytes(16)), partition.base, leaves_faults=False)
    converse(gpu, 3)


def test_more_memory_than_there_is(gpu):
    with pytest.raises(CapacityExhausted, match="OUT_OF_MEMORY"):
        gpu.open_tenant(9, 1 << 40)


def test_what_the_tenant_does_not_have(gpu, tenant, lane):
    number, partition = tenant
    end = partition.base + partition.size_bytes
    data = bytearray(100)
    calls: list[Callable[[], object]] = [
        lambda: gpu.open_tenant(number, PARTITION_BYTES),
        lambda: gpu.open_tenant(1, PARTITION_BYTES - 1),
        lambda: gpu.close_tenant(number + 1 & (1 << 64) - 1),
        lambda: gpu.open_lane(number ^ 1),
        lambda: gpu.unload(1 << 40),
        lambda: gpu.copy_in(number, end - 99, memoryview(data)),
        lambda: gpu.copy_out(number, partition.base - 1, memoryview(data)),
        lambda: gpu.copy_in(number ^ 1, partition.base, memoryview(data)),
        lambda: gpu.set_memory(number, end - 99, 0, 100),
        lambda: gpu.set_memory(number, partition.base, 256, 100),
        lambda: gpu.load(number, FencedKernel("", "", bytes(16)), end - 8, leaves_faults=True),
        lambda: gpu.load(number, FencedKernel("", "é", bytes(16)), partition.base, leaves_faults=True),
    ]
    for call in calls:
        with pytest.raises(KernelError):
            call()


def test_another_tenant_s_kernel_is_not_launched(gpu, tenant, lane):
    other = gpu.open_tenant(77, PARTITION_BYTES)
    try:
        kernel = load(gpu, 77, other)
        with pytest.raises(KernelError, match="refuses"):
            increment(lane, kernel, other.base + DATA, 1)
    finally:
        gpu.close_tenant(77)


def test_launches_that_cannot_be(gpu, tenant, lane):
    number, partition = tenant
    kernel = load(gpu, number, partition, TRAPPING)
    with pytest.raises(KernelError, match="too much shared memory"):
        lane.launch(kernel, (1, 1, 1), (1, 1, 1), 1 << 20, parameters(0), (), None)
    with pytest.raises(KernelError, match="refuses"):
        lane.launch(kernel, (0, 1, 1), (1, 1, 1), 0, parameters(0), (), None)
    window = Window(partition.base, STAGING_BYTES - 1, 2, board.Direction.IN)
    with pytest.raises(KernelError, match="refuses"):
        lane.launch(kernel, (1, 1, 1), (1, 1, 1), 0, parameters(0), [window], None)
    for wrong in (
        ((1 << 32, 1, 1), bytes(8), []),
        ((-1, 1, 1), bytes(8), []),
        ((1, 1, 1), bytes(board.PARAMETERS_MAX + 1), []),
        ((1, 1, 1), bytes(8), [window] * (board.WINDOWS_MAX + 1)),
        ((1, 1, 1), bytes(8), [Window(-1, 0, 1, 1)]),
    ):
        grid, values, windows = wrong
        with pytest.raises(KernelArgumentError):
            lane.launch(kernel, grid, (1, 1, 1), 0, values, windows, None)


def test_all_lanes_in_use(gpu, tenant):
    number, _ = tenant
    lanes = [gpu.open_lane(number)]
    while len(lanes) < board.LANES:
        lanes.append(gpu.open_lane(number))
    with pytest.raises(CapacityExhausted, match="lanes"):
        gpu.open_lane(number)
    assert len({each.number for each in lanes}) == len(lanes)
    for each in lanes:
        each.close()
        each.close()

    def again() -> bool:
        try:
            gpu.open_lane(number).close()
        except CapacityExhausted:
            return False
        return True

    until(again)


# --- the end of a worker ----------------------------------------------------------------------------------


def test_staging_given_back_while_there_is_no_worker_is_nobody_s_until_there_is(open_gpu, monkeypatch):
    """A worker that was killed may still have the GPU write there: its process is not gone yet."""
    gpu = open_gpu(worker_command())
    place = gpu.take_staging(1 << 16)
    is_gone = threading.Event()
    reap = WorkerHandle.reap
    monkeypatch.setattr(WorkerHandle, "reap", lambda self, wait_s: is_gone.wait(wait_s) and reap(self, wait_s))
    os.kill(gpu.pid, signal.SIGKILL)
    until(lambda: not gpu.is_ready)
    gpu.give_staging(place, 1 << 16)
    other = gpu.take_staging(1 << 16)
    assert other != place
    assert not gpu.is_ready
    is_gone.set()
    until(lambda: gpu.is_ready)
    until(lambda: gpu.take_staging(1 << 16) == place)


def test_a_worker_that_is_killed_is_replaced(open_gpu):
    ends: list[WorkerEnd] = []
    gpu = open_gpu(worker_command(), on_end=ends.append)
    converse(gpu, 1)
    gpu.open_tenant(1, PARTITION_BYTES)
    gpu.open_tenant(2, PARTITION_BYTES)
    os.kill(gpu.pid, signal.SIGKILL)
    until(lambda: gpu.generation == 2)
    until(lambda: gpu.is_ready)
    assert len(ends) == 1
    assert ends[0].victims == (1, 2)
    assert ends[0].offender is None
    assert ends[0].generation == 1
    assert "SIGKILL" in ends[0].reason
    converse(gpu, 1)


def test_all_that_was_is_void(open_gpu):
    gpu = open_gpu(worker_command())
    partition = gpu.open_tenant(1, PARTITION_BYTES)
    lane = gpu.open_lane(1)
    old = gpu.generation
    gpu.restart(None)
    until(lambda: gpu.is_ready)
    assert gpu.generation == old + 1
    gpu.restart(None, generation=old)
    data = bytearray(10)
    for call in (
        lambda: gpu.copy_in(1, partition.base, memoryview(data), generation=old),
        lambda: gpu.copy_out(1, partition.base, memoryview(data), generation=old),
        lambda: gpu.set_memory(1, partition.base, 0, 1, generation=old),
        lambda: gpu.unload(1, generation=old),
        lambda: gpu.close_tenant(1, generation=old),
        lambda: gpu.open_lane(1, generation=old),
        lambda: gpu.load(1, FencedKernel("", "", b""), 0, leaves_faults=False, generation=old),
        lambda: increment(lane, 1, 0, 1),
    ):
        with pytest.raises(DeviceRestarting):
            call()
    with pytest.raises(KernelError):  # the new worker knows of no such tenant
        gpu.copy_in(1, partition.base, memoryview(data))
    assert gpu.is_ready
    assert gpu.generation == old + 1


def test_a_request_on_a_void_lane_ends_as_lost(open_gpu):
    """The gate may ask, and look for the end, without a word to Python."""
    gpu = open_gpu(worker_command())
    gpu.open_tenant(1, PARTITION_BYTES)
    lane = gpu.open_lane(1)
    gpu.restart(None)
    words = gpu.board[: board.BODIES].cast("I")
    bell = lane.number * board.DOORBELL_BYTES // 4
    for _ in range(3):
        words[bell + board.RESULT // 4] = 0
        words[bell] += 1
        until(lambda: words[bell + board.DONE // 4] == words[bell])
        assert words[bell + board.RESULT // 4] == board.Result.LOST
    lane.close()
    until(lambda: gpu.is_ready)
    converse(gpu, 1)


def test_callers_in_flight_are_told(open_gpu):
    gpu = open_gpu(worker_command("hang:increment"))
    partition = gpu.open_tenant(1, PARTITION_BYTES)
    kernel = load(gpu, 1, partition)
    lane = gpu.open_lane(1)
    launch = in_thread(lambda: increment(lane, kernel, partition.base + DATA, 1))
    until(lambda: lane.doorbell.is_busy)
    close = in_thread(lambda: gpu.close_tenant(1))
    time.sleep(0.05)
    offender = Offender(1, "it never ends", "increment")
    gpu.restart(offender)
    assert isinstance(launch(), DeviceRestarting)
    assert isinstance(close(), DeviceRestarting)
    with pytest.raises(DeviceRestarting):
        gpu.open_lane(1)
    lane.close()


def test_a_kernel_past_its_deadline_costs_all_tenants_the_worker(open_gpu):
    ends: list[WorkerEnd] = []
    gpu = open_gpu(worker_command("hang:increment:3"), on_end=ends.append)  # converse launches so often
    partition, other = gpu.open_tenant(1, PARTITION_BYTES), gpu.open_tenant(2, PARTITION_BYTES)
    lane, kernel = gpu.open_lane(1), load(gpu, 1, partition)
    for _ in range(3):
        assert increment(lane, kernel, partition.base + DATA, 1, time.monotonic_ns() + int(LIMIT_S * 1e9)) == 0
    with pytest.raises(DeadlineExceeded, match="increment"):
        increment(lane, kernel, partition.base + DATA, 1, time.monotonic_ns() + 50_000_000)
    until(lambda: ends)
    assert ends[0].offender == Offender(1, "its kernel did not end in time", "increment")
    assert ends[0].victims == (1, 2)
    assert other.base != partition.base
    until(lambda: gpu.is_ready)
    converse(gpu, 1)


def test_a_lost_context_names_who_alone_had_work_in_flight(open_gpu):
    ends: list[WorkerEnd] = []
    gpu = open_gpu(worker_command("fail:launch:700:0:run"), on_end=ends.append)
    partition = gpu.open_tenant(5, PARTITION_BYTES)
    gpu.open_tenant(6, PARTITION_BYTES)
    lane, kernel = gpu.open_lane(5), load(gpu, 5, partition)
    with pytest.raises(DeviceRestarting):
        increment(lane, kernel, partition.base + DATA, 1)
    until(lambda: ends)
    assert "ILLEGAL_ADDRESS" in ends[0].reason
    assert ends[0].offender is not None
    assert (ends[0].offender.tenant, ends[0].offender.kernel) == (5, "increment")
    assert ends[0].victims == (5, 6)


@pytest.mark.slow
def test_a_driver_that_hangs_is_noticed(open_gpu, tmp_path):
    ends: list[WorkerEnd] = []
    gpu = open_gpu(stub_command(tmp_path / "count", "freezes:set_memory", "well"), on_end=ends.append, silence_s=3.0)
    with pytest.raises(DeviceRestarting):
        gpu.open_tenant(1, PARTITION_BYTES)
    until(lambda: ends)
    assert "said nothing" in ends[0].reason
    until(lambda: gpu.is_ready)
    converse(gpu, 1)


@pytest.mark.slow
def test_a_worker_with_nothing_to_say_is_left(open_gpu):
    gpu = open_gpu(worker_command(), silence_s=3.0)
    time.sleep(8)
    converse(gpu, 1)
    assert gpu.generation == 1


def test_a_tenant_s_endless_kernel_does_not_hold_up_others(open_gpu):
    gpu = open_gpu(worker_command("hang:increment"))
    partition, other = gpu.open_tenant(1, PARTITION_BYTES), gpu.open_tenant(2, PARTITION_BYTES)
    lane, kernel = gpu.open_lane(1), load(gpu, 1, partition)
    others, theirs = load(gpu, 2, other), gpu.open_lane(2)
    launch = in_thread(lambda: increment(lane, kernel, partition.base + DATA, 1))
    until(lambda: lane.doorbell.is_busy)
    lane.close()
    close = in_thread(lambda: gpu.close_tenant(1))
    # The driver loads nothing before it has ended, and would begin no launch meanwhile: so it is not asked.
    waits = in_thread(lambda: load(gpu, 3, gpu.open_tenant(3, PARTITION_BYTES)))
    for _ in range(20):
        assert increment(theirs, others, other.base + DATA, 64) == 0
    gpu.unload(others)
    gpu.restart(None)
    for result in (launch(), close(), waits()):
        assert isinstance(result, DeviceRestarting)


def test_what_is_done_at_the_end_may_fail(open_gpu, caplog):
    def broken(_: WorkerEnd) -> None:
        raise ValueError

    gpu = open_gpu(worker_command(), on_end=broken)
    gpu.restart(None)
    until(lambda: gpu.is_ready)
    converse(gpu, 1)
    assert "what is done after the end" in caplog.text


#: A few of the driver's calls in :func:`converse`; the slow tests take all.
CALLS = [4, 15]


@pytest.mark.parametrize("how", ["dies", pytest.param("dies-late", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "call",
    [pytest.param(call, marks=[] if call in CALLS else [pytest.mark.slow]) for call in range(1, 60)],
)
def test_whatever_it_was_doing_when_it_was_killed_nobody_hangs(how, call, open_gpu, tmp_path):
    gpu = open_gpu(stub_command(tmp_path / "count", f"{how}:{call}", "well"))
    for tenant in (1, 2):  # the later calls are of the second
        result = in_thread(lambda tenant=tenant: converse(gpu, tenant))()
        if result is not None:
            assert isinstance(result, DeviceRestarting)
            until(lambda: gpu.generation == 2)
            until(lambda: gpu.is_ready)
    assert gpu.generation == 2
    assert in_thread(lambda: converse(gpu, 2))() is None


@pytest.mark.slow
def test_kills_at_random_moments_leave_nobody_waiting(open_gpu):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    source = random.Random(seed)
    gpu = open_gpu(worker_command())
    stop = threading.Event()
    talks = [0] * 4

    def talk(number: int) -> None:
        while not stop.is_set():
            try:
                converse(gpu, number)
            except DeviceRestarting:
                until(lambda: gpu.is_ready)
            talks[number] += 1

    results = [in_thread(lambda number=number: talk(number)) for number in range(4)]
    for kill in range(30):
        until(lambda: gpu.is_ready)
        pid = gpu.pid
        time.sleep(source.random() * 0.3)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            until(lambda kill=kill: gpu.generation >= kill + 2)
    stop.set()
    assert [result() for result in results] == [None] * 4
    assert all(talks)


# --- starting ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ("unusable", "there is no GPU here"),
        ("ends", "status 3: something is broken"),
        ("noise", "did not start"),
    ],
)
def test_a_gpu_that_cannot_be_used_says_why(plan, words, tmp_path):
    with pytest.raises(DeviceUnavailable, match=words):
        Gpu(0, staging_bytes=STAGING_BYTES, command=stub_command(tmp_path / "count", plan))


def test_a_command_that_there_is_not():
    with pytest.raises(DeviceUnavailable, match="No such file"):
        Gpu(0, staging_bytes=STAGING_BYTES, command=["/nowhere/worker"])


@pytest.mark.slow
def test_starts_that_fail_are_tried_again(open_gpu, tmp_path):
    gpu = open_gpu(stub_command(tmp_path / "count", "well", "ends", "unusable", "other", "well"))
    gpu.restart(None)
    troubles = set()

    def is_there() -> bool:
        troubles.add(gpu.trouble)
        return gpu.is_ready

    until(is_there)
    assert any("something is broken" in each for each in troubles)
    assert any("there is no GPU" in each for each in troubles)
    assert any("another GPU" in each for each in troubles)
    assert gpu.generation == 2
    assert (tmp_path / "count").read_text() == "5"
    converse(gpu, 1)


# --- the end of the client --------------------------------------------------------------------------------


@pytest.mark.slow
def test_closing_ends_the_worker_and_all_calls():
    gpu = Gpu(0, staging_bytes=STAGING_BYTES, command=worker_command("hang:increment"))
    pid = gpu.pid
    partition = gpu.open_tenant(1, PARTITION_BYTES)
    lane, kernel = gpu.open_lane(1), load(gpu, 1, partition)
    launch = in_thread(lambda: increment(lane, kernel, partition.base + DATA, 1))
    until(lambda: lane.doorbell.is_busy)
    gpu.close()
    gpu.close()
    assert isinstance(launch(), DeviceRestarting)
    assert not is_alive(pid)
    with pytest.raises(DeviceRestarting):
        gpu.open_lane(1)
    lane.close()


def test_closing_while_a_worker_starts(open_gpu, tmp_path):
    gpu = open_gpu(stub_command(tmp_path / "count", "well", "silent"))
    gpu.restart(None)
    until(lambda: (tmp_path / "count").read_text() == "2")
    in_thread(gpu.close)()
    assert not gpu.is_ready
